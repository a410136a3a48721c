/** What every `OffsetStore` must do, by invariant. */
import type { OffsetStoreService } from "@tidemark/core"
import type { Check } from "../Check.ts"
import { offsetStoreClaiming } from "./offsetStoreClaiming.ts"
import { offsetStoreInput } from "./offsetStoreInput.ts"
import { offsetStoreOperators } from "./offsetStoreOperators.ts"
import { offsetStoreSettling } from "./offsetStoreSettling.ts"

/** The examples of the contract of `OffsetStore`. */
export const offsetStoreChecks: ReadonlyArray<Check<OffsetStoreService>> = [
  ...offsetStoreClaiming,
  ...offsetStoreSettling,
  ...offsetStoreOperators,
  ...offsetStoreInput
]
