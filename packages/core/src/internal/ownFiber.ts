/**
 * Work on a fiber of its own, so that what is known about it is exactly how it ended.
 *
 * Effect drops the value of a fiber that was interrupted while it was running, or while it could not be interrupted
 * (`Effect.uninterruptible`): such a fiber goes on to its end, and is said to have been interrupted all the same. So is
 * one that has come to its end and only waits for what it forked to be interrupted. Work that has taken effect would then
 * be taken for undone, and be done again. So it is interrupted only when it rests where it may be interrupted.
 */
import { type Cause, Effect, Exit, Fiber } from "effect"

/**
 * What a fiber does not tell by its interface, in Effect 4.1; `Finishing.test.ts` fails where a later version has it
 * otherwise. Without these fields a fiber is interrupted at once, as `Fiber.interrupt` does it, and work begins also where
 * its caller was interrupted before.
 */
interface Inside {
  interruptible?: boolean
  readonly _running?: boolean
  readonly _interruptedCause?: unknown
  readonly _children?: ReadonlySet<Fiber.Fiber<unknown, unknown>>
}

/**
 * Interrupts a fiber now if it rests where it may be interrupted, else as soon as it does; so that work which can't be
 * interrupted now, and ends well, is not said to have been interrupted.
 *
 * @param isWanted - asked before it is interrupted: by then the fiber may be at something else. Default: always.
 */
export const interruptAtRest = (
  fiber: Fiber.Fiber<unknown, unknown>,
  isWanted: () => boolean = () => true
): void => {
  const inside = fiber as Inside
  if (fiber.pollUnsafe() !== undefined || !isWanted()) return
  const again = () => interruptAtRest(fiber, isWanted)
  const ending = endingChild(inside)
  if (inside.interruptible === false) whenInterruptible(inside, again)
  else if (inside._running === true) queueMicrotask(again)
  else if (ending === undefined) fiber.interruptUnsafe()
  else ending.addObserver(() => queueMicrotask(again))
}

/** What the fiber forked and is interrupted already: perhaps since the fiber has come to its end, and waits for it. */
const endingChild = ({ _children }: Inside): Fiber.Fiber<unknown, unknown> | undefined => {
  for (const child of _children ?? []) if ((child as Inside)._interruptedCause !== undefined) return child
  return undefined
}

/** Calls back when the fiber has become interruptible and has gone on from there until it rests or ends. */
const whenInterruptible = (inside: Inside, act: () => void): void => {
  const enumerable = true
  const configurable = true
  Object.defineProperty(inside, "interruptible", {
    enumerable,
    configurable,
    get: () => false,
    set: (value: boolean) => {
      if (!value) return
      Object.defineProperty(inside, "interruptible", { enumerable, configurable, writable: true, value })
      queueMicrotask(act)
    }
  })
}

/** Who watches over work: learns what becomes of it. */
export interface Watcher<A, E, B, F> {
  /** How it ended, also where the caller was interrupted and takes no answer; gives what the caller gets. */
  readonly ended: (exit: Exit.Exit<A, E>) => Exit.Exit<B, F>
  /** It did not end at once. */
  readonly resting: (interrupt: () => void) => void
  /** The caller is interrupted, and the work is to be. */
  readonly stopping: () => void
}

/** What follows work. */
export interface After<A, E, B, F, S> {
  readonly succeeded: (value: A) => Effect.Effect<B, F, S>
  readonly failed: (cause: Cause.Cause<E>) => Effect.Effect<B, F, S>
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * Runs `work` on a fiber of its own and waits for it; when the caller is interrupted, the work is, and is waited for.
 * It is not begun where the caller was interrupted before.
 */
export const onOwnFiber = <A, E, R, B, F>(
  work: Effect.Effect<A, E, R>,
  watcher: Watcher<A, E, B, F>
): Effect.Effect<B, F, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(restore(Effect.void), () =>
      onOwnFiberNow<A, E, R, B, F, B, F, never>(work, watcher, restore, {
        succeeded: Effect.succeed,
        failed: Effect.failCause
      })
    )
  )

/**
 * The same in the midst of an uninterruptible region, for the fiber that runs at this moment: where the work ends at
 * once, what follows costs no step.
 */
export const onOwnFiberNow = <A, E, R, B, F, C, G, S>(
  work: Effect.Effect<A, E, R>,
  watcher: Watcher<A, E, B, F>,
  restore: Restore,
  after: After<B, F, C, G, S>
): Effect.Effect<C, G, R | S> => {
  const caller = Fiber.getCurrent()
  return caller === undefined || (caller as Inside)._interruptedCause !== undefined
    ? Effect.matchCauseEffect(restore(Effect.void), {
        onFailure: (cause) => after.failed(cause),
        onSuccess: () => Effect.withFiber((fiber) => begin(fiber, work, watcher, restore, after))
      })
    : begin(caller, work, watcher, restore, after)
}

const begin = <A, E, R, B, F, C, G, S>(
  caller: Fiber.Fiber<unknown, unknown>,
  work: Effect.Effect<A, E, R>,
  watcher: Watcher<A, E, B, F>,
  restore: Restore,
  after: After<B, F, C, G, S>
): Effect.Effect<C, G, S> => {
  const fiber = Effect.runForkWith(caller.context)(work as Effect.Effect<A, E>)
  const early = fiber.pollUnsafe()
  if (early === undefined) return wait(fiber, watcher, restore, after)
  const exit = watcher.ended(early)
  return Exit.isSuccess(exit) ? after.succeeded(exit.value) : after.failed(exit.cause)
}

const wait = <A, E, B, F, C, G, S>(
  fiber: Fiber.Fiber<A, E>,
  watcher: Watcher<A, E, B, F>,
  restore: Restore,
  after: After<B, F, C, G, S>
): Effect.Effect<C, G, S> => {
  let answer: Exit.Exit<B, F> | undefined
  let resume = (_exit: Exit.Exit<B, F>): void => {}
  watcher.resting(() => interruptAtRest(fiber))
  fiber.addObserver((exit) => {
    answer = watcher.ended(exit)
    resume(answer)
  })
  const end = Effect.callback<B, F>((done) => {
    if (answer === undefined) resume = done
    else done(answer)
  })
  // interrupted here, perhaps even before it waits
  const stopped = Effect.suspend(() => {
    if (answer !== undefined) return Effect.void
    watcher.stopping()
    interruptAtRest(fiber)
    return Effect.callback<void>((done) => {
      fiber.addObserver(() => done(Effect.void))
    })
  })
  return Effect.matchCauseEffect(restore(end), {
    onFailure: (cause) => Effect.flatMap(stopped, () => after.failed(cause)),
    onSuccess: (value) => after.succeeded(value)
  })
}
