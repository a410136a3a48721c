/** Waiting for what another holds, and for a store or broker that fails for a while. */
import { Clock, Effect, Random } from "effect"

/** By the monotonic clock, which no change of the time of day moves. */
export const monotonicMillis = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

/** Between 0.1 s and 1 s, growing, somewhere in its upper half by chance, so that many don't ask at the same moment. */
const pauseMillis = (attempt: number, chance: number): number =>
  Math.min(1_000, 100 * 2 ** Math.min(attempt, 10)) * (0.5 + chance / 2)

/** Waits until the hint comes, the holder's lease is over, or a moment has passed. */
export const untilWorthAsking = (
  hint: Effect.Effect<void>,
  attempt: number,
  heldUntil: number
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    // not less than a moment: where the store's clock is behind ours, the lease seems to be over for long
    const pause = Math.min(pauseMillis(attempt, yield* Random.next), Math.max(100, heldUntil - now))
    yield* Effect.raceFirst(hint, Effect.sleep(pause))
  })

/**
 * Tries again, with pauses, while it fails in a way that may pass, and until the deadline by the monotonic clock.
 * The same call each time: a claim keeps its id.
 */
export const retryUntil = <A, E extends { readonly retriable: boolean }, R>(
  call: Effect.Effect<A, E, R>,
  deadline: () => number,
  attempt = 0
): Effect.Effect<A, E, R> =>
  Effect.catch(call, (error) => {
    if (!error.retriable) return Effect.fail(error)
    return Effect.gen(function* () {
      const clock = yield* Clock.Clock
      const pause = pauseMillis(attempt, yield* Random.next)
      if (monotonicMillis(clock) + pause >= deadline()) return yield* Effect.fail(error)
      yield* Effect.sleep(pause)
      return yield* retryUntil(call, deadline, attempt + 1)
    })
  })
