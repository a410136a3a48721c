import { expect, test } from "vitest"
import { describeWhere } from "../../src/vitest.ts"

await describeWhere(
  false,
  "wings",
  "none on this machine"
)("what needs wings", () => {
  test("would pass", () => expect(true).toBe(true))
})

await describeWhere(
  false,
  "wings",
  "none on this machine"
)("what needs wings too", () => {
  test("would pass", () => expect(true).toBe(true))
})
