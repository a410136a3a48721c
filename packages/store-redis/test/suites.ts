import { uniqueName } from "@tidemark/test-servers"
import { idempotencyStoreSuite, lockSuite, offsetStoreSuite } from "@tidemark/testkit/vitest"
import { type RedisConnectionOptions, RedisStore } from "./store.ts"

/** The contract of a store, for one way to connect. */
export const contract = (name: string, options: RedisConnectionOptions): void => {
  const layer = RedisStore.layer({ ...options, prefix: uniqueName("store") })
  offsetStoreSuite(name, layer, { clock: "live" })
  idempotencyStoreSuite(name, layer, { clock: "live" })
  lockSuite(name, layer, { clock: "live" })
}
