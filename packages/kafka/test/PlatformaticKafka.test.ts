import { describeWithKafka } from "@tidemark/test-servers/vitest"
import * as PlatformaticKafka from "../src/PlatformaticKafka.ts"
import { brokerSuite, noBrokerSuite } from "./brokerSuite.ts"

const driver = {
  name: "PlatformaticKafka",
  layer: PlatformaticKafka.layer,
  layerConfig: PlatformaticKafka.layerConfig
}

await describeWithKafka("PlatformaticKafka on a real broker", ({ brokers }) => {
  brokerSuite(driver, brokers)
})

noBrokerSuite(driver)
