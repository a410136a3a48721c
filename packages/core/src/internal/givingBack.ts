/** Letting go of claims, when it matters more that they are let go of than what the store says to it. */
import { Effect } from "effect"
import type { ClaimIdReused, InvalidInput, StoreError } from "../Errors.ts"

type Release = Effect.Effect<void, StoreError | InvalidInput>

/** Gives back a claim that is ours; where that can't be done, says so and goes on: it ends with its lease. */
export const giveBack = (what: string, release: Release): Effect.Effect<void> =>
  Effect.catch(release, (error) =>
    Effect.logWarning(
      `tidemark: ${what} could not be given back; it is free again when its lease ends: ${error.message}`
    )
  )

/**
 * For a claim whose asking failed: it may have taken effect though its answer was lost, and nobody shall wait for its
 * lease to end. Of any other failure but the store's it is known that nothing was claimed.
 */
export const giveBackUnanswered = (
  what: string,
  release: Release,
  error: StoreError | InvalidInput | ClaimIdReused
): Effect.Effect<void> =>
  error._tag === "StoreError" ? giveBack(`${what}, which may be claimed or not,`, release) : Effect.void
