/**
 * One tracker's race: a load, two consumers, one that joins midway, one that dies midway, and a ledger that the tracker
 * can't see.
 */
import { Effect, type Scope } from "effect"
import type { Cluster } from "./Cluster.ts"
import { RaceFailed, type Store } from "./Consumers.ts"
import type { Contestant, Job } from "./Contestants.ts"
import { Ledger } from "./Ledger.ts"
import { Life } from "./Life.ts"
import type { OrderMessage } from "./Orders.ts"
import type { Progress } from "./Progress.ts"
import type { Tally } from "./Tally.ts"

interface RaceOptions {
  readonly contestant: Contestant
  readonly cluster: Cluster
  readonly store: Store
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

const sleep = (millis: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, millis))

/**
 * Some moment in the time that the work takes: death does not come when a poll looks, nor in that turn of the event
 * loop in which timers, and so the work, end.
 */
const anyMoment = async (random: () => number, withinMillis: number): Promise<void> => {
  await sleep(random() * withinMillis)
  for (let turns = Math.floor(random() * 8); turns > 0; turns--) await new Promise(setImmediate)
}

/** Polls until something is so; answers whether it became so in time. */
const until = async (condition: () => boolean, timeoutMillis: number): Promise<boolean> => {
  const deadline = performance.now() + timeoutMillis
  while (!condition()) {
    if (performance.now() > deadline) return false
    await new Promise(setImmediate)
    if (performance.now() > deadline - timeoutMillis + 50) await sleep(2)
  }
  return true
}

const late = (what: string, timeoutMillis: number): RaceFailed =>
  new RaceFailed(`${what} did not happen within ${Math.round(timeoutMillis / 1_000)} s`)

const need = (
  what: string,
  condition: () => boolean,
  timeoutMillis: number
): Effect.Effect<void, RaceFailed> =>
  Effect.flatMap(
    Effect.promise(() => until(condition, timeoutMillis)),
    (done) => (done ? Effect.void : Effect.fail(late(what, timeoutMillis)))
  )

export const runRace = (options: RaceOptions): Effect.Effect<RaceResult, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { cluster, contestant, load, partitions, progress, sessionTimeoutMillis, workMillis } = options
    const startedAt = performance.now()
    const slug = contestant.replaceAll(" ", "-")
    const topic = `${options.unique}-${slug}`
    const orderIds = new Set(load.map(({ orderId }) => orderId))
    const orders = orderIds.size
    const ledger = new Ledger(orderIds)
    const startConsumer = yield* options.store.open(slug, orders)
    const start = (turn: number) => {
      const { concurrency } = options
      const name = `${slug}-${turn}`
      const job: Job = {
        contestant,
        name,
        topic,
        groupId: topic,
        concurrency,
        workMillis,
        sessionTimeoutMillis
      }
      return startConsumer(job, ledger)
    }
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
    const first = yield* start(1)
    const body = Effect.gen(function* () {
      yield* need("the first consumer's join", () => first.assigned >= 0, patience)
      yield* send(share(0.1))
      yield* need("the first effect", () => ledger.effects > 0, patience)

      progress.phase("a second consumer joins while work goes on")
      const second = yield* start(2)
      const inMidst = Effect.gen(function* () {
        for (let part = 0.125; second.assigned <= 0; part += 0.025) {
          if (part <= 0.5) yield* send(share(part))
          yield* Effect.promise(() => until(() => second.assigned > 0, 300))
        }
        const enough = Math.min(200, Math.ceil(load.length * 0.02))
        const busy = Math.min(16, Math.ceil(options.concurrency / 4), enough)
        const isBusy = () => ledger.effectsOf(second.name) >= enough && ledger.inWork(second.name) >= busy
        const caughtWithin = (timeoutMillis: number): Effect.Effect<boolean> =>
          Effect.promise(async () => {
            do {
              if (!(await until(isBusy, timeoutMillis))) return false
              await anyMoment(options.random, workMillis)
            } while (!isBusy())
            return true
          })
        // a small load may be done before anyone looks: then there is a little more of it
        let caught = false
        for (const part of [0.85, 0.9, 0.95, 1]) {
          if (caught) break
          yield* send(share(part))
          caught = yield* caughtWithin(part < 1 ? 1_500 : patience)
        }
        if (!caught) return yield* Effect.fail(late("the second consumer's work", patience))
        yield* second.kill
      })
      yield* Effect.raceFirst(inMidst, second.failure)

      progress.phase(`the second consumer ${options.store.death}; the first takes over`)
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
        // the dead member's lease may end a little later than its membership
        return quiet > (ledger.done === orders ? 3_000 : sessionTimeoutMillis + 3_000)
      }
      yield* need("the take-over", over, patience + 3 * cluster.sessionsToNotice * sessionTimeoutMillis)
    })
    yield* Effect.raceFirst(body, first.failure)
    const totalMillis = performance.now() - startedAt
    yield* first.stop
    const tally = ledger.tally()
    progress.end(`${ledger.done} of ${orders} orders, ${(totalMillis / 1_000).toFixed(0)} s`)
    return {
      ...tally,
      contestant,
      messages: load.length,
      perSecond: tally.effects / (tally.busyMillis / 1_000),
      totalMillis
    }
  })
