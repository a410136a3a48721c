/** `Tracker.isProcessed` and `Tracker.markProcessed`: what is known of a key, without running anything. */
import { Effect } from "effect"
import * as ClaimId from "../ClaimId.ts"
import {
  type ClaimIdReused,
  InFlightElsewhere,
  type InvalidInput,
  type LeaseLost,
  type StoreError
} from "../Errors.ts"
import { format, type Key } from "../Key.ts"
import type { Terms } from "../Tracker.ts"
import { groupOf, isGroup, type Stores } from "./claiming.ts"
import { giveBackUnanswered } from "./givingBack.ts"
import { checkIdKey, checkOffsetKey, type Decision, leaseLost } from "./keyGroup.ts"

/** Whether the key is completed now. */
export const lookup = (stores: Stores, key: Key): Effect.Effect<boolean, StoreError | InvalidInput> => {
  if (key._tag === "Offset") {
    const bad = checkOffsetKey(key)
    return bad === undefined ? stores.offsets.isCompleted(key.stream, key.offset) : Effect.fail(bad)
  }
  const namespace = key.namespace ?? stores.namespace
  const bad = checkIdKey(key, namespace)
  if (bad !== undefined || namespace === undefined) return Effect.fail(bad as InvalidInput)
  return Effect.map(stores.keys.lookup(namespace, [key.id]), ([status]) => status._tag === "Completed")
}

type MarkError = StoreError | InvalidInput | ClaimIdReused | InFlightElsewhere | LeaseLost

/** Marks a key completed without running anything. */
export const mark = (stores: Stores, key: Key, terms: Terms): Effect.Effect<boolean, MarkError> =>
  Effect.uninterruptible(
    Effect.suspend(() => {
      const group = groupOf(stores, key, undefined)
      if (!isGroup(group)) return Effect.fail(group)
      const claimId = ClaimId.make()
      const keys = [key]
      // what the store did before it failed is not known
      const failed = (error: StoreError | InvalidInput | ClaimIdReused) =>
        Effect.andThen(
          giveBackUnanswered(`the claim on ${format(key)}`, group.release(claimId), error),
          Effect.fail(error)
        )
      const decided = ([decision]: ReadonlyArray<Decision>): Effect.Effect<boolean, MarkError> => {
        switch (decision._tag) {
          case "Claimed":
            return group.complete<boolean, MarkError, never>(
              claimId,
              keys,
              undefined,
              terms.retentionMillis,
              {
                failed,
                answered: ([answer]) =>
                  answer === "LeaseLost"
                    ? Effect.fail(leaseLost(key, claimId, decision.token))
                    : Effect.succeed(true)
              }
            )
          case "Completed":
            return Effect.succeed(false)
          case "InFlight":
            return Effect.fail(new InFlightElsewhere({ what: format(key), until: decision.until }))
          case "Refused":
            // no fingerprint was given that could differ
            return Effect.fail(decision.error as InvalidInput)
        }
      }
      const claimTerms = { claimId, owner: stores.owner, leaseMillis: terms.leaseMillis }
      return group.claim<boolean, MarkError, never>(keys, claimTerms, { failed, decided })
    })
  )
