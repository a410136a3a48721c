import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { decodePage, encodePage, pageOf, pageSize } from "../src/internal/pages.ts"

/** Sorted, disjoint, not touching ranges within a page, few or many. */
const pageRanges = fc
  .uniqueArray(fc.integer({ min: 0, max: pageSize }), { maxLength: 3_000 })
  .map((bounds) => bounds.sort((a, b) => a - b))
  .map((bounds) => (bounds.length % 2 === 0 ? bounds : bounds.slice(1)))

const lastBase = 2 ** 53 - pageSize
const base = fc.oneof(
  fc.constantFrom(0, pageSize, lastBase),
  fc.integer({ min: 0, max: 1_000_000 }).map((n) => n * pageSize)
)

describe("pages", () => {
  it("come back as they were, in at most 512 bytes", () => {
    fc.assert(
      fc.property(pageRanges, base, (bounds, from) => {
        const flat = bounds.map((bound) => from + bound)
        const bytes = encodePage(flat, from)
        expect(bytes.length).toBe(Math.min(512, flat.length * 2))
        expect(decodePage(bytes, from)).toEqual(flat)
      })
    )
  })

  it("are runs up to 127 of them, and a bitmap from 128 on", () => {
    const runs = (count: number) => Array.from({ length: 2 * count }, (_, index) => index)
    for (const [count, bytes] of [
      [1, 4],
      [127, 508],
      [128, 512],
      [2_048, 512]
    ]) {
      // every second offset: [0,1) [2,3) ...
      expect(encodePage(runs(count), 0).length).toBe(bytes)
      expect(decodePage(encodePage(runs(count), 0), 0)).toEqual(runs(count))
    }
  })

  it("refuse bytes that are none of theirs", () => {
    const bytes = (...numbers: ReadonlyArray<number>) => new Uint8Array(Uint16Array.from(numbers).buffer)
    for (const bad of [
      new Uint8Array(3),
      new Uint8Array(516),
      bytes(5, 5),
      bytes(5, 4),
      bytes(0, 4_097),
      bytes(0, 2, 2, 3)
    ]) {
      expect(decodePage(bad, 0)).toBeUndefined()
    }
  })

  it("have 4,096 offsets, up to the highest of all", () => {
    expect([0, 4_095, 4_096, Number.MAX_SAFE_INTEGER].map(pageOf)).toEqual([0, 0, 1, 2 ** 41 - 1])
  })
})
