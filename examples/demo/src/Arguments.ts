/** What the demo understands on its command line. */
import { parseArgs } from "node:util"
import { defaultLoad } from "./Orders.ts"

export const help = `./dev demo: each order takes effect once

Runs the same load three times: orders on a Kafka topic, some of them sent twice by a producer that retries, with a
second consumer that joins midway (a real rebalance) and dies midway, by kill -9. First with the usual
check-process-add tracker, then with a claim without a lease (SET NX style), then with tidemark. A ledger, which no
tracker can see, counts what took effect.

  --store sqlite            all three keep what they know in SQLite, each consumer is a process (default)
  --store redis             the same in Redis: --redis, else REDIS_URL, else a redis-server or valkey-server on the
                            PATH is started for the demo
  --store memory            in this process's memory, with all consumers in this process; the death is simulated
  --redis URL               with --store redis: redis://host:6379, redis://:password@host:6379/2, rediss://...

  --brokers HOST:PORT,...   run on these Kafka brokers (or set KAFKA_BROKERS); without it the demo brings a broker
  --in-process              run on a stand-in for Kafka within this process, and so with --store memory
  --orders N                how many orders: 100 to 1000000 (default ${defaultLoad.orders})
  --partitions N            of the topic: 2 to 100 (default ${defaultLoad.partitions}; the embedded broker always has ${defaultLoad.partitions})
  --duplicates PERCENT      how many orders are sent twice: 0 to 50 (default ${defaultLoad.duplicatesPercent})
  --seed N                  chooses which, and their order: 0 to 4294967295 (default ${defaultLoad.seed})
  --json                    the result as JSON on standard output
  --help

Ends with 0 when tidemark lost nothing and ran nothing twice but what was in flight at the kill, with 1 when not, with 2
when it was called with something it does not know.
`

const stores = ["sqlite", "redis", "memory"] as const
type StoreName = (typeof stores)[number]

export interface Arguments {
  /** `undefined`: nothing was said, so that what works here is taken. */
  readonly store: StoreName | undefined
  /** `undefined`: a server of the demo's own. */
  readonly redisUrl: string | undefined
  readonly brokers: ReadonlyArray<string> | undefined
  readonly inProcess: boolean
  readonly orders: number
  readonly partitions: number
  readonly duplicatesPercent: number
  readonly seed: number
  readonly json: boolean
}

/** What was called is not what the demo understands; the message says what it does. */
export class BadArguments extends Error {
  override readonly name = "BadArguments"
}

const number = (
  option: string,
  text: string | undefined,
  fallback: number,
  min: number,
  max: number,
  whole = true
): number => {
  if (text === undefined) return fallback
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN
  if (value >= min && value <= max && (!whole || Number.isInteger(value))) return value
  throw new BadArguments(
    `--${option} is ${JSON.stringify(text)}; allowed: a ${whole ? "whole " : ""}number from ${min} to ${max}`
  )
}

const brokerList = (source: string, text: string): ReadonlyArray<string> => {
  const brokers = text.split(",").map((broker) => broker.trim())
  for (const broker of brokers) {
    const port = Number(/^[^\s:]+:(\d{1,5})$/.exec(broker)?.[1] ?? Number.NaN)
    if (!(port >= 1 && port <= 65_535))
      throw new BadArguments(
        `${source} is ${JSON.stringify(text)}; allowed: host:port, or several with commas between`
      )
  }
  return brokers
}

const storeName = (text: string | undefined): StoreName | undefined => {
  const store = stores.find((name) => name === text)
  if (store === undefined && text !== undefined)
    throw new BadArguments(`--store is ${JSON.stringify(text)}; allowed: ${stores.join(", ")}`)
  return store
}

/** The value is not repeated, since it may hold a password. */
const redisAddress = (source: string, text: string): string => {
  if (!URL.canParse(text) || !/^rediss?:\/\/[^/]/.test(text))
    throw new BadArguments(
      `${source} is no address of a Redis; allowed: redis://host:port or rediss://host:port`
    )
  return text
}

/** `"help"` where help was asked for. Throws {@link BadArguments}. */
export const readArguments = (
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string | undefined>>
): Arguments | "help" => {
  const options = {
    brokers: { type: "string" },
    "in-process": { type: "boolean" },
    orders: { type: "string" },
    partitions: { type: "string" },
    duplicates: { type: "string" },
    seed: { type: "string" },
    store: { type: "string" },
    redis: { type: "string" },
    json: { type: "boolean" },
    help: { type: "boolean", short: "h" }
  } as const
  const parse = () => {
    try {
      return parseArgs({ args: [...args], options }).values
    } catch (error) {
      throw new BadArguments(error instanceof Error ? error.message : String(error))
    }
  }
  const given = parse()
  if (given.help === true) return "help"
  const store = storeName(given.store)
  if (given.redis !== undefined && store !== "redis")
    throw new BadArguments("--redis goes with --store redis")
  if (given["in-process"] === true && store !== undefined && store !== "memory")
    throw new BadArguments(
      `--in-process and --store ${store} exclude each other: consumers in processes of their own can't reach a Kafka within this one`
    )
  const redisFromEnvironment = store === "redis" ? environment.REDIS_URL || undefined : undefined
  const redisUrl =
    given.redis !== undefined
      ? redisAddress("--redis", given.redis)
      : redisFromEnvironment && redisAddress("REDIS_URL", redisFromEnvironment)
  if (given.brokers !== undefined && given["in-process"] === true)
    throw new BadArguments("--brokers and --in-process exclude each other")
  const fromEnvironment = given["in-process"] === true ? "" : (environment.KAFKA_BROKERS ?? "")
  const brokers =
    given.brokers !== undefined
      ? brokerList("--brokers", given.brokers)
      : fromEnvironment === ""
        ? undefined
        : brokerList("KAFKA_BROKERS", fromEnvironment)
  const partitions = number("partitions", given.partitions, defaultLoad.partitions, 2, 100)
  if (partitions !== defaultLoad.partitions && brokers === undefined && given["in-process"] !== true)
    throw new BadArguments(
      `--partitions is ${partitions}; allowed: ${defaultLoad.partitions} on the embedded broker, others with --brokers or --in-process`
    )
  return {
    store: given["in-process"] === true ? "memory" : store,
    redisUrl,
    brokers,
    inProcess: given["in-process"] === true,
    orders: number("orders", given.orders, defaultLoad.orders, 100, 1_000_000),
    partitions,
    duplicatesPercent: number("duplicates", given.duplicates, defaultLoad.duplicatesPercent, 0, 50, false),
    seed: number("seed", given.seed, defaultLoad.seed, 0, 4_294_967_295),
    json: given.json === true
  }
}
