import { Redis } from "ioredis"
import { expect, test } from "vitest"
import { uniqueName } from "../src/index.ts"
import { describeWithRedis, describeWithValkey } from "../src/vitest.ts"

const serves = (url: string) =>
  test("keeps what is written, runs scripts, and evicts nothing", async () => {
    const redis = new Redis(url)
    const key = uniqueName("orders")
    await redis.set(key, "1", "PX", 60_000)
    expect(await redis.eval("return redis.call('INCRBY', KEYS[1], ARGV[1])", 1, key, "41")).toBe(42)
    await redis.del(key)
    expect(await redis.config("GET", "maxmemory-policy")).toEqual(["maxmemory-policy", "noeviction"])
    redis.disconnect()
  })

await describeWithRedis("the Redis of a test run", ({ url }) => serves(url))

await describeWithValkey("the Valkey of a test run", ({ kind, url }) => {
  serves(url)

  // what is given may be anything that speaks the protocol
  if (kind === "given") return
  test("is Valkey", async () => {
    const redis = new Redis(url)
    expect(await redis.info("server")).toContain("server_name:valkey")
    redis.disconnect()
  })
})
