import type { KafkaRecord } from "../KafkaClient.ts"

/** One partition's log in memory: records in order of offset, and offsets without a record between them. */
export class PartitionLog {
  /** The first offset that is kept. */
  low = 0
  /** One past the last offset, whether a record stands there or not. */
  high = 0
  #records: Array<KafkaRecord> = []

  append(record: Omit<KafkaRecord, "offset">): number {
    const offset = this.high++
    this.#records.push({ ...record, offset })
    return offset
  }

  /** Takes offsets without writing records, as control records of transactions do. */
  skip(count: number): void {
    this.high += count
  }

  /** Removes records, as compaction does: their offsets stay empty. */
  compact(offsets: ReadonlySet<number>): void {
    this.#records = this.#records.filter((record) => !offsets.has(record.offset))
  }

  /** Removes what lies below `offset`, as retention does. */
  deleteBefore(offset: number): void {
    this.low = Math.max(this.low, Math.min(offset, this.high))
    this.#records = this.#records.slice(this.#indexOf(this.low))
  }

  read(position: number, maxRecords: number): { records: ReadonlyArray<KafkaRecord>; nextOffset: number } {
    const from = this.#indexOf(position)
    const records = this.#records.slice(from, from + maxRecords)
    const following = this.#records[from + records.length]
    return { records, nextOffset: following === undefined ? this.high : following.offset }
  }

  all(): ReadonlyArray<KafkaRecord> {
    return this.#records.slice()
  }

  /** The index of the first record at or after `offset`. */
  #indexOf(offset: number): number {
    let from = 0
    let to = this.#records.length
    while (from < to) {
      const middle = (from + to) >>> 1
      if (this.#records[middle]!.offset < offset) from = middle + 1
      else to = middle
    }
    return from
  }
}
