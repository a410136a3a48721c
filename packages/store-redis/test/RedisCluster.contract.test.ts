import { describeWithRedisCluster } from "@tidemark/test-servers/vitest"
import { nodeOf } from "./store.ts"
import { contract } from "./suites.ts"

await describeWithRedisCluster("a cluster", ({ urls }) =>
  contract("RedisStore", { cluster: { nodes: urls.map(nodeOf) } }, { behindFaults: false })
)
