import { describeWithRedis } from "@tidemark/test-servers/vitest"
import { contract } from "./suites.ts"

await describeWithRedis("one server", ({ url }) => contract("RedisStore", { url }))
