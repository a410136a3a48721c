import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { tryShortly } from "./trial.ts"

await describeWithKafka("consumers in processes of their own", ({ brokers }) => {
  tryShortly("members-come-and-go", { store: "sqlite", times: 6, brokers })
  tryShortly("shutdowns", { store: "sqlite", times: 3, brokers })
})
