/**
 * Load test 1: 10,000 messages at 1,000 a second, in batches of 100 concurrent, on a stream with redeliveries.
 *
 * Every 100 ms, by the clock and not by when the last were done, 100 new messages arrive, and 500 redeliveries: of
 * each new one a copy among the same arrivals, so that copies meet in flight, and 400 of any message so far. All are
 * shuffled and handled in batches of 100 concurrent.
 *
 * The hit rate is counted in two ways. Of the redeliveries (deliveries after a message's first), those answered
 * `Duplicate`: what matters, and must be all. And by the store's own counters, hits / (hits + misses) of its claims:
 * that follows from the share of redeliveries in the stream, here 5 in 6, and would be 9 % with one in eleven. It is
 * a little above that share, as a copy that meets its message in flight asks again after the wait: two hits.
 */
import { Key, Tracker } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"
import { Effect } from "effect"
import { random32, shuffled } from "../Random.ts"
import {
  type LoadError,
  type LoadOptions,
  type Measure,
  mean,
  percentile,
  type Subjects,
  scaled
} from "./LoadTest.ts"

const arrivalsPerTick = 100
const tickMillis = 100
const concurrent = 100
const copiesOfOlder = 4

export interface SteadyRateResult {
  readonly messages: number
  /** Messages whose effect happened, and effects beyond the first of each. */
  readonly processed: number
  readonly effectsTwice: number
  readonly redeliveries: number
  readonly recognised: number
  readonly storeHits: number
  readonly storeMisses: number
  readonly elapsedMillis: number
  /** Of each delivery, from its batch's start to its answer. */
  readonly handlingMillis: ReadonlyArray<number>
}

/** The messages, by index, that arrive at a tick. */
const arrivals = (tick: number, next: () => number): ReadonlyArray<number> => {
  const first = tick * arrivalsPerTick
  const known = first + arrivalsPerTick
  const fresh = Array.from({ length: arrivalsPerTick }, (_, index) => first + index)
  const older = Array.from({ length: copiesOfOlder * arrivalsPerTick }, () => next() % known)
  return shuffled([...fresh, ...fresh, ...older], tick + 1)
}

/** Runs it; `paced: false` leaves the clock out, for checking the counts. */
export const run = ({
  scale,
  paced = true,
  progress
}: LoadOptions & { readonly paced?: boolean }): Effect.Effect<SteadyRateResult, LoadError, Subjects> =>
  Effect.gen(function* () {
    const tracker = yield* Tracker
    const stats = yield* MemoryStore.MemoryStoreStats
    const ticks = scaled(100, scale)
    const next = random32(1)
    const effects = new Uint32Array(ticks * arrivalsPerTick)
    const handlingMillis: Array<number> = []
    let deliveries = 0
    let recognised = 0
    const deliver = (message: number): Effect.Effect<void, LoadError> => {
      const handler = Effect.andThen(
        Effect.yieldNow,
        Effect.sync(() => {
          effects[message] += 1
        })
      )
      return Effect.suspend(() => {
        const from = performance.now()
        return Effect.map(tracker.once(Key.id(`message-${message}`), handler), (outcome) => {
          handlingMillis.push(performance.now() - from)
          deliveries += 1
          if (outcome._tag === "Duplicate") recognised += 1
        })
      })
    }
    const from = performance.now()
    for (let tick = 0; tick < ticks; tick++) {
      const waitMillis = from + tick * tickMillis - performance.now()
      if (paced && waitMillis > 0) yield* Effect.sleep(waitMillis)
      const arrived = arrivals(tick, next)
      for (let start = 0; start < arrived.length; start += concurrent) {
        yield* Effect.forEach(arrived.slice(start, start + concurrent), deliver, {
          concurrency: "unbounded",
          discard: true
        })
      }
      progress?.(tick + 1, ticks)
    }
    const elapsedMillis = performance.now() - from
    const { hits, misses } = yield* stats.current
    return {
      messages: effects.length,
      processed: effects.reduce((count, times) => count + (times > 0 ? 1 : 0), 0),
      effectsTwice: effects.reduce((count, times) => count + Math.max(0, times - 1), 0),
      redeliveries: deliveries - effects.length,
      recognised,
      storeHits: hits,
      storeMisses: misses,
      elapsedMillis,
      handlingMillis
    }
  })

export const measures = (result: SteadyRateResult): ReadonlyArray<Measure> => [
  { what: "messages processed", unit: "", measured: result.processed, threshold: ["=", result.messages] },
  { what: "effects run twice", unit: "", measured: result.effectsTwice, threshold: ["=", 0] },
  { what: "redeliveries", unit: "", measured: result.redeliveries },
  {
    what: "redeliveries not recognised",
    unit: "",
    measured: result.redeliveries - result.recognised,
    threshold: ["=", 0]
  },
  {
    what: "hit rate: recognised / redeliveries",
    unit: "%",
    measured: (100 * result.recognised) / result.redeliveries,
    threshold: [">", 80]
  },
  {
    what: "hit rate: the store's hits / (hits + misses)",
    unit: "%",
    measured: (100 * result.storeHits) / (result.storeHits + result.storeMisses),
    threshold: [">", 80]
  },
  {
    what: "new messages a second, of 1,000 sent",
    unit: "/s",
    measured: (1_000 * result.processed) / result.elapsedMillis,
    threshold: [">=", 900]
  },
  { what: "handling time, mean", unit: "ms", measured: mean(result.handlingMillis) },
  { what: "handling time, p99", unit: "ms", measured: percentile(result.handlingMillis, 0.99) }
]
