/** `Tracker.once`: claim, run under the lease, complete. */
import { Clock, Effect, Exit, Metric, type Schema } from "effect"
import { InFlightElsewhere, InvalidInput, type LeaseLost, type StoreError } from "../Errors.ts"
import { format, type Key } from "../Key.ts"
import * as Metrics from "../Metrics.ts"
import { untilWorthAsking } from "../Patience.ts"
import type { Handler, OnceOptions, Outcome, Terms, TrackerError } from "../Tracker.ts"
import {
  type Claim,
  complete,
  completeUnheard,
  groupOf,
  isGroup,
  Question,
  type Restore,
  release,
  type Stores
} from "./claiming.ts"
import { DoneByHandlers, GrantedKey } from "./handlerClaim.ts"
import { type Decision, type KeyGroup, leaseLost } from "./keyGroup.ts"
import { onOwnFiberNow } from "./ownFiber.ts"
import { decode, encode } from "./results.ts"
import { Course, type Lease } from "./underLease.ts"

export const runOnce = <A, E, R>(
  stores: Stores,
  key: Key,
  handler: Handler<A, E, R>,
  terms: Terms,
  options: OnceOptions<A> | undefined
): Effect.Effect<Outcome<A>, E | TrackerError, R> => {
  const group = groupOf(stores, key, options?.fingerprint)
  if (!isGroup(group)) return Effect.fail(group)
  const result = options?.result
  if (result !== undefined && key._tag === "Offset") {
    return Effect.fail(
      new InvalidInput({
        field: "result",
        value: "a schema",
        allowed: "none for a position: use Key.id to keep results"
      })
    )
  }
  return attempt({ stores, key, keys: [key], group, handler, terms, result }, 0, undefined)
}

interface Call<A, E, R> {
  readonly stores: Stores
  readonly key: Key
  readonly keys: readonly [Key]
  readonly group: KeyGroup
  readonly handler: Handler<A, E, R>
  readonly terms: Terms
  readonly result: Schema.Codec<A, unknown> | undefined
}

/** One question and what follows from its answer. `patientUntil`: when waiting ends, once it has begun. */
const attempt = <A, E, R>(
  call: Call<A, E, R>,
  count: number,
  patientUntil: number | undefined
): Effect.Effect<Outcome<A>, E | TrackerError, R> =>
  Effect.uninterruptibleMask((restore) => new Attempt(call, count, patientUntil, restore).ask())

class Attempt<A, E, R> extends Question<Outcome<A>, E | TrackerError, R> {
  private readonly call: Call<A, E, R>
  private readonly count: number
  private readonly patientUntil: number | undefined

  constructor(call: Call<A, E, R>, count: number, patientUntil: number | undefined, restore: Restore) {
    super(call.group, call.keys, call.terms, call.stores, restore)
    this.call = call
    this.count = count
    this.patientUntil = patientUntil
  }

  decided(decisions: ReadonlyArray<Decision>): Effect.Effect<Outcome<A>, E | TrackerError, R> {
    const decision = decisions[0]
    switch (decision._tag) {
      case "Claimed":
        return this.isLate ? this.tooLate() : granted(this.call, this, decision.token)
      case "Completed":
        return duplicate(this.call, decision.result)
      case "InFlight":
        return this.restore(inFlight(this.call, this.count, decision.until, this.patientUntil))
      case "Refused":
        return Effect.fail(decision.error)
    }
  }

  unprotected(cause: StoreError): Effect.Effect<Outcome<A>, E, R> {
    return unprotected(this.call, cause)
  }

  askAnew(): Effect.Effect<Outcome<A>, E | TrackerError, R> {
    return attempt(this.call, this.count, this.patientUntil)
  }
}

const granted = <A, E, R>(
  call: Call<A, E, R>,
  claim: Attempt<A, E, R>,
  token: number
): Effect.Effect<Outcome<A>, E | TrackerError, R> => {
  const { group, key } = call
  const { claimId, deadline, leaseMillis } = claim
  const done = new DoneByHandlers()
  const course = new Course<A, E, unknown>(() => ({
    ...(group.lease(claimId, leaseMillis, deadline, () => leaseLost(key, claimId, token)) as Lease<unknown>),
    isSettled: () => done.size > 0
  }))
  return onOwnFiberNow(run(call, claimId, token, done), course, claim.restore, {
    failed: (cause): Effect.Effect<Outcome<A>, E | TrackerError> => {
      const { exit } = course
      // interrupted, and come to its end all the same: it has taken effect
      const left =
        exit !== undefined && Exit.isSuccess(exit)
          ? completeUnheard(claim, settle(call, claim, token, done, exit.value))
          : done.size > 0
            ? Effect.void
            : release(claim)
      return Effect.andThen(left, Effect.failCause(cause))
    },
    succeeded: (value): Effect.Effect<Outcome<A>, E | TrackerError> => settle(call, claim, token, done, value)
  })
}

const run = <A, E, R>(
  { group, handler, key }: Call<A, E, R>,
  claimId: string,
  token: number | undefined,
  done: DoneByHandlers
): Effect.Effect<A, E, R> =>
  Effect.isEffect(handler)
    ? handler
    : Effect.suspend(() => handler(new GrantedKey(key, claimId, token, group, done, 0)))

/** Marks the key, with the result where one is kept; unless that was done in the handler. */
const settle = <A, E, R>(
  { key, keys, result }: Call<A, E, R>,
  claim: Claim,
  token: number,
  done: DoneByHandlers,
  value: A
): Effect.Effect<Outcome<A>, StoreError | InvalidInput | LeaseLost> => {
  if (done.size > 0) return Effect.succeed({ _tag: "Processed", value })
  const encoded = result === undefined ? undefined : encode(result, value)
  const results = encoded === undefined ? undefined : [encoded.text]
  return complete<Outcome<A>, StoreError | InvalidInput | LeaseLost, never>(claim, keys, results, (lost) => {
    if (lost.length > 0) return Effect.fail(leaseLost(key, claim.claimId, token))
    return encoded?.error === undefined
      ? Effect.succeed({ _tag: "Processed", value })
      : Effect.fail(encoded.error)
  })
}

const duplicate = <A, E, R>(
  { key, result }: Call<A, E, R>,
  text: string | undefined
): Effect.Effect<Outcome<A>, InvalidInput> =>
  result === undefined || text === undefined
    ? Effect.succeed({ _tag: "Duplicate", value: undefined })
    : Effect.map(decode(result, key, text), (value) => ({ _tag: "Duplicate", value }))

const unprotected = <A, E, R>(call: Call<A, E, R>, cause: StoreError): Effect.Effect<Outcome<A>, E, R> =>
  Effect.logWarning(
    `tidemark: ${format(call.key)} runs unprotected, the store failed: ${cause.message}`
  ).pipe(
    Effect.andThen(Metric.update(Metrics.unprotectedRuns, 1)),
    Effect.andThen(run(call, "unprotected", undefined, new DoneByHandlers())),
    Effect.map((value) => ({ _tag: "Processed", value }))
  )

const inFlight = <A, E, R>(
  call: Call<A, E, R>,
  count: number,
  until: number,
  patientUntil: number | undefined
): Effect.Effect<Outcome<A>, E | TrackerError, R> => {
  const { group, key, terms } = call
  const elsewhere = () => Effect.fail(new InFlightElsewhere({ what: format(key), until }))
  if (terms.whenInFlight === "skip") return Effect.succeed({ _tag: "InFlight", until })
  if (terms.whenInFlight === "fail") return elsewhere()
  return Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const patient = patientUntil ?? now + terms.waitAtMostMillis
    if (now >= patient) return elsewhere()
    return Effect.andThen(
      untilWorthAsking(group.hint(key), count, until, patient - now),
      attempt(call, count + 1, patient)
    )
  })
}
