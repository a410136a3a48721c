import { describeWithValkey } from "@tidemark/test-servers/vitest"
import { contract } from "./suites.ts"

await describeWithValkey("Valkey", ({ url }) => contract("RedisStore", { url }, { behindFaults: false }))
