/**
 * Runs work that is protected by a lease: on another fiber, so that losing the lease interrupts the work and
 * nothing else.
 */
import { Cause, type Effect, Exit } from "effect"
import type { LeaseLost } from "../Errors.ts"
import type { HeldLease, LeaseKeeper } from "./LeaseKeeper.ts"
import { onOwnFiber, type Watcher } from "./ownFiber.ts"

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
}

/** How work under a lease goes. */
export class Course<A, E, Ref> implements Watcher<A, E, A, E | LeaseLost> {
  /** How it ended: also where its caller was interrupted before it could take the answer. */
  exit: Exit.Exit<A, E> | undefined = undefined
  /** It shall come to an end: work of many parts begins no other. */
  isStopping = false
  private readonly leaseOf: () => Lease<Ref>
  private lease: Lease<Ref> | undefined = undefined
  private held: HeldLease<Ref> | undefined = undefined
  private isLost = false

  /** @param leaseOf - asked for only when the work does not end at once. */
  constructor(leaseOf: () => Lease<Ref>) {
    this.leaseOf = leaseOf
  }

  ended(exit: Exit.Exit<A, E>): Exit.Exit<A, E | LeaseLost> {
    this.exit = exit
    const { lease, held } = this
    if (lease === undefined || held === undefined) return exit
    lease.keeper.drop(held)
    const interrupted = this.isLost && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
    return interrupted ? Exit.fail(lease.lost()) : exit
  }

  resting(interrupt: () => void): void {
    const lease = this.leaseOf()
    this.lease = lease
    this.held = {
      ref: lease.ref,
      leaseMillis: lease.leaseMillis,
      deadline: lease.deadline,
      mayRenew: lease.mayRenew,
      isSettled: lease.isSettled,
      index: -1,
      onLost: () => {
        this.isLost = true
        this.isStopping = true
        interrupt()
      }
    }
    lease.keeper.hold(this.held)
  }

  stopping(): void {
    this.isStopping = true
  }
}

/**
 * Runs `work` until it ends or the lease is lost; then it is interrupted, best effort, and `LeaseLost` is the
 * answer unless it had come to its end all the same. Work that never waits ends before anything could be renewed:
 * it costs no timer.
 */
export const underLease = <A, E, R, Ref>(
  leaseOf: () => Lease<Ref>,
  work: Effect.Effect<A, E, R>
): Effect.Effect<A, E | LeaseLost, R> => onOwnFiber(work, new Course<A, E, Ref>(leaseOf))
