/**
 * One tracker's race: a load, two consumers, one that joins midway, one that dies midway, and a ledger that the tracker
 * can't see.
 */
import type { KafkaClient, KafkaError } from "@tidemark/kafka"
import { Effect, type Scope } from "effect"
import type { Cluster } from "./Cluster.ts"
import { type Consumer, RaceFailed, type Store } from "./Consumers.ts"
import type { Contestant } from "./Contestants.ts"
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

/** Sends the load up to some share of it, from 0 to 1; never back. */
type SendUpTo = (share: number) => Effect.Effect<void, KafkaError>

const makeSender = (
  producer: KafkaClient["Service"],
  topic: string,
  load: ReadonlyArray<OrderMessage>
): SendUpTo => {
  let sent = 0
  return (share) =>
    Effect.suspend(() => {
      const messages = load.slice(sent, Math.round(load.length * share))
      sent += messages.length
      return messages.length === 0
        ? Effect.void
        : producer.produce(
            messages.map(({ orderId, partition }) => ({ topic, partition, key: orderId, value: orderId }))
          )
    })
}

/** What the acts of a race have in common. */
interface Stage {
  readonly options: RaceOptions
  readonly ledger: Ledger
  readonly send: SendUpTo
  /** How long to wait for what must happen. */
  readonly patienceMillis: number
}

/** Feeds the first consumer while the second one joins, so that the rebalance comes in the midst of work. */
const feedUntilJoined = ({ send }: Stage, second: Consumer): Effect.Effect<void, KafkaError> =>
  Effect.gen(function* () {
    for (let share = 0.125; second.assigned <= 0; share += 0.025) {
      if (share <= 0.5) yield* send(share)
      yield* Effect.promise(() => until(() => second.assigned > 0, 300))
    }
  })

/** Kills the consumer when it has done some work, and has much in work. */
const killAtWork = (
  { ledger, options, patienceMillis, send }: Stage,
  second: Consumer
): Effect.Effect<void, KafkaError | RaceFailed> =>
  Effect.gen(function* () {
    const enough = Math.min(200, Math.ceil(options.load.length * 0.02))
    const busy = Math.min(16, Math.ceil(options.concurrency / 4), enough)
    const isBusy = () => ledger.effectsOf(second.name) >= enough && ledger.inWork(second.name) >= busy
    const caughtWithin = async (timeoutMillis: number): Promise<boolean> => {
      do {
        if (!(await until(isBusy, timeoutMillis))) return false
        await anyMoment(options.random, options.workMillis)
      } while (!isBusy())
      return true
    }
    // A small load may be done before anyone looks: then there is a little more of it.
    for (const share of [0.85, 0.9, 0.95, 1]) {
      yield* send(share)
      const isCaught = yield* Effect.promise(() => caughtWithin(share < 1 ? 1_500 : patienceMillis))
      if (isCaught) return yield* second.kill
    }
    return yield* Effect.fail(late("the second consumer's work", patienceMillis))
  })

/** Waits until the survivor has everything, and nothing has happened for so long that nothing more will. */
const settled = (
  { ledger, options, patienceMillis }: Stage,
  survivor: Consumer,
  orders: number
): Effect.Effect<void, RaceFailed> => {
  const { cluster, partitions, sessionTimeoutMillis } = options
  let seen = ""
  let quietSince = performance.now()
  const isOver = (): boolean => {
    const now = `${ledger.effects} ${ledger.receipts} ${survivor.assigned}`
    if (now !== seen || !ledger.isIdle) {
      seen = now
      quietSince = performance.now()
    }
    // The dead member's lease may end a little later than its membership.
    const quietMillis = ledger.done === orders ? 3_000 : sessionTimeoutMillis + 3_000
    return survivor.assigned === partitions && performance.now() - quietSince > quietMillis
  }
  const noticeMillis = 3 * cluster.sessionsToNotice * sessionTimeoutMillis
  return need("the take-over", isOver, patienceMillis + noticeMillis)
}

export const runRace = (options: RaceOptions): Effect.Effect<RaceResult, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { cluster, contestant, load, partitions, progress, sessionTimeoutMillis, store } = options
    const startedAt = performance.now()
    const slug = contestant.replaceAll(" ", "-")
    const topic = `${options.unique}-${slug}`
    const orderIds = new Set(load.map(({ orderId }) => orderId))
    const orders = orderIds.size
    const ledger = new Ledger(orderIds)
    const startConsumer = yield* store.open(slug, orders)
    const start = (turn: number) => {
      const { concurrency, workMillis } = options
      const name = `${slug}-${turn}`
      const job = { contestant, name, topic, groupId: topic, concurrency, workMillis, sessionTimeoutMillis }
      return startConsumer(job, ledger)
    }
    const producer = yield* cluster.connect(new Life("producer"))
    yield* cluster.makeTopic(producer, topic, partitions)
    const send = makeSender(producer, topic, load)
    const patienceMillis = 30_000 + 5 * sessionTimeoutMillis
    const stage: Stage = { options, ledger, send, patienceMillis }
    const draw = () => progress.at(ledger.done / orders, `${ledger.done} of ${orders} orders`)
    const drawing = setInterval(draw, 100)
    yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(drawing)))

    progress.phase("the first consumer joins")
    const first = yield* start(1)
    const plot = Effect.gen(function* () {
      yield* need("the first consumer's join", () => first.assigned >= 0, patienceMillis)
      yield* send(0.1)
      yield* need("the first effect", () => ledger.effects > 0, patienceMillis)

      progress.phase("a second consumer joins while work goes on")
      const second = yield* start(2)
      const shortLife = Effect.andThen(feedUntilJoined(stage, second), killAtWork(stage, second))
      yield* Effect.raceFirst(shortLife, second.failure)

      progress.phase(`the second consumer ${store.death}; the first takes over`)
      yield* send(1)
      yield* settled(stage, first, orders)
    })
    yield* Effect.raceFirst(plot, first.failure)
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
