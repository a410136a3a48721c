import { expect, test } from "vitest"
import { describeWithRedis } from "../../src/vitest.ts"

await describeWithRedis("what needs Redis", () => {
  test("would pass", () => expect(true).toBe(true))
})
