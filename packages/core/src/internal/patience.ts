/** `Patience`, with deadlines by the time of day, as the tracker has them. */
import { Clock, Effect } from "effect"
import type { StoreError } from "../Errors.ts"
import { monotonicMillis, retryUntil } from "../Patience.ts"

export { untilWorthAsking } from "../Patience.ts"

/** Asks a store again, with growing pauses, while it fails in a way that may pass; until `deadline` by the wall clock. */
export const retryStore = <A, E extends { readonly retriable: boolean }, R>(
  ask: (attempt: number) => Effect.Effect<A, E | StoreError, R>,
  _isStoreError: (error: E | StoreError) => error is StoreError,
  deadlineMillis: number
): Effect.Effect<A, E | StoreError, R> =>
  Effect.flatMap(Clock.Clock, (clock) => {
    const deadline = monotonicMillis(clock) + deadlineMillis - clock.currentTimeMillisUnsafe()
    return retryUntil(ask, () => deadline)
  })
