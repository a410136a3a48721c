/**
 * `Tracker.onceAll`: one claim and one completion per stream and namespace, in rounds.
 *
 * A round claims what is still open of each group, runs what was granted, settles it, and only then asks again for
 * what others hold: nobody waits while holding a key it has not started, so that two batches that hold each
 * other's keys don't wait for ever.
 *
 * A key that comes again within the batch runs once: the others are duplicates of the first, or share its failure.
 */
import { Cause, Clock, Effect, Exit, Metric, type Schema } from "effect"
import { type ClaimIdReused, InFlightElsewhere, type InvalidInput, type StoreError } from "../Errors.ts"
import { format, type Key } from "../Key.ts"
import * as Metrics from "../Metrics.ts"
import { untilWorthAsking } from "../Patience.ts"
import type { Failed, HandlerClaim, Outcome, Terms, TrackerError } from "../Tracker.ts"
import {
  type Claim,
  complete,
  completeUnheard,
  Question,
  type Restore,
  release,
  type Stores
} from "./claiming.ts"
import { DoneByHandlers, GrantedKey } from "./handlerClaim.ts"
import {
  checkId,
  checkNamespace,
  checkOffset,
  checkStream,
  type Decision,
  IdGroup,
  type KeyGroup,
  leaseLost,
  OffsetGroup
} from "./keyGroup.ts"
import { onOwnFiber, onOwnFiberNow } from "./ownFiber.ts"
import { decode, encode } from "./results.ts"
import { Course, type Lease } from "./underLease.ts"

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
interface Part {
  readonly group: KeyGroup
  readonly indexes: ReadonlyArray<number>
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
      keys: items.map((item) => keyOf(item)),
      handler,
      terms,
      concurrency,
      result,
      outcomes: new Array<ItemOutcome<A, E> | undefined>(items.length).fill(undefined)
    }
    return Effect.as(
      rounds(batch, partsOf(batch), 0, undefined),
      batch.outcomes as ReadonlyArray<ItemOutcome<A, E>>
    )
  })

interface GrowingPart extends Part {
  readonly name: string
  readonly isOffsets: boolean
  readonly indexes: Array<number>
}

/** The batch by stream and namespace; a key that can't be one is `Failed` at once. */
const partsOf = <T, A, E, R>({ keys, outcomes, stores }: Batch<T, A, E, R>): ReadonlyArray<Part> => {
  const streams = new Map<string, GrowingPart>()
  const namespaces = new Map<string, GrowingPart>()
  // most often keys of one stream or namespace follow each other: its name is checked once then
  let last: GrowingPart | undefined
  for (let index = 0; index < keys.length; index++) {
    const key = keys[index]
    const isOffsets = key._tag === "Offset"
    const name = isOffsets ? key.stream : (key.namespace ?? stores.namespace)
    const isSame = last !== undefined && name === last.name && isOffsets === last.isOffsets
    const bad = isOffsets
      ? ((isSame ? undefined : checkStream(name)) ?? checkOffset(key))
      : ((isSame ? undefined : checkNamespace(name)) ?? checkId(key))
    if (bad !== undefined || name === undefined) {
      outcomes[index] = { _tag: "Failed", error: bad as InvalidInput }
      continue
    }
    if (!isSame || last === undefined) {
      const parts = isOffsets ? streams : namespaces
      last = parts.get(name)
      if (last === undefined) {
        const group = isOffsets ? new OffsetGroup(stores.offsets, name) : new IdGroup(stores.keys, name)
        last = { name, isOffsets, group, indexes: [] }
        parts.set(name, last)
      }
    }
    last.indexes.push(index)
  }
  return [...streams.values(), ...namespaces.values()]
}

const rounds = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  parts: ReadonlyArray<Part>,
  count: number,
  patientUntil: number | undefined
): Effect.Effect<void, StoreFailure, R> =>
  Effect.gen(function* () {
    const open: Array<Part> = []
    let until = Number.POSITIVE_INFINITY
    for (const part of parts) {
      const held = yield* round(batch, part)
      if (held.length === 0) continue
      open.push({ group: part.group, indexes: held.map((item) => item.index) })
      for (const item of held) until = Math.min(until, item.until)
    }
    if (open.length === 0) return
    const now = yield* Clock.currentTimeMillis
    const patient = patientUntil ?? now + batch.terms.waitAtMostMillis
    if (batch.terms.whenInFlight !== "wait" || now >= patient) {
      for (const part of open) for (const index of part.indexes) leaveInFlight(batch, index, until)
      return
    }
    const first = open[0]
    yield* untilWorthAsking(first.group.hint(batch.keys[first.indexes[0]]), count, until, patient - now)
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

/** Claims, runs and settles the open items of one group; answers what others hold. */
const round = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  part: Part
): Effect.Effect<ReadonlyArray<HeldItem>, StoreFailure, R> =>
  Effect.uninterruptibleMask((restore) => new Round(batch, part, restore).ask())

class Round<T, A, E, R> extends Question<ReadonlyArray<HeldItem>, StoreFailure, R> {
  private readonly batch: Batch<T, A, E, R>
  private readonly part: Part

  constructor(batch: Batch<T, A, E, R>, part: Part, restore: Restore) {
    // of one stream, most often
    const isAll = part.indexes.length === batch.keys.length
    const keys = isAll ? batch.keys : part.indexes.map((index) => batch.keys[index])
    super(part.group, keys, batch.terms, batch.stores, restore)
    this.batch = batch
    this.part = part
  }

  decided(decisions: ReadonlyArray<Decision>): Effect.Effect<ReadonlyArray<HeldItem>, StoreFailure, R> {
    const { batch } = this
    if (this.isLate && decisions.some(({ _tag }) => _tag === "Claimed")) return this.tooLate()
    const { share, held, duplicates } = sort(batch, this.part.indexes, this, decisions)
    const work =
      share.indexes.length === 0
        ? decodeAll(batch, duplicates)
        : Effect.andThen(
            runGranted(batch, share, this),
            Effect.suspend(() => decodeAll(batch, duplicates.concat(settleRepeats(batch, share))))
          )
    return Effect.as(work, held)
  }

  unprotected(cause: StoreError): Effect.Effect<ReadonlyArray<HeldItem>, never, R> {
    return Effect.as(runUnprotected(this.batch, this.part.indexes, this, cause), [])
  }

  askAnew(): Effect.Effect<ReadonlyArray<HeldItem>, StoreFailure, R> {
    return round(this.batch, this.part)
  }
}

type Claimed = Extract<Decision, { readonly _tag: "Claimed" }>

/** What of a claim was granted, and how far it has come. A position is a place in its arrays. */
class Share {
  readonly claim: Claim
  readonly claimId: string
  /** Places in the batch. */
  readonly indexes: ReadonlyArray<number>
  /** What was granted; empty where handlers run unprotected. */
  private readonly grants: ReadonlyArray<Claimed>
  readonly doneByHandlers = new DoneByHandlers()
  /** 1 for positions whose handlers have succeeded, and whose keys are to be completed. */
  private readonly ran: Uint8Array
  /** How many of them. */
  ranCount = 0
  /** Their values as text for the store, by position. */
  readonly texts: Array<string | undefined> = []
  /** Places in the batch whose keys came before, and the positions that they came at. */
  readonly repeats: Array<{ readonly index: number; readonly first: number }> = []

  constructor(claim: Claim, claimId: string, indexes: ReadonlyArray<number>, grants: ReadonlyArray<Claimed>) {
    this.claim = claim
    this.claimId = claimId
    this.indexes = indexes
    this.grants = grants
    this.ran = new Uint8Array(indexes.length)
  }

  tokenOf(position: number): number | undefined {
    return this.grants[position]?.token
  }

  handlerClaim(key: Key, position: number): HandlerClaim {
    const { claim, claimId, doneByHandlers } = this
    return new GrantedKey(key, claimId, this.tokenOf(position), claim.group, doneByHandlers, position)
  }

  noteRan(position: number): void {
    this.ran[position] = 1
    this.ranCount += 1
  }

  /** The positions whose keys are to be completed, in order. */
  get positionsThatRan(): ReadonlyArray<number> {
    return Array.from(this.indexes.keys()).filter((position) => this.ran[position] === 1)
  }

  /** Whether nothing is held any more. */
  get isSettled(): boolean {
    return this.doneByHandlers.size === this.indexes.length
  }
}

interface DuplicateItem {
  readonly index: number
  readonly text: string
}

const sort = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  indexes: ReadonlyArray<number>,
  claim: Claim,
  decisions: ReadonlyArray<Decision>
) => {
  // most often all is granted
  if (isAllClaimed(decisions)) {
    return { share: new Share(claim, claim.claimId, indexes, decisions), held: [], duplicates: [] }
  }
  const granted: Array<number> = []
  const grants: Array<Claimed> = []
  const inFlight: Array<HeldItem> = []
  const duplicates: Array<DuplicateItem> = []
  for (let place = 0; place < decisions.length; place++) {
    const index = indexes[place]
    const decision = decisions[place]
    switch (decision._tag) {
      case "Claimed":
        granted.push(index)
        grants.push(decision)
        break
      case "InFlight":
        inFlight.push({ index, until: decision.until })
        break
      case "Completed":
        batch.outcomes[index] = { _tag: "Duplicate", value: undefined }
        if (decision.result !== undefined) duplicates.push({ index, text: decision.result })
        break
      case "Refused":
        batch.outcomes[index] = { _tag: "Failed", error: decision.error }
    }
  }
  const share = new Share(claim, claim.claimId, granted, grants)
  return { share, held: takeRepeats(batch, share, inFlight), duplicates }
}

const isAllClaimed = (decisions: ReadonlyArray<Decision>): decisions is ReadonlyArray<Claimed> => {
  for (let place = 0; place < decisions.length; place++) if (decisions[place]._tag !== "Claimed") return false
  return true
}

/** Of what is in flight, what the batch holds itself goes to the repeats; the rest is another's. */
const takeRepeats = <T, A, E, R>(
  { keys }: Batch<T, A, E, R>,
  share: Share,
  inFlight: Array<HeldItem>
): ReadonlyArray<HeldItem> => {
  if (inFlight.length === 0 || share.indexes.length === 0) return inFlight
  const firsts = new Map(share.indexes.map((index, position) => [withinGroup(keys[index]), position]))
  return inFlight.filter(({ index }) => {
    const first = firsts.get(withinGroup(keys[index]))
    if (first === undefined) return true
    share.repeats.push({ index, first })
    return false
  })
}

/** What tells keys of one group apart. */
const withinGroup = (key: Key): string | number => (key._tag === "Offset" ? key.offset : key.id)

/** The outcomes of repeats, from those of their firsts; answers which of them have a result that is to be decoded. */
const settleRepeats = <T, A, E, R>(
  { outcomes }: Batch<T, A, E, R>,
  { indexes, repeats, texts }: Share
): ReadonlyArray<DuplicateItem> => {
  const duplicates: Array<DuplicateItem> = []
  for (const { index, first } of repeats) {
    const outcome = outcomes[indexes[first]]
    if (outcome?._tag !== "Processed") {
      outcomes[index] = outcome
      continue
    }
    outcomes[index] = { _tag: "Duplicate", value: undefined }
    const text = texts[first]
    if (text !== undefined) duplicates.push({ index, text })
  }
  return duplicates
}

const decodeAll = <T, A, E, R>(
  { keys, outcomes, result }: Batch<T, A, E, R>,
  duplicates: ReadonlyArray<DuplicateItem>
): Effect.Effect<void> =>
  result === undefined || duplicates.length === 0
    ? Effect.void
    : Effect.forEach(
        duplicates,
        ({ index, text }) =>
          Effect.map(Effect.result(decode(result, keys[index], text)), (decoded) => {
            outcomes[index] =
              decoded._tag === "Success"
                ? { _tag: "Duplicate", value: decoded.success }
                : { _tag: "Failed", error: decoded.failure }
          }),
        { discard: true }
      )

/** Runs the handlers of what was granted, then settles all that ran, also where the run was cut short. */
const runGranted = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  share: Share,
  claim: Round<T, A, E, R>
): Effect.Effect<void, StoreFailure, R> => {
  const course = new Course<void, never, unknown>(() => ({
    ...(claim.group.lease(claim.claimId, claim.leaseMillis, claim.deadline, () =>
      leaseLost(batch.keys[share.indexes[0]], claim.claimId, share.tokenOf(0))
    ) as Lease<unknown>),
    isSettled: () => share.isSettled
  }))
  return onOwnFiberNow(runHandlers(batch, share, course), course, claim.restore, {
    succeeded: (): Effect.Effect<void, StoreFailure> => settle(batch, share),
    failed: (cause) =>
      Cause.hasFails(cause)
        ? settle(batch, share)
        : Effect.andThen(
            completeUnheard(claim, settle(batch, share)),
            Effect.failCause(cause as Cause.Cause<never>)
          )
  })
}

interface Stoppable {
  readonly isStopping: boolean
}

const runHandlers = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  share: Share,
  course: Stoppable
): Effect.Effect<void, never, R> =>
  batch.concurrency === 1 ? runInOrder(batch, share, course) : runConcurrently(batch, share, course)

/** One after the other, in one loop: a handler that succeeds costs no step of its own. */
const runInOrder = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  share: Share,
  course: Stoppable
): Effect.Effect<void, never, R> => {
  const { handler, items, keys } = batch
  const { indexes } = share
  let position = 0
  const loop = Effect.whileLoop({
    while: () => position < indexes.length && !course.isStopping,
    body: () => {
      const index = indexes[position]
      return handler(items[index], share.handlerClaim(keys[index], position))
    },
    step: (value: A) => noteSuccess(batch, share, position++, value)
  })
  const all: Effect.Effect<void, never, R> = Effect.catchCause(loop, (cause) => {
    const other = noteFailure(batch, share, position++, cause)
    return other === undefined ? all : Effect.failCause(other)
  })
  return all
}

/** Each on a fiber of its own, so that what it has done is noted however it is interrupted. */
const runConcurrently = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  share: Share,
  course: Stoppable
): Effect.Effect<void, never, R> => {
  const { concurrency, handler, items, keys } = batch
  return Effect.forEach(
    share.indexes,
    (index, position) =>
      course.isStopping
        ? Effect.void
        : onOwnFiber<A, E, R, void, never>(
            Effect.suspend(() => handler(items[index], share.handlerClaim(keys[index], position))),
            {
              resting: () => {},
              stopping: () => {},
              ended: (exit) => {
                if (Exit.isFailure(exit)) {
                  const other = noteFailure(batch, share, position, exit.cause)
                  return other === undefined ? Exit.void : Exit.failCause(other)
                }
                noteSuccess(batch, share, position, exit.value)
                return Exit.void
              }
            }
          ),
    { concurrency, discard: true }
  )
}

const noteSuccess = <T, A, E, R>(
  { outcomes, result }: Batch<T, A, E, R>,
  share: Share,
  position: number,
  value: A
): void => {
  const { indexes, texts } = share
  if (share.doneByHandlers.has(position)) {
    outcomes[indexes[position]] = { _tag: "Processed", value }
    return
  }
  share.noteRan(position)
  const encoded = result === undefined ? undefined : encode(result, value)
  if (encoded !== undefined) texts[position] = encoded.text
  outcomes[indexes[position]] =
    encoded?.error === undefined ? { _tag: "Processed", value } : { _tag: "Failed", error: encoded.error }
}

/** A defect or an interruption is no failure of one item: it is answered, and ends the batch. */
const noteFailure = <T, A, E, R>(
  { outcomes }: Batch<T, A, E, R>,
  { indexes }: Share,
  position: number,
  cause: Cause.Cause<E>
): Cause.Cause<never> | undefined => {
  const failure = cause.reasons.find((reason) => reason._tag === "Fail")
  if (failure === undefined) return cause as Cause.Cause<never>
  outcomes[indexes[position]] = { _tag: "Failed", error: failure.error }
  return undefined
}

/** Marks what ran, and gives back the rest. What has no outcome by now was not run, since the lease was lost. */
const settle = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  share: Share
): Effect.Effect<void, StoreError | InvalidInput> => {
  const { claim, indexes, ranCount, texts } = share
  const lose = (position: number): void => {
    const error = leaseLost(batch.keys[indexes[position]], claim.claimId, share.tokenOf(position))
    batch.outcomes[indexes[position]] = { _tag: "Failed", error }
  }
  const allRan = ranCount === indexes.length
  for (let position = 0; !allRan && position < indexes.length; position++) {
    if (batch.outcomes[indexes[position]] === undefined) lose(position)
  }
  const releaseRest = allRan ? Effect.void : release(claim)
  if (ranCount === 0) return releaseRest
  const positions = allRan ? undefined : share.positionsThatRan
  const positionOf = (place: number): number => (positions === undefined ? place : positions[place])
  // most often all that was asked for: then the group knows the ranges of these keys
  const keys =
    ranCount === claim.keys.length
      ? claim.keys
      : Array.from({ length: ranCount }, (_, place) => batch.keys[indexes[positionOf(place)]])
  const results = batch.result === undefined ? undefined : keys.map((_, place) => texts[positionOf(place)])
  return complete<void, never, never>(claim, keys, results, (lost) => {
    for (const place of lost) lose(positionOf(place))
    return releaseRest
  })
}

/** The store failed, and the policy says to run all the same: each key once even so. */
const runUnprotected = <T, A, E, R>(
  batch: Batch<T, A, E, R>,
  indexes: ReadonlyArray<number>,
  claim: Claim,
  error: StoreError
): Effect.Effect<void, never, R> =>
  Effect.suspend(() => {
    const firsts = new Map<string | number, number>()
    const alone: Array<number> = []
    const repeats: Array<{ readonly index: number; readonly first: number }> = []
    for (const index of indexes) {
      const key = withinGroup(batch.keys[index])
      const first = firsts.get(key)
      if (first === undefined) firsts.set(key, alone.push(index) - 1)
      else repeats.push({ index, first })
    }
    const share = new Share(claim, "unprotected", alone, [])
    for (const repeat of repeats) share.repeats.push(repeat)
    const count = share.indexes.length
    return Effect.logWarning(
      `tidemark: ${count} messages run unprotected, the store failed: ${error.message}`
    ).pipe(
      Effect.andThen(Metric.update(Metrics.unprotectedRuns, count)),
      Effect.andThen(runHandlers(batch, share, { isStopping: false })),
      Effect.andThen(Effect.suspend(() => decodeAll(batch, settleRepeats(batch, share))))
    )
  })
