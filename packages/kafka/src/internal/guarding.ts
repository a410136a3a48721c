/**
 * One delivery under claims: what of it is new, the handler on that, and what is completed afterwards. The claims are
 * those of the tracker and of `KafkaConsumer`, so that one of them can take over from another.
 */
import {
  IdempotencyStore,
  InFlightElsewhere,
  type InvalidInput,
  type KeyClaim,
  LeaseLost,
  type OffsetClaim,
  OffsetRanges,
  OffsetStore,
  Patience,
  type StoreError,
  withClaim
} from "@tidemark/core"
import { Clock, Effect } from "effect"
import { othersCommit } from "../PositionRules.ts"

/** A message by its offset, and its id where it has one. */
export interface GuardedItem {
  readonly offset: number
  readonly id: string | undefined
}

/** Messages of one partition in ascending order, that were delivered together. */
export interface Delivery {
  readonly stream: string
  readonly items: ReadonlyArray<GuardedItem>
  readonly ranges: OffsetRanges.OffsetRanges
  /** What the delivery covers, `[from, to)`, as `ranges` too: its messages, and offsets in between at which there is none. */
  readonly from: number
  readonly to: number
}

export interface GuardTerms {
  readonly namespace: string
  readonly owner: string
  readonly leaseMillis: number
  readonly retentionMillis: number | undefined
  readonly whenInFlight: "wait" | "fail"
  readonly waitAtMostMillis: number
  /** When it was last noted of a stream that another client commits, in milliseconds of the monotonic clock. */
  readonly noted: Map<string, number>
}

/** How far a handler came: everything below `through` took effect. */
export interface Ran<E> {
  readonly through: number
  /** Why it came no further, where it failed. */
  readonly failure: { readonly error: E } | undefined
}

/** Runs the handler on the items at these places of the delivery. */
export type RunNew<E> = (
  places: ReadonlyArray<number>,
  token: number | undefined
) => Effect.Effect<Ran<E>, never>

/** What a delivery came to. */
export interface Settled<E> {
  readonly _tag: "Settled"
  readonly duplicatesByPosition: number
  readonly duplicatesById: number
  /** How many of the items took effect now. */
  readonly processed: number
  readonly ran: Ran<E>
}

interface Held {
  readonly _tag: "Held"
  readonly what: string
  readonly until: number
  readonly hint: Effect.Effect<void>
}

/** What the claims say of a delivery's items, each by its place in it. */
interface Verdict {
  readonly fresh: ReadonlyArray<number>
  /** Those that come again by their id; within the delivery, the first is none. */
  readonly repeated: ReadonlyArray<number>
}

export type GuardFailure = StoreError | InvalidInput | LeaseLost | InFlightElsewhere

const placesOf = ({ items }: Delivery, ranges: OffsetRanges.OffsetRanges, within: boolean): Array<number> =>
  items.flatMap(({ offset }, place) => (OffsetRanges.contains(ranges, offset) === within ? [place] : []))

/** The ids of these places, each once, with the first place of each. */
const idsOf = ({ items }: Delivery, places: ReadonlyArray<number>): Map<string, number> => {
  const ids = new Map<string, number>()
  for (const place of places) {
    const { id } = items[place]!
    if (id !== undefined && !ids.has(id)) ids.set(id, place)
  }
  return ids
}

/** Which of the open places are new, by the answers for their ids. */
const verdictOf = (
  { items }: Delivery,
  open: ReadonlyArray<number>,
  firsts: ReadonlyMap<string, number>,
  isNew: (id: string) => boolean
): Verdict => {
  const fresh: Array<number> = []
  const repeated: Array<number> = []
  for (const place of open) {
    const { id } = items[place]!
    const first = id === undefined || (firsts.get(id) === place && isNew(id))
    if (first) fresh.push(place)
    else repeated.push(place)
  }
  return { fresh, repeated }
}

const badKey = (answers: KeyClaim["answers"]): InvalidInput | undefined =>
  answers.find((answer) => answer._tag === "Invalid")?.error

/** Completes within the claim, for as long as its lease lasts: what took effect shall not take effect again. */
const persist = <A>(
  leaseMillis: number,
  complete: Effect.Effect<A, StoreError | InvalidInput>
): Effect.Effect<A, StoreError | InvalidInput> =>
  Effect.flatMap(Clock.Clock, (clock) => {
    const giveUpAt = Patience.monotonicMillis(clock) + leaseMillis
    return Patience.retryUntil(
      () => complete,
      () => giveUpAt
    )
  })

const completeIds = (
  keys: KeyClaim,
  ids: ReadonlyArray<string>,
  { leaseMillis, retentionMillis }: GuardTerms
): Effect.Effect<void, StoreError | InvalidInput | LeaseLost> => {
  if (ids.length === 0) return Effect.void
  const items = ids.map((key) => ({ key }))
  return Effect.flatMap(persist(leaseMillis, keys.complete(items, { retentionMillis })), (answers) => {
    const lost = answers.indexOf("LeaseLost")
    if (lost < 0) return Effect.void
    const token = keys.answers.find((answer) => answer._tag === "Claimed")?.token ?? 0
    return Effect.fail(
      new LeaseLost({ what: `key ${ids[lost]} of ${keys.namespace}`, claimId: keys.claimId, token })
    )
  })
}

/** Since `KafkaConsumer` may have been there meanwhile, and have noted that it commits. */
const noteAgainAfterMillis = 60_000

/**
 * Notes of a stream, now and then, that it is not `KafkaConsumer` that commits: else a commit of the client that is
 * guarded would be taken for an operator's reset where `KafkaConsumer` was there before, and comes again.
 */
const noteOthersCommits = (
  { claimId, stream }: OffsetClaim,
  { leaseMillis, noted }: GuardTerms
): Effect.Effect<void, StoreError | InvalidInput, OffsetStore> =>
  Effect.gen(function* () {
    const now = Patience.monotonicMillis(yield* Clock.Clock)
    const last = noted.get(stream)
    if (last !== undefined && now < last + noteAgainAfterMillis) return
    const store = yield* OffsetStore
    const [isNoted] = yield* persist(leaseMillis, store.annotate([{ stream, claimId, note: othersCommit }]))
    if (isNoted) noted.set(stream, now)
  })

const completeOffsets = (
  claim: OffsetClaim,
  delivery: Delivery,
  through: number,
  terms: GuardTerms
): Effect.Effect<void, StoreError | InvalidInput | LeaseLost, OffsetStore> => {
  if (through <= delivery.from) return Effect.void
  const done = OffsetRanges.intersect(
    claim.granted,
    OffsetRanges.make(delivery.from, Math.min(through, delivery.to))
  )
  if (OffsetRanges.isEmpty(done)) return Effect.void
  const complete = Effect.andThen(
    noteOthersCommits(claim, terms),
    persist(terms.leaseMillis, claim.complete(done))
  )
  return Effect.flatMap(complete, ({ leaseLost }) =>
    OffsetRanges.isEmpty(leaseLost)
      ? Effect.void
      : Effect.fail(
          new LeaseLost({
            what: `${String(leaseLost)} of stream ${claim.stream}`,
            claimId: claim.claimId,
            token: claim.token ?? 0
          })
        )
  )
}

/**
 * Runs the handler on what is new of a delivery, and completes what took effect. While another is at work on a part of
 * it, nothing of it is held, and nothing runs: order within the partition is kept.
 */
export const guarded = <E>(
  delivery: Delivery,
  terms: GuardTerms,
  run: RunNew<E>,
  onWait: () => void
): Effect.Effect<Settled<E>, GuardFailure, OffsetStore | IdempotencyStore> =>
  Effect.gen(function* () {
    let patientUntil: number | undefined
    for (let count = 0; ; count++) {
      const outcome = yield* attempt(delivery, terms, run)
      if (outcome._tag === "Settled") return outcome
      const now = yield* Clock.currentTimeMillis
      patientUntil ??= now + terms.waitAtMostMillis
      if (terms.whenInFlight === "fail" || now >= patientUntil)
        return yield* new InFlightElsewhere({ what: outcome.what, until: outcome.until })
      if (count === 0) onWait()
      yield* Patience.untilWorthAsking(outcome.hint, count, outcome.until, patientUntil - now)
    }
  })

const attempt = <E>(
  delivery: Delivery,
  terms: GuardTerms,
  run: RunNew<E>
): Effect.Effect<Settled<E> | Held, GuardFailure, OffsetStore | IdempotencyStore> =>
  Effect.gen(function* () {
    const offsets = yield* OffsetStore
    const { leaseMillis: lease, owner } = terms
    const { ranges, stream } = delivery
    return yield* withClaim({ stream, ranges, owner, lease }, (claim) => {
      const [held] = claim.held
      if (held !== undefined) {
        const hint = offsets.awaitRelease(stream)
        return Effect.succeed<Held>({
          _tag: "Held",
          what: `${String(held.ranges)} of stream ${stream}`,
          until: held.until,
          hint
        })
      }
      const open = placesOf(delivery, claim.completed, false)
      return underIds(delivery, terms, claim, open, run)
    })
  }).pipe(Effect.catchTag("ClaimIdReused", Effect.die))

/** Claims the ids of what is new by its position. */
const underIds = <E>(
  delivery: Delivery,
  terms: GuardTerms,
  claim: OffsetClaim,
  open: ReadonlyArray<number>,
  run: RunNew<E>
): Effect.Effect<Settled<E> | Held, GuardFailure, OffsetStore | IdempotencyStore> => {
  const firsts = idsOf(delivery, open)
  const ids = [...firsts.keys()]
  const byPosition = delivery.items.length - open.length
  if (ids.length === 0)
    return work(delivery, terms, claim, undefined, { fresh: open, repeated: [] }, byPosition, run)
  const { leaseMillis: lease, namespace, owner } = terms
  return Effect.gen(function* () {
    const store = yield* IdempotencyStore
    const items = ids.map((key) => ({ key }))
    type Outcome = Effect.Effect<Settled<E> | Held, StoreError | InvalidInput | LeaseLost, OffsetStore>
    return yield* withClaim({ namespace, items, owner, lease }, (keys): Outcome => {
      const bad = badKey(keys.answers)
      if (bad !== undefined) return Effect.fail(bad)
      const at = keys.answers.findIndex(({ _tag }) => _tag === "InFlight")
      const held = keys.answers[at]
      if (held?._tag === "InFlight") {
        const hint = store.awaitSettled(namespace, ids[at]!)
        return Effect.succeed<Held>({
          _tag: "Held",
          what: `key ${ids[at]} of ${namespace}`,
          until: held.until,
          hint
        })
      }
      const isNew = new Set(ids.filter((_, index) => keys.answers[index]?._tag === "Claimed"))
      const verdict = verdictOf(delivery, open, firsts, (id) => isNew.has(id))
      return work(delivery, terms, claim, keys, verdict, byPosition, run)
    })
  }).pipe(Effect.catchTag("ClaimIdReused", Effect.die))
}

/** Runs the handler, then completes: ids first, and then the offsets. */
const work = <E>(
  delivery: Delivery,
  terms: GuardTerms,
  claim: OffsetClaim,
  keys: KeyClaim | undefined,
  { fresh, repeated }: Verdict,
  byPosition: number,
  run: RunNew<E>
): Effect.Effect<Settled<E>, StoreError | InvalidInput | LeaseLost, OffsetStore> =>
  Effect.gen(function* () {
    const nothing: Ran<E> = { through: delivery.to, failure: undefined }
    const ran = fresh.length === 0 ? nothing : yield* run(fresh, claim.token)
    const done = fresh.filter((place) => delivery.items[place]!.offset < ran.through)
    if (keys !== undefined) yield* completeIds(keys, [...idsOf(delivery, done).keys()], terms)
    yield* completeOffsets(claim, delivery, ran.through, terms)
    return {
      _tag: "Settled",
      duplicatesByPosition: byPosition,
      duplicatesById: repeated.length,
      processed: done.length,
      ran
    }
  })

/** What a shadow has seen of a delivery. */
export interface Seen {
  readonly duplicatesByPosition: number
  readonly duplicatesById: number
  /** Messages that another was at work on, for which a guard would have waited. */
  readonly inFlight: number
}

/**
 * Decides as `guarded` does, and neither waits nor holds anything up: the handler runs meanwhile, on everything. When it
 * has succeeded (`handled`), what was new is completed, so that it is known when it comes again, and when a guard or
 * `KafkaConsumer` takes over.
 */
export const watched = (
  delivery: Delivery,
  terms: GuardTerms,
  handled: Effect.Effect<number>
): Effect.Effect<Seen, GuardFailure, OffsetStore | IdempotencyStore> => {
  const { leaseMillis: lease, namespace, owner } = terms
  const { items, ranges, stream } = delivery
  return withClaim({ stream, ranges, owner, lease }, (claim) => {
    const byPosition = placesOf(delivery, claim.completed, true).length
    const open = placesOf(delivery, claim.granted, true)
    const inFlight = items.length - byPosition - open.length
    const firsts = idsOf(delivery, open)
    const ids = [...firsts.keys()]
    const settle = (keys: KeyClaim | undefined, fresh: ReadonlyArray<number>) =>
      Effect.gen(function* () {
        const through = yield* handled
        const done = fresh.filter((place) => items[place]!.offset < through)
        if (keys !== undefined) yield* completeIds(keys, [...idsOf(delivery, done).keys()], terms)
        yield* completeOffsets(claim, delivery, through, terms)
      })
    if (ids.length === 0)
      return Effect.as(settle(undefined, open), {
        duplicatesByPosition: byPosition,
        duplicatesById: 0,
        inFlight
      })
    return withClaim({ namespace, items: ids.map((key) => ({ key })), owner, lease }, (keys) => {
      const bad = badKey(keys.answers)
      if (bad !== undefined) return Effect.fail(bad)
      const answered = (tag: string) => new Set(ids.filter((_, index) => keys.answers[index]?._tag === tag))
      const claimed = answered("Claimed")
      const elsewhere = answered("InFlight")
      const { fresh, repeated } = verdictOf(delivery, open, firsts, (id) => claimed.has(id))
      const waiting = repeated.filter((place) => elsewhere.has(items[place]!.id ?? "")).length
      return Effect.as(settle(keys, fresh), {
        duplicatesByPosition: byPosition,
        duplicatesById: repeated.length - waiting,
        inFlight: inFlight + waiting
      })
    })
  }).pipe(Effect.catchTag("ClaimIdReused", Effect.die))
}
