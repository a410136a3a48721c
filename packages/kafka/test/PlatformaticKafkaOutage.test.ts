import { describeWithOwnKafka } from "@tidemark/test-servers/vitest"
import * as PlatformaticKafka from "../src/PlatformaticKafka.ts"
import { outageSuite } from "./outageSuite.ts"

await describeWithOwnKafka("PlatformaticKafka through outages", () => {
  const { layer, layerConfig } = PlatformaticKafka
  outageSuite({ name: "PlatformaticKafka", layer, layerConfig })
})
