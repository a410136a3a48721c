/**
 * Locks, derived from key claims: whatever store keeps idempotency keys keeps locks too.
 *
 * A lock is a claim on a key of the namespace `lock` that is never completed. First come, first served within a
 * process; between processes there is no order, but a waiter is woken promptly where the store can, and else asks
 * again with jitter.
 */
import { Cause, Clock, Context, Deferred, type Duration, Effect, Layer, type Scope } from "effect"
import * as ClaimId from "./ClaimId.ts"
import {
  type ClaimIdReused,
  InFlightElsewhere,
  type InvalidInput,
  LeaseLost,
  type StoreError
} from "./Errors.ts"
import { IdempotencyStore, type IdempotencyStoreService, type KeyClaimRef } from "./IdempotencyStore.ts"
import { FairQueues, type Place } from "./internal/FairQueues.ts"
import { giveBack } from "./internal/givingBack.ts"
import * as Input from "./internal/input.ts"
import type { HeldLease } from "./internal/LeaseKeeper.ts"
import { onOwnFiberNow } from "./internal/ownFiber.ts"
import { Course } from "./internal/underLease.ts"
import { monotonicMillis, untilWorthAsking } from "./Patience.ts"
import * as Policies from "./Policies.ts"
import type { ClaimTerms } from "./protocol/Claims.ts"

/** The namespace of keys that locks live in. */
const namespace = "lock"

export interface LockOptions {
  /** How long the lock lasts unless renewed; renewed at a third while it is held. Default: 30 s. */
  readonly lease?: Duration.Input
  /** How long to wait for it before failing with `InFlightElsewhere`; 0: not at all. Default: for ever. */
  readonly wait?: Duration.Input
  /** A label for people. */
  readonly owner?: string
}

/** A lock that is held. */
export interface HeldLock {
  readonly name: string
  /** The fencing token: greater than that of every earlier holder. */
  readonly token: number
  /** Fails when the lock is lost; never succeeds. */
  readonly lost: Effect.Effect<never, LeaseLost>
}

export type LockError = StoreError | InvalidInput | ClaimIdReused | InFlightElsewhere

export interface LockService {
  /**
   * Runs the effect while holding the lock; interrupts it, best effort, and fails with `LeaseLost` when the lock is
   * lost meanwhile.
   *
   * @example
   * lock.withLock("report", { lease: "10 seconds", wait: 0 })(writeReport)
   */
  readonly withLock: (
    name: string,
    options?: LockOptions
  ) => <A, E, R>(
    work: Effect.Effect<A, E, R> | ((lock: HeldLock) => Effect.Effect<A, E, R>)
  ) => Effect.Effect<A, E | LockError | LeaseLost, R>
  /** Holds the lock until the Scope closes. */
  readonly acquire: (name: string, options?: LockOptions) => Effect.Effect<HeldLock, LockError, Scope.Scope>
}

/** Mutual exclusion by leases, with fencing tokens. */
export class Lock extends Context.Service<Lock, LockService>()("@tidemark/core/Lock") {
  /** Locks on any store of idempotency keys. */
  static get layer(): Layer.Layer<Lock, never, IdempotencyStore> {
    return lockLayer
  }
}

interface Terms {
  readonly name: string
  readonly leaseMillis: number
  readonly waitMillis: number
  readonly owner: string
}

const readTerms = (name: string, options: LockOptions): Terms | InvalidInput => {
  const bad =
    Input.unknownOption("the lock", options, ["lease", "wait", "owner"]) ??
    Input.name("lock name", name) ??
    (options.owner === undefined ? undefined : Input.name("owner", options.owner))
  if (bad !== undefined) return bad
  const leaseMillis =
    options.lease === undefined ? Policies.defaultLeaseMillis : Policies.duration("lease", options.lease)
  if (typeof leaseMillis !== "number") return leaseMillis
  const waitMillis = options.wait === undefined ? Number.POSITIVE_INFINITY : Policies.toMillis(options.wait)
  if (!(waitMillis >= 0)) return Input.invalid("wait", options.wait, "a duration of 0 or more")
  return { name, leaseMillis, waitMillis, owner: options.owner ?? `process ${process.pid}` }
}

interface Acquired {
  readonly place: Place
  readonly claimId: string
  readonly token: number
  readonly deadline: number
}

const makeService: Effect.Effect<LockService, never, IdempotencyStore> = Effect.gen(function* () {
  const store = yield* IdempotencyStore
  const clock = yield* Clock.Clock
  const queues = new FairQueues()

  /** For uninterruptible regions: interrupted while it waits, it leaves nothing behind. */
  const acquired = (terms: Terms, restore: Restore): Effect.Effect<Acquired, LockError> => {
    const place = queues.enter(terms.name)
    const patientUntil = clock.currentTimeMillisUnsafe() + terms.waitMillis
    const asking = new Asking(store, clock, terms, patientUntil, restore, place)
    if (place.isMine()) return asking.ask()
    const turn = restore(place.turn(terms.waitMillis, () => elsewhere(terms.name, patientUntil)))
    return Effect.matchCauseEffect(turn, {
      onFailure: (cause) => {
        place.leave()
        return Effect.failCause(cause)
      },
      onSuccess: () => asking.ask()
    })
  }

  /** Gives it back, and then what follows. */
  const released = <A, E>(
    { name }: Terms,
    { claimId, place }: Acquired,
    next: Effect.Effect<A, E>
  ): Effect.Effect<A, E> =>
    Effect.matchCauseEffect(store.release({ namespace, claimId }, [name]), {
      onSuccess: () => {
        place.leave()
        return next
      },
      onFailure: (cause) => {
        place.leave()
        return Effect.andThen(giveBack(`lock ${name}`, Effect.failCause(cause)), next)
      }
    })

  const lostOf =
    ({ name }: Terms, { claimId, token }: Acquired) =>
    () =>
      new LeaseLost({ what: `lock ${name}`, claimId, token })

  return Lock.of({
    withLock:
      (name, options = {}) =>
      <A, E, R>(work: Effect.Effect<A, E, R> | ((lock: HeldLock) => Effect.Effect<A, E, R>)) => {
        const terms = readTerms(name, options)
        if ("_tag" in terms) return Effect.fail(terms)
        return Effect.uninterruptibleMask((restore) =>
          Effect.flatMap(acquired(terms, restore), (held) => {
            const running = Effect.isEffect(work)
              ? work
              : Effect.suspend(() => work({ name, token: held.token, lost: Effect.never }))
            const course = new Course<A, E, KeyClaimRef>(() => ({
              keeper: store.leases,
              ref: { namespace, claimId: held.claimId },
              leaseMillis: terms.leaseMillis,
              deadline: held.deadline,
              lost: lostOf(terms, held)
            }))
            return onOwnFiberNow(running, course, restore, {
              failed: (cause): Effect.Effect<A, E | LeaseLost> =>
                released(terms, held, Effect.failCause(cause)),
              succeeded: (value) => released(terms, held, Effect.succeed(value))
            })
          })
        )
      },
    acquire: (name, options = {}) => {
      const terms = readTerms(name, options)
      if ("_tag" in terms) return Effect.fail(terms)
      return Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const held = yield* Effect.suspend(() => acquired(terms, restore))
          const lost = yield* Deferred.make<never, LeaseLost>()
          const lease: HeldLease<KeyClaimRef> = {
            ref: { namespace, claimId: held.claimId },
            leaseMillis: terms.leaseMillis,
            deadline: held.deadline,
            index: -1,
            onLost: () => Deferred.doneUnsafe(lost, Effect.fail(lostOf(terms, held)()))
          }
          yield* Effect.addFinalizer(() =>
            Effect.suspend(() => {
              store.leases.drop(lease)
              return released(terms, held, Effect.void)
            })
          )
          store.leases.hold(lease)
          return { name, token: held.token, lost: Deferred.await(lost) }
        })
      )
    }
  })
})

const elsewhere = (name: string, until: number): InFlightElsewhere =>
  new InFlightElsewhere({ what: `lock ${name}`, until })

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * Asks the store until the lock is ours, or patience ends. Interrupted, or failing, it leaves nothing behind, its place in
 * the queue neither.
 */
class Asking {
  private readonly store: IdempotencyStoreService
  private readonly clock: Clock.Clock
  private readonly terms: Terms
  private readonly patientUntil: number
  private readonly restore: Restore
  private readonly place: Place
  private readonly claimId = ClaimId.make()
  private readonly items: ReadonlyArray<{ readonly key: string }>
  private readonly claimTerms: ClaimTerms

  constructor(
    store: IdempotencyStoreService,
    clock: Clock.Clock,
    terms: Terms,
    patientUntil: number,
    restore: Restore,
    place: Place
  ) {
    this.store = store
    this.clock = clock
    this.terms = terms
    this.patientUntil = patientUntil
    this.restore = restore
    this.place = place
    this.items = [{ key: terms.name }]
    this.claimTerms = { claimId: this.claimId, owner: terms.owner, leaseMillis: terms.leaseMillis }
  }

  ask(): Effect.Effect<Acquired, LockError> {
    return Effect.matchCauseEffect(this.askFrom(0), {
      onFailure: (cause) => Effect.andThen(this.letGo(cause), Effect.failCause(cause)),
      onSuccess: Effect.succeed
    })
  }

  /** Each time what follows takes the place of what was before: whoever stands by for a leader may wait for weeks. */
  private askFrom(attempt: number): Effect.Effect<Acquired, LockError> {
    const { clock, terms } = this
    const deadline = monotonicMillis(clock) + terms.leaseMillis
    return Effect.flatMap(
      this.restore(this.store.claim(namespace, this.items, this.claimTerms)),
      ([answer]): Effect.Effect<Acquired, LockError> => {
        switch (answer._tag) {
          case "Claimed":
            return monotonicMillis(clock) < deadline
              ? Effect.succeed({ place: this.place, claimId: this.claimId, token: answer.token, deadline })
              : this.tooLate(attempt, answer.until)
          case "Invalid":
            return Effect.fail(answer.error)
          default:
            return this.waitFor(attempt, answer._tag === "InFlight" ? answer.until : Number.POSITIVE_INFINITY)
        }
      }
    )
  }

  /** The answer took longer than the lease: another may hold it by now. */
  private tooLate(attempt: number, until: number): Effect.Effect<Acquired, LockError> {
    const { claimId, clock, terms } = this
    return Effect.flatMap(giveBack(`lock ${terms.name}`, this.store.release({ namespace, claimId })), () =>
      clock.currentTimeMillisUnsafe() >= this.patientUntil
        ? Effect.fail(elsewhere(terms.name, until))
        : this.askFrom(attempt + 1)
    )
  }

  private waitFor(attempt: number, heldUntil: number): Effect.Effect<Acquired, LockError> {
    const { name } = this.terms
    const patience = this.patientUntil - this.clock.currentTimeMillisUnsafe()
    if (patience <= 0) return Effect.fail(elsewhere(name, heldUntil))
    const wait = untilWorthAsking(this.store.awaitSettled(namespace, name), attempt, heldUntil, patience)
    return Effect.flatMap(this.restore(wait), () => this.askFrom(attempt + 1))
  }

  /** The claim may have taken effect though its answer did not come. */
  private letGo(cause: Cause.Cause<LockError>): Effect.Effect<void> {
    const { claimId, place, terms } = this
    const isOurs = Cause.hasInterrupts(cause) || cause.reasons.some(isStoreFailure)
    const leave = Effect.sync(() => place.leave())
    return isOurs
      ? Effect.ensuring(
          giveBack(
            `lock ${terms.name}, which may be ours or not,`,
            this.store.release({ namespace, claimId }, [terms.name])
          ),
          leave
        )
      : leave
  }
}

const isStoreFailure = (reason: Cause.Reason<LockError>): boolean =>
  reason._tag === "Fail" && reason.error._tag === "StoreError"

const lockLayer: Layer.Layer<Lock, never, IdempotencyStore> = Layer.effect(Lock, makeService)
