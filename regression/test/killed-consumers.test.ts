import { describeWithKafka, describeWithOwnRedis } from "@tidemark/test-servers/vitest"
import { tryShortly } from "./trial.ts"

await describeWithKafka("consumers that are killed with their processes", async ({ brokers }) => {
  tryShortly("killed-in-a-transaction", { store: "sqlite", times: 2, brokers })
  await describeWithOwnRedis("on Redis", () => {
    tryShortly("killed", { store: "redis", times: 2, brokers })
  })
})
