/**
 * Load test 5: 5 rounds of 2,000 messages on one store: what the process keeps after each, garbage collected.
 *
 * By positions, and then again by ids on top of it. Positions need no memory of their own once all below are
 * completed; of the ids all are still remembered at the end, as they must be.
 */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { Key, Tracker } from "@tidemark/core"
import { Effect } from "effect"
import { type LoadError, type LoadOptions, type Measure, type Subjects, scaled } from "./LoadTest.ts"

const rounds = 5

export interface HeapGrowthResult {
  readonly messages: number
  readonly processed: number
  /** Bytes of the heap and of array buffers after each round. */
  readonly bytesByOffsets: ReadonlyArray<number>
  readonly bytesByIds: ReadonlyArray<number>
}

/** The collector, also where the process was started without `--expose-gc`. */
const collector = (): (() => void) => {
  if (globalThis.gc !== undefined) return globalThis.gc
  setFlagsFromString("--expose-gc")
  return runInNewContext("gc")
}

/** Runs it. */
export const run = ({ scale, progress }: LoadOptions): Effect.Effect<HeapGrowthResult, LoadError, Subjects> =>
  Effect.gen(function* () {
    const tracker = yield* Tracker
    const collect = collector()
    const each = scaled(2_000, scale)
    let processed = 0
    const handler = Effect.sync(() => {
      processed += 1
    })
    const bytesAfter = (): number => {
      for (let time = 0; time < 4; time++) collect()
      const { heapUsed, external } = process.memoryUsage()
      return heapUsed + external
    }
    const series = (keyOf: (message: number) => Key.Key, from: number) =>
      Effect.gen(function* () {
        const bytes: Array<number> = []
        for (let round = 0; round < rounds; round++) {
          for (let start = 0; start < each; start += 100) {
            const length = Math.min(100, each - start)
            yield* Effect.forEach(
              Array.from({ length }, (_, index) => round * each + start + index),
              (message) => tracker.once(keyOf(message), handler),
              { concurrency: "unbounded", discard: true }
            )
          }
          // what ended fibers leave to a later turn of the event loop is not kept
          yield* Effect.yieldNow
          bytes.push(bytesAfter())
          progress?.(from + round + 1, 2 * rounds)
        }
        return bytes
      })
    const bytesByOffsets = yield* series((message) => Key.offset("orders/0", message), 0)
    const bytesByIds = yield* series((message) => Key.id(`message-${message}`), rounds)
    return { messages: 2 * rounds * each, processed, bytesByOffsets, bytesByIds }
  })

const megabytes = (bytes: number): number => bytes / 1_000_000

/** From round 2, when code and tables are there, to the last. */
const growth = (bytes: ReadonlyArray<number>): number => megabytes(bytes[rounds - 1] - bytes[1])

export const measures = (result: HeapGrowthResult): ReadonlyArray<Measure> => [
  { what: "messages processed", unit: "", measured: result.processed, threshold: ["=", result.messages] },
  {
    what: "heap after gc, the greatest of all rounds",
    unit: "MB",
    measured: megabytes(Math.max(...result.bytesByOffsets, ...result.bytesByIds)),
    threshold: ["<", 100]
  },
  {
    what: "growth from round 2 to 5, by positions",
    unit: "MB",
    measured: growth(result.bytesByOffsets),
    threshold: ["<", 1]
  },
  {
    what: "growth from round 2 to 5, by ids, all remembered",
    unit: "MB",
    measured: growth(result.bytesByIds),
    threshold: ["<", 1]
  }
]
