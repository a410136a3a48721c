import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { describe, expect, it } from "vitest"
import { BadArguments, readArguments } from "../src/Arguments.ts"
import { makeLoad } from "../src/Orders.ts"

const main = new URL("../src/main.ts", import.meta.url).pathname
const home = new URL("..", import.meta.url).pathname
const run = (...args: ReadonlyArray<string>) =>
  promisify(execFile)(process.execPath, ["--conditions=@tidemark/source", main, ...args], {
    cwd: home,
    env: { ...process.env, KAFKA_BROKERS: "" }
  })

describe("the demo, on the in-process stand-in", () => {
  it("loses nothing with tidemark, and runs nothing twice but what was in flight at the kill", async () => {
    const { stdout, stderr } = await run("--in-process", "--orders", "1000", "--json", "--seed", "7")
    const { contestants, kept } = JSON.parse(stdout)
    expect(kept).toBe(true)
    expect(contestants.map((row: { contestant: string }) => row.contestant)).toEqual([
      "check-process-add",
      "claim without a lease",
      "tidemark"
    ])
    const [racy, leaseless, tidemark] = contestants
    expect(tidemark).toMatchObject({ orders: 1_000, messages: 1_030, lost: [], twice: 0 })
    // what the demo is there to show: the other two don't keep it
    expect(racy.twice).toBeGreaterThan(0)
    expect(leaseless.lost.length).toBeGreaterThan(0)
    expect(stderr).toContain("in-process stand-in")
  }, 120_000)
})

describe("the command line", () => {
  it("teaches with --help", async () => {
    const { stdout } = await run("--help")
    for (const option of [
      "--brokers",
      "--in-process",
      "--orders",
      "--partitions",
      "--duplicates",
      "--seed",
      "--json"
    ])
      expect(stdout).toContain(option)
  })

  it.each([
    [["--orders", "many"], "--orders"],
    [["--orders", "99"], "100 to 1000000"],
    [["--partitions", "1", "--in-process"], "2 to 100"],
    [["--partitions", "6"], "--brokers or --in-process"],
    [["--duplicates", "-1"], "duplicates"],
    [["--duplicates", "51"], "0 to 50"],
    [["--seed", "1.5"], "--seed"],
    [["--brokers", "nowhere"], "host:port"],
    [["--brokers", "a:1,b:0"], "host:port"],
    [["--brokers", "a:1", "--in-process"], "exclude"],
    [["--store", "redis"], "memory"],
    [["--ordres", "5"], "--ordres"]
  ])("%j is refused in plain words", (args, words) => {
    expect(() => readArguments(args, {})).toThrow(BadArguments)
    expect(() => readArguments(args, {})).toThrow(words)
  })

  it("takes the brokers of the environment, and an option over them", () => {
    const environment = { KAFKA_BROKERS: "a:9092, b:9093" }
    expect(readArguments([], environment)).toMatchObject({ brokers: ["a:9092", "b:9093"] })
    expect(readArguments(["--brokers", "c:1"], environment)).toMatchObject({ brokers: ["c:1"] })
    expect(readArguments(["--in-process"], environment)).toMatchObject({
      brokers: undefined,
      inProcess: true
    })
    expect(() => readArguments([], { KAFKA_BROKERS: "x" })).toThrow("KAFKA_BROKERS")
  })

  it("ends with 2 when it was called wrongly, and says where help is", async () => {
    await expect(run("--orders", "0")).rejects.toMatchObject({
      code: 2,
      stdout: "",
      stderr: expect.stringContaining("--help")
    })
  })
})

describe("the load", () => {
  it("is the same for the same seed, and has as many copies as were asked for", () => {
    const options = { orders: 1_000, partitions: 4, duplicatesPercent: 3, seed: 5 }
    const load = makeLoad(options)
    expect(makeLoad(options)).toEqual(load)
    expect(makeLoad({ ...options, seed: 6 })).not.toEqual(load)
    expect(load.length).toBe(1_030)
    expect(new Set(load.map(({ orderId }) => orderId)).size).toBe(1_000)
    const firsts = new Set<string>()
    for (const { kind, orderId } of load) {
      if (kind === "first") firsts.add(orderId)
      else expect(firsts.has(orderId), "a copy comes after its first").toBe(true)
    }
  })
})
