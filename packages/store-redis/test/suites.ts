import { uniqueName } from "@tidemark/test-servers"
import {
  idempotencyStoreSuite,
  inspectSuite,
  lockSuite,
  offsetStoreSuite,
  parkedRecordsSuite,
  type SuiteOptions
} from "@tidemark/testkit/vitest"
import { describe } from "vitest"
import { type RedisConnectionOptions, RedisStore } from "./store.ts"

/** The contract of a store, for one way to connect. */
export const contract = (
  name: string,
  options: RedisConnectionOptions,
  suites: Omit<SuiteOptions, "clock"> = {}
): void => {
  const layer = RedisStore.layer({ ...options, prefix: uniqueName("store") })
  // most of their time they wait for leases to end
  describe.concurrent(name, () => {
    offsetStoreSuite(name, layer, { ...suites, clock: "live" })
    idempotencyStoreSuite(name, layer, { ...suites, clock: "live" })
    lockSuite(name, layer, { ...suites, clock: "live" })
    inspectSuite(name, layer, { ...suites, clock: "live" })
    parkedRecordsSuite(name, layer, { ...suites, clock: "live" })
  })
}
