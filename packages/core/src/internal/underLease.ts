/**
 * Runs work that is protected by a lease: on another fiber, so that losing the lease interrupts the work and
 * nothing else.
 */
import { Cause, Effect, Exit } from "effect"
import type { LeaseLost } from "../Errors.ts"
import type { HeldLease, LeaseKeeper } from "./LeaseKeeper.ts"

export interface Lease<Ref> {
  readonly keeper: LeaseKeeper<Ref>
  readonly ref: Ref
  readonly leaseMillis: number
  /** By the monotonic clock, from before the claim was asked for. */
  readonly deadline: number
  readonly lost: () => LeaseLost
  readonly mayRenew?: (() => boolean) | undefined
  /** Whether nothing is held any more: then there is nothing to lose. */
  readonly isSettled?: (() => boolean) | undefined
  /** How the work ended: also where its caller was interrupted before it could take the answer. */
  finished?: Exit.Exit<unknown, unknown>
}

/**
 * Runs `work` until it ends or the lease is lost; then it is interrupted, best effort, and `LeaseLost` is the
 * answer unless it had come to its end all the same. Work that never waits ends before anything could be renewed:
 * it costs no timer.
 */
export const underLease = <A, E, R, Ref>(
  lease: Lease<Ref>,
  work: Effect.Effect<A, E, R>
): Effect.Effect<A, E | LeaseLost, R> =>
  Effect.withFiber<A, E | LeaseLost, R>((parent) => {
    const child = Effect.runForkWith(parent.context)(work as Effect.Effect<A, E>)
    const early = child.pollUnsafe()
    if (early !== undefined) {
      lease.finished = early
      return early
    }
    return Effect.callback<A, E | LeaseLost>((resume) => {
      let lost = false
      const held: HeldLease<Ref> = {
        ref: lease.ref,
        leaseMillis: lease.leaseMillis,
        deadline: lease.deadline,
        mayRenew: lease.mayRenew,
        isSettled: lease.isSettled,
        index: -1,
        onLost: () => {
          lost = true
          child.interruptUnsafe()
        }
      }
      lease.keeper.hold(held)
      child.addObserver((exit) => {
        lease.keeper.drop(held)
        lease.finished = exit
        const interrupted = lost && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
        resume(interrupted ? Effect.fail(lease.lost()) : exit)
      })
      return Effect.suspend(() => {
        child.interruptUnsafe()
        return Effect.asVoid(
          Effect.exit(
            Effect.callback<void>((done) => {
              child.addObserver(() => done(Effect.void))
            })
          )
        )
      })
    })
  })
