/** `Tracker.once`: claim, run under the lease, complete. */
import { Cause, Clock, Effect, Exit, Metric, Schema } from "effect"
import * as ClaimId from "../ClaimId.ts"
import {
  type ClaimIdReused,
  InFlightElsewhere,
  InvalidInput,
  PayloadMismatch,
  type StoreError
} from "../Errors.ts"
import { format, type Key } from "../Key.ts"
import * as Metrics from "../Metrics.ts"
import type { Handler, OnceOptions, Outcome, Terms, TrackerError } from "../Tracker.ts"
import { type Decision, isVerbs, type KeyVerbs, leaseLost, type Stores, verbsOf } from "./keyVerbs.ts"
import { monotonicMillis } from "./LeaseKeeper.ts"
import { retryStore, untilWorthAsking } from "./patience.ts"
import { type Lease, underLease } from "./underLease.ts"

export const runOnce = <A, E, R>(
  stores: Stores,
  key: Key,
  handler: Handler<A, E, R>,
  terms: Terms,
  options: OnceOptions<A> | undefined
): Effect.Effect<Outcome<A>, E | TrackerError, R> => {
  const verbs = verbsOf(stores, key, options?.fingerprint)
  if (!isVerbs(verbs)) return Effect.fail(verbs)
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
  const call: Call<A, E, R> = {
    stores,
    key,
    verbs,
    handler,
    terms,
    result,
    fingerprint: options?.fingerprint
  }
  return attempt(call, 0, undefined)
}

interface Call<A, E, R> {
  readonly stores: Stores
  readonly key: Key
  readonly verbs: KeyVerbs
  readonly handler: Handler<A, E, R>
  readonly terms: Terms
  readonly result: Schema.Codec<A, unknown> | undefined
  readonly fingerprint: string | undefined
}

/** One question and what follows from its answer. `patientUntil`: when waiting ends, once it has begun. */
const attempt = <A, E, R>(
  call: Call<A, E, R>,
  count: number,
  patientUntil: number | undefined
): Effect.Effect<Outcome<A>, E | TrackerError, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber<Outcome<A>, E | TrackerError, R>((fiber) => {
      const claimId = ClaimId.make()
      const before = monotonicMillis(fiber.getRef(Clock.Clock))
      const { verbs, terms } = call
      return Effect.flatMap(
        Effect.catch(
          verbs.claim({ claimId, owner: call.stores.owner, leaseMillis: terms.leaseMillis }),
          (error) => claimFailed(call, claimId, error, restore)
        ),
        (decision): Effect.Effect<Outcome<A>, E | TrackerError, R> => {
          switch (decision._tag) {
            case "Granted":
              return granted(call, claimId, decision.token, before + terms.leaseMillis, restore)
            case "Completed":
              return Effect.map(decode(call, decision.result), (value) => ({ _tag: "Duplicate", value }))
            case "Mismatch":
              return Effect.fail(
                new PayloadMismatch({ key: format(call.key), fingerprint: call.fingerprint ?? "" })
              )
            case "InFlight":
              return restore(inFlight(call, count, decision.until, patientUntil))
            case "Unprotected":
              return restore(unprotected(call, decision.cause))
            case "AskAnew":
              return restore(attempt(call, count, patientUntil))
          }
        }
      )
    })
  )

interface Unprotected {
  readonly _tag: "Unprotected"
  readonly cause: StoreError
}

/** The store failed for as long as a lease lasts: what was asked for then would be over by now. */
interface AskAnew {
  readonly _tag: "AskAnew"
}

/** The claim could not be asked for: nothing has run yet, so what now is a matter of policy. */
const claimFailed = <A, E, R>(
  { verbs, terms, stores }: Call<A, E, R>,
  claimId: string,
  error: StoreError | InvalidInput | ClaimIdReused,
  restore: <B, F, S>(effect: Effect.Effect<B, F, S>) => Effect.Effect<B, F, S>
): Effect.Effect<Decision | Unprotected | AskAnew, StoreError | InvalidInput | ClaimIdReused> => {
  if (error._tag !== "StoreError") return Effect.fail(error)
  switch (terms.whenStoreFails) {
    case "fail":
      // it may have taken effect though its answer was lost
      return Effect.andThen(Effect.ignore(verbs.release(claimId)), Effect.fail(error))
    case "run":
      return Effect.succeed({ _tag: "Unprotected", cause: error })
    case "wait":
      return restore(
        Effect.flatMap(Clock.currentTimeMillis, (now) =>
          retryStore(
            (count) =>
              count === 0
                ? Effect.fail(error)
                : verbs.claim({ claimId, owner: stores.owner, leaseMillis: terms.leaseMillis }),
            (failure) => failure._tag === "StoreError",
            now + terms.leaseMillis
          )
        )
      ).pipe(
        Effect.onError(() => Effect.ignore(verbs.release(claimId))),
        Effect.catch(
          (failure): Effect.Effect<AskAnew, StoreError | InvalidInput | ClaimIdReused> =>
            failure._tag === "StoreError" && failure.retriable
              ? Effect.succeed({ _tag: "AskAnew" })
              : Effect.fail(failure)
        )
      )
  }
}

const unprotected = <A, E, R>(call: Call<A, E, R>, cause: StoreError): Effect.Effect<Outcome<A>, E, R> =>
  Effect.logWarning(
    `tidemark: ${format(call.key)} runs unprotected, the store failed: ${cause.message}`
  ).pipe(
    Effect.andThen(Metric.update(Metrics.unprotectedRuns, 1)),
    Effect.andThen(run(call, "unprotected", undefined)),
    Effect.map((value) => ({ _tag: "Processed", value }))
  )

const run = <A, E, R>(
  call: Call<A, E, R>,
  claimId: string,
  token: number | undefined
): Effect.Effect<A, E, R> =>
  Effect.isEffect(call.handler) ? call.handler : call.handler({ key: call.key, claimId, token })

const granted = <A, E, R>(
  call: Call<A, E, R>,
  claimId: string,
  token: number,
  deadline: number,
  restore: <B, F, S>(effect: Effect.Effect<B, F, S>) => Effect.Effect<B, F, S>
): Effect.Effect<Outcome<A>, E | TrackerError, R> => {
  const { verbs, terms } = call
  const lease = verbs.lease(claimId, token, terms.leaseMillis, deadline) as Lease<unknown>
  return Effect.matchCauseEffect(
    restore(
      underLease(
        lease,
        Effect.suspend(() => run(call, claimId, token))
      )
    ),
    {
      onFailure: (cause) => {
        const { finished } = lease
        // interrupted between the end of the work and its answer: it has taken place all the same
        const left =
          finished !== undefined && Exit.isSuccess(finished)
            ? Effect.exit(settle(call, claimId, token, textOf(call, finished.value as A)?.text))
            : giveBack(call, claimId)
        return Effect.andThen(left, Effect.failCause(cause))
      },
      onSuccess: (value) => {
        const encoded = textOf(call, value)
        return Effect.flatMap(settle(call, claimId, token, encoded?.text), () =>
          encoded?.error === undefined
            ? Effect.succeed({ _tag: "Processed", value } as const)
            : Effect.fail(encoded.error)
        )
      }
    }
  )
}

const textOf = <A, E, R>({ result }: Call<A, E, R>, value: A) =>
  result === undefined ? undefined : encode(result, value)

/** The effect has taken place: the mark is tried until the lease must be over, and the claim is not given back. */
const settle = <A, E, R>(
  call: Call<A, E, R>,
  claimId: string,
  token: number,
  result: string | undefined
): Effect.Effect<void, TrackerError> => {
  const { verbs, terms, key } = call
  const mark = (count: number): Effect.Effect<void, TrackerError> =>
    Effect.flatMap(verbs.complete(claimId, result, terms.retentionMillis), (answer) =>
      // after a lost answer, "already" is our own mark; else somebody else has done the work too
      answer === "Completed" || (answer === "AlreadyCompleted" && count > 0)
        ? Effect.void
        : Effect.fail(leaseLost(key, claimId, token))
    )
  return Effect.catch(mark(0), (error) => {
    if (error._tag !== "StoreError" || !error.retriable) return Effect.fail(error)
    return Effect.flatMap(Clock.currentTimeMillis, (now) =>
      retryStore(
        (count) => (count === 0 ? Effect.fail<TrackerError>(error) : mark(count)),
        (failure): failure is StoreError => failure._tag === "StoreError",
        now + terms.leaseMillis
      )
    )
  })
}

const giveBack = <A, E, R>(call: Call<A, E, R>, claimId: string): Effect.Effect<void> =>
  Effect.catch(call.verbs.release(claimId), (error) =>
    Effect.logWarning(
      `tidemark: the claim on ${format(call.key)} could not be given back; it ends with its lease: ${error.message}`
    )
  )

const inFlight = <A, E, R>(
  call: Call<A, E, R>,
  count: number,
  until: number,
  patientUntil: number | undefined
): Effect.Effect<Outcome<A>, E | TrackerError, R> => {
  const { terms, key, verbs } = call
  const elsewhere = () => Effect.fail(new InFlightElsewhere({ what: format(key), until }))
  if (terms.whenInFlight === "skip") return Effect.succeed({ _tag: "InFlight", until })
  if (terms.whenInFlight === "fail") return elsewhere()
  return Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const patient = patientUntil ?? now + terms.waitAtMostMillis
    if (now >= patient) return elsewhere()
    return Effect.andThen(
      untilWorthAsking(verbs.hint, count, until, patient - now),
      attempt(call, count + 1, patient)
    )
  })
}

/** The value as text for the store, or why it can't be; the handler has run, so that the key is marked all the same. */
export const encode = <A>(
  schema: Schema.Codec<A, unknown>,
  value: A
): { readonly text?: string; readonly error?: InvalidInput } => {
  const exit = Effect.runSyncExit(Schema.encodeEffect(Schema.toCodecJson(schema))(value))
  if (Exit.isSuccess(exit)) return { text: JSON.stringify(exit.value ?? null) }
  return {
    error: new InvalidInput({
      field: "result",
      value: Cause.pretty(exit.cause).split("\n", 1)[0],
      allowed:
        "a value that the schema given as result can encode; the key is marked completed, without a result"
    })
  }
}

const decode = <A, E, R>(
  { result, key }: Call<A, E, R>,
  text: string | undefined
): Effect.Effect<A | undefined, InvalidInput> =>
  result === undefined || text === undefined ? Effect.succeed(undefined) : decodeResult(result, key, text)

export const decodeResult = <A>(
  schema: Schema.Codec<A, unknown>,
  key: Key,
  text: string
): Effect.Effect<A, InvalidInput> =>
  Effect.mapError(
    Effect.flatMap(
      Effect.try({ try: () => JSON.parse(text) as unknown, catch: (cause) => cause }),
      Schema.decodeUnknownEffect(Schema.toCodecJson(schema))
    ),
    (cause) =>
      new InvalidInput({
        field: `stored result of ${format(key)}`,
        value: String(cause).split("\n", 1)[0],
        allowed: "what the schema given as result can decode; was it stored by another version?"
      })
  )
