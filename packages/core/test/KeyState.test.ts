import { Protocol } from "@tidemark/core"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { answer, answersOf, keyCommand } from "./keyCommands.ts"
import { NaiveKeys } from "./naiveKeys.ts"

const terms = (claimId: string, leaseMillis = 100): Protocol.ClaimTerms => ({
  claimId,
  owner: claimId,
  leaseMillis
})
const newState = () => new Protocol.KeyState(new Protocol.MapKeyTable())
const tags = (outcome: Protocol.KeyClaimOutcome) =>
  outcome._tag === "Answers" ? outcome.answers.map(({ _tag }) => _tag) : outcome._tag

describe("KeyState", () => {
  it.each([
    ["each by the same way", false],
    ["single keys by the shorter one", true]
  ])("answers as the words of the invariants say, whatever is asked in whatever order, %s", (_, short) => {
    fc.assert(
      fc.property(fc.array(keyCommand, { maxLength: 60 }), (commands) => {
        const real = answersOf(newState(), short)
        const model = new NaiveKeys()
        let now = 1_000
        for (const command of commands) {
          if (command.verb === "wait") now += command.millis
          expect(answer(real, command, now)).toEqual(answer(model, command, now))
        }
      }),
      { numRuns: 500 }
    )
  })

  it("takes no completion of a key that was given back", () => {
    const state = newState()
    state.claim("n", [{ key: "k" }, { key: "l" }], terms("c"), 0)
    state.release("c", ["k"])
    expect(state.complete("c", "n", [{ key: "k" }, { key: "l" }], 10, 1)).toEqual(["LeaseLost", "Completed"])
  })

  it("gives one key to one of many", () => {
    const state = newState()
    const answers = Array.from({ length: 50 }, (_, index) =>
      tags(state.claim("n", [{ key: "k" }], terms(`c${index}`), 0))
    )
    expect(answers.flat().filter((tag) => tag === "Claimed")).toHaveLength(1)
  })

  it("of equal keys in one batch the first gets the claim", () => {
    expect(tags(newState().claim("n", [{ key: "k" }, { key: "k" }, { key: "l" }], terms("c"), 0))).toEqual([
      "Claimed",
      "InFlight",
      "Claimed"
    ])
  })

  it("forgets a completed key at the end of its retention, and not a millisecond earlier", () => {
    const state = newState()
    state.claim("n", [{ key: "k" }], terms("c"), 0)
    state.complete("c", "n", [{ key: "k" }], 1_000, 0)
    expect(tags(state.claim("n", [{ key: "k" }], terms("early"), 999))).toEqual(["Completed"])
    expect(tags(state.claim("n", [{ key: "k" }], terms("late"), 1_000))).toEqual(["Claimed"])
  })

  it("takes over only the keys of an expired claim that are asked for", () => {
    const state = newState()
    state.claim("n", [{ key: "a" }, { key: "b" }], terms("slow", 100), 0)
    expect(tags(state.claim("n", [{ key: "a" }], terms("quick"), 100))).toEqual(["Claimed"])
    expect(state.complete("slow", "n", [{ key: "a" }, { key: "b" }], 1_000, 100)).toEqual([
      "LeaseLost",
      "Completed"
    ])
  })

  it("answers the same claim again as before, and refuses its id for other keys", () => {
    const state = newState()
    const first = state.claim("n", [{ key: "a" }, { key: "b" }], terms("c", 100), 0)
    expect(state.claim("n", [{ key: "a" }, { key: "b" }], terms("c", 100), 50)).toEqual(first)
    expect(tags(state.claim("n", [{ key: "a" }], terms("c", 100), 50))).toBe("ClaimIdReused")
    expect(tags(state.claim("m", [{ key: "a" }, { key: "b" }], terms("c", 100), 50))).toBe("ClaimIdReused")
  })

  it("never gives a key later to a claim that did not get it at first", () => {
    const state = newState()
    state.claim("n", [{ key: "a" }], terms("other", 1_000), 0)
    state.claim("n", [{ key: "a" }, { key: "b" }], terms("c", 1_000), 0)
    state.release("other")
    expect(tags(state.claim("n", [{ key: "a" }, { key: "b" }], terms("c", 1_000), 1))).toEqual([
      "InFlight",
      "Claimed"
    ])
  })

  it("works the same with hundreds of claims at a time", () => {
    const state = newState()
    for (let index = 0; index < 300; index++)
      state.claim("n", [{ key: `k${index}` }], terms(`c${index}`, 100), 0)
    expect(state.claimCount).toBe(300)
    for (let index = 0; index < 300; index += 2) {
      expect(state.complete(`c${index}`, "n", [{ key: `k${index}` }], 1_000, 1)).toEqual(["Completed"])
    }
    expect(state.claimCount).toBe(150)
    let below = state.claimCount
    while (below > 0) below = state.forgetOldClaims(1_100, below, 64)
    expect(state.claimCount).toBe(0)
    expect(state.lookup("n", "k1", 1_100)).toEqual({ _tag: "Unknown" })
  })
})
