/** What `once` and `onceAll` have in common: asking for a claim, and marking what was done under it. */
import { Clock, Effect } from "effect"
import { InvalidInput, type LeaseLost, type StoreError } from "../Errors.ts"
import type { IdempotencyStoreService } from "../IdempotencyStore.ts"
import { format, type Key } from "../Key.ts"
import type { OffsetStoreService } from "../OffsetStore.ts"
import { monotonicMillis, retryUntil } from "../Patience.ts"
import type { ClaimTerms } from "../protocol/Claims.ts"
import type { KeyCompleteAnswer } from "../protocol/KeyState.ts"
import type { Terms } from "../Tracker.ts"
import { giveBack, giveBackUnanswered } from "./givingBack.ts"
import {
  type ClaimFailure,
  checkIdKey,
  checkOffsetKey,
  type Decision,
  IdGroup,
  type KeyGroup,
  OffsetGroup
} from "./keyGroup.ts"

export interface Stores {
  readonly offsets: OffsetStoreService
  readonly keys: IdempotencyStoreService
  readonly namespace: string | undefined
  readonly owner: string
  readonly clock: Clock.Clock
}

export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** The group of one key, or what is wrong with it. */
export const groupOf = (
  stores: Stores,
  key: Key,
  fingerprint: string | undefined
): KeyGroup | InvalidInput => {
  if (key._tag === "Offset") {
    return checkOffsetKey(key, fingerprint) ?? new OffsetGroup(stores.offsets, key.stream)
  }
  const namespace = key.namespace ?? stores.namespace
  return checkIdKey(key, namespace, fingerprint) ?? new IdGroup(stores.keys, namespace as string, fingerprint)
}

export const isGroup = (value: KeyGroup | InvalidInput): value is KeyGroup => !(value instanceof InvalidInput)

/** Keys of one group under one claim id. */
export interface Claim {
  readonly group: KeyGroup
  readonly keys: ReadonlyArray<Key>
  readonly claimId: string
  readonly terms: Terms
  readonly owner: string
}

/** For people: what the claim is on. */
const nameOf = ({ keys }: Claim): string =>
  keys.length === 1
    ? `the claim on ${format(keys[0])}`
    : `the claim on ${keys.length} keys from ${format(keys[0])} on`

/** What follows the question. */
export interface Next<B, E, R> {
  readonly decided: (decisions: ReadonlyArray<Decision>) => Effect.Effect<B, E, R>
  /** The store failed, and the policy says to run all the same. */
  readonly unprotected: (cause: StoreError) => Effect.Effect<B, E, R>
  /** The store failed for as long as a lease lasts: what was asked for then would be over by now. */
  readonly askAnew: () => Effect.Effect<B, E, R>
}

/**
 * Asks for the claim. Where that fails nothing has run yet, so what now is a matter of policy. For uninterruptible
 * regions: interrupted, it leaves nothing behind.
 */
export const ask = <B, E, R>(
  claim: Claim,
  restore: Restore,
  next: Next<B, E, R>
): Effect.Effect<B, E | ClaimFailure, R> => {
  const { claimId, group, keys, owner, terms } = claim
  const claimTerms: ClaimTerms = { claimId, owner, leaseMillis: terms.leaseMillis }
  return group.claim<B, E | ClaimFailure, R>(
    keys,
    claimTerms,
    (error) => {
      if (error._tag !== "StoreError") return Effect.fail(error)
      switch (terms.whenStoreFails) {
        case "fail":
          return Effect.andThen(
            giveBackUnanswered(nameOf(claim), group.release(claimId), error),
            Effect.fail(error)
          )
        case "run":
          return next.unprotected(error)
        case "wait":
          return askPatiently(claim, claimTerms, error, restore, next)
      }
    },
    next.decided
  )
}

const askPatiently = <B, E, R>(
  { claimId, group, keys, terms }: Claim,
  claimTerms: ClaimTerms,
  first: StoreError,
  restore: Restore,
  next: Next<B, E, R>
): Effect.Effect<B, E | ClaimFailure, R> =>
  again(first, terms.leaseMillis, () =>
    group.claim<ReadonlyArray<Decision>, ClaimFailure, never>(keys, claimTerms, Effect.fail, Effect.succeed)
  ).pipe(
    restore,
    Effect.onError(() => giveBack("a claim that waited for its store", group.release(claimId))),
    Effect.matchEffect({
      onFailure: (error): Effect.Effect<B, E | ClaimFailure, R> =>
        error._tag === "StoreError" && error.retriable ? restore(next.askAnew()) : Effect.fail(error),
      onSuccess: next.decided
    })
  )

/** Asks again after a first failure, with growing pauses, for as long as a lease lasts. */
const again = <A, E extends { readonly retriable: boolean }>(
  first: StoreError,
  leaseMillis: number,
  ask: () => Effect.Effect<A, E>
): Effect.Effect<A, E | StoreError> =>
  Effect.flatMap(Clock.Clock, (clock) => {
    const deadline = monotonicMillis(clock) + leaseMillis
    return retryUntil(
      (count): Effect.Effect<A, E | StoreError> => (count === 0 ? Effect.fail(first) : ask()),
      () => deadline
    )
  })

/**
 * Marks what has taken effect: tried until the lease must be over, and never given back. `marked` learns for each key
 * whether it is marked as ours; where it is not, somebody else has done the work too.
 */
export const complete = <B, E, R>(
  { claimId, group, terms }: Claim,
  keys: ReadonlyArray<Key>,
  results: ReadonlyArray<string | undefined> | undefined,
  marked: (isOurs: (position: number) => boolean) => Effect.Effect<B, E, R>
): Effect.Effect<B, E | StoreError | InvalidInput, R> =>
  group.complete<B, E | StoreError | InvalidInput, R>(
    claimId,
    keys,
    results,
    terms.retentionMillis,
    (error) => {
      if (error._tag !== "StoreError" || !error.retriable) return Effect.fail(error)
      const asked = again(error, terms.leaseMillis, () =>
        group.complete<ReadonlyArray<KeyCompleteAnswer>, StoreError | InvalidInput, never>(
          claimId,
          keys,
          results,
          terms.retentionMillis,
          Effect.fail,
          Effect.succeed
        )
      )
      // after a lost answer, "already" is our own mark
      return Effect.flatMap(asked, (answers) => marked((position) => answers[position] !== "LeaseLost"))
    },
    (answers) => marked((position) => answers[position] === "Completed")
  )

/** Gives the claim back, with all of its keys that are not completed. */
export const release = (claim: Claim): Effect.Effect<void> =>
  giveBack(nameOf(claim), claim.group.release(claim.claimId))

/** The caller is interrupted and takes no answer: that the mark failed is told, and no more. */
export const completeUnheard = (
  claim: Claim,
  completed: Effect.Effect<unknown, StoreError | InvalidInput | LeaseLost>
): Effect.Effect<void> =>
  Effect.matchEffect(completed, {
    onFailure: (error) =>
      Effect.logWarning(
        `tidemark: the work under ${nameOf(claim)} came to its end while it was interrupted, and could not be marked; ` +
          `it may run again: ${error.message}`
      ),
    onSuccess: () => Effect.void
  })
