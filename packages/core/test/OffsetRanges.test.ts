import * as Equal from "effect/Equal"
import * as Hash from "effect/Hash"
import * as Schema from "effect/Schema"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { InvalidInput } from "../src/Errors.ts"
import * as OffsetRanges from "../src/OffsetRanges.ts"
import { END } from "../src/OffsetRanges.ts"

/** A universe is a window of offsets; the model is the plain Set of those in it. */
const universes: ReadonlyArray<readonly [name: string, base: number, span: number]> = [
  ["the lowest offsets", 0, 24],
  ["around 2^32", 2 ** 32 - 12, 24],
  ["a wide window", 5_000, 400],
  ["the highest offsets", END - 24, 24]
]

type Pair = readonly [from: number, to: number]

const arbitraryPair = (base: number, span: number): fc.Arbitrary<Pair> =>
  fc
    .tuple(fc.integer({ min: 0, max: span - 1 }), fc.integer({ min: 1, max: span }))
    .map(([from, length]): Pair => [base + from, base + Math.min(span, from + length)])

const arbitraryPairs = (base: number, span: number): fc.Arbitrary<ReadonlyArray<Pair>> =>
  fc.oneof(
    fc.array(arbitraryPair(base, span), { maxLength: 8 }),
    // many single offsets, or a set would hardly ever have many gaps
    fc.array(
      fc.integer({ min: 0, max: span - 1 }).map((at): Pair => [base + at, base + at + 1]),
      { maxLength: span }
    )
  )

const modelOf = (pairs: Iterable<Pair>): Set<number> => {
  const model = new Set<number>()
  for (const [from, to] of pairs) {
    // counted from 0: a loop up to END would not end, as END + 1 is END
    for (let i = 0; i < to - from; i++) model.add(from + i)
  }
  return model
}

const union = (a: Set<number>, b: Set<number>) => new Set([...a, ...b])
const difference = (a: Set<number>, b: Set<number>) => new Set([...a].filter((offset) => !b.has(offset)))
const intersection = (a: Set<number>, b: Set<number>) => new Set([...a].filter((offset) => b.has(offset)))
const isSubset = (a: Set<number>, b: Set<number>) => [...a].every((offset) => b.has(offset))

const sorted = (model: Iterable<number>): Array<number> => [...model].sort((a, b) => a - b)

const expectSound = (ranges: OffsetRanges.OffsetRanges): void => {
  const { flat } = ranges
  expect(flat.length % 2).toBe(0)
  for (let i = 0; i < flat.length; i++) {
    expect(Number.isSafeInteger(flat[i]) || (flat[i] === END && i === flat.length - 1)).toBe(true)
    expect(flat[i]).toBeGreaterThan(i === 0 ? -1 : flat[i - 1])
  }
}

const expectSame = (ranges: OffsetRanges.OffsetRanges, model: Iterable<number>): void => {
  expectSound(ranges)
  expect([...modelOf(ranges)]).toEqual(sorted(model))
}

describe.each(universes)("OffsetRanges in %s", (_, base, span) => {
  const pairs = arbitraryPairs(base, span)
  const pair = arbitraryPair(base, span)
  const window = Array.from({ length: span }, (_, i) => base + i)

  it("is made of ranges and of offsets in any order", () => {
    fc.assert(
      fc.property(pairs, (input) => {
        const model = modelOf(input)
        const ranges = OffsetRanges.fromRanges(input)
        expectSame(ranges, model)
        expect(OffsetRanges.equals(OffsetRanges.fromOffsets(model), ranges)).toBe(true)
        expect(OffsetRanges.equals(OffsetRanges.fromOffsets(sorted(model)), ranges)).toBe(true)
        expect(OffsetRanges.equals(OffsetRanges.fromOffsets(sorted([...model, ...model])), ranges)).toBe(true)
        expect(OffsetRanges.equals(OffsetRanges.fromRanges(ranges), ranges)).toBe(true)
      })
    )
  })

  it("adds and removes a range, and leaves the set as it was", () => {
    fc.assert(
      fc.property(pairs, pair, (input, [from, to]) => {
        const ranges = OffsetRanges.fromRanges(input)
        const before = String(ranges)
        const model = modelOf(input)
        const range = modelOf([[from, to]])
        expectSame(OffsetRanges.add(ranges, from, to), union(model, range))
        expectSame(OffsetRanges.remove(ranges, from, to), difference(model, range))
        expect(String(ranges)).toBe(before)
      })
    )
  })

  it("combines sets", () => {
    fc.assert(
      fc.property(pairs, pairs, (inputA, inputB) => {
        const a = OffsetRanges.fromRanges(inputA)
        const b = OffsetRanges.fromRanges(inputB)
        const modelA = modelOf(inputA)
        const modelB = modelOf(inputB)
        expectSame(OffsetRanges.union(a, b), union(modelA, modelB))
        expectSame(OffsetRanges.subtract(a, b), difference(modelA, modelB))
        expectSame(OffsetRanges.intersect(a, b), intersection(modelA, modelB))
        expect(OffsetRanges.overlaps(a, b)).toBe(intersection(modelA, modelB).size > 0)
        const same = modelA.size === modelB.size && isSubset(modelA, modelB)
        expect(OffsetRanges.equals(a, b)).toBe(same)
        expect(Equal.equals(a, b)).toBe(same)
        if (same) expect(Hash.hash(a)).toBe(Hash.hash(b))
      })
    )
  })

  it("answers questions", () => {
    fc.assert(
      fc.property(pairs, pair, (input, [from, to]) => {
        const ranges = OffsetRanges.fromRanges(input)
        const model = modelOf(input)
        const all = sorted(model)
        expect(window.filter((offset) => OffsetRanges.contains(ranges, offset))).toEqual(all)
        expect(OffsetRanges.containsRange(ranges, from, to)).toBe(isSubset(modelOf([[from, to]]), model))
        expect(OffsetRanges.size(ranges)).toBe(model.size)
        expect(OffsetRanges.isEmpty(ranges)).toBe(model.size === 0)
        expect(OffsetRanges.first(ranges)).toBe(all.at(0))
        expect(OffsetRanges.end(ranges)).toBe(all.length === 0 ? undefined : all[all.length - 1] + 1)
        expect(OffsetRanges.isOpenEnded(ranges)).toBe(model.has(Number.MAX_SAFE_INTEGER))
        const beginnings = all.filter((offset) => !model.has(offset - 1))
        expect(OffsetRanges.rangeCount(ranges)).toBe(beginnings.length)
      })
    )
  })

  it("knows watermark and gaps from an origin", () => {
    fc.assert(
      fc.property(pairs, fc.integer({ min: 0, max: span - 1 }), (input, distance) => {
        const origin = base + distance
        const ranges = OffsetRanges.fromRanges(input)
        const model = modelOf(input)
        const above = window.slice(distance)
        const firstMissing = above.find((offset) => !model.has(offset)) ?? base + span
        expect(OffsetRanges.watermark(ranges, origin)).toBe(firstMissing)
        const highest = Math.max(-1, ...model)
        const missing = above.filter((offset) => offset < highest && !model.has(offset))
        expectSame(OffsetRanges.gaps(ranges, origin), missing)
      })
    )
  })

  it("goes over the wire and back", () => {
    fc.assert(
      fc.property(pairs, (input) => {
        const ranges = OffsetRanges.fromRanges(input)
        const wire: unknown = JSON.parse(JSON.stringify(OffsetRanges.encode(ranges)))
        expect(OffsetRanges.equals(OffsetRanges.decode(wire), ranges)).toBe(true)
        expect(JSON.parse(JSON.stringify(ranges))).toEqual(wire)
        const decoded = Schema.decodeUnknownSync(OffsetRanges.FromWire)(wire)
        expect(OffsetRanges.equals(decoded, ranges)).toBe(true)
        expect(Schema.encodeSync(OffsetRanges.FromWire)(ranges)).toEqual(wire)
      })
    )
  })
})

describe("OffsetRanges", () => {
  it("reads well", () => {
    const ranges = OffsetRanges.fromRanges([
      [7, 9],
      [0, 5]
    ])
    expect(String(ranges)).toBe("[0,5) [7,9)")
    expect([...ranges]).toEqual([
      [0, 5],
      [7, 9]
    ])
    expect(OffsetRanges.toArray(ranges)).toEqual([...ranges])
    expect(String(OffsetRanges.empty)).toBe("")
  })

  it("joins ranges that touch", () => {
    expect(String(OffsetRanges.add(OffsetRanges.make(0, 5), 5, 6))).toBe("[0,6)")
    expect(String(OffsetRanges.add(OffsetRanges.make(5, 6), 0, 5))).toBe("[0,6)")
    expect(String(OffsetRanges.union(OffsetRanges.make(0, 2), OffsetRanges.of(2)))).toBe("[0,3)")
  })

  it("gives back the same object where nothing changes", () => {
    const ranges = OffsetRanges.make(0, 10)
    expect(OffsetRanges.add(ranges, 2, 5)).toBe(ranges)
    expect(OffsetRanges.remove(ranges, 10, 20)).toBe(ranges)
    expect(OffsetRanges.subtract(ranges, OffsetRanges.openEnded(10))).toBe(ranges)
  })

  it("holds the highest offset, and open-ended ranges", () => {
    const highest = OffsetRanges.of(Number.MAX_SAFE_INTEGER)
    expect(OffsetRanges.end(highest)).toBe(END)
    expect(OffsetRanges.equals(highest, OffsetRanges.openEnded(Number.MAX_SAFE_INTEGER))).toBe(true)
    expect(OffsetRanges.size(OffsetRanges.openEnded(0))).toBe(END)
    expect(OffsetRanges.isOpenEnded(OffsetRanges.openEnded(7))).toBe(true)
    expect(OffsetRanges.isOpenEnded(OffsetRanges.make(7, END - 1))).toBe(false)
    expect(OffsetRanges.isOpenEnded(OffsetRanges.empty)).toBe(false)
    expect(String(OffsetRanges.remove(OffsetRanges.openEnded(7), 9, END))).toBe("[7,9)")
  })

  it("knows no negative zero", () => {
    for (const ranges of [
      OffsetRanges.make(-0, 3),
      OffsetRanges.of(-0),
      OffsetRanges.openEnded(-0),
      OffsetRanges.fromOffsets([-0]),
      OffsetRanges.fromOffsets([3, -0]),
      OffsetRanges.fromOffsets([2 ** 40, -0]),
      OffsetRanges.fromRanges([[-0, 3]]),
      OffsetRanges.add(OffsetRanges.empty, -0, 3),
      OffsetRanges.decode([-0, 3])
    ]) {
      expect(Object.is(OffsetRanges.first(ranges), 0)).toBe(true)
    }
  })

  it.each([10, 1_000, 100_000, 2 ** 40, Number.MAX_SAFE_INTEGER])(
    "is made of offsets in any order, up to %d of them apart",
    (span) => {
      const offsets = fc
        .integer({ min: 0, max: Number.MAX_SAFE_INTEGER - span })
        .chain((base) => fc.array(fc.integer({ min: base, max: base + span }), { maxLength: 200 }))
      fc.assert(
        fc.property(offsets, (input) => {
          const each = sorted(new Set(input)).map((offset) => [offset, offset + 1] as const)
          expect(OffsetRanges.fromOffsets(input).flat).toEqual(OffsetRanges.fromRanges(each).flat)
        })
      )
    }
  )

  it("says that values which are no offsets are not contained", () => {
    const ranges = OffsetRanges.make(0, 10)
    for (const value of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 10]) {
      expect(OffsetRanges.contains(ranges, value)).toBe(false)
    }
  })
})

const failureOf = (act: () => unknown): InvalidInput => {
  try {
    act()
  } catch (error) {
    if (error instanceof InvalidInput) return error
    throw error
  }
  throw new Error("it was accepted")
}

describe("OffsetRanges and bad input", () => {
  const badOffsets = [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, END, 2 ** 60]

  it.each(badOffsets)("rejects the offset %s", (bad) => {
    const some = OffsetRanges.make(0, 5)
    const acts = [
      () => OffsetRanges.make(bad, END),
      () => OffsetRanges.of(bad),
      () => OffsetRanges.openEnded(bad),
      () => OffsetRanges.fromOffsets([1, bad]),
      () => OffsetRanges.fromOffsets([5, 1, bad]),
      () => OffsetRanges.fromRanges([[bad, END]]),
      () => OffsetRanges.add(some, bad, END),
      () => OffsetRanges.remove(some, bad, END),
      () => OffsetRanges.containsRange(some, bad, END),
      () => OffsetRanges.watermark(some, bad),
      () => OffsetRanges.gaps(some, bad)
    ]
    for (const act of acts) {
      const error = failureOf(act)
      expect(error.value).toBe(String(bad))
      expect(["offset", "from", "origin"]).toContain(error.field)
      expect(error.message).toContain(String(Number.MAX_SAFE_INTEGER))
    }
  })

  it.each([
    [5, 5],
    [5, 3],
    [5, 5.5],
    [5, Number.NaN],
    [5, -1],
    [5, Number.POSITIVE_INFINITY],
    [5, 2 ** 54]
  ])("rejects the range [%s,%s)", (from, to) => {
    for (const act of [
      () => OffsetRanges.make(from, to),
      () => OffsetRanges.fromRanges([[from, to]]),
      () => OffsetRanges.add(OffsetRanges.empty, from, to),
      () => OffsetRanges.remove(OffsetRanges.openEnded(0), from, to)
    ]) {
      const error = failureOf(act)
      expect(error.field).toBe("to")
      expect(error.value).toContain(String(to))
    }
  })

  it.each([
    ["no array", "0,5", "ranges"],
    ["an odd number of bounds", [0, 5, 7], "ranges"],
    ["a text", [0, "5"], "ranges[1]"],
    ["an empty range", [3, 3], "ranges[1]"],
    ["a reversed range", [3, 2], "ranges[1]"],
    ["a negative offset", [-1, 2], "ranges[0]"],
    ["a fraction", [0, 1.5], "ranges[1]"],
    ["ranges that touch", [0, 2, 2, 3], "ranges[2]"],
    ["ranges that overlap", [0, 5, 4, 6], "ranges[2]"],
    ["ranges out of order", [4, 5, 0, 1], "ranges[2]"],
    ["an end beyond all offsets", [0, 2 ** 54], "ranges[1]"],
    ["an offset beyond all offsets", [END, END], "ranges[0]"]
  ])("does not decode %s", (_, wire, field) => {
    expect(failureOf(() => OffsetRanges.decode(wire)).field).toBe(field)
    expect(() => Schema.decodeUnknownSync(OffsetRanges.FromWire)(wire)).toThrow()
  })
})
