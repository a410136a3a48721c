/**
 * What happens when things don't go by the book. Policies are data; none drops a message silently.
 */
import { Duration } from "effect"
import type { InvalidInput } from "./Errors.ts"
import * as Input from "./internal/input.ts"

/**
 * What to do when another owner is at work on the same key:
 * - `wait` (default): until it has settled, then answer `Duplicate`, or take over what it gave back;
 * - `skip`: answer `InFlight` at once; the caller decides;
 * - `fail`: fail with `InFlightElsewhere`.
 */
export type WhenInFlight = "wait" | "skip" | "fail"

/**
 * What to do when the store can't be asked for a claim:
 * - `fail` (default): fail with `StoreError`; the message stays undone and will be delivered again;
 * - `run`: run the handler unprotected; counted in `tidemark_unprotected_runs_total` and warned of;
 * - `wait`: ask again until the store answers, as long as the error may pass.
 */
export type WhenStoreFails = "fail" | "run" | "wait"

/**
 * What a bounded store does when it is full:
 * - `evict-oldest` (default): forgets the completed keys that were used longest ago, counts each, and warns;
 * - `reject`: refuses new keys with `StoreError` `Full` until some expire.
 */
export type WhenFull = "evict-oldest" | "reject"

export const whenInFlightWords: ReadonlyArray<WhenInFlight> = ["wait", "skip", "fail"]
export const whenStoreFailsWords: ReadonlyArray<WhenStoreFails> = ["fail", "run", "wait"]
export const whenFullWords: ReadonlyArray<WhenFull> = ["evict-oldest", "reject"]

/** A lease where none is given: 30 s. */
export const defaultLeaseMillis = 30_000

/** Any form of duration as milliseconds; a number is milliseconds. What can't be one is `NaN`, which no check passes. */
export const toMillis = (duration: Duration.Input): number => {
  if (typeof duration === "number") return duration
  const decoded = Duration.fromInput(duration)
  return decoded._tag === "Some" ? Duration.toMillis(decoded.value) : Number.NaN
}

/**
 * What is wrong with options of which one is not known: a misspelt one would silently mean its default. `undefined`
 * where all are.
 *
 * @param what - whose options they are.
 *
 * @example
 * Policies.unknownOption("MyStore", { url, prefx: "a" }, ["url", "prefix"])?.message
 * // option of MyStore is "prefx"; allowed: url, prefix
 */
export const unknownOption: (
  what: string,
  given: object,
  known: ReadonlyArray<string>
) => InvalidInput | undefined = Input.unknownOption

/** A duration option in milliseconds, or what is wrong with it. */
export const duration = (field: string, value: Duration.Input): number | InvalidInput => {
  const millis = toMillis(value)
  return Input.millis(field, millis) === undefined
    ? millis
    : (Input.millis(field, Number.isNaN(millis) ? value : millis) as InvalidInput)
}
