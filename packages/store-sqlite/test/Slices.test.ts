import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import { Slices } from "../src/internal/Slices.ts"

const bound = 4

/** Work whose times are known, on a clock that only it moves. */
const play = (
  steps: number,
  stepMillis: (index: number) => number,
  commitMillis: (steps: number) => number
): ReadonlyArray<{ readonly steps: number; readonly millis: number }> => {
  let now = 0
  let done = 0
  const slices = new Slices(bound, () => now)
  const seen: Array<{ readonly steps: number; readonly millis: number }> = []
  while (done < steps) {
    const from = now
    const { steps: count } = slices.run((hasTime) => {
      let inSlice = 0
      while (done < steps && hasTime()) {
        now += stepMillis(done)
        inSlice += 1
        done += 1
      }
      now += commitMillis(inSlice)
    })
    seen.push({ steps: count, millis: now - from })
  }
  return seen
}

/** At most twice what any was in this slice and the one before, or half of what any was earlier: `factors` say how much. */
const growing = (first: number, most: number, factors: ReadonlyArray<number>) => {
  let before = 0
  let worst = 0
  return {
    next: (index: number): number => {
      const millis = Math.min(
        most,
        index === 0 ? first : Math.max(before, worst) * factors[index % factors.length]
      )
      worst = Math.max(worst, millis)
      return millis
    },
    endSlice: () => {
      before = Math.max(worst, before / 2)
      worst = 0
    }
  }
}

describe("Slices", () => {
  it("keep below the bound, whatever steps and commits take, as long as one step does", () => {
    const factor = fc.double({ min: 0, max: 1.99, noNaN: true })
    const noise = fc.array(fc.double({ min: 1, max: 1.99, noNaN: true }), { minLength: 1, maxLength: 20 })
    fc.assert(
      fc.property(
        fc.record({
          steps: fc.integer({ min: 1, max: 2_000 }),
          first: fc.double({ min: 0.0001, max: 1, noNaN: true }),
          factors: fc.array(factor, { minLength: 1, maxLength: 50 }),
          fixed: fc.double({ min: 0, max: 1, noNaN: true }),
          perStep: fc.double({ min: 0, max: 0.5, noNaN: true }),
          noise
        }),
        ({ factors, first, fixed, noise, perStep, steps }) => {
          // steps of more than a slice can't be made shorter
          const growth = growing(first, bound / 2 - (fixed + perStep), factors)
          let slice = 0
          const commit = (count: number) => {
            growth.endSlice()
            return (fixed + perStep * count) * noise[slice++ % noise.length]
          }
          const seen = play(steps, growth.next, commit)
          expect(seen.reduce((sum, { steps: count }) => sum + count, 0)).toBe(steps)
          for (const { millis, steps: count } of seen) {
            if (count > 1) expect(millis).toBeLessThanOrEqual(bound)
          }
        }
      ),
      { numRuns: 2_000 }
    )
  })

  it("begin with one step, grow while there is time, and use most of it", () => {
    const seen = play(
      3_000,
      () => 0.01,
      (steps) => 0.2 + 0.01 * steps
    )
    expect(seen.slice(0, 5).map(({ steps }) => steps)).toEqual([1, 2, 4, 8, 16])
    const full = seen.slice(8, -1)
    expect(Math.min(...full.map(({ millis }) => millis))).toBeGreaterThan(bound / 2)
    expect(Math.max(...full.map(({ millis }) => millis))).toBeLessThanOrEqual(bound)
  })

  it("become shorter at once when the disk becomes slow", () => {
    let perStep = 0.001
    let count = 0
    const seen = play(
      5_000,
      () => {
        count += 1
        if (count > 2_000) perStep = 0.05
        return 0.001
      },
      (steps) => perStep * steps
    )
    const slow = seen.filter(({ millis }) => millis > bound)
    expect(slow).toHaveLength(1)
    expect(seen.indexOf(slow[0])).toBeLessThan(seen.length - 10)
  })

  it("are soon as long again as before when the machine stood still", () => {
    const seen = play(
      5_000,
      (index) => (index === 1_000 ? 400 : 0.01),
      (steps) => 0.2 + 0.01 * steps
    )
    const lengths = seen.map(({ steps }) => steps)
    const still = seen.findIndex(({ millis }) => millis > bound)
    expect(lengths[still + 1]).toBe(1)
    expect(Math.max(...lengths.slice(still + 1, still + 25))).toBe(Math.max(...lengths.slice(0, still)))
  })

  it("do one step even where there is time for none", () => {
    const seen = play(
      5,
      () => 10,
      () => 10
    )
    expect(seen.map(({ steps }) => steps)).toEqual([1, 1, 1, 1, 1])
  })
})
