import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { InvalidInput } from "../src/Errors.ts"
import * as OffsetRanges from "../src/OffsetRanges.ts"
import { END } from "../src/OffsetRanges.ts"
import * as OffsetSet from "../src/OffsetSet.ts"

/**
 * A universe is a sorted list of cuts; the offsets between two neighbouring cuts are a cell, and each command
 * takes whole cells. So the model stays a plain Set of cells, however far apart the offsets are.
 */
const consecutive = (from: number, count: number): Array<number> =>
  Array.from({ length: count }, (_, i) => from + i)

const around = (centres: ReadonlyArray<number>, distance: number): Array<number> =>
  centres.flatMap((centre) => consecutive(centre - distance, 2 * distance + 1))

const PAGE = 4096

const universes: ReadonlyArray<readonly [name: string, cuts: ReadonlyArray<number>]> = [
  ["the lowest offsets", consecutive(0, 40)],
  ["one page's worth of single offsets", consecutive(70_000, 300)],
  ["bitmaps in several pages", around([PAGE, 2 * PAGE, 3 * PAGE, 5 * PAGE, 6 * PAGE], 40)],
  ["page borders", around([PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE, 7 * PAGE], 3)],
  ["page borders around 2^32", around([2 ** 32 - PAGE, 2 ** 32, 2 ** 32 + PAGE], 5)],
  ["single offsets far apart", consecutive(0, 200).flatMap((i) => [i * 1_000_000, i * 1_000_000 + 1])],
  ["whole pages", consecutive(0, 300).map((page) => page * PAGE)],
  ["spans of every size", [0, ...consecutive(0, 53).map((power) => 2 ** power), END]],
  ["the highest offsets", consecutive(END - 60, 61)],
  [
    "page borders at the highest offsets",
    [...around([END - 3 * PAGE, END - PAGE], 4), ...consecutive(END - 4, 5)]
  ]
]

type Command =
  | { readonly _tag: "Add"; readonly begin: number; readonly end: number }
  | { readonly _tag: "AddEvery"; readonly begin: number; readonly end: number; readonly step: number }
  | { readonly _tag: "Remove"; readonly begin: number; readonly end: number }
  | { readonly _tag: "RemoveEvery"; readonly begin: number; readonly end: number; readonly step: number }
  | { readonly _tag: "LowerOrigin"; readonly to: number }
  | { readonly _tag: "Reset"; readonly to: number }

const arbitraryCommands = (cells: number): fc.Arbitrary<ReadonlyArray<Command>> => {
  const cell = fc.integer({ min: 0, max: cells - 1 })
  const length = fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: cells }))
  const span = fc
    .tuple(cell, length)
    .map(([begin, count]) => ({ begin, end: Math.min(cells, begin + count) }))
  const step = fc.integer({ min: 2, max: 5 })
  return fc.array(
    fc.oneof(
      { weight: 8, arbitrary: span.map((span): Command => ({ _tag: "Add", ...span })) },
      {
        weight: 4,
        arbitrary: fc.tuple(span, step).map(([span, step]): Command => ({ _tag: "AddEvery", ...span, step }))
      },
      { weight: 4, arbitrary: span.map((span): Command => ({ _tag: "Remove", ...span })) },
      {
        weight: 2,
        arbitrary: fc
          .tuple(span, step)
          .map(([span, step]): Command => ({ _tag: "RemoveEvery", ...span, step }))
      },
      { weight: 2, arbitrary: cell.map((to): Command => ({ _tag: "LowerOrigin", to })) },
      { weight: 1, arbitrary: cell.map((to): Command => ({ _tag: "Reset", to })) }
    ),
    { maxLength: 30 }
  )
}

/** The same set, as plain cells. */
class Model {
  readonly cuts: ReadonlyArray<number>
  readonly completed = new Set<number>()
  origin: number

  constructor(cuts: ReadonlyArray<number>, origin: number) {
    this.cuts = cuts
    this.origin = origin
  }

  add(cells: ReadonlyArray<number>): number {
    const added = cells.filter((cell) => !this.completed.has(cell))
    for (const cell of cells) {
      this.completed.add(cell)
      this.origin = Math.min(this.origin, cell)
    }
    return this.width(added)
  }

  remove(cells: ReadonlyArray<number>): number {
    return this.width(cells.filter((cell) => this.completed.delete(cell)))
  }

  width(cells: Iterable<number>): number {
    let width = 0
    for (const cell of cells) width += this.cuts[cell + 1] - this.cuts[cell]
    return width
  }

  get watermark(): number {
    let cell = this.origin
    while (this.completed.has(cell)) cell += 1
    return cell
  }

  get highest(): number {
    return Math.max(this.origin, ...[...this.completed].map((cell) => cell + 1))
  }

  get missing(): Array<number> {
    return consecutive(this.watermark, this.highest - this.watermark).filter(
      (cell) => !this.completed.has(cell)
    )
  }

  ranges(cells: Iterable<number>): OffsetRanges.OffsetRanges {
    const pairs = Array.from(cells, (cell) => [this.cuts[cell], this.cuts[cell + 1]] as const)
    return OffsetRanges.fromRanges(pairs)
  }
}

const every = ({ begin, end, step }: { begin: number; end: number; step: number }): Array<number> =>
  consecutive(begin, end - begin).filter((cell) => (cell - begin) % step === 0)

const run = (command: Command, set: OffsetSet.OffsetSet, model: Model): void => {
  const { cuts } = model
  switch (command._tag) {
    case "Add": {
      const cells = consecutive(command.begin, command.end - command.begin)
      expect(set.add(cuts[command.begin], cuts[command.end])).toBe(model.add(cells))
      return
    }
    case "AddEvery": {
      const cells = every(command)
      expect(set.addRanges(model.ranges(cells))).toBe(model.add(cells))
      return
    }
    case "Remove": {
      const cells = consecutive(command.begin, command.end - command.begin)
      expect(set.remove(cuts[command.begin], cuts[command.end])).toBe(model.remove(cells))
      return
    }
    case "RemoveEvery": {
      for (const cell of every(command)) {
        expect(set.remove(cuts[cell], cuts[cell + 1])).toBe(model.remove([cell]))
      }
      return
    }
    case "LowerOrigin": {
      set.lowerOrigin(cuts[command.to])
      model.origin = Math.min(model.origin, command.to)
      return
    }
    case "Reset": {
      set.reset(cuts[command.to])
      model.origin = command.to
      model.completed.clear()
    }
  }
}

const expectSame = (set: OffsetSet.OffsetSet, model: Model): void => {
  const { cuts, completed } = model
  const all = consecutive(0, cuts.length - 1)
  expect(set.origin).toBe(cuts[model.origin])
  expect(set.watermark).toBe(cuts[model.watermark])
  expect(set.highest).toBe(cuts[model.highest])
  expect(set.size).toBe(model.width(completed))
  expect(set.gapCount).toBe(model.width(model.missing))
  // OffsetRanges are made of the cells in one piece, so equal means sorted, disjoint and not touching, too
  expect(set.toRanges().flat).toEqual(model.ranges(completed).flat)
  const gaps = model.ranges(model.missing).flat
  expect(set.gaps().flat).toEqual(gaps)
  expect(set.gaps(2).flat).toEqual(gaps.slice(0, 4))
  expect(all.filter((cell) => set.has(cuts[cell]))).toEqual(all.filter((cell) => completed.has(cell)))
  expect(all.filter((cell) => set.has(cuts[cell + 1] - 1))).toEqual(all.filter((cell) => completed.has(cell)))
}

const expectSameAnswers = (set: OffsetSet.OffsetSet, model: Model, cells: ReadonlyArray<number>): void => {
  const asked = model.ranges(cells)
  const { present, missing } = set.partition(asked)
  expect(present.flat).toEqual(model.ranges(cells.filter((cell) => model.completed.has(cell))).flat)
  expect(missing.flat).toEqual(model.ranges(cells.filter((cell) => !model.completed.has(cell))).flat)
  expect(set.subtractFrom(asked).flat).toEqual(missing.flat)
  expect(set.intersectWith(asked).flat).toEqual(present.flat)
  if (OffsetRanges.isEmpty(present)) expect(missing).toBe(asked)
  else if (OffsetRanges.isEmpty(missing)) expect(present).toBe(asked)
  for (const [from, to] of asked) {
    expect(set.hasAll(from, to)).toBe(OffsetRanges.containsRange(model.ranges(model.completed), from, to))
  }
}

describe.each(universes)("OffsetSet in %s", (_, cuts) => {
  const cells = cuts.length - 1

  it("does as a plain Set does, command after command", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: cells - 1 }),
        arbitraryCommands(cells),
        fc.array(fc.integer({ min: 0, max: cells - 1 }), { maxLength: 40 }),
        (origin, commands, some) => {
          const set = OffsetSet.make(cuts[origin])
          const model = new Model(cuts, origin)
          for (const command of commands) {
            run(command, set, model)
            expectSame(set, model)
            expectSameAnswers(set, model, some)
          }
          expectSameAnswers(set, model, consecutive(0, cells))
          expectSame(set.clone(), model)
          expectSame(OffsetSet.fromRanges(set.toRanges(), set.origin), model)
        }
      ),
      { numRuns: cells > 100 ? 40 : 100 }
    )
  })

  it("ends with the watermark at the end, and with hardly any memory, when all gaps were filled", () => {
    const order = fc.shuffledSubarray(consecutive(0, cells), { minLength: cells, maxLength: cells })
    fc.assert(
      fc.property(order, (order) => {
        const set = OffsetSet.make(cuts[0])
        const model = new Model(cuts, 0)
        for (const cell of order) {
          expect(set.add(cuts[cell], cuts[cell + 1])).toBe(model.add([cell]))
          expect(set.watermark).toBe(cuts[model.watermark])
        }
        expect(String(set.toRanges())).toBe(`[${cuts[0]},${cuts[cells]})`)
        expect(set.gapCount).toBe(0)
        expect(set.estimatedBytes).toBeLessThan(2_000)
      }),
      { numRuns: 20 }
    )
  })
})

describe("OffsetSet", () => {
  it("gives back the very ranges that are wholly above or wholly done", () => {
    const set = OffsetSet.make(0)
    set.add(0, 100)
    set.add(200, 300)
    const above = OffsetRanges.openEnded(300)
    expect(set.partition(above).missing).toBe(above)
    const done = OffsetRanges.make(20, 90)
    expect(set.partition(done).present).toBe(done)
    const island = OffsetRanges.make(210, 290)
    expect(set.partition(island).present).toBe(island)
  })

  it("adds below the origin by lowering it", () => {
    const set = OffsetSet.make(1_000)
    set.add(1_000, 1_010)
    expect(set.add(500, 510)).toBe(10)
    expect(set.origin).toBe(500)
    expect(set.watermark).toBe(510)
    expect(String(set.gaps())).toBe("[510,1000)")
  })

  it("keeps its origin when everything is removed", () => {
    const set = OffsetSet.make(5)
    set.add(5, 10_000)
    expect(set.remove(0, END)).toBe(9_995)
    expect([set.origin, set.watermark, set.highest, set.size, set.gapCount]).toEqual([5, 5, 5, 0, 0])
  })

  it("gives a copy that goes its own way", () => {
    const set = OffsetSet.make(0)
    set.add(3, 5)
    const copy = set.clone()
    copy.add(0, 3)
    expect(copy.watermark).toBe(5)
    expect(set.watermark).toBe(0)
  })

  it("says that values which are no offsets are not in it", () => {
    const set = OffsetSet.make(0)
    set.add(0, 10)
    set.add(20, 30)
    for (const value of [-1, 0.5, 20.5, Number.NaN, Number.POSITIVE_INFINITY, END]) {
      expect(set.has(value)).toBe(false)
    }
  })

  it.each([-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, END])("rejects %s as an offset", (bad) => {
    const set = OffsetSet.make(0)
    set.add(3, 5)
    for (const act of [
      () => OffsetSet.make(bad),
      () => set.add(bad, END),
      () => set.remove(bad, END),
      () => set.hasAll(bad, END),
      () => set.lowerOrigin(bad),
      () => set.reset(bad),
      () => set.add(7, 7),
      () => set.remove(7, 6)
    ]) {
      expect(act).toThrow(InvalidInput)
    }
    expect(() => set.gaps(Number.NaN)).toThrow(InvalidInput)
    expect(String(set.toRanges())).toBe("[3,5)")
  })
})

describe("what an OffsetSet keeps in memory", () => {
  const filled = (add: (set: OffsetSet.OffsetSet) => void): OffsetSet.OffsetSet => {
    const set = OffsetSet.make(0)
    add(set)
    return set
  }

  it("is the same for a dense prefix of any length", () => {
    const empty = OffsetSet.make(0).estimatedBytes
    const long = filled((set) => {
      for (let i = 0; i < 10_000_000; i += 500) set.add(i, i + 500)
    })
    expect(long.size).toBe(10_000_000)
    expect(long.estimatedBytes).toBe(empty)
    expect(filled((set) => set.add(0, 1e15)).estimatedBytes).toBe(empty)
  })

  it("is small for one long run above a gap", () => {
    const set = filled((set) => set.add(7, 1e15))
    expect(set.estimatedBytes).toBeLessThan(1_000)
    expect(set.gapCount).toBe(7)
  })

  it.each([100_000, 200_000])("is below 0.3 bytes per completed offset, every other one of %i", (window) => {
    const set = filled((set) => {
      for (let i = 1; i < window; i += 2) set.add(i, i + 1)
    })
    expect(set.size).toBe(window / 2)
    expect(set.estimatedBytes / set.size).toBeLessThan(0.3)
  })

  it("is some tens of bytes per offset when these are a million apart", () => {
    const set = filled((set) => {
      for (let i = 1; i <= 10_000; i++) set.add(i * 1e6, i * 1e6 + 1)
    })
    expect(set.estimatedBytes / set.size).toBeLessThan(40)
  })

  it("shrinks when gaps are filled, behind the watermark and before it", () => {
    const set = filled((set) => {
      for (let i = 1; i < 1_000_000; i += 2) set.add(i, i + 1)
    })
    const before = set.estimatedBytes
    for (let i = 500_000; i < 1_000_000; i += 2) set.add(i, i + 1)
    expect(set.estimatedBytes).toBeLessThan(before * 0.6)
    for (let i = 0; i < 400_000; i += 2) set.add(i, i + 1)
    expect(set.watermark).toBe(400_000)
    expect(set.estimatedBytes).toBeLessThan(before * 0.2)
  })
})
