import { describe, expect, it } from "vitest"
import { BadArguments, readArguments } from "../src/Arguments.ts"
import { run } from "./runDemo.ts"

describe("the command line", () => {
  it("teaches with --help", async () => {
    const { code, stdout } = await run(["--help"])
    expect(code).toBe(0)
    for (const option of [
      "--store",
      "--redis",
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
    [["--store", "disk"], "sqlite, redis, memory"],
    [["--store", ""], "sqlite, redis, memory"],
    [["--store", "sqlite", "--in-process"], "exclude"],
    [["--store", "redis", "--in-process"], "exclude"],
    [["--redis", "redis://a:1"], "--store redis"],
    [["--redis", "redis://a:1", "--store", "sqlite"], "--store redis"],
    [["--redis", "a:6379", "--store", "redis"], "redis://host:port"],
    [["--redis", "http://a:6379", "--store", "redis"], "redis://host:port"],
    [["--redis", "redis://", "--store", "redis"], "redis://host:port"],
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

  it("takes the Redis of the environment, where one is asked for, and an option over it", () => {
    const environment = { REDIS_URL: "rediss://user:secret@a:6380/2" }
    const withRedis = ["--store", "redis"]
    expect(readArguments(withRedis, environment)).toMatchObject({ redisUrl: environment.REDIS_URL })
    expect(readArguments([...withRedis, "--redis", "redis://b:1"], environment)).toMatchObject({
      redisUrl: "redis://b:1"
    })
    expect(readArguments([], { REDIS_URL: "nonsense" })).toMatchObject({ redisUrl: undefined })
    expect(readArguments(withRedis, { REDIS_URL: "" })).toMatchObject({ redisUrl: undefined })
    const readSecret = () => readArguments(withRedis, { REDIS_URL: "//:secret@a" })
    expect(readSecret).toThrow("REDIS_URL")
    expect(readSecret, "a password is not repeated").not.toThrow("secret")
  })

  it("leaves the store open where nothing was said, and keeps it in this process with the stand-in", () => {
    expect(readArguments([], {})).toMatchObject({ store: undefined })
    expect(readArguments(["--store", "sqlite"], {})).toMatchObject({ store: "sqlite" })
    expect(readArguments(["--in-process"], {})).toMatchObject({ store: "memory" })
  })

  it("ends with 2 when it was called wrongly, and says where help is", async () => {
    const { code, stderr, stdout } = await run(["--orders", "0"])
    expect([code, stdout]).toEqual([2, ""])
    expect(stderr).toContain("--help")
  })
})
