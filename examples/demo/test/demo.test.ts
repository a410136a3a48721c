/** Whole runs of the demo, all at once: most of their time is spent waiting. */
import { type ChildProcess, execFileSync } from "node:child_process"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { startOwnRedis } from "@tidemark/test-servers"
import { describeWithKafka, describeWithOwnRedis, describeWithRedis } from "@tidemark/test-servers/vitest"
import { Redis } from "ioredis"
import { afterAll, describe, type ExpectStatic, expect, it } from "vitest"
import { startEmbeddedBroker } from "../src/EmbeddedBroker.ts"
import { describeWhereEmbedded, expectShown, few, run, timeout } from "./runDemo.ts"

/** A machine without a build of the library has no embedded broker, and runs the demo without. */
const broker = await startEmbeddedBroker()
if ("stop" in broker) await broker.stop()

const folders: Array<string> = []
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

/** A folder for temporary files that only one run of the demo uses. */
const temporary = () => {
  const folder = mkdtempSync(join(tmpdir(), "tidemark-test-"))
  folders.push(folder)
  return { env: { TMPDIR: folder }, left: () => readdirSync(folder) }
}

/** The processes that this one has started, and those that they have. */
const descendants = (parent: number): ReadonlyArray<number> => {
  const all = execFileSync("ps", ["-A", "-o", "pid=,ppid="], { encoding: "utf8" })
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number) as [pid: number, parent: number])
  const below = (pid: number): ReadonlyArray<number> =>
    all.filter(([, parent]) => parent === pid).flatMap(([child]) => [child, ...below(child)])
  return below(parent)
}

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** Ends the demo in its midst, with two consumers at work; answers what it had started. */
const endedBy = async (signal: "SIGINT" | "SIGKILL", expect: ExpectStatic) => {
  const { env, left } = temporary()
  let started: ReadonlyArray<number> = []
  const onLine = (line: string, demo: ChildProcess) => {
    if (!line.includes("a second consumer joins")) return
    // the consumer's process is started in the same turn, or the next
    setImmediate(() => {
      started = descendants(demo.pid as number)
      demo.kill(signal)
    })
  }
  const ended = await run(few, { env, onLine })
  expect(started.length, "a broker and a consumer at least").toBeGreaterThanOrEqual(2)
  await expect.poll(() => started.filter(isAlive), { timeout: 20_000 }).toEqual([])
  return { ...ended, left }
}

describe.concurrent("the demo", async () => {
  it("shows the main job in one process, on the stand-in", { timeout }, async () => {
    const { stderr, store, tidemark } = await expectShown(["--in-process", ...few])
    expect(tidemark).toMatchObject({ orders: 400, messages: 412 })
    expect(stderr).toContain("in-process stand-in")
    expect(store).toContain("memory")
  })

  await describeWhereEmbedded(broker)("on a broker of its own", () => {
    it("shows it as a stranger calls it: on its own broker, SQLite and kill -9", { timeout }, async () => {
      const { env, left } = temporary()
      const { stderr, store } = await expectShown(few, { env })
      expect(stderr).toContain("an embedded broker")
      expect(stderr).toContain("kill -9")
      expect(store).toContain("SQLite")
      expect(left(), "its files are removed").toEqual([])
    })

    it("leaves nothing behind when it is stopped by Ctrl-C", { timeout }, async ({ expect }) => {
      const { code, left, stdout } = await endedBy("SIGINT", expect)
      expect([code, stdout, left()]).toEqual([130, "", []])
    })

    it("leaves no process behind when it is killed", { timeout }, async ({ expect }) => {
      const { code } = await endedBy("SIGKILL", expect)
      expect(code).toBeNull()
    })
  })

  let onKafka: ReadonlyArray<string> = []

  await describeWithKafka("on a Kafka of the user's own", ({ brokers }) => {
    onKafka = ["--brokers", brokers.join(",")]
    it("shows the main job with SQLite", { timeout }, async () => {
      const { stderr } = await expectShown([...few, "--partitions", "6", ...onKafka])
      expect(stderr).toContain(`the brokers ${brokers.join(", ")}`)
    })
  })

  await describeWithRedis("on a Redis of the user's own", ({ url }) => {
    it("shows the main job, and leaves nothing there", { timeout }, async () => {
      const { store } = await expectShown([...few, "--store", "redis", "--redis", url, ...onKafka])
      expect(store).toContain("Redis at ")
      const redis = new Redis(url)
      expect(await redis.keys("*tidemark-demo-*")).toEqual([])
      redis.disconnect()
    })
  })

  await describeWithOwnRedis("on a Redis that fails", () => {
    it("ends with 1, and says which consumer met what", { timeout }, async () => {
      await using redis = await startOwnRedis()
      const args = [...few, "--store", "redis", "--redis", redis.url, ...onKafka]
      const { code, stderr, stdout } = await run(args, {
        onLine: (line) => {
          if (line.startsWith("tidemark: a second consumer joins")) redis.kill()
        }
      })
      expect([code, stdout]).toEqual([1, ""])
      expect(stderr).toMatch(/could not be run to its end: the process of tidemark-\d ended .*Redis/i)
    })
  })

  it("ends with 1 where no Redis answers at the address, and repeats no password", { timeout }, async () => {
    const { code, stderr } = await run(["--store", "redis", "--redis", "redis://:secret@127.0.0.1:1"])
    expect(code).toBe(1)
    expect(stderr).toMatch(/no Redis answers at redis:\/\/127\.0\.0\.1:1: .*ECONNREFUSED/)
    expect(stderr).not.toContain("secret")
  })

  it("says what to do where there is no Redis on the path", { timeout }, async () => {
    const { code, stderr } = await run(["--store", "redis"], { env: { PATH: "" } })
    expect(code).toBe(1)
    for (const words of ["--redis", "valkey-server", "--store sqlite"]) expect(stderr).toContain(words)
  })
})
