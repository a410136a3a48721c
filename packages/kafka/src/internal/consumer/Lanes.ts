/**
 * Which records may run beside each other. A lane holds one record at work at a time, the others behind it in their
 * order: one lane for each key, or one for the partition, or none at all.
 */
import type { KafkaRecord } from "../../KafkaClient.ts"

/** Which records of a partition keep their order: those with the same key, all, or none. */
export type Order = "key" | "partition" | "none"

/** Tiles in their order. Those of a lane are made when one waits for it, which is seldom. */
export class Queue {
  private readonly tiles: Array<number>
  private at = 0

  constructor(...tiles: Array<number>) {
    this.tiles = tiles
  }

  /** -1 when there is none. */
  get first(): number {
    return this.at === this.tiles.length ? -1 : this.tiles[this.at]
  }

  /** These come before all others. */
  putBack(tiles: ReadonlyArray<number>): void {
    this.tiles.splice(0, this.at, ...tiles)
    this.at = 0
  }

  push(tile: number): void {
    this.tiles.push(tile)
  }

  /** -1 when there is none. */
  shift(): number {
    if (this.at === this.tiles.length) return -1
    const tile = this.tiles[this.at++]
    if (this.at > 1_024 && this.at * 2 > this.tiles.length) {
      this.tiles.splice(0, this.at)
      this.at = 0
    }
    return tile
  }

  rest(): ReadonlyArray<number> {
    return this.tiles.slice(this.at)
  }
}

/** Keys are compared byte by byte: latin1 maps bytes to characters one to one. */
const nameOf = (key: Buffer): string => key.toString("latin1")

export class Lanes {
  private readonly order: Order
  /** The lanes in use by key, and who waits for them: `null` for nobody. */
  private readonly byKey = new Map<string, Queue | null>()
  /** Whether the partition's one lane is in use. */
  private inUse = false
  /** Tiles that hold their lane and have not started. */
  private readonly ready = new Queue()

  constructor(order: Order) {
    this.order = order
  }

  /** Whether any record ever waits for another. */
  get exist(): boolean {
    return this.order !== "none"
  }

  /** The lane of a record; `undefined` where it keeps no order with any other. */
  laneOf({ key }: KafkaRecord): string | undefined {
    return key === undefined || this.order !== "key" ? undefined : nameOf(key)
  }

  /**
   * A tile wants its lane. `entered`: it has it. `queued`: it gets it by `takeReady` later. `full`: ask again after
   * the next `leave`.
   */
  enter(tile: number, lane: string | undefined): "entered" | "queued" | "full" {
    if (this.order === "partition") {
      if (this.inUse) return "full"
      this.inUse = true
      return "entered"
    }
    if (lane === undefined) return "entered"
    const queue = this.byKey.get(lane)
    if (queue === undefined) {
      this.byKey.set(lane, null)
      return "entered"
    }
    if (queue === null) this.byKey.set(lane, new Queue(tile))
    else queue.push(tile)
    return "queued"
  }

  /** A tile of this lane is done with it. One that never entered must not leave. */
  leave(lane: string | undefined): void {
    if (this.order === "partition") {
      this.inUse = false
      return
    }
    if (lane === undefined) return
    const next = this.byKey.get(lane)?.shift() ?? -1
    if (next === -1) this.byKey.delete(lane)
    else this.ready.push(next)
  }

  /** The next tile that has its lane and waits to start; -1 when there is none. */
  takeReady(): number {
    return this.ready.shift()
  }

  /** A tile that has its lane wants to start now. */
  makeReady(tile: number): void {
    this.ready.push(tile)
  }

  /** The tile that has this lane next; -1 when none waits. */
  nextBehind(lane: string): number {
    return this.byKey.get(lane)?.first ?? -1
  }

  /** It goes along with the tile that has the lane. */
  takeBehind(lane: string): void {
    this.byKey.get(lane)?.shift()
  }

  /** These went along, and wait again. */
  putBehind(lane: string, tiles: ReadonlyArray<number>): void {
    if (tiles.length === 0) return
    const queue = this.byKey.get(lane)
    if (queue === undefined || queue === null) this.byKey.set(lane, new Queue(...tiles))
    else queue.putBack(tiles)
  }

  /** The tiles that wait for the lane of this record, as far as they have come up. */
  queuedBehind(record: KafkaRecord): ReadonlyArray<number> {
    const lane = this.laneOf(record)
    return (lane === undefined ? undefined : this.byKey.get(lane)?.rest()) ?? []
  }

  sameLane(one: KafkaRecord, other: KafkaRecord): boolean {
    if (this.order === "none") return false
    if (this.order === "partition") return true
    return one.key !== undefined && other.key !== undefined && one.key.equals(other.key)
  }
}
