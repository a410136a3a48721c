import { Redis } from "ioredis"
import { expect, onTestFinished, test } from "vitest"
import { startRedisReplication, startRedisSentinel } from "../src/index.ts"
import { describeWithOwnRedisCluster } from "../src/vitest.ts"

const clientOf = (url: string): Redis => {
  const client = new Redis(url).on("error", () => {})
  onTestFinished(() => client.disconnect())
  return client
}

await describeWithOwnRedisCluster("a primary and its replica", () => {
  test("change places, again and again, and lose nothing that was replicated", async () => {
    await using redis = await startRedisReplication({ config: { requirepass: "secret" } })
    const urls = [redis.primary.url, redis.replica.url] as const
    for (const [round, [primaryUrl, replicaUrl]] of [urls, urls.toReversed(), urls].entries()) {
      expect([redis.primary.url, redis.replica.url]).toEqual([primaryUrl, replicaUrl])
      const replica = clientOf(replicaUrl!)
      expect(await clientOf(primaryUrl!).incr("orders")).toBe(round + 1)
      await redis.caughtUp()
      expect(await replica.get("orders")).toBe(String(round + 1))
      await expect(replica.incr("orders")).rejects.toThrow("READONLY")
      await redis.promote()
    }
  })

  test("lose by a promotion what was written while the link was cut", async () => {
    await using redis = await startRedisReplication()
    const [old, next] = [clientOf(redis.primary.url), clientOf(redis.replica.url)]
    await old.set("order 1", "paid")
    await redis.caughtUp()
    redis.link.cut()
    await old.set("order 2", "paid")
    await redis.promote()
    expect(await next.mget("order 1", "order 2")).toEqual(["paid", null])
    expect(await old.mget("order 1", "order 2")).toEqual(["paid", null])
    await expect(old.set("order 3", "paid")).rejects.toThrow("READONLY")
  })

  test("may both take writes, where the old primary is cut off from those who decide", async () => {
    await using redis = await startRedisReplication()
    const [old, next] = [clientOf(redis.primary.url), clientOf(redis.replica.url)]
    await redis.promote({ oldPrimary: "stays" })
    expect(await Promise.all([old.incr("orders"), next.incr("orders")])).toEqual([1, 1])
  })

  test("keep their places through a kill", async () => {
    await using redis = await startRedisReplication({ appendonly: true })
    await redis.promote()
    await redis.primary.kill()
    await redis.primary.restart()
    expect(await clientOf(redis.primary.url).incr("orders")).toBe(1)
    await redis.caughtUp()
    expect(await clientOf(redis.replica.url).get("orders")).toBe("1")
  })
})

await describeWithOwnRedisCluster("a Sentinel", () => {
  test("puts the replica in the place of a killed primary, and clients follow", async () => {
    await using redis = await startRedisSentinel()
    const client = new Redis({ sentinels: [...redis.sentinels], name: redis.name }).on("error", () => {})
    onTestFinished(() => client.disconnect())
    await client.set("order 1", "paid")
    await client.wait(1, 5_000)
    await redis.servers[0].kill()
    await expect.poll(() => client.set("order 2", "paid").catch(String), { timeout: 20_000 }).toBe("OK")
    expect(await clientOf(redis.servers[1].url).mget("order 1", "order 2")).toEqual(["paid", "paid"])
  })
})
