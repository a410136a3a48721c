/**
 * Work on a fiber of its own, so that what is known about it is exactly how it ended.
 *
 * Effect drops the value of a fiber that was interrupted while it was running, or while it could not be interrupted
 * (`Effect.uninterruptible`): such a fiber goes on to its end, and is said to have been interrupted all the same. Work
 * that has taken effect would then be taken for undone, and be done again. So it is interrupted only when it rests
 * where it may be interrupted.
 */
import { Effect, type Exit, type Fiber } from "effect"

/**
 * What a fiber does not tell by its interface, in Effect 4.1; `ownFiber.test.ts` fails where a later version has it
 * otherwise. Without these fields a fiber is interrupted at once, as `Fiber.interrupt` does it.
 */
interface Inside {
  interruptible?: boolean
  readonly _running?: boolean
}

/** Interrupts a fiber now if it rests where it may be interrupted, else as soon as it does. */
export const interruptAtRest = (fiber: Fiber.Fiber<unknown, unknown>): void => {
  const inside = fiber as Inside
  if (fiber.pollUnsafe() !== undefined) return
  if (inside.interruptible === false) whenInterruptible(inside, () => interruptAtRest(fiber))
  else if (inside._running === true) queueMicrotask(() => interruptAtRest(fiber))
  else fiber.interruptUnsafe()
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

/** Runs `work` on a fiber of its own and waits for it; when the caller is interrupted, the work is, and is waited for. */
export const onOwnFiber = <A, E, R, B, F>(
  work: Effect.Effect<A, E, R>,
  watcher: Watcher<A, E, B, F>
): Effect.Effect<B, F, R> =>
  Effect.withFiber<B, F, R>((caller) => {
    const fiber = Effect.runForkWith(caller.context)(work as Effect.Effect<A, E>)
    const early = fiber.pollUnsafe()
    if (early !== undefined) return watcher.ended(early)
    return Effect.callback<B, F>((resume) => {
      watcher.resting(() => interruptAtRest(fiber))
      fiber.addObserver((exit) => resume(watcher.ended(exit)))
      return Effect.suspend(() => {
        watcher.stopping()
        interruptAtRest(fiber)
        return Effect.callback<void>((done) => {
          fiber.addObserver(() => done(Effect.void))
        })
      })
    })
  })
