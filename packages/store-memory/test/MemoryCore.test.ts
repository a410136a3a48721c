import { OffsetRanges } from "@tidemark/core"
import { MemoryCore } from "@tidemark/store-memory"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"

const terms = (claimId: string, leaseMillis = 1_000) => ({ claimId, owner: "o", leaseMillis })

const claim = (core: MemoryCore, key: string, now: number, leaseMillis = 1_000) => {
  return core.claimKey("n", { key }, terms(`claim-${key}`, leaseMillis), now)._tag
}
const remember = (core: MemoryCore, key: string, now: number, retention = 60_000) => {
  const tag = claim(core, key, now)
  core.completeKey(`claim-${key}`, "n", { key }, retention, now)
  return tag
}
const status = (core: MemoryCore, key: string, now: number) => core.keys.lookup("n", key, now)._tag
const all = (slices: Generator<void, void>): number => {
  let count = 1
  while (slices.next().done !== true) count += 1
  return count
}

describe("one key by its shorter way", () => {
  it("is answered and counted as a batch of one is", () => {
    const newCore = () => new MemoryCore({ maxSize: 3, whenFull: "reject", now: 0 })
    const [short, plain] = [newCore(), newCore()]
    for (const [index, key] of ["a", "a", "b", "c", "d", "a", "e"].entries()) {
      // one in two is completed; one claim id is used for two keys
      const id = index === 3 ? "claim-0" : `claim-${index}`
      const answer = short.claimKey("n", { key }, terms(id), index)
      const outcome = plain.claimKeys("n", [{ key }], terms(id), index)
      expect(outcome).toEqual(
        outcome._tag === "Answers" ? { ...outcome, answers: [answer] } : { _tag: answer._tag }
      )
      if (index % 2 === 1) continue
      expect(plain.completeKeys(id, "n", [{ key }], 1_000, index)).toEqual([
        short.completeKey(id, "n", { key }, 1_000, index)
      ])
    }
    expect(short.stats).toEqual(plain.stats)
  })

  it("says that there is no room, and that its claim id is in use, and counts both", () => {
    const core = new MemoryCore({ maxSize: 1, whenFull: "reject", now: 0 })
    expect(core.claimKey("n", { key: "a" }, terms("a"), 0)._tag).toBe("Claimed")
    expect(core.claimKey("n", { key: "b" }, terms("a"), 0)).toEqual({ _tag: "ClaimIdReused" })
    expect(core.claimKey("n", { key: "b" }, terms("b"), 0)).toEqual({ _tag: "Full" })
    expect(core.stats).toMatchObject({ operations: 3, misses: 1, hits: 0, rejected: 1 })
  })
})

describe("a key that was given back", () => {
  it("is no longer the claim's to complete, whatever place it had", () => {
    const core = new MemoryCore({ maxSize: 100, whenFull: "evict-oldest", now: 0 })
    core.claimKeys("n", [{ key: "a" }, { key: "b" }, { key: "c" }], terms("claim"), 0)
    core.keys.release("claim", ["a"])
    core.keys.release("claim", ["b"])
    const answers = core.completeKeys("claim", "n", [{ key: "a" }, { key: "b" }, { key: "c" }], 1_000, 1)
    expect(answers).toEqual(["LeaseLost", "LeaseLost", "Completed"])
    expect(core.stats.size).toBe(1)
    expect(core.table.completed).toBe(1)
  })
})

describe("at the bound", () => {
  it("evict-oldest: never passes it, forgets by last use, down to 80 %, and counts each", () => {
    const core = new MemoryCore({ maxSize: 100, whenFull: "evict-oldest", now: 0 })
    for (let index = 0; index < 100; index++) remember(core, `k${index}`, index)
    expect(core.stats.evictions).toBe(0)
    // used again: k0 is now the youngest
    expect(claim(core, "k0", 200)).toBe("Completed")
    expect(remember(core, "new", 201)).toBe("Claimed")
    expect(core.stats.size).toBeLessThanOrEqual(100)
    all(core.evict(202))
    expect(core.stats).toMatchObject({ size: 81, evictions: 20, largestSize: 100 })
    expect(status(core, "k0", 203)).toBe("Completed")
    expect(status(core, "k1", 203)).toBe("Unknown")
    expect(status(core, "k21", 203)).toBe("Completed")
  })

  it("never passes it whatever comes, and never evicts a live claim", () => {
    const step = fc.record({
      key: fc.integer({ min: 0, max: 60 }).map((number) => `k${number}`),
      complete: fc.boolean(),
      wait: fc.integer({ min: 0, max: 300 }),
      background: fc.boolean()
    })
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 30 }),
        fc.constantFrom("evict-oldest" as const, "reject" as const),
        fc.array(step, { maxLength: 200 }),
        (maxSize, whenFull, steps) => {
          const core = new MemoryCore({ maxSize, whenFull, now: 0 })
          const live = new Map<string, number>()
          let now = 0
          let round = 0
          for (const { key, complete, wait, background } of steps) {
            now += wait
            const claimId = `c${round++}`
            const outcome = core.claimKeys("n", [{ key }], terms(claimId), now)
            if (outcome._tag === "Full" && whenFull === "evict-oldest") {
              const held = [...live.values()].filter((until) => now < until).length
              expect(held, "refused although a place was not held by a live claim").toBe(maxSize)
            }
            if (outcome._tag === "Answers" && outcome.answers[0]._tag === "Claimed") {
              expect(live.get(key) ?? 0, "a live claim was given away").toBeLessThanOrEqual(now)
              if (complete) {
                core.completeKeys(claimId, "n", [{ key }], 2_000, now)
                live.delete(key)
              } else {
                live.set(key, now + 1_000)
              }
            }
            if (background) {
              all(core.sweep(now))
              all(core.evict(now))
            }
            expect(core.stats.size).toBeLessThanOrEqual(maxSize)
            for (const [held, until] of live)
              if (now < until) expect(status(core, held, now)).toBe("InFlight")
          }
          if (whenFull === "reject") expect(core.stats.evictions).toBe(0)
        }
      ),
      { numRuns: 200 }
    )
  })

  it("reject: refuses what is new, all or nothing, and takes it again when there is room", () => {
    const core = new MemoryCore({ maxSize: 10, whenFull: "reject", now: 0 })
    for (let index = 0; index < 9; index++) remember(core, `k${index}`, 0, 5_000)
    const both = core.claimKeys("n", [{ key: "a" }, { key: "b" }], terms("two"), 1)
    expect(both._tag).toBe("Full")
    expect(status(core, "a", 1)).toBe("Unknown")
    expect(claim(core, "k3", 1)).toBe("Completed")
    expect(core.stats).toMatchObject({ rejected: 1, evictions: 0, size: 9 })
    all(core.sweep(6_000))
    expect(core.claimKeys("n", [{ key: "a" }, { key: "b" }], terms("again"), 6_001)._tag).toBe("Answers")
  })

  it("refuses when live claims take every place, also where it may evict", () => {
    const core = new MemoryCore({ maxSize: 3, whenFull: "evict-oldest", now: 0 })
    for (const key of ["a", "b", "c"]) claim(core, key, 0)
    expect(claim(core, "d", 1)).toBe("Full")
    expect(core.stats.evictions).toBe(0)
  })

  for (const whenFull of ["evict-oldest", "reject"] as const) {
    it(`${whenFull}: takes the places of claims that are over before it refuses or evicts anything`, () => {
      const core = new MemoryCore({ maxSize: 10, whenFull, now: 0 })
      for (let index = 0; index < 6; index++) claim(core, `over${index}`, 0, 1_000)
      for (let index = 0; index < 2; index++) claim(core, `live${index}`, 0, 5_000)
      for (let index = 0; index < 2; index++) remember(core, `done${index}`, 0)
      for (let index = 0; index < 6; index++) expect(claim(core, `new${index}`, 1_000)).toBe("Claimed")
      expect(core.stats).toMatchObject({ size: 10, evictions: 0, rejected: 0, expired: 6 })
      for (const key of ["live0", "live1", "new0", "new5"]) expect(status(core, key, 1_000)).toBe("InFlight")
      expect(status(core, "done0", 1_000)).toBe("Completed")
      expect(core.completeKeys("claim-over0", "n", [{ key: "over0" }], 1_000, 1_000)).toEqual(["LeaseLost"])
    })
  }

  it("keeps a claim that is over for its late owner as long as there is room", () => {
    const core = new MemoryCore({ maxSize: 3, whenFull: "reject", now: 0 })
    claim(core, "over", 0, 1_000)
    for (const key of ["a", "b"]) expect(claim(core, key, 5_000)).toBe("Claimed")
    expect(core.completeKeys("claim-over", "n", [{ key: "over" }], 1_000, 5_000)).toEqual(["Completed"])
  })

  it("finds room again when a renewed claim is over at last", () => {
    const core = new MemoryCore({ maxSize: 2, whenFull: "reject", now: 0 })
    for (const key of ["a", "b"]) claim(core, key, 0, 1_000)
    for (const key of ["a", "b"]) core.keys.renew(`claim-${key}`, 1_000, 900)
    expect(claim(core, "c", 1_500)).toBe("Full")
    expect(claim(core, "c", 1_899)).toBe("Full")
    expect(claim(core, "c", 1_900)).toBe("Claimed")
  })

  it("reject: takes the places of completed keys whose retention is over, unswept", () => {
    const core = new MemoryCore({ maxSize: 5, whenFull: "reject", now: 0 })
    for (let index = 0; index < 5; index++) remember(core, `k${index}`, 0, 1_000)
    expect(claim(core, "early", 500)).toBe("Full")
    for (let index = 0; index < 5; index++) expect(claim(core, `new${index}`, 2_500)).toBe("Claimed")
    expect(claim(core, "more", 2_500)).toBe("Full")
    expect(core.stats).toMatchObject({ size: 5, expired: 5, rejected: 2 })
  })

  it("says when it is near, once for each time it comes near", () => {
    let pressures = 0
    const core = new MemoryCore({ maxSize: 100, whenFull: "reject", now: 0, onPressure: () => pressures++ })
    for (let index = 0; index < 89; index++) remember(core, `k${index}`, 0, 5_000)
    expect(pressures).toBe(0)
    remember(core, "k89", 0, 5_000)
    remember(core, "k90", 0, 5_000)
    expect(pressures).toBe(1)
    all(core.sweep(10_000))
    for (let index = 0; index < 90; index++) remember(core, `l${index}`, 10_000)
    expect(pressures).toBe(2)
  })
})

describe("sweeps", () => {
  it("remove what is expired and nothing else, in slices, and count it", () => {
    const core = new MemoryCore({ maxSize: 10_000, whenFull: "evict-oldest", now: 0 })
    for (let index = 0; index < 3_000; index++) remember(core, `short${index}`, 0, 10_000)
    for (let index = 0; index < 1_000; index++) remember(core, `long${index}`, 0, 60_000)
    expect(all(core.sweep(9_999))).toBe(1)
    expect(core.stats).toMatchObject({ expired: 0, size: 4_000 })
    const slices = all(core.sweep(11_000))
    expect(slices).toBeGreaterThan(3)
    expect(core.stats).toMatchObject({ expired: 3_000, size: 1_000, evictions: 0, sweeps: 2 })
    expect(status(core, "long999", 11_000)).toBe("Completed")
  })

  it("keep a claim that is over for 10 leases, then forget it", () => {
    const core = new MemoryCore({ maxSize: 100, whenFull: "reject", now: 0 })
    claim(core, "k", 0, 1_000)
    all(core.sweep(10_999))
    expect(core.keys.renew("claim-k", 1_000, 10_999)).toBe(11_999)
    all(core.sweep(21_998))
    expect(core.stats.size).toBe(1)
    all(core.sweep(21_999))
    expect(core.stats).toMatchObject({ size: 0, expired: 1 })
  })

  it("survive changes between two slices", () => {
    const core = new MemoryCore({ maxSize: 10_000, whenFull: "evict-oldest", now: 0 })
    for (let index = 0; index < 3_000; index++) remember(core, `k${index}`, 0, 10_000)
    const slices = core.sweep(20_000)
    slices.next()
    for (let index = 0; index < 3_000; index += 7) remember(core, `k${index}`, 20_000, 10_000)
    for (let index = 0; index < 500; index++) remember(core, `new${index}`, 20_000, 10_000)
    all(slices)
    expect(core.stats.size).toBe(Math.ceil(3_000 / 7) + 500)
  })
})

describe("counters", () => {
  it("count items: hits are those that were known", () => {
    const core = new MemoryCore({ maxSize: 100, whenFull: "reject", now: 0 })
    remember(core, "a", 0)
    claim(core, "a", 1)
    claim(core, "a", 2)
    core.lookupKeys("n", ["a", "b"], 3)
    core.claimOffsets("s", OffsetRanges.make(0, 5), terms("o"), 4)
    core.completeOffsets("s", "o", OffsetRanges.make(0, 5), 4)
    core.claimOffsets("s", OffsetRanges.make(0, 5), terms("p"), 4)
    expect(core.stats).toMatchObject({ hits: 4, misses: 3, operations: 9, streams: 1 })
    expect(core.stats.hitRate).toBeCloseTo(4 / 7)
  })

  it("estimate bytes within a third of what is measured", () => {
    const gc = globalThis.gc
    if (gc === undefined) throw new Error("run with --expose-gc")
    const measure = (): number => {
      gc()
      gc()
      const { heapUsed, arrayBuffers } = process.memoryUsage()
      return heapUsed + arrayBuffers
    }
    const before = measure()
    const core = new MemoryCore({ maxSize: 100_000, whenFull: "evict-oldest", now: 0 })
    for (let index = 0; index < 100_000; index++) remember(core, `order-${1_000_000 + index}`, 0)
    const measured = measure() - before
    expect(core.stats.size).toBe(100_000)
    expect(core.stats.estimatedBytes / measured).toBeGreaterThan(0.67)
    expect(core.stats.estimatedBytes / measured).toBeLessThan(1.5)
  })
})
