/** What every `IdempotencyStore` must do, by invariant. */
import type { IdempotencyStoreService } from "@tidemark/core"
import type { Check } from "../Check.ts"
import { idempotencyStoreClaiming } from "./idempotencyStoreClaiming.ts"
import { idempotencyStoreInput } from "./idempotencyStoreInput.ts"
import { idempotencyStoreSettling } from "./idempotencyStoreSettling.ts"

/** The examples of the contract of `IdempotencyStore`. */
export const idempotencyStoreChecks: ReadonlyArray<Check<IdempotencyStoreService>> = [
  ...idempotencyStoreClaiming,
  ...idempotencyStoreSettling,
  ...idempotencyStoreInput
]
