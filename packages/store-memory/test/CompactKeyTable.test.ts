import { Protocol } from "@tidemark/core"
import { MemoryCore } from "@tidemark/store-memory"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { answer, answersOf, keyCommand } from "../../core/test/keyCommands.ts"

describe("CompactKeyTable", () => {
  it("answers the same with sweeps in between, and is empty when all is over", () => {
    fc.assert(
      fc.property(fc.array(keyCommand, { maxLength: 80 }), (commands) => {
        const core = new MemoryCore({ maxSize: 1_000, whenFull: "reject", now: 0 })
        const swept = answersOf(core.keys, true)
        const plain = answersOf(new Protocol.KeyState(new Protocol.MapKeyTable()))
        let now = 1_000
        for (const command of commands) {
          // long waits, so that sweeps find something
          if (command.verb === "wait") now += command.millis * 10
          for (const _ of core.sweep(now)) expect.fail("one slice is enough for so few")
          expect(answer(swept, command, now)).toEqual(answer(plain, command, now))
        }
        for (const _ of core.sweep(now + 1_000_000)) expect.fail("one slice is enough for so few")
        expect(core.stats.size).toBe(0)
      }),
      { numRuns: 200 }
    )
  })
})
