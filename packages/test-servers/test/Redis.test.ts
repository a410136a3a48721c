import { Redis } from "ioredis"
import { expect, test } from "vitest"
import { uniqueName } from "../src/index.ts"
import { describeWithRedis } from "../src/vitest.ts"

await describeWithRedis("the Redis of a test run", ({ url }) => {
  test("keeps what is written, runs scripts, and evicts nothing", async () => {
    const redis = new Redis(url)
    const key = uniqueName("orders")
    await redis.set(key, "1", "PX", 60_000)
    expect(await redis.eval("return redis.call('INCRBY', KEYS[1], ARGV[1])", 1, key, "41")).toBe(42)
    await redis.del(key)
    expect(await redis.config("GET", "maxmemory-policy")).toEqual(["maxmemory-policy", "noeviction"])
    redis.disconnect()
  })
})
