/**
 * The contract of a store for positions in streams.
 *
 * All verbs are batch-first: one call takes many items and is one round trip. Answers come item by item, in order;
 * a crash between any two bytes leaves each item done or not done (invariant 6). Every verb may be asked again with
 * the same claim id when its answer was lost (invariant 7). Leases are judged by the store's clock (invariant 8). Every
 * verb answers in bounded time, or fails with `Timeout`: a tracker is not interrupted while it waits for it.
 *
 * An implementation holds no retries, no logging and no checks of its input: {@link make} adds what all have in
 * common.
 */
import { Context, Effect, type Scope } from "effect"
import { ClaimIdReused, type InvalidInput, StoreError } from "./Errors.ts"
import * as Input from "./internal/input.ts"
import * as LeaseKeeper from "./internal/LeaseKeeper.ts"
import * as OffsetRanges from "./OffsetRanges.ts"
import type { ClaimTerms } from "./protocol/Claims.ts"
import type { KeyCompleteAnswer } from "./protocol/KeyState.ts"
import {
  answerOfOne,
  type CompleteAnswer,
  completionOfOne,
  type OffsetClaimAnswer,
  type OneOffsetAnswer,
  type Progress
} from "./protocol/StreamState.ts"

/** Names a claim in `complete`, `release` and `renew`. */
export interface OffsetClaimRef {
  readonly stream: string
  readonly claimId: string
}

/** A claim and how long its lease shall last from now, in milliseconds. */
export interface OffsetRenewal extends OffsetClaimRef {
  readonly leaseMillis: number
}

/** What the owner of a claim notes about its stream: 1 to 256 bytes of UTF-8, in the place of what was noted before. */
export interface OffsetNote extends OffsetClaimRef {
  readonly note: string
}

/** What an adapter implements. Input has been checked; streams are 1 to 1,024 bytes of UTF-8. */
export interface OffsetStoreImplementation {
  /** For messages, metrics and logs: "memory", "redis", ... */
  readonly name: string
  /** Whether progress outlives the process. */
  readonly durable: boolean
  /**
   * Claims `ranges` of `stream` (invariants 1, 2, 4, 7). An open-ended claim is granted whole, completed parts
   * excepted, or not at all. `undefined`: the claim id is in use for other ranges; nothing was changed.
   */
  readonly claim: (
    stream: string,
    ranges: OffsetRanges.OffsetRanges,
    terms: ClaimTerms
  ) => Effect.Effect<OffsetClaimAnswer | undefined, StoreError>
  /** Settles as done, item by item (invariant 3). */
  readonly complete: (
    claim: OffsetClaimRef,
    ranges: OffsetRanges.OffsetRanges
  ) => Effect.Effect<CompleteAnswer, StoreError>
  /** `claim` of one offset, where an adapter has a shorter way; else it is made of `claim`. */
  readonly claimOffset?: (
    stream: string,
    offset: number,
    terms: ClaimTerms
  ) => Effect.Effect<OneOffsetAnswer | undefined, StoreError>
  /** `complete` of one offset, where an adapter has a shorter way; else it is made of `complete`. */
  readonly completeOffset?: (
    claim: OffsetClaimRef,
    offset: number
  ) => Effect.Effect<KeyCompleteAnswer, StoreError>
  /** Gives back undone what is not completed of `ranges`; of everything where they are not given. */
  readonly release: (
    claim: OffsetClaimRef,
    ranges?: OffsetRanges.OffsetRanges
  ) => Effect.Effect<void, StoreError>
  /** Until when each lease lasts now, in milliseconds since the epoch; `undefined` where it is lost. */
  readonly renew: (
    claims: ReadonlyArray<OffsetRenewal>
  ) => Effect.Effect<ReadonlyArray<number | undefined>, StoreError>
  /**
   * Notes something of each stream for those who own it later; `progress` gives it back. Answers item by item: `false`:
   * the claim is lost (as `renew` has it), and nothing was changed. The note stays through `rewind` and `skip`, goes
   * along with `copy`, and ends with `forget`.
   *
   * A verb of its own, and not a part of `complete`: who needs a history (a consumer its commits) writes it at intervals,
   * of all its streams together, and so that nothing is added to what is asked for each batch.
   */
  readonly annotate: (notes: ReadonlyArray<OffsetNote>) => Effect.Effect<ReadonlyArray<boolean>, StoreError>
  /** `undefined` for a stream that nothing was ever claimed of. */
  readonly progress: (stream: string) => Effect.Effect<Progress | undefined, StoreError>
  /** Whether an offset is completed now. A question, never a gate. */
  readonly isCompleted: (stream: string, offset: number) => Effect.Effect<boolean, StoreError>
  /** An operator's act: what is at `to` or above counts as not completed. Raises the epoch, supersedes claims. */
  readonly rewind: (stream: string, to: number) => Effect.Effect<void, StoreError>
  /** An operator's act: `ranges` count as completed. Raises the epoch, supersedes claims. */
  readonly skip: (stream: string, ranges: OffsetRanges.OffsetRanges) => Effect.Effect<void, StoreError>
  /** An operator's act: all that is known of the stream is removed. Answers whether there was any. */
  readonly forget: (stream: string) => Effect.Effect<boolean, StoreError>
  /**
   * Copies the progress of one stream to another; of a stream that nothing was ever claimed of: nothing to do. `false`:
   * the other has progress of its own, and nothing was changed.
   */
  readonly copy: (from: string, to: string) => Effect.Effect<boolean, StoreError>
  /**
   * A hint: succeeds when something of the stream may have been given back. It may come late or never; whoever
   * waits asks again by a timer too. Interrupting it leaves nothing behind.
   */
  readonly awaitRelease: (stream: string) => Effect.Effect<void>
}

/** What everyone else uses: the verbs, with their input checked. */
export interface OffsetStoreService
  extends Omit<
    OffsetStoreImplementation,
    | "claim"
    | "complete"
    | "claimOffset"
    | "completeOffset"
    | "release"
    | "renew"
    | "annotate"
    | "progress"
    | "isCompleted"
    | "rewind"
    | "skip"
    | "forget"
    | "copy"
  > {
  readonly claim: (
    stream: string,
    ranges: OffsetRanges.OffsetRanges,
    terms: ClaimTerms
  ) => Effect.Effect<OffsetClaimAnswer, StoreError | InvalidInput | ClaimIdReused>
  readonly complete: (
    claim: OffsetClaimRef,
    ranges: OffsetRanges.OffsetRanges
  ) => Effect.Effect<CompleteAnswer, StoreError | InvalidInput>
  /**
   * What `claim` does, for one offset, with the answer in the words of the answers for keys. `undefined`: the claim id
   * is in use for other ranges, and nothing was changed. (An error would cost every claim a step of its fiber.)
   */
  readonly claimOffset: (
    stream: string,
    offset: number,
    terms: ClaimTerms
  ) => Effect.Effect<OneOffsetAnswer | undefined, StoreError | InvalidInput>
  /** What `complete` does, for one offset. */
  readonly completeOffset: (
    claim: OffsetClaimRef,
    offset: number
  ) => Effect.Effect<KeyCompleteAnswer, StoreError | InvalidInput>
  readonly release: (
    claim: OffsetClaimRef,
    ranges?: OffsetRanges.OffsetRanges
  ) => Effect.Effect<void, StoreError | InvalidInput>
  readonly renew: (
    claims: ReadonlyArray<OffsetRenewal>
  ) => Effect.Effect<ReadonlyArray<number | undefined>, StoreError | InvalidInput>
  readonly annotate: (
    notes: ReadonlyArray<OffsetNote>
  ) => Effect.Effect<ReadonlyArray<boolean>, StoreError | InvalidInput>
  readonly progress: (stream: string) => Effect.Effect<Progress | undefined, StoreError | InvalidInput>
  readonly isCompleted: (stream: string, offset: number) => Effect.Effect<boolean, StoreError | InvalidInput>
  readonly rewind: (stream: string, to: number) => Effect.Effect<void, StoreError | InvalidInput>
  readonly skip: (
    stream: string,
    ranges: OffsetRanges.OffsetRanges
  ) => Effect.Effect<void, StoreError | InvalidInput>
  readonly forget: (stream: string) => Effect.Effect<boolean, StoreError | InvalidInput>
  readonly copy: (from: string, to: string) => Effect.Effect<void, StoreError | InvalidInput>
  /** Keeps the leases of this store's claims alive while their owners work. */
  readonly leases: LeaseKeeper.LeaseKeeper<OffsetClaimRef>
}

/** The store for positions in streams. */
export class OffsetStore extends Context.Service<OffsetStore, OffsetStoreService>()(
  "@tidemark/core/OffsetStore"
) {
  /**
   * Makes the service from an adapter: checks the input of every verb (invariant 9) before anything is sent, and
   * keeps leases until the Scope closes.
   */
  static make(
    implementation: OffsetStoreImplementation
  ): Effect.Effect<OffsetStoreService, never, Scope.Scope> {
    return makeService(implementation)
  }
}

const checkRanges = (ranges: OffsetRanges.OffsetRanges): InvalidInput | undefined =>
  OffsetRanges.isOffsetRanges(ranges) && !OffsetRanges.isEmpty(ranges)
    ? undefined
    : Input.invalid(
        "ranges",
        OffsetRanges.isOffsetRanges(ranges) ? "empty" : ranges,
        "a non-empty OffsetRanges"
      )

const highestOffset = OffsetRanges.of(Number.MAX_SAFE_INTEGER)

/** What is completed must have an end: else all that will ever come would count as done. */
const checkDone = (ranges: OffsetRanges.OffsetRanges): InvalidInput | undefined =>
  checkRanges(ranges) ??
  // the highest offset of all ends there too, and may well be done
  (OffsetRanges.isOpenEnded(ranges) && !OffsetRanges.equals(ranges, highestOffset)
    ? Input.invalid(
        "ranges",
        String(ranges),
        "ranges with an end; of an open-ended claim complete what was done"
      )
    : undefined)

const checkRef = (claim: OffsetClaimRef): InvalidInput | undefined =>
  Input.name("stream", claim.stream) ?? Input.name("claimId", claim.claimId)

const checkRenewal = (claim: OffsetRenewal): InvalidInput | undefined =>
  checkRef(claim) ?? Input.millis("lease", claim.leaseMillis)

const checkNote = (note: OffsetNote): InvalidInput | undefined =>
  checkRef(note) ?? Input.note("note", note.note)

const claimOne = (
  implementation: OffsetStoreImplementation,
  stream: string,
  offset: number,
  terms: ClaimTerms
): Effect.Effect<OneOffsetAnswer | undefined, StoreError> =>
  implementation.claimOffset?.(stream, offset, terms) ??
  Effect.map(implementation.claim(stream, OffsetRanges.of(offset), terms), answerOfOne)

const completeOne = (
  implementation: OffsetStoreImplementation,
  claim: OffsetClaimRef,
  offset: number
): Effect.Effect<KeyCompleteAnswer, StoreError> =>
  implementation.completeOffset?.(claim, offset) ??
  Effect.map(implementation.complete(claim, OffsetRanges.of(offset)), completionOfOne)

const notEmpty = (store: string, from: string, to: string): StoreError =>
  new StoreError({
    store,
    verb: "copy",
    reason: "NotEmpty",
    detail: `stream ${to} has progress of its own, so that ${from} was not copied over it; forget it first, if that is meant`,
    retriable: false
  })

const makeService = (
  implementation: OffsetStoreImplementation
): Effect.Effect<OffsetStoreService, never, Scope.Scope> =>
  Effect.map(
    LeaseKeeper.make<OffsetClaimRef>((due) =>
      Effect.map(
        implementation.renew(due.map(({ ref, leaseMillis }) => ({ ...ref, leaseMillis }))),
        (answers) => answers.map((until) => until !== undefined)
      )
    ),
    (leases) =>
      OffsetStore.of({
        name: implementation.name,
        durable: implementation.durable,
        awaitRelease: implementation.awaitRelease,
        leases,
        claim: (stream, ranges, terms) =>
          Input.unless(Input.name("stream", stream) ?? checkRanges(ranges) ?? Input.terms(terms), () =>
            Effect.flatMap(implementation.claim(stream, ranges, terms), (answer) =>
              answer === undefined
                ? Effect.fail(new ClaimIdReused({ claimId: terms.claimId, what: `stream ${stream}` }))
                : Effect.succeed(answer)
            )
          ),
        complete: (claim, ranges) =>
          Input.unless(checkRef(claim) ?? checkDone(ranges), () => implementation.complete(claim, ranges)),
        claimOffset: (stream, offset, terms) =>
          Input.unless(
            Input.name("stream", stream) ?? Input.offset("offset", offset) ?? Input.terms(terms),
            () => claimOne(implementation, stream, offset, terms)
          ),
        completeOffset: (claim, offset) =>
          Input.unless(checkRef(claim) ?? Input.offset("offset", offset), () =>
            completeOne(implementation, claim, offset)
          ),
        release: (claim, ranges) =>
          Input.unless(checkRef(claim) ?? (ranges === undefined ? undefined : checkRanges(ranges)), () =>
            implementation.release(claim, ranges)
          ),
        renew: (claims) =>
          Input.unless(Input.firstBad(claims, checkRenewal), () => implementation.renew(claims)),
        annotate: (notes) =>
          Input.unless(Input.firstBad(notes, checkNote), () => implementation.annotate(notes)),
        progress: (stream) =>
          Input.unless(Input.name("stream", stream), () => implementation.progress(stream)),
        isCompleted: (stream, offset) =>
          Input.unless(Input.name("stream", stream) ?? Input.offset("offset", offset), () =>
            implementation.isCompleted(stream, offset)
          ),
        rewind: (stream, to) =>
          Input.unless(Input.name("stream", stream) ?? Input.offset("to", to), () =>
            implementation.rewind(stream, to)
          ),
        skip: (stream, ranges) =>
          Input.unless(Input.name("stream", stream) ?? checkDone(ranges), () =>
            implementation.skip(stream, ranges)
          ),
        forget: (stream) => Input.unless(Input.name("stream", stream), () => implementation.forget(stream)),
        copy: (from, to) =>
          Input.unless(Input.name("from", from) ?? Input.name("to", to), () =>
            Effect.flatMap(implementation.copy(from, to), (copied) =>
              copied ? Effect.void : Effect.fail(notEmpty(implementation.name, from, to))
            )
          )
      })
  )
