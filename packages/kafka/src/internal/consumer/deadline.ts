/** A bound on how long a handler may be at work. */
import { interruptAtRest } from "@tidemark/core"
import { Cause, type Duration, Effect, Exit, type Fiber } from "effect"

/** By the fibers that wait for another which does their work: an interruption is for that one. */
const stands = new WeakMap<Fiber.Fiber<unknown, unknown>, Fiber.Fiber<unknown, unknown>>()

/** The fiber that does this one's work now: most often itself. */
export const atWorkFor = (fiber: Fiber.Fiber<unknown, unknown>): Fiber.Fiber<unknown, unknown> =>
  stands.get(fiber) ?? fiber

/** What was interrupted has failed with this, beside what its finalizers failed with; the rest has ended as it did. */
const overdue = <A, E, F>(exit: Exit.Exit<A, E>, failure: F): Exit.Exit<A, E | F> => {
  if (Exit.isSuccess(exit) || !Cause.hasInterrupts(exit.cause)) return exit
  const others = exit.cause.reasons.filter((reason) => !Cause.isInterruptReason(reason))
  return Exit.failCause(Cause.fromReasons<E | F>([Cause.makeFailReason(failure), ...others]))
}

/**
 * Runs the work, and interrupts it when it is still going on after `limit`, once it can be; if it ends well in spite of
 * that, it has ended well. Work that ends without waiting costs a fiber, and no timer.
 *
 * The work has a fiber of its own, for which its caller waits uninterruptibly: whoever wants to interrupt the caller
 * interrupts what `atWorkFor` tells.
 *
 * @param onOverdue - told when the time is over; what it gives is the failure, unless the work ends well.
 */
export const within = <A, E, R, F>(
  work: Effect.Effect<A, E, R>,
  limit: Duration.Input,
  onOverdue: () => F
): Effect.Effect<A, E | F, R> =>
  Effect.withFiber((caller) => {
    const fork = Effect.runForkWith(caller.context)
    const fiber = fork(work as Effect.Effect<A, E>)
    const early = fiber.pollUnsafe()
    if (early !== undefined) return early
    let failure: { readonly error: F } | undefined
    const timer = fork(
      Effect.map(Effect.sleep(limit), () => {
        failure = { error: onOverdue() }
        interruptAtRest(fiber)
      })
    )
    stands.set(caller, fiber)
    return Effect.uninterruptible(
      Effect.callback<A, E | F>((resume) => {
        fiber.addObserver((exit) => {
          stands.delete(caller)
          timer.interruptUnsafe()
          resume(failure === undefined ? exit : overdue(exit, failure.error))
        })
      })
    )
  })
