/**
 * Load test 2: 20 writers of 500 messages each, beside 10 readers who ask 1,000 times each.
 *
 * Half of the writers use positions, half use ids. A reader's answer is consistent if a message whose processing
 * had ended before the question is told as processed, and one that is told as processed has had its effect.
 */
import { Key, Tracker } from "@tidemark/core"
import { Effect } from "effect"
import { random32 } from "../Random.ts"
import { type LoadError, type LoadOptions, type Measure, type Subjects, scaled } from "./LoadTest.ts"

const writers = 20
const readers = 10

export interface WritersAndReadersResult {
  readonly messages: number
  readonly processed: number
  readonly effectsTwice: number
  readonly reads: number
  /** Reads that were told "processed"; the others met a message before its end. */
  readonly readsOfProcessed: number
  readonly inconsistentReads: number
  readonly elapsedMillis: number
}

/** Runs it. */
export const run = ({
  scale,
  progress
}: LoadOptions): Effect.Effect<WritersAndReadersResult, LoadError, Subjects> =>
  Effect.gen(function* () {
    const tracker = yield* Tracker
    const each = scaled(500, scale)
    const readsEach = scaled(1_000, scale)
    const messages = writers * each
    const effects = new Uint32Array(messages)
    const ended = new Uint8Array(messages)
    let written = 0
    let reads = 0
    let readsOfProcessed = 0
    let inconsistentReads = 0
    const keyOf = (message: number): Key.Key => {
      const writer = Math.floor(message / each)
      return writer % 2 === 0 ? Key.offset(`writer/${writer}`, message % each) : Key.id(`message-${message}`)
    }
    const write = (message: number): Effect.Effect<void, LoadError> => {
      const handler = Effect.andThen(
        Effect.yieldNow,
        Effect.sync(() => {
          effects[message] += 1
        })
      )
      return Effect.map(tracker.once(keyOf(message), handler), () => {
        ended[message] = 1
        written += 1
        if (written % 500 === 0) progress?.(written, messages)
      })
    }
    const read = (message: number): Effect.Effect<void, LoadError> =>
      Effect.suspend(() => {
        const endedBefore = ended[message] === 1
        return Effect.map(tracker.isProcessed(keyOf(message)), (isProcessed) => {
          reads += 1
          if (isProcessed) readsOfProcessed += 1
          const consistent = isProcessed ? effects[message] > 0 : !endedBefore
          if (!consistent) inconsistentReads += 1
        })
      })
    const writer = (index: number) =>
      Effect.forEach(
        Array.from({ length: each }, (_, position) => index * each + position),
        write,
        { discard: true }
      )
    const reader = (index: number) => {
      const next = random32(index + 1)
      return Effect.forEach(
        Array.from({ length: readsEach }, () => next() % messages),
        (message) => Effect.andThen(Effect.yieldNow, read(message)),
        { discard: true }
      )
    }
    const from = performance.now()
    yield* Effect.all(
      [
        ...Array.from({ length: writers }, (_, index) => writer(index)),
        ...Array.from({ length: readers }, (_, index) => reader(index))
      ],
      { concurrency: "unbounded", discard: true }
    )
    return {
      messages,
      processed: effects.reduce((count, times) => count + (times > 0 ? 1 : 0), 0),
      effectsTwice: effects.reduce((count, times) => count + Math.max(0, times - 1), 0),
      reads,
      readsOfProcessed,
      inconsistentReads,
      elapsedMillis: performance.now() - from
    }
  })

export const measures = (result: WritersAndReadersResult): ReadonlyArray<Measure> => [
  { what: "messages processed", unit: "", measured: result.processed, threshold: ["=", result.messages] },
  { what: "effects run twice", unit: "", measured: result.effectsTwice, threshold: ["=", 0] },
  { what: "reads", unit: "", measured: result.reads },
  { what: "reads told: processed", unit: "", measured: result.readsOfProcessed },
  { what: "inconsistent reads", unit: "", measured: result.inconsistentReads, threshold: ["=", 0] },
  {
    what: "writes and reads a second",
    unit: "/s",
    measured: (1_000 * (result.messages + result.reads)) / result.elapsedMillis
  }
]
