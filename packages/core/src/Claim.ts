/**
 * Claims as scoped work: the one combinator under everything that holds a claim.
 */
import { Clock, type Duration, Effect } from "effect"
import * as ClaimId from "./ClaimId.ts"
import { type ClaimIdReused, type InvalidInput, LeaseLost, type StoreError } from "./Errors.ts"
import { IdempotencyStore, type InvalidKey } from "./IdempotencyStore.ts"
import { giveBack, giveBackUnanswered } from "./internal/givingBack.ts"
import * as Input from "./internal/input.ts"
import { underLease } from "./internal/underLease.ts"
import * as OffsetRanges from "./OffsetRanges.ts"
import { OffsetStore } from "./OffsetStore.ts"
import { monotonicMillis } from "./Patience.ts"
import * as Policies from "./Policies.ts"
import type { KeyClaimAnswer, KeyCompleteAnswer, KeyCompletion, KeyItem } from "./protocol/KeyState.ts"
import type { CompleteAnswer, OffsetClaimAnswer } from "./protocol/StreamState.ts"

interface CommonRequest {
  /** A label for people. */
  readonly owner: string
  /** Default: 30 s; renewed at a third while the work goes on. */
  readonly lease?: Duration.Input
}

/** A request for positions of a stream. */
export interface OffsetRequest extends CommonRequest {
  readonly stream: string
  readonly ranges: OffsetRanges.OffsetRanges
}

/** A request for idempotency keys. */
export interface KeyRequest extends CommonRequest {
  readonly namespace: string
  readonly items: ReadonlyArray<KeyItem>
}

/** A claim on positions, for the work that is done under it. */
export interface OffsetClaim extends OffsetClaimAnswer {
  readonly stream: string
  readonly claimId: string
  readonly complete: (
    ranges: OffsetRanges.OffsetRanges
  ) => Effect.Effect<CompleteAnswer, StoreError | InvalidInput>
  readonly release: (ranges?: OffsetRanges.OffsetRanges) => Effect.Effect<void, StoreError | InvalidInput>
  /** To be called by whoever has completed ranges of this claim otherwise: in one transaction with other writes, say. */
  readonly noteCompleted: (ranges: OffsetRanges.OffsetRanges) => void
}

/** A claim on keys, for the work that is done under it. */
export interface KeyClaim {
  readonly namespace: string
  readonly claimId: string
  /** One for each item asked for, in order. */
  readonly answers: ReadonlyArray<KeyClaimAnswer | InvalidKey>
  readonly complete: (
    items: ReadonlyArray<KeyCompletion>,
    options?: { readonly retentionMillis?: number | undefined }
  ) => Effect.Effect<ReadonlyArray<KeyCompleteAnswer | InvalidKey>, StoreError | InvalidInput>
  readonly release: (keys?: ReadonlyArray<string>) => Effect.Effect<void, StoreError | InvalidInput>
  /** To be called by whoever has completed keys of this claim otherwise: in one transaction with other writes, say. */
  readonly noteCompleted: (keys: ReadonlyArray<string>) => void
}

type ClaimError = StoreError | InvalidInput | ClaimIdReused | LeaseLost

/**
 * Claims, runs the work, and gives back what the work did not settle.
 *
 * While the work goes on the lease is renewed at a third of its time; when it is lost, the work is interrupted and
 * the whole fails with `LeaseLost`. Interruption is best effort (a promise or a busy loop does not stop): the
 * fencing token is the guarantee. The work always runs, also where nothing was granted: the answer tells.
 *
 * @example
 * withClaim({ stream, ranges: OffsetRanges.make(0, 100), owner: "worker-1" }, (claim) =>
 *   Effect.andThen(process(claim.granted), claim.complete(claim.granted)))
 */
export function withClaim<A, E, R>(
  request: OffsetRequest,
  work: (claim: OffsetClaim) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ClaimError, R | OffsetStore>
export function withClaim<A, E, R>(
  request: KeyRequest,
  work: (claim: KeyClaim) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ClaimError, R | IdempotencyStore>
export function withClaim<A, E, R>(
  request: OffsetRequest | KeyRequest,
  work: (claim: never) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ClaimError, R | OffsetStore | IdempotencyStore> {
  const bad = Input.unknownOption(
    "the claim",
    request,
    "stream" in request ? ["stream", "ranges", "owner", "lease"] : ["namespace", "items", "owner", "lease"]
  )
  if (bad !== undefined) return Effect.fail(bad)
  const leaseMillis =
    request.lease === undefined ? Policies.defaultLeaseMillis : Policies.duration("lease", request.lease)
  if (typeof leaseMillis !== "number") return Effect.fail(leaseMillis)
  return "stream" in request
    ? onOffsets(request, leaseMillis, work as (claim: OffsetClaim) => Effect.Effect<A, E, R>)
    : onKeys(request, leaseMillis, work as (claim: KeyClaim) => Effect.Effect<A, E, R>)
}

/** Whether the answer took longer than the lease: another may be at work by now. */
const isOver = (clock: Clock.Clock, deadline: number): boolean => monotonicMillis(clock) >= deadline

const onOffsets = <A, E, R>(
  { stream, ranges, owner }: OffsetRequest,
  leaseMillis: number,
  work: (claim: OffsetClaim) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ClaimError, R | OffsetStore> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const store = yield* OffsetStore
      const ref = { stream, claimId: ClaimId.make() }
      const what = `the claim on ${String(ranges)} of stream ${stream}`
      const clock = yield* Clock.Clock
      const deadline = monotonicMillis(clock) + leaseMillis
      const answer = yield* Effect.tapError(
        store.claim(stream, ranges, { claimId: ref.claimId, owner, leaseMillis }),
        (error) => giveBackUnanswered(what, store.release(ref), error)
      )
      let open = answer.granted
      const settle = (part: OffsetRanges.OffsetRanges): void => {
        open = OffsetRanges.subtract(open, part)
      }
      const running = Effect.suspend(() =>
        work({
          ...answer,
          ...ref,
          noteCompleted: settle,
          complete: (done) =>
            Effect.tap(store.complete(ref, done), ({ completed, alreadyCompleted }) =>
              Effect.sync(() => {
                settle(completed)
                settle(alreadyCompleted)
              })
            ),
          release: (undone) =>
            Effect.tap(store.release(ref, undone), () => Effect.sync(() => settle(undone ?? open)))
        })
      )
      const { token } = answer
      if (token === undefined) return yield* restore(running)
      const lost = () => new LeaseLost({ what: `stream ${stream}`, claimId: ref.claimId, token })
      if (isOver(clock, deadline)) return yield* Effect.andThen(giveBack(what, store.release(ref)), lost())
      return yield* restore(
        underLease(
          () => ({
            keeper: store.leases,
            ref,
            leaseMillis,
            deadline,
            lost,
            isSettled: () => OffsetRanges.isEmpty(open)
          }),
          running
        )
      ).pipe(Effect.ensuring(giveBack(what, store.release(ref))))
    })
  )

const onKeys = <A, E, R>(
  { namespace, items, owner }: KeyRequest,
  leaseMillis: number,
  work: (claim: KeyClaim) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ClaimError, R | IdempotencyStore> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const store = yield* IdempotencyStore
      const ref = { namespace, claimId: ClaimId.make() }
      const what = `the claim on ${items.length} keys of ${namespace}`
      const clock = yield* Clock.Clock
      const deadline = monotonicMillis(clock) + leaseMillis
      const answers = yield* Effect.tapError(
        store.claim(namespace, items, { claimId: ref.claimId, owner, leaseMillis }),
        (error) => giveBackUnanswered(what, store.release(ref), error)
      )
      const open = new Set<string>()
      answers.forEach((answer, index) => {
        if (answer._tag === "Claimed") open.add(items[index].key)
      })
      const running = Effect.suspend(() =>
        work({
          ...ref,
          noteCompleted: (keys) => {
            for (const key of keys) open.delete(key)
          },
          answers,
          complete: (done, options) =>
            Effect.tap(store.complete(ref, done, options), (settled) =>
              Effect.sync(() =>
                settled.forEach((answer, index) => {
                  if (answer === "Completed" || answer === "AlreadyCompleted") open.delete(done[index].key)
                })
              )
            ),
          release: (keys) =>
            Effect.tap(store.release(ref, keys), () =>
              Effect.sync(() => {
                for (const key of keys ?? [...open]) open.delete(key)
              })
            )
        })
      )
      const token = answers.find((answer) => answer._tag === "Claimed")?.token
      if (token === undefined) return yield* restore(running)
      const lost = () => new LeaseLost({ what: `keys of ${namespace}`, claimId: ref.claimId, token })
      if (isOver(clock, deadline)) return yield* Effect.andThen(giveBack(what, store.release(ref)), lost())
      return yield* restore(
        underLease(
          () => ({
            keeper: store.leases,
            ref,
            leaseMillis,
            deadline,
            lost,
            isSettled: () => open.size === 0
          }),
          running
        )
      ).pipe(Effect.ensuring(giveBack(what, store.release(ref))))
    })
  )
