/**
 * Keeps positions, idempotency keys and locks in the memory of one process.
 */
export { CompactKeyTable } from "./CompactKeyTable.ts"
export { MemoryCore, type MemoryCoreOptions, type MemoryStats } from "./MemoryCore.ts"
export * as MemoryStore from "./MemoryStore.ts"
export * as NearCache from "./NearCache.ts"
