/**
 * Keeps positions, idempotency keys and locks on Redis: one server, Sentinel or Cluster.
 */
export type { WaitReplicas } from "./internal/Connection.ts"
export * as RedisStore from "./RedisStore.ts"
