import { describe, expect, it } from "@effect/vitest"
import type { fetchV17, RecordsBatch } from "@platformatic/kafka"
import fc from "fast-check"
import { committedBatches, readPartition } from "../src/internal/platformaticRecords.ts"

const transactional = 16
const control = 32

const batch = (first: number, count: number, attributes: number, producer: number, abort = false) =>
  ({
    firstOffset: BigInt(first),
    lastOffsetDelta: count - 1,
    attributes,
    producerId: BigInt(producer),
    firstTimestamp: 1_000n,
    maxTimestamp: 2_000n,
    records: Array.from({ length: count }, (_, index) => ({
      offsetDelta: index,
      timestampDelta: BigInt(index),
      key: (attributes & control) !== 0 ? Buffer.from([0, 0, 0, abort ? 0 : 1]) : null,
      value: Buffer.from(String(first + index)),
      headers: []
    }))
  }) as unknown as RecordsBatch

interface Step {
  readonly producer: number
  readonly act: "send" | "commit" | "abort" | "plain"
  readonly count: number
}

/** A log in which producers' transactions interleave, and what a reader of what is committed must see of it. */
const logOf = (steps: ReadonlyArray<Step>) => {
  const batches: Array<RecordsBatch> = []
  const open = new Map<number, { first: number; offsets: Array<number> }>()
  const aborted: Array<fetchV17.FetchResponsePartitionAbortedTransaction> = []
  const visible: Array<number> = []
  let end = 0
  const finish = (producer: number, act: "commit" | "abort"): void => {
    const transaction = open.get(producer)
    if (transaction === undefined) return
    open.delete(producer)
    if (act === "abort")
      aborted.push({ producerId: BigInt(producer), firstOffset: BigInt(transaction.first) })
    else visible.push(...transaction.offsets)
    batches.push(batch(end++, 1, transactional | control, producer, act === "abort"))
  }
  for (const { act, count, producer } of steps) {
    if (act === "commit" || act === "abort") {
      finish(producer, act)
      continue
    }
    const offsets = Array.from({ length: count }, (_, index) => end + index)
    batches.push(batch(end, count, act === "plain" ? 0 : transactional, act === "plain" ? -1 : producer))
    if (act === "plain") visible.push(...offsets)
    else {
      const transaction = open.get(producer) ?? { first: end, offsets: [] }
      transaction.offsets.push(...offsets)
      open.set(producer, transaction)
    }
    end += count
  }
  for (const producer of [...open.keys()]) finish(producer, "commit")
  return { batches, aborted, visible: visible.sort((left, right) => left - right), end }
}

const steps = fc.array(
  fc.record({
    producer: fc.integer({ min: 1, max: 3 }),
    act: fc.constantFrom("send" as const, "commit" as const, "abort" as const, "plain" as const),
    count: fc.integer({ min: 1, max: 4 })
  }),
  { maxLength: 30 }
)

const offsetsOf = (batches: ReadonlyArray<RecordsBatch>): Array<number> =>
  batches.flatMap(({ firstOffset, records }) =>
    records.map(({ offsetDelta }) => Number(firstOffset) + offsetDelta)
  )

describe("what a fetch brought", () => {
  it("is what was committed, however transactions interleave", () => {
    fc.assert(
      fc.property(steps, (plan) => {
        const { aborted, batches, visible } = logOf(plan)
        expect(offsetsOf(committedBatches(batches, aborted))).toEqual(visible)
      })
    )
  })

  it("begins at the fetched offset, also within a batch, and ends behind the last one, markers included", () => {
    fc.assert(
      fc.property(steps, fc.nat({ max: 60 }), (plan, from) => {
        const { aborted, batches, end, visible } = logOf(plan)
        const fetchedOffset = Math.min(from, Math.max(0, end - 1))
        // as a broker does: from the batch that holds the offset on
        const records = batches.filter(
          ({ firstOffset, lastOffsetDelta }) => Number(firstOffset) + lastOffsetDelta >= fetchedOffset
        )
        const response = {
          records,
          abortedTransactions: aborted
        } as unknown as fetchV17.FetchResponsePartition
        const read = readPartition("orders", 0, fetchedOffset, response)
        if (end === 0) expect(read).toBeUndefined()
        else {
          expect(read?.nextOffset).toBe(end)
          expect(read?.records.map(({ offset }) => offset)).toEqual(
            visible.filter((offset) => offset >= fetchedOffset)
          )
        }
      })
    )
  })

  it("has the time of the record, or of the log where the topic says so", () => {
    const timesOf = (attributes: number) => {
      const response = { records: [batch(0, 2, attributes, -1)], abortedTransactions: null }
      const read = readPartition("orders", 0, 0, response as unknown as fetchV17.FetchResponsePartition)
      return read?.records.map(({ timestampMillis }) => timestampMillis)
    }
    expect(timesOf(0)).toEqual([1_000, 1_001])
    expect(timesOf(8)).toEqual([2_000, 2_000])
  })
})
