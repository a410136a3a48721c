/** What `once` and `onceAll` have in common: asking for a claim, and marking what was done under it. */
import { Clock, Effect } from "effect"
import * as ClaimId from "../ClaimId.ts"
import { InvalidInput, type LeaseLost, StoreError } from "../Errors.ts"
import type { IdempotencyStoreService } from "../IdempotencyStore.ts"
import { format, type Key } from "../Key.ts"
import type { OffsetStoreService } from "../OffsetStore.ts"
import { monotonicMillis, retryUntil } from "../Patience.ts"
import type { ClaimTerms } from "../protocol/Claims.ts"
import type { KeyCompleteAnswer } from "../protocol/KeyState.ts"
import type { Terms } from "../Tracker.ts"
import { giveBack, giveBackUnanswered } from "./givingBack.ts"
import {
  type AfterClaim,
  type AfterCompletion,
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
export interface Claim extends ClaimTerms {
  readonly group: KeyGroup
  readonly keys: ReadonlyArray<Key>
  readonly terms: Terms
}

/** For people: what the claim is on. */
const nameOf = ({ keys }: Claim): string =>
  keys.length === 1
    ? `the claim on ${format(keys[0])}`
    : `the claim on ${keys.length} keys from ${format(keys[0])} on`

/**
 * A question for a claim, and what follows. Where the store fails nothing has run yet, so what now is a matter of
 * policy. For uninterruptible regions: interrupted, it leaves nothing behind.
 */
export abstract class Question<B, E, R> implements Claim, AfterClaim<B, E | ClaimFailure, R> {
  readonly group: KeyGroup
  readonly keys: ReadonlyArray<Key>
  readonly terms: Terms
  readonly claimId = ClaimId.make()
  readonly owner: string
  readonly leaseMillis: number
  readonly restore: Restore
  /** When the lease ends, by the monotonic clock: reckoned from before it is asked for. */
  readonly deadline: number
  private readonly clock: Clock.Clock

  constructor(group: KeyGroup, keys: ReadonlyArray<Key>, terms: Terms, stores: Stores, restore: Restore) {
    this.group = group
    this.keys = keys
    this.terms = terms
    this.owner = stores.owner
    this.leaseMillis = terms.leaseMillis
    this.restore = restore
    this.clock = stores.clock
    this.deadline = monotonicMillis(stores.clock) + terms.leaseMillis
  }

  abstract decided(decisions: ReadonlyArray<Decision>): Effect.Effect<B, E, R>
  /** The store failed, and the policy says to run all the same. */
  abstract unprotected(cause: StoreError): Effect.Effect<B, E, R>
  /** The store failed for as long as a lease lasts: what was asked for then would be over by now. */
  abstract askAnew(): Effect.Effect<B, E | ClaimFailure, R>

  ask(): Effect.Effect<B, E | ClaimFailure, R> {
    return this.group.claim(this.keys, this, this)
  }

  failed(error: ClaimFailure): Effect.Effect<B, E | ClaimFailure, R> {
    if (error._tag !== "StoreError") return Effect.fail(error)
    switch (this.terms.whenStoreFails) {
      case "fail":
        return Effect.andThen(
          giveBackUnanswered(nameOf(this), this.group.release(this.claimId), error),
          Effect.fail(error)
        )
      case "run":
        return this.restore(this.unprotected(error))
      case "wait":
        return this.askPatiently(error)
    }
  }

  /**
   * Whether the answer came when the lease may be over already: another may be at work by then. What does not outlive
   * the process is a part of it, and answers at once: there the clock is not asked.
   */
  protected get isLate(): boolean {
    return this.group.store.durable && monotonicMillis(this.clock) >= this.deadline
  }

  /** Runs nothing under a claim that was answered too late. */
  protected tooLate(): Effect.Effect<B, E | ClaimFailure, R> {
    const { group, leaseMillis, terms } = this
    const error = new StoreError({
      store: group.store.name,
      verb: "claim",
      reason: "Timeout",
      detail:
        `the answer took longer than the lease of ${leaseMillis} ms, so that another may be at work by now: nothing was ` +
        "run, and the claim was given back. Ask again; if it lasts, lengthen the lease",
      retriable: true
    })
    return Effect.andThen(
      release(this),
      terms.whenStoreFails === "fail" ? Effect.fail(error) : this.restore(this.askAnew())
    )
  }

  private askPatiently(first: StoreError): Effect.Effect<B, E | ClaimFailure, R> {
    return again(first, this.leaseMillis, () =>
      this.group.claim<ReadonlyArray<Decision>, ClaimFailure, never>(this.keys, this, {
        failed: Effect.fail,
        decided: Effect.succeed
      })
    ).pipe(
      this.restore,
      Effect.onError(() => release(this)),
      Effect.matchEffect({
        onFailure: (error): Effect.Effect<B, E | ClaimFailure, R> =>
          error._tag === "StoreError" && error.retriable ? this.restore(this.askAnew()) : Effect.fail(error),
        onSuccess: (decisions) => this.decided(decisions)
      })
    )
  }
}

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
 * Marks what has taken effect: tried until the lease must be over, and never given back. `marked` learns the positions
 * of keys that are not marked as ours: somebody else has done their work too.
 */
export const complete = <B, E, R>(
  claim: Claim,
  keys: ReadonlyArray<Key>,
  results: ReadonlyArray<string | undefined> | undefined,
  marked: (lost: ReadonlyArray<number>) => Effect.Effect<B, E, R>
): Effect.Effect<B, E | StoreError | InvalidInput, R> =>
  new Completion<B, E, R>(claim, keys, results, marked).ask()

class Completion<B, E, R> implements AfterCompletion<B, E | StoreError | InvalidInput, R> {
  private readonly claim: Claim
  private readonly keys: ReadonlyArray<Key>
  private readonly results: ReadonlyArray<string | undefined> | undefined
  private readonly marked: (lost: ReadonlyArray<number>) => Effect.Effect<B, E, R>

  constructor(
    claim: Claim,
    keys: ReadonlyArray<Key>,
    results: ReadonlyArray<string | undefined> | undefined,
    marked: (lost: ReadonlyArray<number>) => Effect.Effect<B, E, R>
  ) {
    this.claim = claim
    this.keys = keys
    this.results = results
    this.marked = marked
  }

  ask(): Effect.Effect<B, E | StoreError | InvalidInput, R> {
    return this.send(this)
  }

  answered(answers: ReadonlyArray<KeyCompleteAnswer>): Effect.Effect<B, E, R> {
    return this.marked(positionsOf(answers, (answer) => answer !== "Completed"))
  }

  failed(error: StoreError | InvalidInput): Effect.Effect<B, E | StoreError | InvalidInput, R> {
    if (error._tag !== "StoreError" || !error.retriable) return Effect.fail(error)
    const asked = again(error, this.claim.leaseMillis, () =>
      this.send<ReadonlyArray<KeyCompleteAnswer>, StoreError | InvalidInput, never>({
        failed: Effect.fail,
        answered: Effect.succeed
      })
    )
    // after a lost answer, "already" is our own mark
    return Effect.flatMap(asked, (answers) =>
      this.marked(positionsOf(answers, (answer) => answer === "LeaseLost"))
    )
  }

  private send<C, F, S>(after: AfterCompletion<C, F, S>): Effect.Effect<C, F, S> {
    const { claimId, group, terms } = this.claim
    return group.complete(claimId, this.keys, this.results, terms.retentionMillis, after)
  }
}

const none: ReadonlyArray<number> = []

const positionsOf = (
  answers: ReadonlyArray<KeyCompleteAnswer>,
  isLost: (answer: KeyCompleteAnswer) => boolean
): ReadonlyArray<number> => {
  let lost: Array<number> | undefined
  for (let position = 0; position < answers.length; position++) {
    if (!isLost(answers[position])) continue
    if (lost === undefined) lost = [position]
    else lost.push(position)
  }
  return lost ?? none
}

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
