import { expect, test } from "vitest"
import { describeWithKafka } from "../../src/vitest.ts"

await describeWithKafka("what needs Kafka", () => {
  test("would pass", () => expect(true).toBe(true))
})
