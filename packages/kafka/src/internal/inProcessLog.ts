import type { KafkaRecord } from "../KafkaClient.ts"

/** One partition's log in memory: records in order of offset, and offsets without a record between them. */
export class PartitionLog {
  /** The first offset that is kept. */
  low = 0
  /** One past the last offset, whether a record stands there or not. */
  high = 0
  #records: Array<KafkaRecord> = []
  /** What each transaction that is open has written here: its offsets, ascending. */
  readonly #open = new Map<object, Array<number>>()

  /** Where the first open transaction begins: nothing from there on is read. */
  get lastStable(): number {
    let stable = this.high
    for (const [first] of this.#open.values()) stable = Math.min(stable, first!)
    return stable
  }

  append(record: Omit<KafkaRecord, "offset">, transaction?: object): void {
    const offset = this.high++
    this.#records.push({ ...record, offset })
    if (transaction === undefined) return
    const offsets = this.#open.get(transaction)
    if (offsets === undefined) this.#open.set(transaction, [offset])
    else offsets.push(offset)
  }

  /** Writes the marker that ends a transaction. What it has written is removed if it is aborted: nobody will read it. */
  endTransaction(transaction: object, how: "commit" | "abort"): void {
    const offsets = this.#open.get(transaction)
    if (offsets === undefined) return
    this.#open.delete(transaction)
    if (how === "abort") this.compact(new Set(offsets))
    this.skip(1)
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

  /** What a `read_committed` reader gets. */
  read(position: number, maxRecords: number): { records: ReadonlyArray<KafkaRecord>; nextOffset: number } {
    const from = this.#indexOf(position)
    const stable = Math.max(position, this.lastStable)
    const end = Math.min(from + maxRecords, this.#indexOf(stable))
    const following = this.#records[end]?.offset ?? stable
    return { records: this.#records.slice(from, end), nextOffset: Math.min(following, stable) }
  }

  all(): ReadonlyArray<KafkaRecord> {
    return this.#records.slice(0, this.#indexOf(this.lastStable))
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
