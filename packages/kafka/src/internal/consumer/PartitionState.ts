/**
 * What a consumer knows of one partition's records between their receipt and their completion. Plain and
 * synchronous: this is on the path of every record.
 *
 * Received records tile the log: a record's range is `[end of the one before, its offset + 1)`, so that offsets which
 * the log skips (compaction, transaction markers) belong to the record after them, and a batch's empty end is a tile
 * without a record. Tiles are numbered; each is queued, started, finished (its handler has ended, or need not run) or
 * completed (the store has it). The **watermark** is the end of the completed run from the first tile on: the one
 * position that may be committed.
 */
import { OffsetRanges } from "@tidemark/core"
import type { KafkaRecord, RecordBatch } from "../../KafkaClient.ts"
import { bytesOf } from "../recordBytes.ts"
import { Lanes, type Order, Queue } from "./Lanes.ts"

const queued = 0
const started = 1
const finished = 2
const completed = 3

/**
 * Whether a record may run now. Asked when its turn comes; where records have no idempotency keys, always "run". Asked
 * before its turn, by a batch that could take it along, "wait" is no more than a no.
 */
export type Gate = (tile: number, isItsTurn: boolean) => "run" | "skip" | "wait"

/** What became of a batch. */
export interface Receipt {
  /** How many records were new. */
  readonly fresh: number
  /** How many had been received before, and were dropped. */
  readonly redelivered: number
  /** How many were completed before this owner began, and are skipped. */
  readonly alreadyCompleted: number
}

/** Finished tiles on their way to the store. */
export interface Finished {
  /** Pairs `[first, end)` of tile numbers, ascending, not touching. */
  readonly runs: ReadonlyArray<number>
  /** How many of them a handler has processed. */
  readonly handled: number
}

/** Finished tiles, and the offsets that they are. */
export interface Settlement extends Finished {
  readonly ranges: OffsetRanges.OffsetRanges
}

export class PartitionState {
  /** Where the next new record is expected: everything below has been received. */
  received: number
  /** Everything below is completed in the store. */
  watermark: number
  /** Records received whose handlers have not ended. */
  inFlight = 0
  inFlightBytes = 0
  /** Records whose handlers are at work. */
  running = 0
  /** Tiles received and not completed. */
  unfinished = 0

  private readonly order: Order
  private readonly lanes: Lanes
  /** Tiles that came up for batches and have no lane. */
  private readonly loose = new Queue()
  private readonly gate: Gate | undefined
  /** Whether tiles wait to be admitted. */
  private readonly admitsLater: boolean
  private readonly islands: OffsetRanges.OffsetRanges
  private readonly islandsEnd: number
  // small, since most of many partitions are idle
  private capacity = 16
  private ends = new Float64Array(this.capacity)
  private times = new Float64Array(this.capacity)
  private states = new Uint8Array(this.capacity)
  private records: Array<KafkaRecord | undefined> = new Array(this.capacity)
  /** The lanes of the tiles that have come up: making a key's name twice would cost more than keeping it. */
  private laneNames: Array<string | undefined> = new Array(this.capacity)
  /** The first tile that is not completed. */
  private head = 0
  /** The first tile that was not looked at yet. */
  private next = 0
  /** Tiles from here on may not start yet. */
  private admitted = 0
  private tail = 0
  /** When the last batch was received. */
  private now = 0
  /** Pairs `[first, end)` of tiles that have finished and were not handed to the store yet. */
  private finishedRuns: Array<number> = []
  /** How many of these a handler has processed. */
  private handled = 0
  /** One past the highest offset that is completed, and how many are completed from the watermark on. */
  private highest: number
  private completedAbove = 0

  /**
   * @param position - where to begin: the lowest offset that is not completed.
   * @param completedBefore - what is completed above it.
   * @param gate - given where records need a permission of their own; tiles then wait to be admitted, too.
   * @param admitsLater - whether tiles wait to be admitted without a gate, too.
   */
  constructor(
    position: number,
    completedBefore: OffsetRanges.OffsetRanges,
    order: Order,
    gate?: Gate,
    admitsLater = false
  ) {
    this.received = position
    this.watermark = position
    this.islands = completedBefore
    this.islandsEnd = OffsetRanges.end(completedBefore) ?? 0
    this.highest = Math.max(position, this.islandsEnd)
    this.order = order
    this.lanes = new Lanes(order)
    this.gate = gate
    this.admitsLater = admitsLater || gate !== undefined
  }

  /** The first tile that waits to be admitted, and one past the last. */
  get admissible(): readonly [first: number, end: number] {
    return [this.admitted, this.tail]
  }

  /** How far what was received reaches beyond the watermark, in offsets. */
  get span(): number {
    return this.received - this.watermark
  }

  /** How many offsets between the watermark and the highest completed one are not completed. */
  get gaps(): number {
    const ahead =
      this.islandsEnd <= this.received
        ? 0
        : OffsetRanges.size(OffsetRanges.intersect(this.islands, OffsetRanges.openEnded(this.received)))
    return Math.max(0, this.highest - this.watermark - this.completedAbove - ahead)
  }

  /** The lowest offset received that is not completed, and when it was received; `undefined` where all is. */
  get oldest(): { readonly offset: number; readonly receivedAt: number } | undefined {
    if (this.head === this.tail) return undefined
    const slot = this.head & (this.capacity - 1)
    return { offset: this.ends[slot] - 1, receivedAt: this.times[slot] }
  }

  /** Whether finished tiles wait to be settled. */
  get hasFinished(): boolean {
    return this.finishedRuns.length > 0
  }

  recordAt(tile: number): KafkaRecord | undefined {
    return this.records[tile & (this.capacity - 1)]
  }

  isQueued(tile: number): boolean {
    return this.states[tile & (this.capacity - 1)] === queued
  }

  /**
   * Takes a batch in. Records below the received position were delivered before, and are dropped.
   *
   * @param now - the time of this moment, for `oldest`.
   */
  receive(batch: RecordBatch, now = 0): Receipt {
    const { records } = batch
    this.now = now
    let redelivered = 0
    let alreadyCompleted = 0
    for (let index = 0; index < records.length; index++) {
      const record = records[index]
      const { offset } = record
      if (offset < this.received) {
        redelivered++
      } else if (offset < this.islandsEnd && OffsetRanges.contains(this.islands, offset)) {
        alreadyCompleted++
        this.skipTo(offset + 1)
      } else {
        this.inFlight++
        this.inFlightBytes += bytesOf(record)
        this.append(offset + 1, record, queued)
      }
    }
    this.skipTo(batch.nextOffset)
    if (!this.admitsLater) this.admitted = this.tail
    return { fresh: records.length - redelivered - alreadyCompleted, redelivered, alreadyCompleted }
  }

  /** What lies between the received position and `offset` needs no handler. */
  skipTo(offset: number): void {
    if (offset <= this.received) return
    this.append(offset, undefined, finished)
    this.noteFinished(this.tail - 1)
  }

  /** Passes over what is completed from here on, if that is more than `longerThan` offsets; tells whether it is. */
  passIsland(longerThan: number): boolean {
    if (this.received >= this.islandsEnd) return false
    const end = OffsetRanges.watermark(this.islands, this.received)
    if (end - this.received <= longerThan) return false
    this.skipTo(end)
    return true
  }

  /** Tiles below `end` may start. */
  admit(end: number): void {
    if (end > this.admitted) this.admitted = end
  }

  /** Starts the next record whose turn it is, and gives its tile; -1 when there is none. */
  take(): number {
    const { lanes } = this
    for (let tile = lanes.takeReady(); tile !== -1; tile = lanes.takeReady()) {
      if (this.isQueued(tile) && this.mayRun(tile)) return this.start(tile)
    }
    const mask = this.capacity - 1
    while (this.next < this.admitted) {
      const tile = this.next
      if (this.states[tile & mask] !== queued) {
        this.next++
        continue
      }
      const lane = lanes.laneOf(this.records[tile & mask] as KafkaRecord)
      this.laneNames[tile & mask] = lane
      const entry = lanes.enter(tile, lane)
      if (entry === "full") return -1
      this.next++
      if (entry === "entered" && this.mayRun(tile)) return this.start(tile)
    }
    return -1
  }

  /**
   * Starts the next records that go together, and gives their tiles: those of one lane in their order, or some that
   * have none; empty when there are none.
   */
  takeBatch(most: number): ReadonlyArray<number> {
    if (this.order === "key") this.comeUp()
    const first = this.takeFirst()
    if (first === -1) return []
    const lane = this.laneNames[first & (this.capacity - 1)]
    const tiles = [first]
    while (tiles.length < most) {
      const tile = lane === undefined ? this.alongInOrder() : this.alongInLane(lane)
      if (tile === -1) break
      tiles.push(tile)
    }
    return tiles
  }

  /** All that are admitted get or queue for their lanes. */
  private comeUp(): void {
    const { lanes } = this
    const mask = this.capacity - 1
    for (; this.next < this.admitted; this.next++) {
      const tile = this.next
      if (this.states[tile & mask] !== queued) continue
      const lane = lanes.laneOf(this.records[tile & mask] as KafkaRecord)
      this.laneNames[tile & mask] = lane
      if (lane === undefined) this.loose.push(tile)
      else if (lanes.enter(tile, lane) === "entered") lanes.makeReady(tile)
    }
  }

  private takeFirst(): number {
    const tile = this.take()
    return tile === -1 ? this.takeLoose() : tile
  }

  private takeLoose(): number {
    for (let tile = this.loose.shift(); tile !== -1; tile = this.loose.shift())
      if (this.isQueued(tile) && this.mayRun(tile)) return this.start(tile)
    return -1
  }

  /** The next tile without a lane, or in the partition's only one. */
  private alongInOrder(): number {
    if (this.order === "key") return this.takeLoose()
    for (; this.next < this.admitted; this.next++) {
      const tile = this.next
      if (!this.isQueued(tile) || this.recordAt(tile) === undefined) continue
      const answer = this.gate?.(tile, this.order === "none") ?? "run"
      if (answer === "wait" && this.order === "partition") return -1
      if (answer === "skip") this.close(tile)
      if (answer !== "run") continue
      this.next++
      return this.start(tile)
    }
    return -1
  }

  private alongInLane(lane: string): number {
    const { lanes } = this
    for (let tile = lanes.nextBehind(lane); tile !== -1; tile = lanes.nextBehind(lane)) {
      const answer = this.gate?.(tile, false) ?? "run"
      if (answer === "wait") return -1
      lanes.takeBehind(lane)
      if (answer === "run") return this.start(tile)
      this.close(tile)
    }
    return -1
  }

  /** The tile has its lane. Whether it runs now, or leaves the lane undone, or stays in it waiting. */
  private mayRun(tile: number): boolean {
    if (this.gate === undefined) return true
    const answer = this.gate(tile, true)
    if (answer === "skip") this.finish(tile)
    return answer === "run"
  }

  private start(tile: number): number {
    this.states[tile & (this.capacity - 1)] = started
    this.running++
    return tile
  }

  /** The tile's handler has ended well, or need not run. */
  finish(tile: number): void {
    const slot = tile & (this.capacity - 1)
    if (this.records[slot] === undefined) return
    this.lanes.leave(this.laneNames[slot])
    this.close(tile)
  }

  /** The handler of these, which were taken together, has ended well. */
  finishBatch(tiles: ReadonlyArray<number>): void {
    this.lanes.leave(this.laneNames[tiles[0] & (this.capacity - 1)])
    for (let index = 0; index < tiles.length; index++) this.close(tiles[index])
  }

  /** The tile is finished, and its lane goes on in other hands. */
  private close(tile: number): void {
    const slot = tile & (this.capacity - 1)
    const record = this.records[slot]
    if (record === undefined) return
    if (this.states[slot] === started) {
      this.running--
      this.handled++
    }
    this.laneNames[slot] = undefined
    this.states[slot] = finished
    this.records[slot] = undefined
    this.inFlight--
    this.inFlightBytes -= bytesOf(record)
    this.noteFinished(tile)
  }

  /** The tile's handler has ended, and its record stays undone: with its lane held, nothing after it in it can run. */
  abandon(tile: number): void {
    const slot = tile & (this.capacity - 1)
    if (this.states[slot] !== started) return
    this.states[slot] = queued
    this.running--
  }

  /**
   * The handler of these, which were taken together, has ended, and only some are done. Of the others the first has
   * their lane, and the rest wait behind it; gives the others.
   */
  abandonBatch(tiles: ReadonlyArray<number>, done: ReadonlySet<number>): ReadonlyArray<number> {
    const lane = this.laneNames[tiles[0] & (this.capacity - 1)]
    const rest = tiles.filter((tile) => !done.has(tile))
    for (const tile of rest) this.abandon(tile)
    for (const tile of done) this.close(tile)
    const [first, ...others] = rest
    if (first === undefined) this.lanes.leave(lane)
    else if (lane !== undefined) {
      this.laneNames[first & (this.capacity - 1)] = lane
      this.lanes.putBehind(lane, others)
    } else if (this.order === "partition") this.next = Math.min(this.next, others[0] ?? this.next)
    else this.loose.putBack(others)
    return rest
  }

  /** A tile that waits in its lane asks for its turn again. */
  retry(tile: number): void {
    if (this.isQueued(tile) && this.recordAt(tile) !== undefined) this.lanes.makeReady(tile)
  }

  /** The queued tiles that can't start before this one, which has its lane. */
  *behind(tile: number): IterableIterator<number> {
    const record = this.recordAt(tile)
    if (record === undefined || !this.lanes.exist) return
    yield* this.lanes.queuedBehind(record)
    for (let other = this.next; other < this.tail; other++) {
      const candidate = this.recordAt(other)
      if (candidate !== undefined && this.isQueued(other) && this.lanes.sameLane(record, candidate))
        yield other
    }
  }

  /** What has finished since the last time; `undefined` where nothing has. */
  takeFinished(): Finished | undefined {
    if (this.finishedRuns.length === 0) return undefined
    const finished = { runs: mergeRuns(this.finishedRuns), handled: this.handled }
    this.finishedRuns = []
    this.handled = 0
    return finished
  }

  /** What these finished tiles are to the store. */
  settlementOf({ handled, runs }: Finished): Settlement {
    const mask = this.capacity - 1
    const flat: Array<number> = []
    for (let index = 0; index < runs.length; index += 2) {
      const first = runs[index]
      flat.push(
        first === this.head ? this.watermark : this.ends[(first - 1) & mask],
        this.ends[(runs[index + 1] - 1) & mask]
      )
    }
    return { runs, handled, ranges: OffsetRanges.fromSortedUnsafe(flat) }
  }

  /** The store has these tiles, which `takeFinished` gave. */
  markCompleted({ runs }: Finished): void {
    const mask = this.capacity - 1
    for (let index = 0; index < runs.length; index += 2) {
      const end = runs[index + 1]
      this.unfinished -= end - runs[index]
      if (runs[index] === this.head) {
        this.head = end
        this.watermark = this.ends[(end - 1) & mask]
      } else {
        for (let tile = runs[index]; tile < end; tile++) this.states[tile & mask] = completed
        this.completedAbove += this.ends[(end - 1) & mask] - this.ends[(runs[index] - 1) & mask]
      }
      this.highest = Math.max(this.highest, this.ends[(end - 1) & mask])
      while (this.head < this.tail && this.states[this.head & mask] === completed) {
        const watermark = this.ends[this.head & mask]
        this.completedAbove -= watermark - this.watermark
        this.watermark = watermark
        this.head++
      }
    }
    // Tiles without a record may be completed before anything looked at them; their slots are used again.
    if (this.next < this.head) this.next = this.head
    if (this.admitted < this.head) this.admitted = this.head
  }

  private append(end: number, record: KafkaRecord | undefined, state: number): void {
    if (this.tail - this.head === this.capacity) this.grow()
    const slot = this.tail & (this.capacity - 1)
    this.ends[slot] = end
    this.times[slot] = this.now
    this.states[slot] = state
    this.records[slot] = record
    this.received = end
    this.unfinished++
    this.tail++
  }

  private noteFinished(tile: number): void {
    const runs = this.finishedRuns
    const last = runs.length - 1
    if (last > 0 && runs[last] === tile) runs[last] = tile + 1
    else runs.push(tile, tile + 1)
  }

  private grow(): void {
    const oldMask = this.capacity - 1
    const capacity = this.capacity * 2
    const ends = new Float64Array(capacity)
    const times = new Float64Array(capacity)
    const states = new Uint8Array(capacity)
    const records: Array<KafkaRecord | undefined> = new Array(capacity)
    const laneNames: Array<string | undefined> = new Array(capacity)
    for (let tile = this.head; tile < this.tail; tile++) {
      const from = tile & oldMask
      const to = tile & (capacity - 1)
      ends[to] = this.ends[from]
      times[to] = this.times[from]
      states[to] = this.states[from]
      records[to] = this.records[from]
      laneNames[to] = this.laneNames[from]
    }
    this.capacity = capacity
    this.ends = ends
    this.times = times
    this.states = states
    this.records = records
    this.laneNames = laneNames
  }
}

/** Both, as one. */
export const join = (left: Finished, right: Finished): Finished => ({
  runs: mergeRuns([...left.runs, ...right.runs]),
  handled: left.handled + right.handled
})

/** Runs of tiles in the order in which they finished, as ascending runs that don't touch. */
const mergeRuns = (runs: Array<number>): ReadonlyArray<number> => {
  if (runs.length === 2) return runs
  const order: Array<number> = []
  for (let index = 0; index < runs.length; index += 2) order.push(index)
  order.sort((left, right) => runs[left] - runs[right])
  const merged: Array<number> = []
  for (const index of order) {
    if (merged.length > 0 && merged[merged.length - 1] === runs[index])
      merged[merged.length - 1] = runs[index + 1]
    else merged.push(runs[index], runs[index + 1])
  }
  return merged
}
