import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest"
import { ServerUnavailable, startKafka, startOwnKafka } from "../src/index.ts"
import { exec } from "../src/internal/exec.ts"

const line = "KAFKA (no Java 17, no Docker engine, KAFKA_BROKERS not set)"

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tidemark-test-servers-"))
  vi.stubEnv("PATH", folder)
  vi.stubEnv("JAVA_HOME", undefined)
  vi.stubEnv("KAFKA_BROKERS", undefined)
  vi.stubEnv("TIDEMARK_REQUIRE", undefined)
})

afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true, force: true })
})

describe("a machine without Java and Docker", () => {
  test("is told what is missing", async () => {
    const error = await startKafka().catch((error: unknown) => error)
    expect(error).toBeInstanceOf(ServerUnavailable)
    expect(error).toHaveProperty("message", line)
  })

  test("has no broker of one's own, even where KAFKA_BROKERS is set", async () => {
    vi.stubEnv("KAFKA_BROKERS", "127.0.0.1:1")
    await expect(startOwnKafka()).rejects.toThrow("KAFKA of a test's own (no Java 17, no Docker engine)")
  })
})

test("brokers that do not answer are named, not passed over", async () => {
  vi.stubEnv("KAFKA_BROKERS", "127.0.0.1:1, 127.0.0.1:2")
  await expect(startKafka()).rejects.toThrow(
    'KAFKA_BROKERS is "127.0.0.1:1, 127.0.0.1:2", but no broker answers there'
  )
})

describe("a test run without Kafka", () => {
  const run = () => {
    vi.stubEnv("TIDEMARK_NOT_RUN_FILE", join(folder, "not-run"))
    const vitest = fileURLToPath(new URL("../vitest.mjs", import.meta.resolve("vitest")))
    const root = fileURLToPath(new URL("withoutKafka", import.meta.url))
    return exec(process.execPath, [vitest, "run", "--root", root, "--no-color"], 60_000)
  }

  test("skips what needs it, never counts it as passed, and says NOT RUN", async () => {
    const { succeeded, output } = await run()
    expect(output).toContain("1 skipped")
    expect(output).not.toContain("passed")
    expect(output).toContain(`NOT RUN: ${line}`)
    expect(readFileSync(join(folder, "not-run"), "utf8")).toBe(`${line}\n`)
    expect(succeeded).toBe(true)
  })

  test("fails where Kafka is required", async () => {
    vi.stubEnv("TIDEMARK_REQUIRE", "redis,kafka")
    const { succeeded, output } = await run()
    expect(output).toContain(`TIDEMARK_REQUIRE names kafka, which cannot be had here: ${line}`)
    expect(succeeded).toBe(false)
  })
})
