import { uniqueName } from "@tidemark/test-servers"
import { describeWithRedis } from "@tidemark/test-servers/vitest"
import { processesSuite } from "@tidemark/testkit/vitest"

await describeWithRedis("RedisStore", ({ url }) => {
  processesSuite("RedisStore", {
    store: new URL("./sharedStore.ts", import.meta.url),
    storeOptions: { url, prefix: uniqueName("store") }
  })
})
