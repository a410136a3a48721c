/** Waiting for what another holds, and for a store that fails. */
import { Clock, Effect, Random } from "effect"
import type { StoreError } from "../Errors.ts"

/** The shortest and the longest time between two questions, in milliseconds. */
const shortestMillis = 100
const longestMillis = 1_000

/** How long to wait before question number `attempt` (from 0), somewhere between half and all of it by chance. */
export const pauseMillis = (attempt: number, chance: number): number =>
  Math.min(longestMillis, shortestMillis * 2 ** Math.min(attempt, 10)) * (0.5 + chance / 2)

/**
 * Waits until it is worth asking again: until the hint comes, or the holder's lease is over, or a moment has
 * passed; never longer than `patienceMillis`.
 */
export const untilWorthAsking = (
  hint: Effect.Effect<void>,
  attempt: number,
  heldUntil: number,
  patienceMillis: number
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const chance = yield* Random.next
    const left = heldUntil - now
    // over by our clock, and held all the same: the store's clock is another, and tells nothing about when to ask
    const pause = Math.min(
      pauseMillis(attempt, chance),
      left > 0 ? Math.max(1, left) : longestMillis,
      patienceMillis
    )
    yield* Effect.raceFirst(hint, Effect.sleep(pause))
  })

/** Asks a store again, with growing pauses, while it fails in a way that may pass; until `deadline` by the wall clock. */
export const retryStore = <A, E, R>(
  ask: (attempt: number) => Effect.Effect<A, E | StoreError, R>,
  isStoreError: (error: E | StoreError) => error is StoreError,
  deadlineMillis: number
): Effect.Effect<A, E | StoreError, R> => {
  const from = (attempt: number): Effect.Effect<A, E | StoreError, R> =>
    Effect.catch(ask(attempt), (error) => {
      if (!isStoreError(error) || !error.retriable) return Effect.fail(error)
      return Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const pause = pauseMillis(attempt, yield* Random.next)
        if (now + pause >= deadlineMillis) return yield* Effect.fail(error)
        yield* Effect.sleep(pause)
        return yield* from(attempt + 1)
      })
    })
  return from(0)
}
