import { execFileSync } from "node:child_process"
import { ClaimId } from "@tidemark/core"
import { expect, it } from "vitest"

it("gives no claim id twice, however many are made", () => {
  const ids = Array.from({ length: 100_000 }, ClaimId.make)
  expect(new Set(ids).size).toBe(ids.length)
  expect(Math.max(...ids.map((id) => id.length))).toBeLessThan(32)
})

it("gives other claim ids in another process", () => {
  const program = `import { ClaimId } from "@tidemark/core"; console.log(ClaimId.make())`
  const flags = ["--conditions=@tidemark/source", "--input-type=module", "--eval", program]
  const other = execFileSync(process.execPath, flags, { cwd: import.meta.dirname, encoding: "utf8" }).trim()
  const [first, mine] = [other, ClaimId.make()].map((id) => id.split(".")[0])
  expect(first).toHaveLength(16)
  expect(first).not.toBe(mine)
})
