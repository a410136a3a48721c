import { Effect, type Scope } from "effect"
import { Redis } from "ioredis"
import type { KeyStore } from "../Trackers.ts"

/** For a demo that is cut off before it can clean up. */
const retentionSeconds = 3_600

/** A key for each processed order, as one writes it. */
export const openRedisKeys = (url: string, prefix: string): Effect.Effect<KeyStore, unknown, Scope.Scope> =>
  Effect.map(openRedis(url), (redis) => {
    const named = (key: string): string => `${prefix}:${key}`
    return {
      has: async (key) => (await redis.get(named(key))) !== null,
      add: async (key) => {
        await redis.set(named(key), "1", "EX", retentionSeconds)
      },
      addIfAbsent: async (key) => (await redis.set(named(key), "1", "EX", retentionSeconds, "NX")) === "OK",
      remove: async (key) => {
        await redis.del(named(key))
      }
    }
  })

/** A connection that answers errors within seconds, and says with them why it could not be made. */
export const openRedis = (url: string): Effect.Effect<Redis, Error, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: () => connect(url),
      catch: (error) => (error instanceof Error ? error : new Error(String(error)))
    }),
    (redis) => Effect.sync(() => redis.disconnect())
  )

const connect = async (url: string): Promise<Redis> => {
  const redis = new Redis(url, { lazyConnect: true, maxRetriesPerRequest: 2, connectTimeout: 3_000 })
  let reason: Error | undefined
  redis.on("error", (error) => {
    reason = error
  })
  try {
    await redis.connect()
    await redis.ping()
    return redis
  } catch (error) {
    redis.disconnect()
    throw reason ?? error
  }
}
