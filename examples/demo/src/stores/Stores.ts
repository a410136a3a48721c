/** The stores that a demo runs on, made ready and cleaned up after. */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import type { BrokerAddress } from "../Cluster.ts"
import type { Store } from "../Consumers.ts"
import { inProcesses } from "../Processes.ts"
import { openRedis } from "./RedisKeys.ts"
import { startRedisServer } from "./RedisServer.ts"

const separately = "each consumer in a process of its own"
const death = "was killed with kill -9"

/** A file for each contestant, in a temporary folder that is removed at the end. */
export const sqlite = (kafka: BrokerAddress): Effect.Effect<Store, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(() => mkdtemp(join(tmpdir(), "tidemark-demo-"))),
      (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }))
    ),
    (folder) => ({
      description: `SQLite, a file in ${folder}; ${separately}`,
      death,
      open: (name) =>
        Effect.succeed(inProcesses(kafka, { kind: "sqlite", filename: join(folder, `${name}.db`) }))
    })
  )

/** There is no Redis to be had. */
class NoRedis extends Error {
  override readonly name = "NoRedis"
  override readonly message =
    "there is no Redis here. Name yours with --redis redis://host:6379 (or REDIS_URL), or install one: the demo starts " +
    "redis-server or valkey-server by itself when it finds them (apt-get install redis-server, brew install redis). " +
    "--store sqlite and --store memory need nothing."
}

/** A server of its own, for as long as the Scope is open. */
const ownServer = Effect.acquireRelease(
  Effect.tryPromise({
    try: () => startRedisServer(process.env.PATH ?? ""),
    catch: (error) => (error instanceof Error ? error : new Error(String(error)))
  }),
  (server) => (server === undefined ? Effect.void : Effect.promise(server.stop))
)

const withoutPassword = (url: string): string => {
  const { host, pathname, protocol } = new URL(url)
  return `${protocol}//${host}${pathname}`
}

/** Fails where nothing answers; removes at the end what the demo has left there, and nothing else. */
const givenServer = (url: string, unique: string): Effect.Effect<void, Error, Scope.Scope> => {
  const connection = Effect.mapError(
    openRedis(url),
    ({ message }) => new Error(`no Redis answers at ${withoutPassword(url)}: ${message}`)
  )
  const removeKeys = Effect.flatMap(connection, (redis) =>
    Effect.promise(async () => {
      for await (const keys of redis.scanStream({ match: `*${unique}*`, count: 1_000 }))
        if (keys.length > 0) await redis.unlink(keys as Array<string>)
    })
  )
  return Effect.andThen(
    Effect.scoped(connection),
    Effect.addFinalizer(() => Effect.ignore(Effect.scoped(removeKeys)))
  )
}

/** The given Redis, whose other keys are left alone, or a server that is started for the demo. */
export const redis = (
  kafka: BrokerAddress,
  given: string | undefined,
  unique: string
): Effect.Effect<Store, Error, Scope.Scope> =>
  Effect.gen(function* () {
    const server = given === undefined ? yield* ownServer : undefined
    const url = given ?? server?.url
    if (url === undefined) return yield* Effect.fail(new NoRedis())
    if (given !== undefined) yield* givenServer(url, unique)
    const where =
      server === undefined
        ? `Redis at ${withoutPassword(url)}`
        : `Redis (${server.command}, started by the demo)`
    return {
      description: `${where}; ${separately}`,
      death,
      open: (name) => Effect.succeed(inProcesses(kafka, { kind: "redis", url, prefix: `${unique}-${name}` }))
    }
  })
