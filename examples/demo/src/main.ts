/** `./dev demo`: see `Arguments.ts` for what it does and understands. */
import { randomBytes } from "node:crypto"
import { Cause, Effect, Exit, Logger, type Scope } from "effect"
import { type Arguments, BadArguments, help, readArguments } from "./Arguments.ts"
import { type Cluster, embedded, given, inProcess } from "./Cluster.ts"
import type { Store } from "./Consumers.ts"
import { contestants } from "./Contestants.ts"
import { makeLoad, makeRandom } from "./Orders.ts"
import { makeProgress } from "./Progress.ts"
import { type RaceResult, runRace } from "./Race.ts"
import { isKept, renderTable, renderVerdict, toJson } from "./Report.ts"
import { sameProcess } from "./SameProcess.ts"
import { redis, sqlite } from "./stores/Stores.ts"

const sessionTimeoutMillis = 6_000
const workMillis = 5
const concurrency = 64

/** SQLite, unless something else was asked for, or only this process can reach the Kafka that there is. */
const openStore = (
  args: Arguments,
  cluster: Cluster,
  unique: string
): Effect.Effect<Store, Error, Scope.Scope> => {
  const { address } = cluster
  if (address === undefined) {
    if (args.store === undefined || args.store === "memory") return Effect.succeed(sameProcess(cluster))
    const message = `--store ${args.store} needs a Kafka that other processes can reach, and here is only ${cluster.description}: name yours with --brokers host:port, or take --store memory`
    return Effect.fail(new Error(message))
  }
  switch (args.store) {
    case "memory":
      return Effect.succeed(sameProcess(cluster))
    case "redis":
      return redis(address, args.redisUrl, unique)
    default:
      return sqlite(address)
  }
}

const demo = (args: Arguments) =>
  Effect.gen(function* () {
    const cluster =
      args.brokers !== undefined
        ? given(args.brokers)
        : yield* args.inProcess ? inProcess("asked for by --in-process") : embedded
    const unique = `tidemark-demo-${randomBytes(4).toString("hex")}`
    const store = yield* openStore(args, cluster, unique)
    const load = makeLoad(args)
    const say = (line: string): void => {
      process.stderr.write(`${line}\n`)
    }
    say(`tidemark's demo, on ${cluster.description}`)
    say(`the trackers' store: ${store.description}`)
    say(
      `${args.orders} orders in ${load.length} messages over ${args.partitions} partitions; ${concurrency} in work at each consumer, ${workMillis} ms of work each\n`
    )
    const results: Array<RaceResult> = []
    for (const contestant of contestants) {
      const progress = makeProgress(contestant, false)
      results.push(
        yield* Effect.scoped(
          runRace({
            contestant,
            cluster,
            store,
            load,
            partitions: args.partitions,
            unique,
            sessionTimeoutMillis,
            workMillis,
            concurrency,
            progress,
            random: makeRandom(args.seed)
          })
        )
      )
    }
    say("")
    process.stdout.write(
      args.json
        ? `${toJson(cluster.description, store.description, results)}\n`
        : `${renderTable(results)}\n\n${renderVerdict(results)}\n`
    )
    return results.every((result) => result.contestant !== "tidemark" || isKept(result)) ? 0 : 1
  }).pipe(
    Effect.scoped,
    // the killed member's complaints are no news; what ends a race comes as an error
    Effect.provide(Logger.layer([]))
  )

const main = async (): Promise<number> => {
  const args = readArguments(process.argv.slice(2), process.env)
  if (args === "help") {
    process.stdout.write(help)
    return 0
  }
  const fiber = Effect.runFork(demo(args))
  const stop = (): void => {
    process.stderr.write("\n")
    fiber.interruptUnsafe()
  }
  process.once("SIGINT", stop).once("SIGTERM", stop)
  const exit = await new Promise<Exit.Exit<number, unknown>>((resolve) => {
    fiber.addObserver(resolve)
  })
  if (Exit.isSuccess(exit)) return exit.value
  if (Cause.hasInterruptsOnly(exit.cause)) return 130
  const error = Cause.squash(exit.cause)
  process.stderr.write(
    `\nthe demo could not be run to its end: ${error instanceof Error ? error.message : String(error)}\n`
  )
  return 1
}

// The dead consumer's fibers wait for ever: the process does not wait for them.
main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(
      `${error instanceof BadArguments ? `${error.message}\nSee ./dev demo --help` : error}\n`
    )
    process.exit(error instanceof BadArguments ? 2 : 1)
  }
)
