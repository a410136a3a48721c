import { uniqueName } from "@tidemark/test-servers"
import { describeWithRedis } from "@tidemark/test-servers/vitest"
import { idempotencyStoreSuite, lockSuite, offsetStoreSuite } from "@tidemark/testkit/vitest"
import { RedisStore } from "../src/index.ts"

await describeWithRedis("RedisStore", ({ url }) => {
  const layer = RedisStore.layer({ url, prefix: uniqueName("store") })

  offsetStoreSuite("RedisStore", layer, { clock: "live" })
  idempotencyStoreSuite("RedisStore", layer, { clock: "live" })
  lockSuite("RedisStore", layer, { clock: "live" })
})
