/**
 * `Tracker.onceAll`: one claim and one completion per stream and namespace, in rounds.
 *
 * A round claims what is still open of each group, runs what was granted, settles it, and only then asks again for
 * what others hold: nobody waits while holding a key it has not started, so that two batches that hold each
 * other's keys don't wait for ever.
 */
import { Cause, Clock, Effect, Exit, Metric, type Schema } from "effect"
import * as ClaimId from "../ClaimId.ts"
import {
  type ClaimIdReused,
  InFlightElsewhere,
  type InvalidInput,
  PayloadMismatch,
  type StoreError
} from "../Errors.ts"
import { format, type IdKey, type Key, type OffsetKey } from "../Key.ts"
import * as Metrics from "../Metrics.ts"
import * as OffsetRanges from "../OffsetRanges.ts"
import type { KeyCompleteAnswer } from "../protocol/KeyState.ts"
import type { Failed, HandlerClaim, Outcome, Terms, TrackerError } from "../Tracker.ts"
import { checkIdKey, checkOffsetKey, type Decision, leaseLost, type Stores } from "./keyVerbs.ts"
import { monotonicMillis } from "./LeaseKeeper.ts"
import { decodeResult, encode } from "./once.ts"
import { retryStore, untilWorthAsking } from "./patience.ts"
import { type Lease, underLease } from "./underLease.ts"

type StoreFailure = StoreError | InvalidInput | ClaimIdReused
type ItemOutcome<A, E> = Outcome<A> | Failed<E | TrackerError>

interface Batch<T, A, E, R> {
  readonly stores: Stores
  readonly items: ReadonlyArray<T>
  readonly keys: ReadonlyArray<Key>
  readonly handler: (item: T, claim: HandlerClaim) => Effect.Effect<A, E, R>
  readonly terms: Terms
  readonly concurrency: number
  readonly result: Schema.Codec<A, unknown> | undefined
  readonly outcomes: Array<ItemOutcome<A, E> | undefined>
}

/** Items of one stream or one namespace, by their index in the batch. */
interface Group {
  readonly verbs: GroupVerbs
  readonly indexes: ReadonlyArray<number>
}

/** A group's verbs on its store: items and answers in the same order. */
interface GroupVerbs {
  readonly claim: (
    claimId: string,
    keys: ReadonlyArray<Key>,
    owner: string,
    leaseMillis: number
  ) => Effect.Effect<ReadonlyArray<Decision | InvalidInput>, StoreFailure>
  readonly complete: (
    claimId: string,
    keys: ReadonlyArray<Key>,
    results: ReadonlyArray<string | undefined> | undefined,
    retentionMillis: number | undefined
  ) => Effect.Effect<ReadonlyArray<KeyCompleteAnswer>, StoreError | InvalidInput>
  readonly release: (claimId: string) => Effect.Effect<void, StoreError | InvalidInput>
  readonly hint: (key: Key) => Effect.Effect<void>
  readonly lease: (
    claimId: string,
    leaseMillis: number,
    deadline: number,
    key: Key,
    token: number
  ) => Lease<unknown>
}

export const runOnceAll = <T, A, E, R>(
  stores: Stores,
  items: ReadonlyArray<T>,
  keyOf: (item: T) => Key,
  handler: (item: T, claim: HandlerClaim) => Effect.Effect<A, E, R>,
  terms: Terms,
  concurrency: number,
  result: Schema.Codec<A, unknown> | undefined
): Effect.Effect<ReadonlyArray<ItemOutcome<A, E>>, StoreFailure, R> =>
  Effect.suspend(() => {
    const batch: Batch<T, A, E, R> = {
      stores,
      items,
      keys: items.map(keyOf),
      handler,
      terms,
      concurrency,
      result,
      outcomes: new Array<ItemOutcome<A, E> | undefined>(items.length).fill(undefined)
    }
    return Effect.as(
      rounds(batch, groupsOf(batch), 0, undefined),
      batch.outcomes as ReadonlyArray<ItemOutcome<A, E>>
    )
  })

const groupsOf = <T, A, E, R>(batch: Batch<T, A, E, R>): ReadonlyArray<Group> => {
  const groups = new Map<string, { verbs: GroupVerbs; indexes: Array<number> }>()
  let lastName = ""
  let last: { verbs: GroupVerbs; indexes: Array<number> } | undefined
  for (let index = 0; index < batch.keys.length; index++) {
    const key = batch.keys[index]
    const namespace = key._tag === "Id" ? (key.namespace ?? batch.stores.namespace) : undefined
    const bad = key._tag === "Offset" ? checkOffsetKey(key) : checkIdKey(key, namespace)
    if (bad !== undefined) {
      batch.outcomes[index] = { _tag: "Failed", error: bad }
      continue
    }
    const name = key._tag === "Offset" ? `o${key.stream}` : `i${namespace}`
    if (last === undefined || name !== lastName) {
      lastName = name
      last = groups.get(name)
      if (last === undefined) {
        last = {
          verbs:
            key._tag === "Offset"
              ? offsetGroup(batch.stores, key.stream)
              : idGroup(batch.stores, namespace as string),
          indexes: []
        }
        groups.set(name, last)
      }
    }
    last.indexes.push(index)
  }
  return [...groups.values()]
}

const rounds = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  groups: ReadonlyArray<Group>,
  count: number,
  patientUntil: number | undefined
): Effect.Effect<void, StoreFailure, R> =>
  Effect.gen(function* () {
    const open: Array<Group> = []
    let until = Number.POSITIVE_INFINITY
    for (const group of groups) {
      const held = yield* round(batch, group)
      if (held.length === 0) continue
      open.push({ verbs: group.verbs, indexes: held.map((item) => item.index) })
      for (const item of held) until = Math.min(until, item.until)
    }
    if (open.length === 0) return
    const now = yield* Clock.currentTimeMillis
    const patient = patientUntil ?? now + batch.terms.waitAtMostMillis
    if (batch.terms.whenInFlight !== "wait" || now >= patient) {
      for (const group of open) for (const index of group.indexes) leaveInFlight(batch, index, until)
      return
    }
    const first = open[0]
    yield* untilWorthAsking(first.verbs.hint(batch.keys[first.indexes[0]]), count, until, patient - now)
    yield* rounds(batch, open, count + 1, patient)
  })

const leaveInFlight = <T, A, E, R>(batch: Batch<T, A, E, R>, index: number, until: number): void => {
  batch.outcomes[index] =
    batch.terms.whenInFlight === "skip"
      ? { _tag: "InFlight", until }
      : { _tag: "Failed", error: new InFlightElsewhere({ what: format(batch.keys[index]), until }) }
}

interface HeldItem {
  readonly index: number
  readonly until: number
}

interface GrantedItem {
  readonly index: number
  readonly token: number | undefined
  /** The value as text for the store, once the handler has run. */
  text: string | undefined
  ran: boolean
}

/** Claims, runs and settles one group; answers what others hold. */
const round = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  group: Group
): Effect.Effect<ReadonlyArray<HeldItem>, StoreFailure, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber<ReadonlyArray<HeldItem>, StoreFailure, R>((fiber) => {
      const { terms, stores, keys } = batch
      const claimId = ClaimId.make()
      const deadline = monotonicMillis(fiber.getRef(Clock.Clock)) + terms.leaseMillis
      const claim = group.verbs.claim(
        claimId,
        group.indexes.map((index) => keys[index]),
        stores.owner,
        terms.leaseMillis
      )
      const patient = terms.whenStoreFails === "wait"
      const asked = patient
        ? restore(
            Effect.flatMap(Clock.currentTimeMillis, (now) =>
              retryStore(
                () => claim,
                (error): error is StoreError => error._tag === "StoreError",
                now + terms.leaseMillis
              )
            )
          ).pipe(Effect.onError(() => Effect.ignore(group.verbs.release(claimId))))
        : claim
      return Effect.matchEffect(asked, {
        onFailure: (error): Effect.Effect<ReadonlyArray<HeldItem>, StoreFailure, R> => {
          if (error._tag !== "StoreError") return Effect.fail(error)
          if (terms.whenStoreFails === "run")
            return Effect.as(restore(runUnprotected(batch, group, error)), [])
          // after a lease, what was asked for would be over: ask anew
          if (patient && error.retriable) return restore(round(batch, group))
          // it may have taken effect though its answer was lost
          return Effect.andThen(Effect.ignore(group.verbs.release(claimId)), Effect.fail(error))
        },
        onSuccess: (decisions) => {
          const { granted, held, duplicates } = sort(batch, group, decisions)
          const work =
            granted.length === 0 ? Effect.void : runGranted(batch, group, claimId, granted, deadline, restore)
          const decoded = duplicates.length === 0 ? Effect.void : decodeAll(batch, duplicates)
          return Effect.as(Effect.andThen(work, decoded), held)
        }
      })
    })
  )

interface DuplicateItem {
  readonly index: number
  readonly text: string
}

const sort = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  group: Group,
  decisions: ReadonlyArray<Decision | InvalidInput>
) => {
  const granted: Array<GrantedItem> = []
  const held: Array<HeldItem> = []
  const duplicates: Array<DuplicateItem> = []
  for (let position = 0; position < decisions.length; position++) {
    const index = group.indexes[position]
    const decision = decisions[position]
    switch (decision._tag) {
      case "Granted":
        granted.push({ index, token: decision.token, text: undefined, ran: false })
        break
      case "InFlight":
        held.push({ index, until: decision.until })
        break
      case "Completed":
        batch.outcomes[index] = { _tag: "Duplicate", value: undefined }
        if (batch.result !== undefined && decision.result !== undefined)
          duplicates.push({ index, text: decision.result })
        break
      case "Mismatch":
        batch.outcomes[index] = {
          _tag: "Failed",
          error: new PayloadMismatch({ key: format(batch.keys[index]), fingerprint: "" })
        }
        break
      default:
        batch.outcomes[index] = { _tag: "Failed", error: decision }
    }
  }
  return { granted, held, duplicates }
}

const decodeAll = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  duplicates: ReadonlyArray<DuplicateItem>
): Effect.Effect<void> =>
  Effect.forEach(
    duplicates,
    ({ index, text }) =>
      Effect.map(
        Effect.result(decodeResult(batch.result as Schema.Codec<A, unknown>, batch.keys[index], text)),
        (result) => {
          batch.outcomes[index] =
            result._tag === "Success"
              ? { _tag: "Duplicate", value: result.success }
              : { _tag: "Failed", error: result.failure }
        }
      ),
    { discard: true }
  )

/** Runs the handlers of what was granted, then settles all that ran, also where the run was cut short. */
const runGranted = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  group: Group,
  claimId: string,
  granted: ReadonlyArray<GrantedItem>,
  deadline: number,
  restore: <B, F, S>(effect: Effect.Effect<B, F, S>) => Effect.Effect<B, F, S>
): Effect.Effect<void, StoreFailure, R> => {
  const first = granted[0]
  const lease = group.verbs.lease(
    claimId,
    batch.terms.leaseMillis,
    deadline,
    batch.keys[first.index],
    first.token as number
  )
  return Effect.matchCauseEffect(restore(underLease(lease, runHandlers(batch, claimId, granted))), {
    onSuccess: () => settle(batch, group, claimId, granted),
    onFailure: (cause) => {
      const lost = Cause.hasFails(cause)
      if (lost) {
        for (const item of granted) {
          if (batch.outcomes[item.index] === undefined) {
            const error = leaseLost(batch.keys[item.index], claimId, item.token as number)
            batch.outcomes[item.index] = { _tag: "Failed", error }
          }
        }
      }
      const settled = settle(batch, group, claimId, granted)
      return lost
        ? settled
        : Effect.andThen(Effect.exit(settled), Effect.failCause(cause as Cause.Cause<never>))
    }
  })
}

const runHandlers = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  claimId: string,
  granted: ReadonlyArray<GrantedItem>
): Effect.Effect<void, never, R> => {
  const { items, keys, handler } = batch
  const runOne = (item: GrantedItem): Effect.Effect<Exit.Exit<A, E>, never, R> =>
    Effect.exit(
      Effect.suspend(() => handler(items[item.index], { key: keys[item.index], claimId, token: item.token }))
    )
  if (batch.concurrency === 1) {
    let next = 0
    let abort: Effect.Effect<never> | undefined
    return Effect.andThen(
      Effect.whileLoop({
        while: () => next < granted.length && abort === undefined,
        body: () => runOne(granted[next]),
        step: (exit: Exit.Exit<A, E>) => {
          abort = note(batch, granted[next++], exit)
        }
      }),
      Effect.suspend(() => abort ?? Effect.void)
    )
  }
  return Effect.forEach(
    granted,
    (item) => Effect.flatMap(runOne(item), (exit) => note(batch, item, exit) ?? Effect.void),
    { concurrency: batch.concurrency, discard: true }
  )
}

/** Notes how one handler ended; a defect or an interruption ends the batch. */
const note = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  item: GrantedItem,
  exit: Exit.Exit<A, E>
): Effect.Effect<never> | undefined => {
  if (Exit.isSuccess(exit)) {
    item.ran = true
    const encoded = batch.result === undefined ? undefined : encode(batch.result, exit.value)
    item.text = encoded?.text
    batch.outcomes[item.index] =
      encoded?.error === undefined
        ? { _tag: "Processed", value: exit.value }
        : { _tag: "Failed", error: encoded.error }
    return undefined
  }
  const failure = exit.cause.reasons.find((reason) => reason._tag === "Fail")
  if (failure === undefined) return Effect.failCause(exit.cause as Cause.Cause<never>)
  batch.outcomes[item.index] = { _tag: "Failed", error: failure.error }
  return undefined
}

/** Marks what ran, and gives back the rest. */
const settle = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  group: Group,
  claimId: string,
  granted: ReadonlyArray<GrantedItem>
): Effect.Effect<void, StoreError | InvalidInput> => {
  const ran = granted.filter((item) => item.ran)
  const release =
    ran.length === granted.length
      ? Effect.void
      : Effect.catch(group.verbs.release(claimId), (error) =>
          Effect.logWarning(
            `tidemark: a claim could not be given back; it ends with its lease: ${error.message}`
          )
        )
  if (ran.length === 0) return release
  const complete = (count: number) =>
    Effect.map(
      group.verbs.complete(
        claimId,
        ran.map((item) => batch.keys[item.index]),
        batch.result === undefined ? undefined : ran.map((item) => item.text),
        batch.terms.retentionMillis
      ),
      (answers) => {
        for (let position = 0; position < answers.length; position++) {
          const answer = answers[position]
          // after a lost answer, "already" is our own mark; else somebody else has done the work too
          if (answer === "Completed" || (answer === "AlreadyCompleted" && count > 0)) continue
          const item = ran[position]
          const error = leaseLost(batch.keys[item.index], claimId, item.token as number)
          batch.outcomes[item.index] = { _tag: "Failed", error }
        }
      }
    )
  const completed = Effect.flatMap(Clock.currentTimeMillis, (now) =>
    retryStore(
      complete,
      (error): error is StoreError => error._tag === "StoreError",
      now + batch.terms.leaseMillis
    )
  )
  return Effect.andThen(completed, release)
}

const runUnprotected = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  group: Group,
  error: StoreError
): Effect.Effect<void, never, R> => {
  const open = group.indexes.map(
    (index): GrantedItem => ({ index, token: undefined, text: undefined, ran: false })
  )
  return Effect.logWarning(
    `tidemark: ${open.length} messages run unprotected, the store failed: ${error.message}`
  ).pipe(
    Effect.andThen(Metric.update(Metrics.unprotectedRuns, open.length)),
    Effect.andThen(runHandlers(batch, "unprotected", open))
  )
}

const offsetGroup = ({ offsets }: Stores, stream: string): GroupVerbs => ({
  claim: (claimId, keys, owner, leaseMillis) => {
    const asked = OffsetRanges.fromOffsets(keys.map((key) => (key as OffsetKey).offset))
    return Effect.map(offsets.claim(stream, asked, { claimId, owner, leaseMillis }), (answer) => {
      const { granted, token, held } = answer
      // the same offset twice: the first gets the claim
      const repeats = OffsetRanges.size(asked) < keys.length ? new Set<number>() : undefined
      const grant: Decision = { _tag: "Granted", token: token ?? 0 }
      const own: Decision = { _tag: "InFlight", until: answer.until ?? 0 }
      const all = granted === asked || OffsetRanges.equals(granted, asked)
      return keys.map((key): Decision => {
        const { offset } = key as OffsetKey
        if (all || OffsetRanges.contains(granted, offset)) {
          if (repeats === undefined) return grant
          if (repeats.has(offset)) return own
          repeats.add(offset)
          return grant
        }
        const holder = held.find((part) => OffsetRanges.contains(part.ranges, offset))
        return holder === undefined
          ? { _tag: "Completed", result: undefined }
          : { _tag: "InFlight", until: holder.until }
      })
    })
  },
  complete: (claimId, keys) =>
    Effect.map(
      offsets.complete(
        { stream, claimId },
        OffsetRanges.fromOffsets(keys.map((key) => (key as OffsetKey).offset))
      ),
      ({ alreadyCompleted, leaseLost }) => {
        if (OffsetRanges.isEmpty(alreadyCompleted) && OffsetRanges.isEmpty(leaseLost)) {
          return keys.map(() => "Completed")
        }
        return keys.map((key) => {
          const { offset } = key as OffsetKey
          if (OffsetRanges.contains(leaseLost, offset)) return "LeaseLost"
          return OffsetRanges.contains(alreadyCompleted, offset) ? "AlreadyCompleted" : "Completed"
        })
      }
    ),
  release: (claimId) => offsets.release({ stream, claimId }),
  hint: () => offsets.awaitRelease(stream),
  lease: (claimId, leaseMillis, deadline, key, token) =>
    ({
      keeper: offsets.leases,
      ref: { stream, claimId },
      leaseMillis,
      deadline,
      lost: () => leaseLost(key, claimId, token)
    }) as Lease<unknown>
})

const idGroup = ({ keys: store }: Stores, namespace: string): GroupVerbs => ({
  claim: (claimId, keys, owner, leaseMillis) =>
    Effect.map(
      store.claim(
        namespace,
        keys.map((key) => ({ key: (key as IdKey).id })),
        { claimId, owner, leaseMillis }
      ),
      (answers) =>
        answers.map((answer): Decision | InvalidInput => {
          switch (answer._tag) {
            case "Claimed":
              return { _tag: "Granted", token: answer.token }
            case "Invalid":
              return answer.error
            default:
              return answer
          }
        })
    ),
  complete: (claimId, keys, results, retentionMillis) =>
    store.complete(
      { namespace, claimId },
      keys.map((key, index) => ({ key: (key as IdKey).id, result: results?.[index] })),
      { retentionMillis }
    ),
  release: (claimId) => store.release({ namespace, claimId }),
  hint: (key) => store.awaitSettled(namespace, (key as IdKey).id),
  lease: (claimId, leaseMillis, deadline, key, token) =>
    ({
      keeper: store.leases,
      ref: { namespace, claimId },
      leaseMillis,
      deadline,
      lost: () => leaseLost(key, claimId, token)
    }) as Lease<unknown>
})
