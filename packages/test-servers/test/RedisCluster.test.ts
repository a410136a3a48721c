import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Cluster, Redis } from "ioredis"
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from "vitest"
import { startRedisCluster, uniqueName } from "../src/index.ts"
import { describeWithOwnRedisCluster, describeWithRedisCluster } from "../src/vitest.ts"
import { expectNothingLeft, processesOf, startProgram } from "./remains.ts"

const clientOf = (urls: ReadonlyArray<string>): Cluster => {
  const client = new Cluster([...urls]).on("error", () => {})
  onTestFinished(() => client.disconnect())
  return client
}

await describeWithRedisCluster("the Redis Cluster of a test run", ({ urls }) => {
  test("spreads keys over three nodes", async () => {
    const prefix = uniqueName("orders")
    const client = clientOf(urls)
    for (let order = 0; order < 30; order++) await client.set(`${prefix}:${order}`, order, "PX", 60_000)
    const nodes = client.nodes("master")
    expect(nodes).toHaveLength(3)
    const counts = await Promise.all(nodes.map(async (node) => (await node.keys(`${prefix}:*`)).length))
    expect(Math.min(...counts)).toBeGreaterThan(0)
    expect(counts.reduce((sum, count) => sum + count)).toBe(30)
  })
})

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tidemark-test-servers-"))
  vi.stubEnv("TMPDIR", folder)
})

afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true, force: true })
})

await describeWithOwnRedisCluster("a Redis Cluster of one's own", () => {
  test("is down while a node is dead, serves again after its restart, and leaves nothing", async () => {
    await using cluster = await startRedisCluster({ appendonly: true })
    const [first, second] = cluster.nodes
    const client = clientOf(cluster.nodes.map(({ url }) => url))
    const keys = Array.from({ length: 30 }, (_, order) => `order ${order}`)
    for (const key of keys) await client.set(key, "paid")

    await second!.kill()
    const one = new Redis(first!.url)
    onTestFinished(() => one.disconnect())
    await expect.poll(() => one.get("order 1").catch(String), { timeout: 10_000 }).toContain("CLUSTERDOWN")
    await second!.restart()
    await cluster.ready()
    for (const key of keys) expect(await client.get(key)).toBe("paid")

    await cluster.stop()
    await cluster.stop()
    await expectNothingLeft(folder)
  })

  test("moves a slot: ASK while it is under way, MOVED after it", async () => {
    await using cluster = await startRedisCluster()
    const clients = cluster.nodes.map(({ url }) => {
      const client = new Redis(url)
      onTestFinished(() => client.disconnect())
      return client
    })
    const [first, second, last] = clients as [Redis, Redis, Redis]
    const slot = await last.cluster("KEYSLOT", "{a}1")
    expect(slot).toBe(15_495)
    await last.set("{a}1", "paid")
    const there = `${slot} ${cluster.nodes[0]!.address}`

    const move = await cluster.beginSlotMove("{a}1", 0)
    expect(move.slot).toBe(slot)
    expect(await last.get("{a}1")).toBe("paid")
    await expect(last.get("{a}2")).rejects.toThrow(`ASK ${there}`)
    await expect(last.mget("{a}1", "{a}2")).rejects.toThrow("TRYAGAIN")

    await move.finish()
    expect(await first.get("{a}1")).toBe("paid")
    for (const other of [second, last]) {
      await expect(other.get("{a}1")).rejects.toThrow(`MOVED ${there}`)
    }
    await cluster.ready()
    await expect(cluster.beginSlotMove("{a}1", 0)).rejects.toThrow("is at node 0 already")
  })

  test("does not outlive a program that is killed", async () => {
    const program = await startProgram("startsRedisCluster.ts", [])
    expect((await processesOf(folder)).length).toBeGreaterThanOrEqual(6)
    program.kill("SIGKILL")
    await expectNothingLeft(folder)
  })
})
