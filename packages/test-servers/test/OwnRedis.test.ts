import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Redis } from "ioredis"
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from "vitest"
import { startOwnRedis } from "../src/index.ts"
import { describeWithOwnRedis } from "../src/vitest.ts"
import { accepts, expectNothingLeft, processesOf, startProgram } from "./remains.ts"

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tidemark-test-servers-"))
  vi.stubEnv("TMPDIR", folder)
})

afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true, force: true })
})

/** A client that gives up at once, and says nothing of it. */
const clientOf = (url: string, commandTimeout = 10_000): Redis => {
  const client = new Redis(url, { retryStrategy: () => null, maxRetriesPerRequest: 0, commandTimeout })
  client.on("error", () => {})
  onTestFinished(() => client.disconnect())
  return client
}

await describeWithOwnRedis("a Redis of one's own", () => {
  test.for([
    ["with an append-only file it keeps its data", { appendonly: true }, "paid"],
    ["without one it is empty", {}, null]
  ] as const)("keeps its address through a kill; %s", async ([, options, found]) => {
    await using redis = await startOwnRedis(options)
    expect(await clientOf(redis.url).set("order 1", "paid")).toBe("OK")
    await redis.kill()
    expect(await accepts(redis.address)).toBe(false)
    await redis.restart()
    expect(await clientOf(redis.url).get("order 1")).toBe(found)
    await redis.stop()
    await redis.stop()
    await expectNothingLeft(folder)
  })

  test("is stopped where it stands, and does after it was let go on what it was asked meanwhile", async () => {
    await using redis = await startOwnRedis()
    const hasty = clientOf(redis.url, 200)
    await hasty.ping()
    await redis.pause()
    await expect(hasty.incr("orders")).rejects.toThrow("timed out")
    expect(await accepts(redis.address)).toBe(true)
    await redis.resume()
    await expect.poll(() => clientOf(redis.url).get("orders")).toBe("1")
  })

  test("can be killed while it is paused", async () => {
    await using redis = await startOwnRedis()
    await redis.pause()
    await redis.kill()
    await redis.restart()
    expect(await clientOf(redis.url).ping()).toBe("PONG")
  })

  test("takes settings, and its URL has the password it asks for", async () => {
    await using redis = await startOwnRedis({
      config: { requirepass: "p@ss/word", maxmemory: "500kb" }
    })
    expect(await clientOf(redis.url).ping()).toBe("PONG")
    await expect(clientOf(`redis://${redis.address}`).ping()).rejects.toThrow("NOAUTH")
    await expect(clientOf(redis.url).set("order 1", "paid")).rejects.toThrow("OOM")
  })

  test("says what the server says of a setting that it does not know", async () => {
    await expect(startOwnRedis({ config: { "no-such-setting": "1" } })).rejects.toThrow("no-such-setting")
    await expectNothingLeft(folder)
  })

  test("does not outlive a program that is killed", async () => {
    const program = await startProgram("startsRedis.ts", [])
    expect(await processesOf(folder)).not.toEqual([])
    program.kill("SIGKILL")
    await expectNothingLeft(folder)
  })
})
