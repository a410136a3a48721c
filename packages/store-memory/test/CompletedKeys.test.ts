import { describe, expect, test } from "vitest"
import { CompletedKeys } from "../src/CompletedKeys.ts"

const items = (...keys: ReadonlyArray<string>) => keys.map((key) => ({ key }))
const keysWith = (options: { readonly maxEntries?: number; readonly maxCharacters?: number }) =>
  new CompletedKeys({ maxEntries: 1_000, maxCharacters: 100_000, now: 0, ...options })
const knows = (known: CompletedKeys, key: string, now = 0) => known.answer("n", items(key), now) !== undefined

describe("what a near cache knows", () => {
  test("is answered for only where all keys of a call are known", () => {
    const known = keysWith({})
    known.add("n", { key: "a", result: "1" }, 100, 0)
    known.add("n", { key: "b" }, 100, 0)
    expect(known.answer("n", items("b", "a", "a"), 0)).toEqual([
      { _tag: "Completed", result: undefined },
      { _tag: "Completed", result: "1" },
      { _tag: "Completed", result: "1" }
    ])
    expect(known.answer("n", items("a", "c"), 0)).toBeUndefined()
    expect(known.answer("m", items("a"), 0)).toBeUndefined()
  })

  test("has fingerprints, and finds another payload by them", () => {
    const known = keysWith({})
    known.add("n", { key: "a", fingerprint: "f" }, 100, 0)
    known.add("n", { key: "b" }, 100, 0)
    const ask = (key: string, fingerprint?: string) => known.answer("n", [{ key, fingerprint }], 0)?.[0]
    expect(ask("a", "f")).toEqual({ _tag: "Completed", result: undefined })
    expect(ask("a")).toEqual({ _tag: "Completed", result: undefined })
    expect(ask("a", "g")).toEqual({ _tag: "Mismatch", fingerprint: "f" })
    expect(ask("b", "g")).toEqual({ _tag: "Completed", result: undefined })
  })

  test("is over at its time, not a millisecond later, and goes by and by", () => {
    const known = keysWith({})
    for (let at = 0; at < 700; at++) known.add("n", { key: `k${at}` }, 1_500, 0)
    expect([knows(known, "k0", 1_499), knows(known, "k0", 1_500)]).toEqual([true, false])
    known.add("n", { key: "new" }, 9_000, 3_000)
    expect(known.size).toBe(700 - 512 + 1)
    known.add("n", { key: "newer" }, 9_000, 3_000)
    expect(known.size).toBe(2)
    expect(known.evictions).toBe(0)
  })

  test("is replaced by what is learnt later", () => {
    const known = keysWith({})
    known.add("n", { key: "a", result: "1", fingerprint: "f" }, 100, 0)
    known.add("n", { key: "a", result: "2" }, 200, 0)
    expect(known.answer("n", [{ key: "a", fingerprint: "g" }], 150)).toEqual([
      { _tag: "Completed", result: "2" }
    ])
    known.remove("n", "a")
    known.remove("n", "a")
    expect([knows(known, "a"), known.size]).toEqual([false, 0])
  })

  test("is bounded by entries: what was used longest ago goes first", () => {
    const known = keysWith({ maxEntries: 3 })
    for (const key of ["a", "b", "c"]) known.add("n", { key }, 100, 0)
    knows(known, "a")
    known.add("n", { key: "d" }, 100, 0)
    expect(["a", "b", "c", "d"].map((key) => knows(known, key))).toEqual([true, false, true, true])
    expect([known.size, known.evictions]).toEqual([3, 1])
  })

  test("is bounded by characters, and does without a result that is too large for it", () => {
    const known = keysWith({ maxCharacters: 1_000 })
    for (let at = 0; at < 9; at++) known.add("n", { key: `k${at}`, result: "x".repeat(98) }, 100, 0)
    known.add("n", { key: "large", result: "x".repeat(200), fingerprint: "f".repeat(100) }, 100, 0)
    expect(["k0", "k2", "k3", "k8", "large"].map((key) => knows(known, key))).toEqual([
      false,
      false,
      true,
      true,
      true
    ])
    known.add("n", { key: "too large", result: "x".repeat(1_000) }, 100, 0)
    expect([knows(known, "too large"), knows(known, "large")]).toEqual([false, true])
    known.add("n", { key: "k8", result: "x".repeat(1_000) }, 100, 0)
    expect(knows(known, "k8")).toBe(false)
  })
})
