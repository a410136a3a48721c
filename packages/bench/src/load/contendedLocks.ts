/**
 * Load test 4: 50 tasks of 200 operations each, on 5 contended locks.
 *
 * An operation takes a lock, reads a counter, lets others run, and writes it back increased: two at once would lose
 * an update. Its time includes the wait for the lock.
 */
import { Lock } from "@tidemark/core"
import { Effect } from "effect"
import {
  type LoadError,
  type LoadOptions,
  type Measure,
  mean,
  percentile,
  type Subjects,
  scaled
} from "./LoadTest.ts"

const tasks = 50
const locks = 5

export interface ContendedLocksResult {
  readonly operations: number
  /** The sum of the counters: less than `operations` if updates were lost. */
  readonly counted: number
  /** Times that a holder met another one within. */
  readonly overlaps: number
  /** Times that a holder's fencing token was not greater than the one before it. */
  readonly tokensOutOfOrder: number
  /** Operations that found their lock held, and waited. */
  readonly waited: number
  readonly elapsedMillis: number
  readonly operationMillis: ReadonlyArray<number>
}

/** Runs it. */
export const run = ({
  scale,
  progress
}: LoadOptions): Effect.Effect<ContendedLocksResult, LoadError, Subjects> =>
  Effect.gen(function* () {
    const lock = yield* Lock
    const each = scaled(200, scale)
    const counters = new Uint32Array(locks)
    const holders = new Uint32Array(locks)
    const tokens = new Float64Array(locks).fill(-1)
    const operationMillis: Array<number> = []
    let overlaps = 0
    let tokensOutOfOrder = 0
    let waited = 0
    const operation = (index: number): Effect.Effect<void, LoadError> =>
      Effect.suspend(() => {
        const from = performance.now()
        if (holders[index] > 0) waited += 1
        const work = ({ token }: { readonly token: number }): Effect.Effect<void> => {
          if (holders[index] > 0) overlaps += 1
          holders[index] += 1
          if (token <= tokens[index]) tokensOutOfOrder += 1
          tokens[index] = token
          const read = counters[index]
          return Effect.andThen(
            Effect.yieldNow,
            Effect.sync(() => {
              counters[index] = read + 1
              holders[index] -= 1
            })
          )
        }
        return Effect.map(lock.withLock(`contended-${index}`)(work), () => {
          operationMillis.push(performance.now() - from)
          if (operationMillis.length % 500 === 0) progress?.(operationMillis.length, tasks * each)
        })
      })
    const from = performance.now()
    yield* Effect.forEach(
      Array.from({ length: tasks }, (_, task) => task),
      (task) =>
        Effect.forEach(
          Array.from({ length: each }, (_, step) => (task + step) % locks),
          operation,
          { discard: true }
        ),
      { concurrency: "unbounded", discard: true }
    )
    return {
      operations: tasks * each,
      counted: counters.reduce((sum, count) => sum + count, 0),
      overlaps,
      tokensOutOfOrder,
      waited,
      elapsedMillis: performance.now() - from,
      operationMillis
    }
  })

export const measures = (result: ContendedLocksResult): ReadonlyArray<Measure> => [
  { what: "operations counted", unit: "", measured: result.counted, threshold: ["=", result.operations] },
  { what: "two holders at once", unit: "", measured: result.overlaps, threshold: ["=", 0] },
  { what: "fencing tokens out of order", unit: "", measured: result.tokensOutOfOrder, threshold: ["=", 0] },
  { what: "operations that found the lock held", unit: "", measured: result.waited },
  {
    what: "time with the wait, mean",
    unit: "ms",
    measured: mean(result.operationMillis),
    threshold: ["<", 10]
  },
  {
    what: "time with the wait, p99",
    unit: "ms",
    measured: percentile(result.operationMillis, 0.99),
    threshold: ["<", 50]
  },
  {
    what: "operations a second",
    unit: "/s",
    measured: (1_000 * result.operations) / result.elapsedMillis,
    threshold: [">", 1_000]
  }
]
