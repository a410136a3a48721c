/**
 * One tracker's race: a load, two consumers, one that joins midway, one that dies midway, and a ledger that the tracker
 * can't see.
 */
import type { IdempotencyStore, OffsetStore } from "@tidemark/core"
import { KafkaClient, type KafkaRecord } from "@tidemark/kafka"
import { MemoryStore } from "@tidemark/store-memory"
import { type Context, Effect, Exit, Fiber, Layer, Scope } from "effect"
import type { Cluster } from "./Cluster.ts"
import { Ledger, type Tally } from "./Ledger.ts"
import { Life } from "./Life.ts"
import type { OrderMessage } from "./Orders.ts"
import { runPlainConsumer } from "./PlainConsumer.ts"
import type { Progress } from "./Progress.ts"
import { mortalStores, runTidemarkConsumer } from "./TidemarkConsumer.ts"
import { checkProcessAdd, claimFirst, makeKeyStore, mortalKeyStore } from "./Trackers.ts"

/** The three that race. */
export const contestants = ["check-process-add", "claim without a lease", "tidemark"] as const
type Contestant = (typeof contestants)[number]

export interface RaceOptions {
  readonly contestant: Contestant
  readonly cluster: Cluster
  readonly load: ReadonlyArray<OrderMessage>
  readonly partitions: number
  /** Makes names of topics and groups that nobody else uses. */
  readonly unique: string
  readonly sessionTimeoutMillis: number
  readonly workMillis: number
  readonly concurrency: number
  readonly progress: Progress
  /** Numbers in [0, 1). */
  readonly random: () => number
}

export interface RaceResult extends Tally {
  readonly contestant: Contestant
  readonly messages: number
  /** Effects a second, over the time in which a living consumer had work. */
  readonly perSecond: number
  /** How long the whole race took. */
  readonly totalMillis: number
}

type Stores = OffsetStore | IdempotencyStore

/** How one consumer of a contestant runs. */
type Run = (life: Life, topic: string, group: string) => Effect.Effect<unknown, unknown, KafkaClient>

const sleep = (millis: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, millis))

const receiptOf = (record: KafkaRecord) => ({
  orderId: record.key?.toString() ?? "",
  partition: record.partition,
  offset: record.offset
})

/** The wire, as the ledger watches it: what is delivered to whom, and when a group has been joined. */
const watched = (
  client: KafkaClient["Service"],
  life: Life,
  ledger: Ledger,
  onAssigned: (count: number) => void
): KafkaClient["Service"] => ({
  ...client,
  join: (options) => {
    life.groups.push(options.groupId)
    return client.join({
      ...options,
      events: {
        ...options.events,
        onAssignment: (assignment) => {
          if (life.isOver) return
          onAssigned(assignment.partitions.length)
          options.events.onAssignment(assignment)
        },
        onBatch: (batch) => {
          if (life.isOver) return
          for (const record of batch.records) ledger.received(life.name, receiptOf(record))
          options.events.onBatch(batch)
        }
      }
    })
  }
})

const makeRun = (options: RaceOptions, ledger: Ledger, stores: Context.Context<Stores>): Run => {
  const { concurrency, contestant, sessionTimeoutMillis, workMillis } = options
  const common = { concurrency, sessionTimeoutMillis }
  if (contestant === "tidemark") {
    return (life, topic, groupId) =>
      Effect.provide(
        runTidemarkConsumer({
          ...common,
          topic,
          groupId,
          owner: life.name,
          handle: (record) =>
            Effect.gen(function* () {
              const receipt = receiptOf(record)
              ledger.begin(life.name, receipt)
              yield* Effect.sleep(workMillis)
              ledger.write(life.name, receipt.orderId)
            })
        }),
        mortalStores(stores, life, (orderId) => ledger.marked(life.name, orderId))
      )
  }
  const shared = makeKeyStore()
  const track = contestant === "check-process-add" ? checkProcessAdd : claimFirst
  return (life, topic, groupId) => {
    const once = track(mortalKeyStore(shared, life))
    return runPlainConsumer({
      ...common,
      topic,
      groupId,
      handle: async (record) => {
        const receipt = receiptOf(record)
        let ran = false
        await once(receipt.orderId, async () => {
          ran = true
          ledger.begin(life.name, receipt)
          await sleep(workMillis)
          ledger.write(life.name, receipt.orderId)
        })
        if (ran) ledger.marked(life.name, receipt.orderId)
      }
    })
  }
}

/**
 * Some moment in the time that the work takes: death does not come when a poll looks, nor in that turn of the event
 * loop in which timers, and so the work, end.
 */
const anyMoment = async (random: () => number, withinMillis: number): Promise<void> => {
  await sleep(random() * withinMillis)
  for (let turns = Math.floor(random() * 8); turns > 0; turns--) await new Promise(setImmediate)
}

/** Polls until something is so; answers whether it became so in time. */
const until = (condition: () => boolean, timeoutMillis: number): Effect.Effect<boolean> =>
  Effect.promise(async () => {
    const deadline = performance.now() + timeoutMillis
    while (!condition()) {
      if (performance.now() > deadline) return false
      await new Promise(setImmediate)
      if (performance.now() > deadline - timeoutMillis + 50) await sleep(2)
    }
    return true
  })

/** A consumer that a race can't do without did not do its part. */
class RaceFailed extends Error {
  override readonly name = "RaceFailed"
}

const need = (
  what: string,
  condition: () => boolean,
  timeoutMillis: number
): Effect.Effect<void, RaceFailed> =>
  Effect.flatMap(until(condition, timeoutMillis), (done) =>
    done
      ? Effect.void
      : Effect.fail(new RaceFailed(`${what} did not happen within ${Math.round(timeoutMillis / 1_000)} s`))
  )

interface Started {
  readonly life: Life
  readonly fiber: Fiber.Fiber<unknown, unknown>
  /** Partitions it has now; -1 before it has joined. */
  assigned: number
}

const start = (options: RaceOptions, ledger: Ledger, run: Run, name: string, topic: string, group: string) =>
  Effect.gen(function* () {
    const life = new Life(name)
    // a scope that the race closes for the living only: the dead run no finalizer
    const scope = yield* Scope.make()
    const client = yield* Scope.provide(options.cluster.connect(life), scope)
    const started: { life: Life; assigned: number } = { life, assigned: -1 }
    const observed = watched(client, life, ledger, (count) => {
      started.assigned = count
    })
    const fiber = yield* Effect.forkDetach(
      Effect.onExit(Effect.provideService(run(life, topic, group), KafkaClient, observed), (exit) =>
        life.isOver ? Effect.void : Scope.close(scope, exit)
      )
    )
    return Object.assign(started, { fiber }) satisfies Started
  })

/** Fails when a living consumer ends before the race does. */
const watchOver = (consumer: Started): Effect.Effect<never, unknown> =>
  Effect.flatMap(Fiber.await(consumer.fiber), (exit) =>
    consumer.life.isOver
      ? Effect.never
      : Exit.isFailure(exit)
        ? Effect.failCause(exit.cause)
        : Effect.fail(new RaceFailed(`${consumer.life.name} stopped by itself`))
  )

export const runRace = (options: RaceOptions): Effect.Effect<RaceResult, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { cluster, contestant, load, partitions, progress, sessionTimeoutMillis } = options
    const startedAt = performance.now()
    const slug = contestant.replaceAll(" ", "-")
    const topic = `${options.unique}-${slug}`
    const group = `${options.unique}-${slug}`
    const ledger = new Ledger(new Set(load.map(({ orderId }) => orderId)))
    const orders = new Set(load.map(({ orderId }) => orderId)).size
    const stores = yield* Layer.build(MemoryStore.layer({ maxTrackedOffsets: Math.max(50_000, orders * 2) }))
    const run = makeRun(options, ledger, stores)
    const producer = yield* cluster.connect(new Life("producer"))
    yield* cluster.makeTopic(producer, topic, partitions)
    const patience = 30_000 + 5 * sessionTimeoutMillis

    let sent = 0
    const send = (to: number) =>
      Effect.suspend(() => {
        const messages = load.slice(sent, to)
        sent = Math.max(sent, to)
        return messages.length === 0
          ? Effect.void
          : producer.produce(
              messages.map(({ orderId, partition }) => ({ topic, partition, key: orderId, value: orderId }))
            )
      })
    const share = (part: number): number => Math.round(load.length * part)
    const drawing = setInterval(
      () => progress.at(ledger.done / orders, `${ledger.done} of ${orders} orders`),
      100
    )
    yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(drawing)))

    progress.phase("the first consumer joins")
    const first = yield* start(options, ledger, run, `${slug}-1`, topic, group)
    const body = Effect.gen(function* () {
      yield* need("the first consumer's join", () => first.assigned >= 0, patience)
      yield* send(share(0.1))
      yield* need("the first effect", () => ledger.effects > 0, patience)

      progress.phase("a second consumer joins while work goes on")
      const second = yield* start(options, ledger, run, `${slug}-2`, topic, group)
      const inMidst = Effect.gen(function* () {
        for (let part = 0.125; second.assigned <= 0; part += 0.025) {
          if (part <= 0.5) yield* send(share(part))
          yield* until(() => second.assigned > 0, 300)
        }
        yield* send(share(0.85))
        const enough = Math.min(200, Math.ceil(load.length * 0.02))
        const busy = Math.min(16, Math.ceil(options.concurrency / 4))
        const isBusy = () =>
          ledger.effectsOf(second.life.name) >= enough && ledger.inWork(second.life.name) >= busy
        do {
          yield* need("the second consumer's work", isBusy, patience)
          yield* Effect.promise(() => anyMoment(options.random, options.workMillis))
        } while (!isBusy())
        ledger.kill(second.life.name)
        second.life.end()
      })
      yield* Effect.raceFirst(inMidst, watchOver(second))

      progress.phase("the second consumer has died without a word; the first takes over")
      yield* send(load.length)
      let seen = ""
      let quietSince = performance.now()
      const quietFor = (): number => {
        const now = `${ledger.effects} ${ledger.receipts} ${first.assigned}`
        if (now !== seen || !ledger.isIdle) {
          seen = now
          quietSince = performance.now()
        }
        return performance.now() - quietSince
      }
      const over = (): boolean => {
        const quiet = quietFor()
        if (first.assigned < partitions) return false
        return quiet > (ledger.done === orders ? 1_500 : sessionTimeoutMillis + 2_500)
      }
      yield* need("the take-over", over, patience + 3 * cluster.sessionsToNotice * sessionTimeoutMillis)
    })
    yield* Effect.raceFirst(body, watchOver(first))
    const totalMillis = performance.now() - startedAt
    yield* Effect.ignore(Effect.timeout(Fiber.interrupt(first.fiber), "10 seconds"))
    const tally = ledger.tally()
    progress.end(`${ledger.done} of ${orders} orders, ${(totalMillis / 1_000).toFixed(0)} s`)
    return {
      ...tally,
      contestant,
      messages: load.length,
      perSecond: ledger.effects / (ledger.busyMillis / 1_000),
      totalMillis
    }
  })
