import { fork } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { describeWhere } from "@tidemark/test-servers/vitest"
import { Redis } from "ioredis"
import { expect, test } from "vitest"
import { startRedisServer } from "../src/stores/RedisServer.ts"

const path = process.env.PATH ?? ""
const found = await startRedisServer(path)
await found?.stop()

const answers = async (url: string): Promise<boolean> => {
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: null, connectTimeout: 2_000 })
  redis.on("error", () => {})
  try {
    await redis.connect()
    return (await redis.ping()) === "PONG"
  } catch {
    return false
  } finally {
    redis.disconnect()
  }
}

test("there is none on a path without one", async () => {
  expect(await startRedisServer("")).toBeUndefined()
})

await describeWhere(
  found !== undefined,
  "redis-server",
  "neither it nor valkey-server on the path"
)("a Redis of the demo's own", () => {
  test("answers until it is stopped", async () => {
    const server = await startRedisServer(path)
    const url = server?.url ?? ""
    expect(await answers(url)).toBe(true)
    await server?.stop()
    await server?.stop()
    expect(await answers(url)).toBe(false)
  })

  test("ends with a program that is killed", async () => {
    const file = fileURLToPath(new URL("programs/startsRedis.ts", import.meta.url))
    const program = fork(file, { execArgv: [], stdio: ["ignore", "ignore", "ignore", "ipc"] })
    const [url] = (await once(program, "message")) as [string]
    expect(await answers(url)).toBe(true)
    program.kill("SIGKILL")
    await expect.poll(() => answers(url), { timeout: 10_000 }).toBe(false)
  })
})
