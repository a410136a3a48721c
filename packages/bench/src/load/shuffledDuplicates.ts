/**
 * Load test 3: 1,000 messages, each delivered 5 times, shuffled: exactly 4,000 duplicates are found.
 *
 * Run twice on messages of their own: by `once`, 100 at a time, and by `onceAll`, in batches of 100.
 */
import { Key, Tracker } from "@tidemark/core"
import { Effect } from "effect"
import { shuffled } from "../Random.ts"
import { type LoadError, type LoadOptions, type Measure, type Subjects, scaled } from "./LoadTest.ts"

const deliveriesEach = 5
const together = 100

export interface ShuffledDuplicatesResult {
  readonly messages: number
  readonly processed: number
  readonly duplicates: number
  readonly effectsTwice: number
  readonly processedInBatches: number
  readonly duplicatesInBatches: number
  readonly effectsTwiceInBatches: number
  readonly elapsedMillis: number
}

interface Ledger {
  readonly effects: Uint32Array
  readonly answers: { Processed: number; Duplicate: number; InFlight: number; Failed: number }
}

const newLedger = (messages: number): Ledger => ({
  effects: new Uint32Array(messages),
  answers: { Processed: 0, Duplicate: 0, InFlight: 0, Failed: 0 }
})

const effectOn = (ledger: Ledger, message: number): Effect.Effect<void> =>
  Effect.andThen(
    Effect.yieldNow,
    Effect.sync(() => {
      ledger.effects[message] += 1
    })
  )

const twice = ({ effects }: Ledger): number =>
  effects.reduce((count, times) => count + Math.max(0, times - 1), 0)

/** Runs it. */
export const run = ({
  scale,
  progress
}: LoadOptions): Effect.Effect<ShuffledDuplicatesResult, LoadError, Subjects> =>
  Effect.gen(function* () {
    const tracker = yield* Tracker
    const messages = scaled(1_000, scale)
    const deliveries = shuffled(
      Array.from({ length: deliveriesEach * messages }, (_, index) => index % messages),
      3
    )
    const single = newLedger(messages)
    const batched = newLedger(messages)
    const from = performance.now()
    yield* Effect.forEach(
      deliveries,
      (message) =>
        Effect.map(tracker.once(Key.id(`single-${message}`), effectOn(single, message)), ({ _tag }) => {
          single.answers[_tag] += 1
        }),
      { concurrency: together, discard: true }
    )
    progress?.(1, 2)
    for (let start = 0; start < deliveries.length; start += together) {
      const outcomes = yield* tracker.onceAll(
        deliveries.slice(start, start + together),
        (message) => Key.id(`batched-${message}`),
        (message) => effectOn(batched, message),
        { concurrency: together }
      )
      for (const { _tag } of outcomes) batched.answers[_tag] += 1
    }
    progress?.(2, 2)
    return {
      messages,
      processed: single.answers.Processed,
      duplicates: single.answers.Duplicate,
      effectsTwice: twice(single),
      processedInBatches: batched.answers.Processed,
      duplicatesInBatches: batched.answers.Duplicate,
      effectsTwiceInBatches: twice(batched),
      elapsedMillis: performance.now() - from
    }
  })

export const measures = (result: ShuffledDuplicatesResult): ReadonlyArray<Measure> => {
  const { messages } = result
  const duplicates = (deliveriesEach - 1) * messages
  return [
    { what: "once: processed", unit: "", measured: result.processed, threshold: ["=", messages] },
    { what: "once: duplicates found", unit: "", measured: result.duplicates, threshold: ["=", duplicates] },
    { what: "once: effects run twice", unit: "", measured: result.effectsTwice, threshold: ["=", 0] },
    { what: "onceAll: processed", unit: "", measured: result.processedInBatches, threshold: ["=", messages] },
    {
      what: "onceAll: duplicates found",
      unit: "",
      measured: result.duplicatesInBatches,
      threshold: ["=", duplicates]
    },
    {
      what: "onceAll: effects run twice",
      unit: "",
      measured: result.effectsTwiceInBatches,
      threshold: ["=", 0]
    },
    {
      what: "deliveries a second",
      unit: "/s",
      measured: (2_000 * deliveriesEach * messages) / result.elapsedMillis
    }
  ]
}
