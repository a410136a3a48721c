/**
 * The store on Redis: positions, idempotency keys and locks that processes and machines share.
 */
import {
  IdempotencyStore,
  Inspect,
  InvalidInput,
  Lock,
  OffsetStore,
  ParkedRecords,
  type StoreError
} from "@tidemark/core"
import { Config, Context, Effect, Layer, Redacted, type Scope } from "effect"
import { Cluster, Redis, type RedisOptions } from "ioredis"
import * as Keys from "./IdempotencyStore.ts"
import { Connection } from "./internal/Connection.ts"
import { inspect } from "./internal/inspect.ts"
import type { Client } from "./internal/Link.ts"
import {
  noKeyPrefix,
  type RedisConnectionOptions,
  type RedisStoreOptions,
  readConnectionOptions,
  readOptions,
  type Settings
} from "./internal/options.ts"
import { start } from "./internal/startup.ts"
import { Waiters } from "./internal/Waiters.ts"
import * as Offsets from "./OffsetStore.ts"
import * as Parked from "./ParkedRecords.ts"

export type { RedisConnectionOptions, RedisStoreOptions } from "./internal/options.ts"

/** What a connection serves; locks are made of it. */
type Services = OffsetStore | IdempotencyStore | Inspect | ParkedRecords

export type RedisStoreServices = Services | Lock

/** How we use ioredis: no queue of its own, since calls wait by their own time; back soon after a failure. */
const ownOptions = (settings: Settings) =>
  ({
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 10,
    connectTimeout: Math.min(settings.timeoutMillis, 10_000),
    retryStrategy: (attempt: number) => Math.min(50 * 2 ** (attempt - 1), 1_000),
    maxLoadingRetryTime: 500,
    // the primary has become a replica: a new connection may find the new one
    reconnectOnError: (error: Error) => /READONLY /.test(error.message)
  }) satisfies RedisOptions

const connect = (options: RedisConnectionOptions, settings: Settings): Client => {
  const { cluster, redis, url } = options
  const own = ownOptions(settings)
  if (cluster !== undefined) {
    return new Cluster([...cluster.nodes], {
      lazyConnect: true,
      enableOfflineQueue: false,
      clusterRetryStrategy: own.retryStrategy,
      ...cluster.options,
      redisOptions: { ...cluster.options?.redisOptions, replyMapping: "legacy" }
    })
  }
  return url === undefined
    ? new Redis({ ...own, ...redis, replyMapping: "legacy" })
    : new Redis(url, { ...own, replyMapping: "legacy" })
}

const quitPatienceMillis = 1_000

/** Lets what is under way come to its end, for a moment. */
const disconnect = (client: Client): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const end = (): void => {
      clearTimeout(timer)
      client.disconnect()
      resume(Effect.void)
    }
    const timer = setTimeout(end, quitPatienceMillis)
    if (client.status === "ready") client.quit().then(end, end)
    else end()
  })

const services = (client: Client, settings: Settings) =>
  Effect.gen(function* () {
    const connection = new Connection(client, settings)
    yield* Effect.addFinalizer(() => Effect.sync(() => connection.close()))
    const shards = yield* start(connection, settings)
    const waiters = new Waiters(client, `${settings.prefix}:wake`)
    yield* Effect.addFinalizer(() => Effect.sync(() => waiters.close()))
    return Context.make(OffsetStore, yield* Offsets.make(connection, waiters, settings.prefix)).pipe(
      Context.add(IdempotencyStore, yield* Keys.make(connection, waiters, { ...settings, shards })),
      Context.add(Inspect, inspect(connection, settings.prefix, shards)),
      Context.add(ParkedRecords, Parked.make(connection, settings.prefix))
    )
  })

const connected = (
  options: RedisConnectionOptions
): Effect.Effect<Context.Context<Services>, StoreError | InvalidInput, Scope.Scope> =>
  Effect.gen(function* () {
    const settings = readConnectionOptions(options)
    if (settings instanceof InvalidInput) return yield* settings
    const client = yield* Effect.acquireRelease(
      // the calls tell what is wrong with it; said once more when nobody calls any longer, it would only be printed
      Effect.sync(() => connect(options, settings).on("error", () => {})),
      disconnect
    )
    return yield* services(client, settings)
  })

const withLock = <E>(stores: Layer.Layer<Services, E>): Layer.Layer<RedisStoreServices, E> =>
  Layer.provideMerge(Lock.layer, stores)

/**
 * The Redis store, on a connection that it makes and closes: exactly one of `url`, `redis` (options of ioredis, also
 * for Sentinel) and `cluster`.
 *
 * Fails with `InvalidInput` for a bad or unknown option, and with a `StoreError` where Redis can't be reached within
 * the time-out, refuses us, is too old, may evict keys, or holds data of another format.
 *
 * @example
 * program.pipe(Effect.provide(RedisStore.layer({ url: "redis://localhost:6379", prefix: "billing" })))
 */
export const layer = (
  options: RedisConnectionOptions
): Layer.Layer<RedisStoreServices, StoreError | InvalidInput> =>
  withLock(Layer.effectContext(connected(options)))

/**
 * The Redis store on a connection of your own, a `Redis` or a `Cluster` of ioredis, which is never closed. It may
 * serve others too. Waiting uses a second connection, a duplicate, which is closed with the layer.
 *
 * @example
 * const client = new Redis({ sentinels: [{ host: "10.0.0.1", port: 26379 }], name: "primary" })
 * program.pipe(Effect.provide(RedisStore.layerClient(client, { prefix: "billing" })))
 */
export const layerClient = (
  client: Redis | Cluster,
  options: RedisStoreOptions = {}
): Layer.Layer<RedisStoreServices, StoreError | InvalidInput> =>
  withLock(
    Layer.effectContext(
      Effect.gen(function* () {
        const settings = readOptions(options)
        if (settings instanceof InvalidInput) return yield* settings
        const { keyPrefix } = client.options
        if (keyPrefix) return yield* noKeyPrefix(keyPrefix)
        return yield* services(client, settings)
      })
    )
  )

const environment = Config.unwrap({
  url: Config.Redacted("REDIS_URL"),
  prefix: Config.String("REDIS_PREFIX").pipe(Config.withDefault(undefined)),
  retention: Config.Duration("REDIS_RETENTION").pipe(Config.withDefault(undefined)),
  timeout: Config.Duration("REDIS_TIMEOUT").pipe(Config.withDefault(undefined))
})

/**
 * The Redis store with `REDIS_URL` (required), `REDIS_PREFIX`, `REDIS_RETENTION` and `REDIS_TIMEOUT` ("24 hours",
 * "5 seconds") from the environment, or any other `ConfigProvider`; where one is absent, from `base`.
 *
 * @example
 * // REDIS_URL=redis://localhost:6379 REDIS_PREFIX=billing node consumer.js
 * program.pipe(Effect.provide(RedisStore.layerConfig()))
 */
export const layerConfig = (
  base: RedisStoreOptions = {}
): Layer.Layer<RedisStoreServices, StoreError | InvalidInput | Config.ConfigError> =>
  withLock(
    Layer.effectContext(
      Effect.gen(function* () {
        const { prefix, retention, timeout, url } = yield* environment
        return yield* connected({
          ...base,
          url: Redacted.value(url),
          ...(prefix === undefined ? {} : { prefix }),
          ...(retention === undefined ? {} : { retention }),
          ...(timeout === undefined ? {} : { timeout })
        })
      })
    )
  )
