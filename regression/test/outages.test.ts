import { describeWithKafka, describeWithOwnKafka, describeWithOwnRedis } from "@tidemark/test-servers/vitest"
import { tryShortly } from "./trial.ts"

await describeWithOwnKafka("a broker that dies", () => {
  tryShortly("broker-restarts", { store: "sqlite", times: 1 })
})

await describeWithKafka("networks and a store that fail", async ({ brokers }) => {
  await describeWithOwnRedis("on Redis", () => {
    tryShortly("network-cuts", { store: "redis", times: 3, brokers })
    tryShortly("redis-restarts", { store: "redis", times: 2, brokers })
  })
})
