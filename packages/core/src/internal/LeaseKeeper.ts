/**
 * Keeps the leases that one store has given out: renews them at a third of their time, all that are due in one
 * call, and tells whoever lost one. One timer for all, armed only while something is held.
 *
 * A deadline runs on the monotonic clock, from before the request was sent: then our idea of the lease ends no
 * later than the store's.
 */
import { Clock, Effect, Exit, type Scope } from "effect"
import { monotonicMillis } from "../Patience.ts"

/** A lease that is held while its owner works. */
export interface HeldLease<Ref> {
  readonly ref: Ref
  readonly leaseMillis: number
  /** When the lease ends by our own reckoning, on the monotonic clock. */
  deadline: number
  /** Called once, when the lease is lost; the keeper has forgotten it then. */
  readonly onLost: () => void
  /** Asked before each renewal: a lease whose owner no longer has a right to it is left to end. Default: always. */
  readonly mayRenew?: (() => boolean) | undefined
  /** Whether all that was claimed is settled: then the lease is let go of without a word. Default: never. */
  readonly isSettled?: (() => boolean) | undefined
  /** The keeper's own. */
  index: number
  /** The keeper's own: a renewal is on its way. */
  renewing?: boolean
  /** The keeper's own: not to be renewed before, on the monotonic clock, since it has just failed. */
  retryAt?: number
}

export interface LeaseKeeper<Ref> {
  readonly hold: (lease: HeldLease<Ref>) => void
  readonly drop: (lease: HeldLease<Ref>) => void
}

/** How early a lease may be renewed to share the call of another that is due, as a part of its time. */
const companyPart = 1 / 12

/** When to try again after a failed renewal, as a part of the lease. */
const retryPart = 1 / 15

const renewAt = (lease: HeldLease<unknown>): number => lease.deadline - (lease.leaseMillis * 2) / 3

const isDue = (lease: HeldLease<unknown>, now: number): boolean =>
  renewAt(lease) <= now + lease.leaseMillis * companyPart && (lease.retryAt ?? 0) <= now

/**
 * @param renew - prolongs the leases; answers for each, in order, whether it is still held. May fail: it is asked
 * again until the deadlines pass.
 */
export const make = <Ref>(
  renew: (leases: ReadonlyArray<HeldLease<Ref>>) => Effect.Effect<ReadonlyArray<boolean>, unknown>
): Effect.Effect<LeaseKeeper<Ref>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Effect.context<never>()
    const clock = yield* Clock.Clock
    const fork = Effect.runForkWith(context)
    const held: Array<HeldLease<Ref>> = []
    let armedFor = Number.POSITIVE_INFINITY
    let disarm = (): void => {}
    let closed = false

    const drop = (lease: HeldLease<Ref>): void => {
      const { index } = lease
      if (index < 0 || held[index] !== lease) return
      const last = held.pop() as HeldLease<Ref>
      if (last !== lease) {
        held[index] = last
        last.index = index
      }
      lease.index = -1
    }

    const lose = (lease: HeldLease<Ref>): void => {
      drop(lease)
      if (lease.isSettled?.() !== true) lease.onLost()
    }

    const arm = (at: number): void => {
      disarm()
      armedFor = at
      const fiber = fork(
        Effect.flatMap(Effect.sleep(Math.max(0, at - monotonicMillis(clock))), () =>
          Effect.sync(() => {
            disarm = () => {}
            tick()
            armForNext()
          })
        )
      )
      disarm = () => fiber.interruptUnsafe()
    }

    const armForNext = (): void => {
      let next = Number.POSITIVE_INFINITY
      for (const lease of held) {
        const waits = lease.renewing === true || lease.mayRenew?.() === false
        const due = waits ? lease.deadline : Math.max(renewAt(lease), lease.retryAt ?? 0)
        next = Math.min(next, due, lease.deadline)
      }
      armedFor = Number.POSITIVE_INFINITY
      if (next < Number.POSITIVE_INFINITY && !closed) arm(next)
    }

    const tick = (): void => {
      const now = monotonicMillis(clock)
      const due: Array<HeldLease<Ref>> = []
      for (const lease of held.slice()) {
        if (lease.deadline <= now) lose(lease)
        else if (lease.renewing !== true && isDue(lease, now)) {
          if (lease.isSettled?.() === true) drop(lease)
          else if (lease.mayRenew?.() !== false) due.push(lease)
        }
      }
      if (due.length > 0) startRenewal(due, now)
    }

    /** On a fiber of its own, so that a store that does not answer for some leases keeps no others waiting. */
    const startRenewal = (due: ReadonlyArray<HeldLease<Ref>>, now: number): void => {
      let shortest = Number.POSITIVE_INFINITY
      let patience = Number.POSITIVE_INFINITY
      for (const lease of due) {
        lease.renewing = true
        shortest = Math.min(shortest, lease.leaseMillis)
        patience = Math.min(patience, lease.deadline - now)
      }
      // a lost answer leaves time to ask again
      const asked = Effect.timeout(renew(due), Math.min(patience, shortest / 3))
      fork(
        Effect.flatMap(Effect.exit(asked), (exit) =>
          Effect.sync(() => {
            const failedAt = Exit.isFailure(exit) ? monotonicMillis(clock) : undefined
            for (const lease of due) {
              lease.renewing = false
              lease.retryAt = failedAt === undefined ? 0 : failedAt + lease.leaseMillis * retryPart
            }
            if (Exit.isSuccess(exit)) noteRenewals(due, exit.value, now)
            armForNext()
          })
        )
      )
    }

    const noteRenewals = (
      due: ReadonlyArray<HeldLease<Ref>>,
      answers: ReadonlyArray<boolean>,
      now: number
    ): void => {
      for (let index = 0; index < due.length; index++) {
        const lease = due[index]
        if (lease.index < 0) continue
        if (answers[index]) lease.deadline = now + lease.leaseMillis
        else lose(lease)
      }
    }

    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        closed = true
        disarm()
      })
    )

    return {
      drop,
      hold: (lease) => {
        lease.index = held.length
        held.push(lease)
        const due = renewAt(lease)
        if (due < armedFor && !closed) arm(due)
      }
    }
  })
