/**
 * What can go wrong, as values. Each error has a stable tag, a message that says what happened, with which value
 * and what to do, and `retriable`: whether the same call may succeed later without a change.
 */
import { Schema } from "effect"

const instant = (millis: number): string => {
  const date = new Date(millis)
  return Number.isNaN(date.getTime()) ? "an unknown time" : date.toISOString()
}

/**
 * A value that is outside what is allowed (invariant 9). Nothing was sent or written.
 *
 * @example
 * new InvalidInput({ field: "offset", value: "-1", allowed: "a safe integer from 0 to 9007199254740991" }).message
 * // offset is -1; allowed: a safe integer from 0 to 9007199254740991
 */
export class InvalidInput extends Schema.TaggedError<InvalidInput>()("InvalidInput", {
  /** The name of the argument or option. */
  field: Schema.String,
  /** The value as it was given, as text. */
  value: Schema.String,
  /** What is allowed, in words. */
  allowed: Schema.String
}) {
  get retriable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.field} is ${this.value}; allowed: ${this.allowed}`
  }
}

/** Why a store could not do what it was asked. */
export const StoreErrorReason = Schema.Literals([
  /** It could not be reached, or the connection broke: the call may or may not have taken effect. */
  "Unavailable",
  /** No answer in time: the call may or may not have taken effect. */
  "Timeout",
  /** It is there, and has no time for us: another's lock or script has not ended. Nothing was written. */
  "Busy",
  /** It is there, and still reads its data. Nothing was written. */
  "Loading",
  /** What was asked for lives on another node now, or on none at the moment. Nothing was written. */
  "Moved",
  /** Written, but not acknowledged by as many replicas as asked for: a failover may still lose it. */
  "NotReplicated",
  /** It has no room, and its policy forbids to forget: nothing was written. */
  "Full",
  /** It takes no writes: a replica, a read-only file or folder. Nothing was written. */
  "ReadOnly",
  /** Its data can't be read: damaged, or not ours. Nothing was written. */
  "Corrupt",
  /** Its data has the format of another version of tidemark. Nothing was written. */
  "WrongVersion",
  /** What it was opened as is not there any more: its file was moved, removed or replaced. Nothing was written. */
  "Replaced",
  /** Its settings or its own version forbid to trust it: what to change is told. Nothing was written. */
  "Misconfigured",
  /** It refuses us: password, rights. Nothing was written. */
  "Refused",
  /** It was closed. */
  "Closed",
  /** The target of a `copy` holds progress already, or the place of a record to be parked another one: it was kept. */
  "NotEmpty"
])
export type StoreErrorReason = typeof StoreErrorReason.Type

/** A store failed. `retriable` says whether the same call, with the same claim id, may succeed later. */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  /** Which store, as its layer names itself: "memory", "redis", ... */
  store: Schema.String,
  /** The verb that failed: "claim", "complete", ... */
  verb: Schema.String,
  reason: StoreErrorReason,
  /** What happened and what to do, in words. */
  detail: Schema.String,
  retriable: Schema.Boolean,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    return `${this.store} store, ${this.verb}: ${this.reason}: ${this.detail}`
  }
}

/**
 * The claim is no longer ours: its lease ended and another took the work over, or an operator superseded it.
 * Whatever was done under it may be done again by the new owner: a database that checks the fencing token turns
 * the late writer away.
 */
export class LeaseLost extends Schema.TaggedError<LeaseLost>()("LeaseLost", {
  /** What was claimed: a stream, a key or a lock, for people. */
  what: Schema.String,
  claimId: Schema.String,
  token: Schema.Number
}) {
  get retriable(): boolean {
    return true
  }
  override get message(): string {
    return (
      `the lease on ${this.what} was lost (claim ${this.claimId}, token ${this.token}): ` +
      "another owner may hold it now; ask again. Longer leases, or handlers that don't block, make this rarer"
    )
  }
}

/** A claim id was used again for other items (invariant 7). Nothing was changed. */
export class ClaimIdReused extends Schema.TaggedError<ClaimIdReused>()("ClaimIdReused", {
  claimId: Schema.String,
  what: Schema.String
}) {
  get retriable(): boolean {
    return false
  }
  override get message(): string {
    return `claim id ${this.claimId} is in use for other items than these of ${this.what}; make a new id for each claim`
  }
}

/** Another owner holds what was asked for, and the policy (`fail`) or the patience (`wait`) said not to wait on. */
export class InFlightElsewhere extends Schema.TaggedError<InFlightElsewhere>()("InFlightElsewhere", {
  what: Schema.String,
  /** When its lease ends unless it is renewed, in milliseconds since the epoch, by the store's clock. */
  until: Schema.Number
}) {
  get retriable(): boolean {
    return true
  }
  override get message(): string {
    return `${this.what} is being processed by another owner, whose lease ends at ${instant(this.until)} unless renewed; ask again later`
  }
}

/** The same idempotency key came with another payload: its fingerprint differs from the one that was stored. */
export class PayloadMismatch extends Schema.TaggedError<PayloadMismatch>()("PayloadMismatch", {
  key: Schema.String,
  fingerprint: Schema.String
}) {
  get retriable(): boolean {
    return false
  }
  override get message(): string {
    return `key ${this.key} was used before with another payload (now: fingerprint ${this.fingerprint}); give each payload a key of its own`
  }
}
