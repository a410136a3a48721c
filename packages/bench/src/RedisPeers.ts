/** How people write it by hand on Redis: what our own store is measured against. */
import { IdempotencyConfig, makeIdempotent } from "@aws-lambda-powertools/idempotency"
import { CachePersistenceLayer } from "@aws-lambda-powertools/idempotency/cache"

type Context = Parameters<IdempotencyConfig["registerLambdaContext"]>[0]

import { createClient } from "@redis/client"
import { Redis } from "ioredis"
import { leaseMillis, retentionMillis } from "./Subjects.ts"

/** Claims all keys by `SET NX PX`; answers which are new. */
const claimScript = `
local new = {}
for i, key in ipairs(KEYS) do
  new[i] = redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
end
return new`

/** Marks all keys. Takes the caller's word that they are still its own, which a careful one would not. */
const completeScript = `
for _, key in ipairs(KEYS) do redis.call('SET', key, 'done', 'PX', ARGV[1]) end
return #KEYS`

const releaseScript = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`

/** A connection with the scripts that people write. */
export const connect = (url: string) => {
  const redis = new Redis(url)
  redis.defineCommand("claimByHand", { lua: claimScript })
  redis.defineCommand("completeByHand", { lua: completeScript })
  redis.defineCommand("releaseByHand", { lua: releaseScript, numberOfKeys: 1 })
  const scripts = redis as unknown as Record<
    "claimByHand" | "completeByHand" | "releaseByHand",
    (...words: ReadonlyArray<string | number>) => Promise<unknown>
  >
  return {
    redis,
    /** Two scripts for all keys. */
    claimAndComplete: async (keys: ReadonlyArray<string>, token: string): Promise<void> => {
      await scripts.claimByHand(keys.length, ...keys, token, leaseMillis)
      await scripts.completeByHand(keys.length, ...keys, retentionMillis)
    },
    /** Two pipelines for all keys. */
    inPipelines: async (keys: ReadonlyArray<string>, token: string): Promise<void> => {
      const claims = redis.pipeline()
      for (const key of keys) claims.set(key, token, "PX", leaseMillis, "NX")
      await claims.exec()
      const marks = redis.pipeline()
      for (const key of keys) marks.set(key, "done", "PX", retentionMillis)
      await marks.exec()
    },
    /** Two commands for one key. */
    setNxThenSet: async (key: string, token: string): Promise<void> => {
      if ((await redis.set(key, token, "PX", leaseMillis, "NX")) === null) return
      await redis.set(key, "done", "PX", retentionMillis)
    },
    /** A lock: `SET NX PX`, then compare and delete. */
    lockAndUnlock: async (name: string, token: string): Promise<void> => {
      if ((await redis.set(name, token, "PX", leaseMillis, "NX")) === null)
        throw new Error(`${name} is taken`)
      await scripts.releaseByHand(name, token)
    }
  }
}

/** AWS Lambda Powertools, as its manual tells, on its own client. */
export const connectPowertools = async (url: string) => {
  const client = createClient({ url })
  await client.connect()
  const persistenceStore = new CachePersistenceLayer({ client })
  const config = new IdempotencyConfig({})
  // else it warns at every call that it does not know how long a claim may last
  config.registerLambdaContext({ getRemainingTimeInMillis: () => leaseMillis } as Context)
  const once = makeIdempotent(async (_event: { readonly id: string }) => "done", { persistenceStore, config })
  return { once: (id: string) => once({ id }), close: () => client.close() }
}
