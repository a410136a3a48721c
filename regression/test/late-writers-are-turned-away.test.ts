import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { tryShortly } from "./trial.ts"

await describeWithKafka("consumers that are frozen", ({ brokers }) => {
  tryShortly("frozen", { store: "sqlite", times: 1, brokers })
})
