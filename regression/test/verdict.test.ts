/** The judge of the trials must find what it is there for. */
import { describe, expect, it } from "vitest"
import type { Effect } from "../src/trials/Ledger.ts"
import { type Death, judge } from "../src/trials/verdict.ts"

const effect = (value: number, at: number, member = "a"): Effect => ({
  member,
  value,
  key: `k${value % 2}`,
  partition: 0,
  offset: value,
  token: 1,
  at
})

const judged = (effects: ReadonlyArray<Effect>, deaths: ReadonlyArray<Death> = [], sent = 6) =>
  judge(effects, { sent, deaths, atRisk: 2 })

const six = [0, 1, 2, 3, 4, 5].map((value) => effect(value, 10 * value))

describe("the verdict on a ledger", () => {
  it("finds nothing where each took effect once", () => {
    expect(judged(six)).toEqual({
      effects: 6,
      lost: [],
      twice: [],
      explained: 0,
      unexplained: [],
      outOfOrder: []
    })
  })

  it("names what was lost", () => {
    expect(judged(six.filter(({ value }) => value !== 3)).lost).toEqual([3])
  })

  it("explains what came again after a death by its being among the last effects before it, and nothing else", () => {
    const again = [...six, effect(5, 100, "b"), effect(4, 101, "b")]
    expect(judged(again, [{ member: "a", at: 60 }])).toMatchObject({ explained: 2, unexplained: [] })
    expect(judged([...again, effect(3, 102, "b")], [{ member: "a", at: 60 }]).unexplained).toEqual([
      expect.stringContaining("3: a at 30")
    ])
    expect(judged(again).unexplained.length).toBe(2)
    expect(judged(again, [{ member: "b", at: 200 }]).unexplained.length).toBe(2)
    // what it had before it was frozen, not what it did when it was back
    expect(
      judged([...six, effect(5, 100), effect(5, 101, "b")], [{ member: "a", at: 60 }]).unexplained.length
    ).toBe(1)
  })

  it("names the keys whose values took effect in another order", () => {
    const swapped = six.map((one) => (one.value === 2 ? { ...one, at: 45 } : one))
    expect(judged(swapped).outOfOrder).toEqual(["k0"])
  })
})
