import { describe, expect, it } from "vitest"
import { loadTests } from "../src/load/all.ts"
import { isMet } from "../src/load/LoadTest.ts"

/** The counts only: times and bytes are judged by `./dev load`. */
describe("the load tests' counts", () => {
  for (const { name, run } of loadTests) {
    it(name, async () => {
      const counts = (await run({ paced: false })).filter(({ kind }) => kind === "count")
      expect(counts.length).toBeGreaterThan(1)
      expect(counts.filter((count) => !isMet(count))).toEqual([])
    })
  }
})
