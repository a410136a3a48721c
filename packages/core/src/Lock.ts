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
import { IdempotencyStore, type IdempotencyStoreService } from "./IdempotencyStore.ts"
import { FairQueues, type Place } from "./internal/FairQueues.ts"
import { giveBack } from "./internal/givingBack.ts"
import * as Input from "./internal/input.ts"
import type { HeldLease } from "./internal/LeaseKeeper.ts"
import { underLease } from "./internal/underLease.ts"
import { monotonicMillis, untilWorthAsking } from "./Patience.ts"
import * as Policies from "./Policies.ts"

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

const makeService: Effect.Effect<LockService, never, IdempotencyStore> = Effect.map(
  IdempotencyStore,
  (store) => {
    const queues = new FairQueues()

    /** For uninterruptible regions: interrupted while it waits, it leaves nothing behind. */
    const acquired = (terms: Terms, restore: Restore): Effect.Effect<Acquired, LockError> =>
      Effect.suspend(() => {
        const place = queues.enter(terms.name)
        const asked = Effect.gen(function* () {
          const clock = yield* Clock.Clock
          const patientUntil = clock.currentTimeMillisUnsafe() + terms.waitMillis
          yield* restore(place.turn(terms.waitMillis, () => elsewhere(terms.name, patientUntil)))
          return { place, ...(yield* claimed(store, terms, patientUntil, restore)) }
        })
        return Effect.onError(asked, () => place.leave)
      })

    const released = (terms: Terms, { claimId, place }: Acquired): Effect.Effect<void> =>
      Effect.ensuring(
        giveBack(`lock ${terms.name}`, store.release({ namespace, claimId }, [terms.name])),
        place.leave
      )

    const lostOf =
      ({ name }: Terms, { claimId, token }: Acquired) =>
      () =>
        new LeaseLost({ what: `lock ${name}`, claimId, token })

    return Lock.of({
      withLock:
        (name, options = {}) =>
        (work) => {
          const terms = readTerms(name, options)
          if ("_tag" in terms) return Effect.fail(terms)
          return Effect.uninterruptibleMask((restore) =>
            Effect.flatMap(acquired(terms, restore), (held) => {
              const lost = lostOf(terms, held)
              const running = Effect.isEffect(work)
                ? work
                : Effect.suspend(() => work({ name, token: held.token, lost: Effect.never }))
              return Effect.ensuring(
                restore(
                  underLease(
                    () => ({
                      keeper: store.leases,
                      ref: { namespace, claimId: held.claimId },
                      leaseMillis: terms.leaseMillis,
                      deadline: held.deadline,
                      lost
                    }),
                    running
                  )
                ),
                released(terms, held)
              )
            })
          )
        },
      acquire: (name, options = {}) => {
        const terms = readTerms(name, options)
        if ("_tag" in terms) return Effect.fail(terms)
        return Effect.uninterruptibleMask((restore) =>
          Effect.gen(function* () {
            const held = yield* acquired(terms, restore)
            const lost = yield* Deferred.make<never, LeaseLost>()
            const lease: HeldLease<{ namespace: string; claimId: string }> = {
              ref: { namespace, claimId: held.claimId },
              leaseMillis: terms.leaseMillis,
              deadline: held.deadline,
              index: -1,
              onLost: () => Deferred.doneUnsafe(lost, Effect.fail(lostOf(terms, held)()))
            }
            yield* Effect.addFinalizer(() =>
              Effect.suspend(() => {
                store.leases.drop(lease)
                return released(terms, held)
              })
            )
            store.leases.hold(lease)
            return { name, token: held.token, lost: Deferred.await(lost) }
          })
        )
      }
    })
  }
)

const elsewhere = (name: string, until: number): InFlightElsewhere =>
  new InFlightElsewhere({ what: `lock ${name}`, until })

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** Asks the store until the lock is ours, or patience ends. Interrupted, or failing, it leaves nothing behind. */
const claimed = (
  store: IdempotencyStoreService,
  terms: Terms,
  patientUntil: number,
  restore: Restore
): Effect.Effect<Omit<Acquired, "place">, LockError> => {
  const claimId = ClaimId.make()
  const asked = Effect.gen(function* () {
    const clock = yield* Clock.Clock
    // a loop, since whoever stands by for a leader may wait for weeks
    for (let attempt = 0; ; attempt++) {
      const deadline = monotonicMillis(clock) + terms.leaseMillis
      const [answer] = yield* restore(
        store.claim(namespace, [{ key: terms.name }], {
          claimId,
          owner: terms.owner,
          leaseMillis: terms.leaseMillis
        })
      )
      if (answer._tag === "Claimed") {
        if (monotonicMillis(clock) < deadline) return { claimId, token: answer.token, deadline }
        // the answer took longer than the lease: another may hold it by now
        yield* giveBack(`lock ${terms.name}`, store.release({ namespace, claimId }, [terms.name]))
        if (clock.currentTimeMillisUnsafe() >= patientUntil) return yield* elsewhere(terms.name, answer.until)
        continue
      }
      if (answer._tag === "Invalid") return yield* answer.error
      const heldUntil = answer._tag === "InFlight" ? answer.until : Number.POSITIVE_INFINITY
      const patience = patientUntil - clock.currentTimeMillisUnsafe()
      if (patience <= 0) return yield* elsewhere(terms.name, heldUntil)
      yield* restore(
        untilWorthAsking(store.awaitSettled(namespace, terms.name), attempt, heldUntil, patience)
      )
    }
  })
  // the claim may have taken effect though its answer did not come
  return Effect.onError(asked, (cause) =>
    Cause.hasInterrupts(cause) || cause.reasons.some(isStoreFailure)
      ? giveBack(
          `lock ${terms.name}, which may be ours or not,`,
          store.release({ namespace, claimId }, [terms.name])
        )
      : Effect.void
  )
}

const isStoreFailure = (reason: Cause.Reason<LockError>): boolean =>
  reason._tag === "Fail" && reason.error._tag === "StoreError"

const lockLayer: Layer.Layer<Lock, never, IdempotencyStore> = Layer.effect(Lock, makeService)
