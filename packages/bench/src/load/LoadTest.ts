/** What the five load tests share: what they run on, what they answer, and how it is judged. */
import {
  type IdempotencyStore,
  type InvalidInput,
  type LeaseLost,
  type Lock,
  type LockError,
  type OffsetStore,
  Tracker,
  type TrackerError
} from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"
import { Layer } from "effect"

/** What a load test runs on. */
export type Subjects = Tracker | OffsetStore | IdempotencyStore | Lock | MemoryStore.MemoryStoreStats

/** What a load test may fail with; none is expected, so each ends the run. */
export type LoadError = TrackerError | LockError | LeaseLost

/** A tracker on a memory store of its own, both with their defaults. */
export const subjects = (): Layer.Layer<Subjects, InvalidInput> =>
  Layer.fresh(Tracker.layer({ namespace: "load" }).pipe(Layer.provideMerge(MemoryStore.layer())))

export interface LoadOptions {
  /** 1: as large as the test is meant; a tenth of it is enough to check the counts. */
  readonly scale: number
  readonly progress?: (done: number, of: number) => void
}

/** `count` to scale; at least 1. */
export const scaled = (count: number, scale: number): number => Math.max(1, Math.round(count * scale))

/** One line of the table. */
export interface Measure {
  readonly what: string
  readonly unit: string
  readonly measured: number
  /** What it must be; a line without is told for information. */
  readonly threshold?: readonly ["=" | "<" | ">" | ">=", number]
}

/** Whether the threshold is kept; `undefined` where there is none. A figure that is no number keeps none. */
export const isKept = ({ measured, threshold }: Measure): boolean | undefined => {
  if (threshold === undefined) return undefined
  const [relation, value] = threshold
  switch (relation) {
    case "=":
      return measured === value
    case "<":
      return measured < value
    case ">":
      return measured > value
    case ">=":
      return measured >= value
  }
}

/** The mean of some times; `NaN` of none. */
export const mean = (times: ReadonlyArray<number>): number =>
  times.reduce((sum, time) => sum + time, 0) / times.length

/** The time that `share` of all don't exceed (nearest rank); `NaN` of none. */
export const percentile = (times: ReadonlyArray<number>, share: number): number => {
  if (times.length === 0) return Number.NaN
  const sorted = [...times].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]
}
