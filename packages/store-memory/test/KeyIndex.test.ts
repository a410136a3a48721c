import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type Hash, KeyIndex } from "../src/KeyIndex.ts"

interface Step {
  readonly space: number
  readonly key: string
  readonly stays: boolean
}

/** Few keys, so that they come again; some are beginnings of others, some differ in a unit that is 0. */
const key = fc.oneof(
  fc.integer({ min: 0, max: 300 }).map(String),
  fc.constantFrom(
    "a",
    "a\u0000",
    "a\u0000\u0000",
    "\u0000",
    "\u00e9",
    "\u4e2d",
    "x".repeat(1_024),
    "x".repeat(1_023)
  )
)
const step: fc.Arbitrary<Step> = fc.record({
  space: fc.constantFrom(0, 1, 70_000),
  key,
  stays: fc.boolean()
})

/** Adds what is to stay, removes what is not, and compares each look-up with a `Map`. */
const compare = (steps: ReadonlyArray<Step>, hash?: Hash): void => {
  const index = new KeyIndex(2, hash)
  const model = new Map<string, number>()
  const free: Array<number> = []
  let capacity = 2
  for (const { space, key, stays } of steps) {
    const name = `${space}/${key}`
    const known = model.get(name)
    expect(index.find(space, key)).toBe(known ?? -1)
    if (stays && known === undefined) {
      const entry = free.pop() ?? model.size
      if (entry === capacity) {
        capacity = Math.ceil(capacity * 1.5)
        index.grow(capacity)
      }
      index.add(space, key, entry)
      model.set(name, entry)
      expect([index.spaceOf(entry), index.keyOf(entry)]).toEqual([space, key])
    } else if (!stays && known !== undefined) {
      index.remove(known)
      model.delete(name)
      free.push(known)
    }
  }
  for (const { space, key } of steps) expect(index.find(space, key)).toBe(model.get(`${space}/${key}`) ?? -1)
}

describe("KeyIndex", () => {
  const steps = fc.array(step, { maxLength: 600, size: "max" })

  it("finds what a Map would find, whatever is added and removed", () => {
    fc.assert(
      fc.property(steps, (given) => compare(given)),
      { numRuns: 100 }
    )
  })

  it.each<[string, Hash]>([
    ["all keys have the same", () => 7],
    ["many have the same, and stand at the end", (_, key) => -1 - (key.length % 3)]
  ])("tells keys apart by themselves where by their hash it can't: %s", (_, hash) => {
    fc.assert(
      fc.property(steps, (given) => compare(given, hash)),
      { numRuns: 100 }
    )
  })

  it("scatters keys that differ in little: none is far from where it is looked for", () => {
    const index = new KeyIndex(100_000)
    const began = performance.now()
    // in a table where these ran into each other this would take minutes
    for (let entry = 0; entry < 100_000; entry++)
      index.add(0, `order-${String(entry).padStart(30, "0")}`, entry)
    for (let entry = 0; entry < 100_000; entry++) {
      expect(index.find(0, `order-${String(entry).padStart(30, "0")}`)).toBe(entry)
    }
    expect(performance.now() - began).toBeLessThan(30_000)
  })
})
