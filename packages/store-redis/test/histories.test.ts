/** What several processes were answered at once, some of them killed: some order of their calls must explain it. */
import { uniqueName } from "@tidemark/test-servers"
import { describeWithRedis, describeWithRedisCluster } from "@tidemark/test-servers/vitest"
import { processesSuite } from "@tidemark/testkit/vitest"

const store = new URL("./sharedStore.ts", import.meta.url)

await describeWithRedis("one server", ({ url }) => {
  processesSuite("RedisStore", { store, storeOptions: { url, prefix: uniqueName("histories") } })
})

await describeWithRedisCluster("a cluster", ({ urls }) => {
  processesSuite("RedisStore", {
    store,
    storeOptions: { cluster: { nodes: urls }, prefix: uniqueName("histories") },
    seed: 2,
    rounds: 15
  })
})
