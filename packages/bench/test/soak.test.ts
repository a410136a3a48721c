import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { describe, expect, it } from "vitest"

const program = new URL("../src/soak.ts", import.meta.url).pathname
const flags = ["--conditions=@tidemark/source", "--disable-warning=ExperimentalWarning"]
const soak = (...words: ReadonlyArray<string>) =>
  promisify(execFile)(process.execPath, [...flags, program, ...words])

describe("./dev soak", () => {
  it("works a store from the seed that one says, and tells what it did", { timeout: 180_000 }, async () => {
    const { stdout } = await soak("--store", "memory", "--seed", "7", "--rounds", "1")
    expect(stdout).toMatch(/^soaking memory from seed 7\nmemory: seeds 7 to 7, 7 parts in .* 0 failed\n$/)
  })

  it.each([
    [["--store", "rediss"], "--store is rediss; allowed: memory, sqlite, redis"],
    [["--minutes", "soon"], "--minutes is soon; allowed: a number above 0"],
    [["--minuets", "5"], "--minuets"]
  ])("refuses %j, and says what is allowed", async (words, message) => {
    const failure = await soak(...words).catch((error: unknown) => error)
    expect(failure).toMatchObject({ code: 2, stderr: expect.stringContaining(message) })
  })
})
