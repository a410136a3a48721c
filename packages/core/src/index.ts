/**
 * Makes each message take effect once: claims, the services that keep them, and the tracker.
 */
export * from "./Claim.ts"
export * as ClaimId from "./ClaimId.ts"
export * from "./Errors.ts"
export * from "./IdempotencyStore.ts"
export type { HeldLease, LeaseKeeper } from "./internal/LeaseKeeper.ts"
export * as Key from "./Key.ts"
export * from "./Lock.ts"
export * as Metrics from "./Metrics.ts"
export * as OffsetRanges from "./OffsetRanges.ts"
export * as OffsetSet from "./OffsetSet.ts"
export * from "./OffsetStore.ts"
export * from "./PlainTracker.ts"
export * as Policies from "./Policies.ts"
export * as Protocol from "./Protocol.ts"
export * as Settings from "./Settings.ts"
export * from "./Tracker.ts"
