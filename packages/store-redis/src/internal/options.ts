/** The options of the store, and what is wrong with them. */
import { InvalidInput, Policies } from "@tidemark/core"
import type { Duration } from "effect"
import type { ClusterNode, ClusterOptions, RedisOptions } from "ioredis"
import type { WaitReplicas } from "./Connection.ts"
import { mostShards } from "./shards.ts"

/** What holds for any connection. */
export interface RedisStoreOptions {
  /** What all keys and channels begin with: letters, digits, `.`, `-`, `_`, `:`; 1 to 64 of them. Default: `tidemark`. */
  readonly prefix?: string
  /** How long a completed key is remembered where `complete` does not say. Default: 24 hours. */
  readonly retention?: Duration.Input
  /** How long a call may take, whatever state the server is in, before it fails. Default: 5 seconds. */
  readonly timeout?: Duration.Input
  /**
   * Every write waits until so many replicas have it, else it fails with `NotReplicated`, and can be asked again.
   * Narrows what a failover forgets, and costs a round trip to a replica. Default: not at all.
   */
  readonly waitReplicas?: WaitReplicas
  /**
   * Starts although Redis may evict keys under memory pressure: claims and what is completed may then be forgotten
   * at any time. Default: false, which demands `maxmemory-policy noeviction`.
   */
  readonly acceptEviction?: boolean
  /**
   * In how many shards the keys of a namespace are, each in a slot of its own: a power of two, up to 256. It is recorded when a prefix is
   * first used, and holds for all who use it. Default: what is recorded; else 16 on a Cluster, and 1 elsewhere, where
   * more would gain nothing.
   */
  readonly shards?: number
}

/** How to connect: exactly one of `url`, `redis` and `cluster`. */
export interface RedisConnectionOptions extends RedisStoreOptions {
  /** `redis://user:password@host:6379/0`, or `rediss://` for TLS. */
  readonly url?: string
  /** Options of ioredis: host, port, TLS, `sentinels` and `name`, ... */
  readonly redis?: RedisOptions
  /** A Redis Cluster, by some of its nodes. */
  readonly cluster?: { readonly nodes: ReadonlyArray<ClusterNode>; readonly options?: ClusterOptions }
}

/** The options with their defaults. */
export interface Settings {
  readonly prefix: string
  readonly retentionMillis: number
  readonly timeoutMillis: number
  readonly waitReplicas: WaitReplicas | undefined
  readonly acceptEviction: boolean
  /** `undefined`: what is recorded. */
  readonly shards: number | undefined
}

const common: ReadonlyArray<string> = [
  "prefix",
  "retention",
  "timeout",
  "waitReplicas",
  "acceptEviction",
  "shards"
]
const connecting: ReadonlyArray<string> = ["url", "redis", "cluster"]

const invalid = (field: string, value: unknown, allowed: string): InvalidInput =>
  new InvalidInput({
    field,
    value: typeof value === "object" ? JSON.stringify(value) : String(value),
    allowed
  })

const unknownOption = (options: object, known: ReadonlyArray<string>): InvalidInput | undefined =>
  Policies.unknownOption("RedisStore", options, known)

const longest = 100 * 365 * 86_400_000

/** Milliseconds, or what is wrong. */
const millisOf = (
  field: string,
  input: Duration.Input | undefined,
  otherwise: number,
  most: number
): number | InvalidInput => {
  if (input === undefined) return otherwise
  const millis = Policies.toMillis(input)
  return millis > 0 && millis <= most
    ? millis
    : invalid(field, input, `a duration of more than 0 and at most ${most} ms`)
}

const checkReplicas = (waitReplicas: WaitReplicas | undefined): InvalidInput | undefined => {
  if (waitReplicas === undefined) return undefined
  const { count, timeoutMillis } = waitReplicas
  return Number.isSafeInteger(count) &&
    count >= 1 &&
    Number.isSafeInteger(timeoutMillis) &&
    timeoutMillis >= 1
    ? undefined
    : invalid("waitReplicas", waitReplicas, "{ count, timeoutMillis }, two integers of at least 1")
}

const settingsOf = (options: RedisStoreOptions): Settings | InvalidInput => {
  const { acceptEviction = false, prefix = "tidemark", shards, waitReplicas } = options
  if (typeof prefix !== "string" || !/^[A-Za-z0-9._:-]{1,64}$/.test(prefix)) {
    return invalid("prefix", prefix, "1 to 64 letters, digits and . - _ :")
  }
  const retentionMillis = millisOf("retention", options.retention, 86_400_000, longest)
  if (typeof retentionMillis !== "number") return retentionMillis
  const timeoutMillis = millisOf("timeout", options.timeout, 5_000, 2 ** 31 - 1)
  if (typeof timeoutMillis !== "number") return timeoutMillis
  if (shards !== undefined && !(shards >= 1 && mostShards % shards === 0)) {
    return invalid("shards", shards, `a power of two from 1 to ${mostShards}`)
  }
  return (
    checkReplicas(waitReplicas) ?? {
      prefix,
      retentionMillis,
      timeoutMillis,
      waitReplicas,
      acceptEviction,
      shards
    }
  )
}

/** The settings of a store on a connection that somebody else made. */
export const readOptions = (options: RedisStoreOptions): Settings | InvalidInput =>
  unknownOption(options, common) ?? settingsOf(options)

/** The settings of a store that makes its connection. */
export const readConnectionOptions = (options: RedisConnectionOptions): Settings | InvalidInput => {
  const bad = unknownOption(options, [...connecting, ...common])
  if (bad !== undefined) return bad
  const { cluster, redis, url } = options
  const given = connecting.filter((name) => options[name as keyof RedisConnectionOptions] !== undefined)
  if (given.length !== 1) {
    return invalid(
      "connection",
      given.length === 0 ? "none" : given.join(", "),
      `exactly one of ${connecting.join(", ")}`
    )
  }
  if (url !== undefined && !isRedisUrl(url)) {
    return invalid(
      "url",
      withoutPassword(String(url)),
      "redis://[user:password@]host[:port][/db], or rediss://"
    )
  }
  if (redis !== undefined && typeof redis !== "object") return invalid("redis", redis, "options of ioredis")
  if (redis?.keyPrefix) return noKeyPrefix(redis.keyPrefix)
  if (cluster !== undefined && !(Array.isArray(cluster.nodes) && cluster.nodes.length > 0)) {
    return invalid("cluster.nodes", cluster.nodes, "at least one node")
  }
  return settingsOf(options)
}

/** The scripts make keys of their own, which ioredis knows nothing of. */
export const noKeyPrefix = (keyPrefix: string): InvalidInput =>
  invalid("keyPrefix of ioredis", keyPrefix, "none: use the option prefix of the store")

const isRedisUrl = (url: unknown): boolean =>
  typeof url === "string" && URL.canParse(url) && ["redis:", "rediss:"].includes(new URL(url).protocol)

const withoutPassword = (url: string): string => url.replace(/\/\/.*@/, "//***@")
