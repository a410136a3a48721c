import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest"
import {
  ServerUnavailable,
  startKafka,
  startOwnKafka,
  startOwnRedis,
  startRedis,
  startRedisCluster,
  startRedisReplication,
  startRedisSentinel,
  startValkey
} from "../src/index.ts"
import { exec } from "../src/internal/exec.ts"
import { findRedisProgram } from "../src/internal/redisProgram.ts"

const lines = {
  kafka: "KAFKA (no Java 17, no Docker engine, KAFKA_BROKERS not set)",
  redis: "REDIS (no redis-server, no Docker engine, REDIS_URL not set)",
  "redis-cluster": "REDIS-CLUSTER (no redis-server)",
  wings: "WINGS (none on this machine)"
}

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tidemark-test-servers-"))
  vi.stubEnv("PATH", folder)
  vi.stubEnv("JAVA_HOME", undefined)
  vi.stubEnv("KAFKA_BROKERS", undefined)
  vi.stubEnv("REDIS_URL", undefined)
  vi.stubEnv("TIDEMARK_REQUIRE", undefined)
})

afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true, force: true })
})

describe("a machine without any server", () => {
  test.for([
    ["kafka", startKafka],
    ["redis", startRedis],
    ["redis-cluster", startRedisCluster],
    ["redis-cluster", startRedisReplication],
    ["redis-cluster", startRedisSentinel]
  ] as const)("is told what is missing: %s, %s", async ([kind, start]) => {
    const error = await start().catch((error: unknown) => error)
    expect(error).toBeInstanceOf(ServerUnavailable)
    expect(error).toHaveProperty("message", lines[kind])
  })

  test("has none of one's own, even where KAFKA_BROKERS and REDIS_URL are set", async () => {
    vi.stubEnv("KAFKA_BROKERS", "127.0.0.1:1")
    vi.stubEnv("REDIS_URL", "redis://127.0.0.1:1")
    await expect(startOwnKafka()).rejects.toThrow("KAFKA of a test's own (no Java 17, no Docker engine)")
    await expect(startOwnRedis()).rejects.toThrow("REDIS of a test's own (no redis-server, no Docker engine)")
  })
})

describe("a server that is given and does not answer is named, not passed over", () => {
  test("of KAFKA_BROKERS", async () => {
    vi.stubEnv("KAFKA_BROKERS", "127.0.0.1:1, 127.0.0.1:2")
    await expect(startKafka()).rejects.toThrow(
      'KAFKA_BROKERS is "127.0.0.1:1, 127.0.0.1:2", but no broker answers there'
    )
  })

  test.for([
    ["REDIS_URL", startRedis],
    ["VALKEY_URL", startValkey]
  ] as const)("of %s, without its password", async ([variable, start]) => {
    vi.stubEnv(variable, "redis://reader:secret@127.0.0.1:1/2")
    const message = `${variable} is "redis://***@127.0.0.1:1/2", but no server answers there`
    await expect(start()).rejects.toThrow(message)
  })
})

describe("the Redis program", () => {
  /** A program on the path that prints a version. */
  const install = (command: string, prints: string) =>
    writeFileSync(join(folder, command), `#!/bin/sh\necho '${prints}'\n`, { mode: 0o755 })

  test("may be Valkey's", async () => {
    install("valkey-server", "Valkey server v=8.1.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64")
    expect(await findRedisProgram()).toEqual({ command: "valkey-server" })
  })

  test("is passed over where it is too old, and that is said", async () => {
    install("redis-server", "Redis server v=5.0.14 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64")
    expect(await findRedisProgram()).toEqual({ missing: "redis-server is 5.0, 6.2 is needed" })
    install("valkey-server", "Valkey server v=10.0.0 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64")
    expect(await findRedisProgram()).toEqual({ command: "valkey-server" })
  })
})

describe("a test run without servers", () => {
  const run = () => {
    vi.stubEnv("TIDEMARK_NOT_RUN_FILE", join(folder, "not-run"))
    const vitest = fileURLToPath(new URL("../vitest.mjs", import.meta.resolve("vitest")))
    const root = fileURLToPath(new URL("withoutServers", import.meta.url))
    return exec(process.execPath, [vitest, "run", "--root", root, "--no-color"], 60_000)
  }

  test("skips what needs them, never counts it as passed, and says NOT RUN", async () => {
    const { succeeded, output } = await run()
    expect(output).toContain("5 skipped")
    expect(output).not.toContain("passed")
    const notRun = readFileSync(join(folder, "not-run"), "utf8").trimEnd().split("\n")
    expect(notRun).toHaveLength(4)
    expect(new Set(notRun)).toEqual(new Set(Object.values(lines)))
    for (const line of notRun) expect(output).toContain(`NOT RUN: ${line}`)
    expect(succeeded).toBe(true)
  })

  test.for(["kafka", "redis", "redis-cluster", "wings"] as const)(
    "fails where it is required: %s",
    async (kind) => {
      vi.stubEnv("TIDEMARK_REQUIRE", `sqlite,${kind}`)
      const { succeeded, output } = await run()
      expect(output).toContain(`TIDEMARK_REQUIRE names ${kind}, which cannot be had here: ${lines[kind]}`)
      expect(output).toContain(`${kind === "wings" ? 3 : 4} skipped`)
      expect(succeeded).toBe(false)
    }
  )
})
