import { OffsetRanges } from "@tidemark/core"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { Order } from "../src/internal/consumer/Lanes.ts"
import { type Finished, type Gate, join, PartitionState } from "../src/internal/consumer/PartitionState.ts"
import type { KafkaRecord, RecordBatch } from "../src/KafkaClient.ts"

const record = (offset: number, key?: string): KafkaRecord => ({
  topic: "orders",
  partition: 0,
  offset,
  key: key === undefined ? undefined : Buffer.from(key),
  value: Buffer.from(`value ${offset}`),
  timestampMillis: 0,
  headers: {}
})

const batch = (
  fetchedOffset: number,
  records: ReadonlyArray<KafkaRecord>,
  nextOffset: number
): RecordBatch => ({
  topic: "orders",
  partition: 0,
  records,
  fetchedOffset,
  nextOffset,
  highWatermark: nextOffset
})

const dense = (from: number, to: number, key?: (offset: number) => string): RecordBatch =>
  batch(
    from,
    Array.from({ length: to - from }, (_, index) => record(from + index, key?.(from + index))),
    to
  )

const begin = (order: Order, position = 0, gate?: Gate): PartitionState =>
  new PartitionState(position, OffsetRanges.empty, order, gate)

/** Starts all that may start, and tells their offsets. */
const takeAll = (state: PartitionState): Array<readonly [tile: number, offset: number]> => {
  const taken: Array<readonly [number, number]> = []
  for (let tile = state.take(); tile !== -1; tile = state.take())
    taken.push([tile, state.recordAt(tile)?.offset ?? -1])
  return taken
}

const settle = (state: PartitionState): string => {
  const finished = state.takeFinished()
  if (finished === undefined) return ""
  const { ranges } = state.settlementOf(finished)
  state.markCompleted(finished)
  return String(ranges)
}

describe("PartitionState", () => {
  it("gives a record the offsets that the log skips before it, and a batch's end to nobody", () => {
    const state = begin("none")
    state.receive(batch(0, [record(3), record(7)], 10))
    expect(state.received).toBe(10)
    expect(state.inFlight).toBe(2)
    const [[first], [second]] = takeAll(state)
    state.finish(second)
    expect(settle(state)).toBe("[4,10)")
    expect(state.watermark).toBe(0)
    state.finish(first)
    expect(settle(state)).toBe("[0,4)")
    expect(state.watermark).toBe(10)
    expect(state.unfinished).toBe(0)
  })

  it("passes over a batch without records", () => {
    const state = begin("key", 5)
    expect(state.receive(batch(5, [], 9))).toEqual({ fresh: 0, redelivered: 0, alreadyCompleted: 0 })
    expect(state.take()).toBe(-1)
    expect(settle(state)).toBe("[5,9)")
    expect(state.watermark).toBe(9)
  })

  it("keeps tiles apart when its room is used again", () => {
    for (const count of [255, 256, 257, 1_000]) {
      const state = begin("none")
      state.receive(batch(0, [], 1))
      settle(state)
      state.receive(dense(1, 1 + count))
      const taken = takeAll(state)
      expect(taken.map(([, offset]) => offset)).toEqual(
        Array.from({ length: count }, (_, index) => index + 1)
      )
      state.finish(taken[count - 1][0])
      settle(state)
      expect(state.watermark).toBe(1)
    }
  })

  it("drops what it has received before", () => {
    const state = begin("none")
    state.receive(dense(0, 5))
    expect(state.receive(dense(2, 7))).toEqual({ fresh: 2, redelivered: 3, alreadyCompleted: 0 })
    expect(state.receive(dense(0, 4))).toEqual({ fresh: 0, redelivered: 4, alreadyCompleted: 0 })
    expect(takeAll(state).map(([, offset]) => offset)).toEqual([0, 1, 2, 3, 4, 5, 6])
  })

  it("skips what was completed before it began", () => {
    const state = new PartitionState(
      2,
      OffsetRanges.fromRanges([
        [0, 2],
        [4, 6],
        [8, 9]
      ]),
      "none"
    )
    expect(state.receive(dense(2, 10)).alreadyCompleted).toBe(3)
    const taken = takeAll(state)
    expect(taken.map(([, offset]) => offset)).toEqual([2, 3, 6, 7, 9])
    expect(settle(state)).toBe("[4,6) [8,9)")
    for (const [tile] of taken) state.finish(tile)
    expect(settle(state)).toBe("[2,4) [6,8) [9,10)")
    expect(state.watermark).toBe(10)
  })

  it("keeps the order of equal keys, and of no others", () => {
    const state = begin("key")
    state.receive(dense(0, 6, (offset) => (offset % 2 === 0 ? "even" : `odd ${offset}`)))
    const taken = takeAll(state)
    expect(taken.map(([, offset]) => offset)).toEqual([0, 1, 3, 5])
    state.finish(taken[2][0])
    expect(takeAll(state)).toEqual([])
    state.finish(taken[0][0])
    expect(takeAll(state).map(([, offset]) => offset)).toEqual([2])
  })

  it("keeps no order among records without a key", () => {
    const state = begin("key")
    state.receive(dense(0, 4))
    expect(takeAll(state).length).toBe(4)
  })

  it("tells keys apart by their bytes, also where they are no text", () => {
    const state = begin("key")
    const keyed = (offset: number, ...bytes: ReadonlyArray<number>): KafkaRecord => ({
      ...record(offset),
      key: Buffer.from(bytes)
    })
    state.receive(batch(0, [keyed(0, 0xff), keyed(1, 0xfe), keyed(2, 0xff), keyed(3)], 4))
    expect(takeAll(state).map(([, offset]) => offset)).toEqual([0, 1, 3])
  })

  it("runs one record of a partition at a time where that order is kept", () => {
    const state = begin("partition")
    state.receive(dense(0, 3))
    const [[first], ...others] = takeAll(state)
    expect(others).toEqual([])
    state.finish(first)
    expect(takeAll(state).map(([, offset]) => offset)).toEqual([1])
  })

  it("starts nothing behind a record that was abandoned", () => {
    for (const order of ["key", "partition"] as const) {
      const state = begin(order)
      state.receive(dense(0, 3, () => "same"))
      const [[first]] = takeAll(state)
      state.abandon(first)
      expect(takeAll(state)).toEqual([])
      expect(state.running).toBe(0)
      expect(state.watermark).toBe(0)
      state.retry(first)
      expect(takeAll(state).map(([, offset]) => offset)).toEqual([0])
    }
  })

  it("lets a tile start only when it is admitted, and asks the gate at its turn", () => {
    const answers = new Map<number, "run" | "skip" | "wait">([
      [1, "skip"],
      [2, "wait"]
    ])
    const state = begin("key", 0, (tile) => answers.get(tile) ?? "run")
    state.receive(dense(0, 5, () => "same"))
    expect(takeAll(state)).toEqual([])
    expect(state.admissible).toEqual([0, 5])
    state.admit(5)
    expect(takeAll(state).map(([, offset]) => offset)).toEqual([0])
    state.finish(0)
    expect(takeAll(state)).toEqual([])
    expect([...state.behind(2)]).toEqual([3, 4])
    expect(settle(state)).toBe("[0,2)")
    answers.set(2, "run")
    state.retry(2)
    expect(takeAll(state).map(([, offset]) => offset)).toEqual([2])
  })

  it("counts the bytes of what is in flight, and gives them back", () => {
    const state = begin("none")
    state.receive(batch(0, [{ ...record(0), value: Buffer.alloc(5_000) }], 1))
    expect(state.inFlightBytes).toBeGreaterThan(5_000)
    expect(state.inFlightBytes).toBeLessThan(6_000)
    state.finish(state.take())
    expect(state.inFlightBytes).toBe(0)
  })
})

type Step =
  | { readonly act: "receive"; readonly size: number; readonly back: number; readonly hole: number }
  | { readonly act: "take" | "finish"; readonly count: number; readonly at: number }
  | { readonly act: "settle" | "answer"; readonly at: number }

const nat = fc.nat({ max: 1_000 })
const size = fc.oneof(
  { weight: 9, arbitrary: fc.integer({ min: 0, max: 40 }) },
  { weight: 1, arbitrary: fc.integer({ min: 200, max: 600 }) }
)
const steps: fc.Arbitrary<Array<Step>> = fc.array(
  fc.oneof(
    fc.record({
      act: fc.constant("receive" as const),
      size,
      back: nat,
      hole: fc.integer({ min: 1, max: 4 })
    }),
    fc.record({ act: fc.constantFrom("take" as const, "finish" as const), count: size, at: nat }),
    fc.record({ act: fc.constantFrom("settle" as const, "answer" as const), at: nat })
  ),
  { minLength: 5, maxLength: 40 }
)

/** A partition's log and workers, beside a `PartitionState`, with a plain account of what must be so. */
class Run {
  readonly order: Order
  readonly before: OffsetRanges.OffsetRanges
  readonly keys: number
  readonly state: PartitionState
  readonly records: Array<number> = []
  /** The offset before each in its lane, among those that are to run. */
  readonly previous = new Map<number, number>()
  readonly lastInLane = new Map<string, number>()
  readonly begun: Array<number> = []
  readonly running = new Map<number, number>()
  readonly ended = new Set<number>()
  readonly open: Array<Finished> = []
  readonly inBatches: boolean
  readonly batches: Array<ReadonlyArray<number>> = []
  /** Records at work in batches, by tile. */
  readonly inBatch = new Map<number, number>()
  handled = 0
  completed = OffsetRanges.empty
  end = 0
  below = 0

  constructor(order: Order, before: OffsetRanges.OffsetRanges, keys: number, inBatches: boolean) {
    this.inBatches = inBatches
    this.order = order
    this.before = before
    this.keys = keys
    this.state = new PartitionState(0, before, order)
  }

  keyOf(offset: number): string | undefined {
    return offset % 7 === 0 ? undefined : `key ${offset % this.keys}`
  }

  laneOf(offset: number): string | undefined {
    if (this.order === "none") return undefined
    return this.order === "partition" ? "all" : this.keyOf(offset)
  }

  receive({ back, hole, size }: Extract<Step, { readonly act: "receive" }>): void {
    const again = this.records.slice(Math.max(0, this.records.length - (back % 6)))
    const fetched = again[0] ?? this.end
    const fresh: Array<number> = []
    for (let index = 0; index < size; index++) {
      this.end += index % 11 === 0 ? hole : 1
      fresh.push(this.end - 1)
    }
    this.end += hole - 1
    this.records.push(...fresh)
    for (const offset of fresh) this.expectInLane(offset)
    if (this.end === fetched) return
    const records = [...again, ...fresh].map((offset) => record(offset, this.keyOf(offset)))
    expect(this.state.receive(batch(fetched, records, this.end)).redelivered).toBe(
      again.filter((offset) => !fresh.includes(offset)).length
    )
    expect(this.state.received).toBe(this.end)
  }

  expectInLane(offset: number): void {
    const lane = this.laneOf(offset)
    if (lane === undefined || OffsetRanges.contains(this.before, offset)) return
    const last = this.lastInLane.get(lane)
    if (last !== undefined) this.previous.set(offset, last)
    this.lastInLane.set(lane, offset)
  }

  take(count: number): void {
    for (let taken = 0; taken < count; taken++) {
      const tile = this.state.take()
      if (tile === -1) return
      const { offset } = this.state.recordAt(tile) as KafkaRecord
      expect(OffsetRanges.contains(this.before, offset)).toBe(false)
      // the one before it in its lane has ended, and so, by induction, have all before that
      const previous = this.previous.get(offset)
      if (previous !== undefined) expect(this.ended.has(previous)).toBe(true)
      this.begun.push(offset)
      this.running.set(offset, tile)
    }
  }

  /** Batches are of one lane, in its order, and hold nothing else. */
  takeBatch(most: number): void {
    const tiles = this.state.takeBatch(most)
    expect(tiles.length).toBeLessThanOrEqual(most)
    if (tiles.length === 0) return
    const offsets = tiles.map((tile) => this.state.recordAt(tile)?.offset ?? -1)
    expect(new Set(offsets.map((offset) => this.laneOf(offset))).size).toBe(1)
    const inside = new Set<number>()
    for (const [index, offset] of offsets.entries()) {
      expect(OffsetRanges.contains(this.before, offset)).toBe(false)
      const previous = this.previous.get(offset)
      if (previous !== undefined) expect(this.ended.has(previous) || inside.has(previous)).toBe(true)
      inside.add(offset)
      this.inBatch.set(tiles[index], offset)
    }
    this.batches.push(tiles)
  }

  /** Ends one batch: all of it, or only every `part`th of it. */
  finishBatch(at: number, part: number): void {
    const [tiles] = this.batches.splice(at % Math.max(1, this.batches.length), 1)
    if (tiles === undefined) return
    const done = new Set(tiles.filter((_, index) => index % part === 0))
    for (const tile of tiles) {
      const offset = this.inBatch.get(tile) as number
      this.inBatch.delete(tile)
      if (!done.has(tile)) continue
      this.begun.push(offset)
      this.ended.add(offset)
    }
    if (done.size === tiles.length) this.state.finishBatch(tiles)
    else this.state.retry(this.state.abandonBatch(tiles, done)[0])
  }

  finish(count: number, at: number): void {
    const running = [...this.running]
    for (let index = 0; index < Math.min(count, running.length); index++) {
      const [offset, tile] = running[(at + index) % running.length]
      this.running.delete(offset)
      this.ended.add(offset)
      this.state.finish(tile)
    }
  }

  settle(): void {
    const finished = this.state.takeFinished()
    if (finished !== undefined) this.open.push(finished)
  }

  /** The store has one of them, or two that went together. */
  answer(at: number): void {
    const [first, second] = this.open.splice(at % Math.max(1, this.open.length), 1 + (at % 2))
    if (first === undefined) return
    const settlement = this.state.settlementOf(second === undefined ? first : join(second, first))
    this.handled += settlement.handled
    expect(OffsetRanges.overlaps(this.completed, settlement.ranges)).toBe(false)
    this.completed = OffsetRanges.union(this.completed, settlement.ranges)
    this.state.markCompleted(settlement)
  }

  step(step: Step): void {
    if (step.act === "receive") this.receive(step)
    else if (step.act === "take") {
      if (this.inBatches) this.takeBatch(1 + (step.count % 20))
      else this.take(step.count)
    } else if (step.act === "finish") {
      if (this.inBatches) this.finishBatch(step.at, 1 + (step.count % 3))
      else this.finish(step.count, step.at)
    } else if (step.act === "settle") this.settle()
    else this.answer(step.at)
    this.check()
  }

  check(): void {
    const { state } = this
    expect(state.watermark).toBe(OffsetRanges.watermark(this.completed, 0))
    expect(state.running).toBe(this.inBatches ? this.inBatch.size : this.running.size)
    const { end } = this
    const highest = Math.max(OffsetRanges.end(this.completed) ?? 0, OffsetRanges.end(this.before) ?? 0)
    let gaps = 0
    for (let offset = state.watermark; offset < highest; offset++)
      if (!OffsetRanges.contains(offset < end ? this.completed : this.before, offset)) gaps++
    expect(state.gaps).toBe(gaps)
    expect(state.oldest === undefined).toBe(state.unfinished === 0)
    for (; this.records[this.below] < state.watermark; this.below++) {
      const offset = this.records[this.below]
      if (!this.ended.has(offset)) expect(OffsetRanges.contains(this.before, offset)).toBe(true)
    }
  }

  drain(): void {
    while (this.state.inFlight > 0) {
      const { inFlight } = this.state
      if (this.inBatches) {
        this.takeBatch(1_000)
        this.finishBatch(0, 1)
      } else {
        this.take(1_000)
        this.finish(1_000, 3)
      }
      expect(this.state.inFlight).toBeLessThan(inFlight)
    }
    this.settle()
    while (this.open.length > 0) this.answer(1)
    this.check()
  }
}

describe("PartitionState, however records come, start and end", () => {
  const islands = fc.array(fc.integer({ min: 5, max: 400 }), { maxLength: 30 })

  const orders = ["key", "partition", "none"] as const
  const ways = orders.flatMap((order) => [
    { order, inBatches: false, how: "one by one" },
    { order, inBatches: true, how: "in batches" }
  ])
  it.each(ways)("order $order, $how: once each, in order, watermark true", ({ inBatches, order }) => {
    fc.assert(
      fc.property(steps, islands, fc.integer({ min: 1, max: 9 }), (acts, completedBefore, keys) => {
        const before = OffsetRanges.fromOffsets(completedBefore)
        const run = new Run(order, before, keys, inBatches)
        for (const step of acts) run.step(step)
        run.drain()
        const expected = run.records.filter((offset) => !OffsetRanges.contains(before, offset))
        expect(run.begun.toSorted((one, other) => one - other)).toEqual(expected)
        const { state } = run
        expect(run.handled).toBe(expected.length)
        expect(state.watermark).toBe(run.end)
        expect([state.inFlight, state.inFlightBytes, state.unfinished, state.span]).toEqual([0, 0, 0, 0])
      }),
      { numRuns: 100 }
    )
  })
})
