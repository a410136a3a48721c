/**
 * A mutable set of offsets: the completed ones of one stream, for the hot path of a store.
 *
 * From the **origin** up to the **watermark** all offsets are in the set, and cost two numbers. Those above
 * stand in pages of 4,096 offsets: runs while they are few, else a bitmap; neighbouring full pages are one
 * entry. So the worst pattern costs a bit for each offset of the window, and offsets that are far apart some
 * 30 bytes each. Finding an offset takes a binary search over the pages above the watermark.
 *
 * A set is not shared between threads, and never waits: all of it is synchronous.
 *
 * @example
 * import { OffsetRanges, OffsetSet } from "@tidemark/core"
 *
 * const completed = OffsetSet.make(100)
 * completed.add(100, 150)
 * completed.add(160, 170)
 * completed.watermark                                       // 150
 * completed.gapCount                                        // 10
 * const { missing } = completed.partition(OffsetRanges.make(140, 165))
 * String(missing)                                           // "[150,160)"
 */
import { InvalidInput } from "./Errors.ts"
import { blockPayload, OffsetDirectory, positionOf } from "./internal/offsetDirectory.ts"
import { NO_ROOM, OffsetPages, PAGE, pageOf } from "./internal/offsetPages.ts"
import { nextMissing, nextPresent } from "./internal/offsetSearch.ts"
import * as OffsetRanges from "./OffsetRanges.ts"

/** What {@link OffsetSet.partition} answers. */
export interface Partition {
  /** The offsets that were asked for and are in the set. */
  readonly present: OffsetRanges.OffsetRanges
  /** Those that aren't. */
  readonly missing: OffsetRanges.OffsetRanges
}

/** What the objects of an empty set cost, as measured on 64-bit Node. */
const BASE_BYTES = 215

/**
 * The mutable set. `add`, `remove`, `lowerOrigin` and `reset` throw `InvalidInput` for a bad offset or range,
 * and then change nothing.
 */
export class OffsetSet {
  private from: number
  /** All of `[from, dense)` is in the set, and `dense` isn't. */
  private dense: number
  private top: number
  private present = 0
  /**
   * What is at `dense` or above. Where the page which holds `dense` has an entry, the offsets of that page
   * below `dense` count as present in it, also those below the origin: so a page is full when nothing in it
   * is missing.
   */
  private readonly directory: OffsetDirectory
  private readonly pages: OffsetPages

  /** An empty set that begins at `origin`. Throws `InvalidInput` for a bad one. */
  constructor(origin: number) {
    OffsetRanges.assertOffset(origin, "origin")
    this.from = this.dense = this.top = origin + 0
    const directory = new OffsetDirectory()
    this.directory = directory
    this.pages = new OffsetPages((move) => directory.relocate(move))
  }

  /** Where the set begins: no lower offset is in it. */
  get origin(): number {
    return this.from
  }

  /**
   * The end of the contiguous run from the origin: the lowest offset that is missing. The origin when it is.
   */
  get watermark(): number {
    return this.dense
  }

  /** One more than the highest offset in the set; the origin when there is none. */
  get highest(): number {
    return this.top
  }

  /** How many offsets are in the set. */
  get size(): number {
    return this.present
  }

  /** How many offsets are missing between watermark and highest. */
  get gapCount(): number {
    return this.top - this.from - this.present
  }

  /** Roughly what the set keeps in memory, in bytes. */
  get estimatedBytes(): number {
    return BASE_BYTES + this.directory.byteLength + this.pages.byteLength
  }

  /**
   * Adds `[from, to)`; gives how many of these were not in the set. Adding below the origin lowers the
   * origin.
   */
  add(from: number, to: number): number {
    OffsetRanges.assertRange(from, to)
    return this.addSound(from, to)
  }

  /** Adds an offset that is known to be one, and not in the set. */
  addMissing(offset: number): void {
    if (offset === this.top && offset === this.dense) {
      // at the end of all, with nothing missing below: most often
      this.dense = this.top = offset + 1
      this.present += 1
    } else {
      this.addSound(offset, offset + 1)
    }
  }

  /** Adds all of `ranges`; gives how many of these offsets were not in the set. */
  addRanges(ranges: OffsetRanges.OffsetRanges): number {
    const { flat } = ranges
    let added = 0
    for (let i = 0; i < flat.length; ) {
      const page = pageOf(flat[i])
      const pageEnd = (page + 1) * PAGE
      let next = i
      if (flat[i] > this.dense) {
        while (next < flat.length && flat[next + 1] <= pageEnd) next += 2
      }
      if (next > i + 2) {
        added += this.addWithin(page, flat, i, next)
        i = next
      } else {
        added += this.addSound(flat[i], flat[i + 1])
        i += 2
      }
    }
    // pages that outgrew their blocks left these behind
    this.pages.tidy()
    return added
  }

  /**
   * Adds several ranges, `flat` from index `begin` to `end`, which are above the watermark and all of one
   * page.
   */
  private addWithin(page: number, flat: ReadonlyArray<number>, begin: number, end: number): number {
    const { directory, pages } = this
    const base = page * PAGE
    let first = begin
    let added = 0
    if (!directory.locate(page)) {
      added = this.insertWithin(page, flat[begin] - base, flat[begin + 1] - base)
      first += 2
    }
    if (directory.payload < 0) {
      const kind = pages.kindFor(positionOf(directory.payload), (end - first) / 2)
      if (kind !== undefined) this.enlarge(kind)
      const position = positionOf(directory.payload)
      added += pages.addAll(position, base, flat, first, end)
      if (pages.count(position) === PAGE) this.settleFull(page)
    }
    if (flat[end - 1] > this.top) this.top = flat[end - 1]
    this.present += added
    return added
  }

  private addSound(from: number, to: number): number {
    if (from < this.from) this.lowerOrigin(from)
    let added: number
    if (from <= this.dense) {
      if (to <= this.dense) return 0
      added = this.raiseWatermark(to)
    } else {
      added = this.insert(from, to)
      if (to > this.top) this.top = to
    }
    this.present += added
    return added
  }

  /** Whether `offset` is in the set. Values that are no offsets aren't. */
  has(offset: number): boolean {
    if (offset < this.dense) return offset >= this.from && Number.isSafeInteger(offset)
    if (!(offset < this.top && Number.isSafeInteger(offset))) return false
    const { directory, pages } = this
    const page = pageOf(offset)
    if (!directory.locate(page)) return false
    const payload = directory.payload
    return payload >= 0 || pages.has(positionOf(payload), offset - page * PAGE)
  }

  /** Whether all of `[from, to)` is in the set. */
  hasAll(from: number, to: number): boolean {
    OffsetRanges.assertRange(from, to)
    if (from < this.from || to > this.top) return false
    return to <= this.dense || (from >= this.dense && nextMissing(this.directory, this.pages, from, to) >= to)
  }

  /**
   * Tells the offsets of `ranges` that are in the set from those that aren't. The very object comes back
   * where all of it goes to one side.
   */
  partition(ranges: OffsetRanges.OffsetRanges): Partition {
    const { flat } = ranges
    const length = flat.length
    if (length === 0 || flat[0] >= this.top || flat[length - 1] <= this.from) {
      return { present: OffsetRanges.empty, missing: ranges }
    }
    if (flat[length - 1] <= this.dense && flat[0] >= this.from) {
      return { present: ranges, missing: OffsetRanges.empty }
    }
    // what goes to one side as it is, before anything is copied
    let nextPresent = -1
    let same = 0
    for (; same < length; same += 2) {
      if (nextPresent < flat[same]) nextPresent = this.nextPresentFrom(flat[same], flat[length - 1])
      if (nextPresent < flat[same + 1]) break
    }
    if (same === length) return { present: OffsetRanges.empty, missing: ranges }
    if (same > 0) return this.partitionFrom(flat, same, nextPresent, [], flat.slice(0, same))
    while (same < length && this.nextMissingFrom(flat[same], flat[same + 1]) >= flat[same + 1]) same += 2
    if (same === length) return { present: ranges, missing: OffsetRanges.empty }
    return this.partitionFrom(flat, same, nextPresent, flat.slice(0, same), [])
  }

  /** @param known - if it is above `flat[begin]`, nothing between the two is in the set. */
  private partitionFrom(
    flat: ReadonlyArray<number>,
    begin: number,
    known: number,
    present: Array<number>,
    missing: Array<number>
  ): Partition {
    const limit = flat[flat.length - 1]
    let nextPresent = known
    for (let i = begin; i < flat.length; i += 2) {
      let at = flat[i]
      const to = flat[i + 1]
      while (at < to) {
        if (nextPresent <= at) {
          const end = Math.min(to, this.nextMissingFrom(at, to))
          if (end > at) present.push(at, end)
          if (end === to) break
          at = end
          nextPresent = this.nextPresentFrom(at, limit)
        }
        const end = Math.min(to, nextPresent)
        missing.push(at, end)
        at = end
      }
    }
    return {
      present: OffsetRanges.fromSortedUnsafe(present),
      missing: OffsetRanges.fromSortedUnsafe(missing)
    }
  }

  /** The offsets of `ranges` that are not in the set; the very object where none is. */
  subtractFrom(ranges: OffsetRanges.OffsetRanges): OffsetRanges.OffsetRanges {
    return this.partition(ranges).missing
  }

  /** The offsets of `ranges` that are in the set; the very object where all are. */
  intersectWith(ranges: OffsetRanges.OffsetRanges): OffsetRanges.OffsetRanges {
    return this.partition(ranges).present
  }

  /** Removes `[from, to)`; gives how many of these were in the set. The origin stays. */
  remove(from: number, to: number): number {
    OffsetRanges.assertRange(from, to)
    const begin = Math.max(from, this.from)
    const end = Math.min(to, this.top)
    if (begin >= end) return 0
    const removed = this.countPresent(begin, end)
    if (removed === 0) return 0
    const dense = this.dense
    if (begin < dense) this.dense = begin
    this.clear(begin, end)
    if (end < dense) this.insert(end, dense)
    this.present -= removed
    if (end === this.top) this.lowerTop()
    this.pages.tidy()
    return removed
  }

  /**
   * Moves the origin down to `to`; what lies between is missing. Nothing changes unless `to` is below the
   * origin.
   */
  lowerOrigin(to: number): void {
    OffsetRanges.assertOffset(to, "to")
    if (to >= this.from) return
    const { from, dense } = this
    this.from = this.dense = to + 0
    if (this.present === 0) {
      this.top = this.from
      return
    }
    // the page of the former watermark counted what lay below it as present
    const pageBegin = dense - (dense % PAGE)
    const clearFrom = Math.max(this.from, pageBegin)
    if (clearFrom < from) this.clear(clearFrom, from)
    if (from < dense) this.insert(from, dense)
  }

  /** Empties the set, which then begins at `origin`. */
  reset(origin: number): void {
    OffsetRanges.assertOffset(origin, "origin")
    this.from = this.dense = this.top = origin + 0
    this.present = 0
    this.forgetPages()
  }

  /** A snapshot of the set. */
  toRanges(): OffsetRanges.OffsetRanges {
    const flat: Array<number> = this.from < this.dense ? [this.from, this.dense] : []
    for (let at = this.dense; at < this.top; ) {
      const from = nextPresent(this.directory, this.pages, at, this.top)
      at = nextMissing(this.directory, this.pages, from, OffsetRanges.END)
      flat.push(from, at)
    }
    return OffsetRanges.fromSortedUnsafe(flat)
  }

  /** The lowest `limit` ranges (default: all) of what is missing between watermark and highest. */
  gaps(limit = Number.POSITIVE_INFINITY): OffsetRanges.OffsetRanges {
    if (!(limit >= 0)) {
      throw new InvalidInput({
        field: "limit",
        value: String(limit),
        allowed: "a number of ranges, 0 or more"
      })
    }
    const flat: Array<number> = []
    for (let at = this.dense; at < this.top && flat.length < 2 * limit; ) {
      const present = nextPresent(this.directory, this.pages, at, this.top)
      flat.push(at, present)
      at = nextMissing(this.directory, this.pages, present, OffsetRanges.END)
    }
    return OffsetRanges.fromSortedUnsafe(flat)
  }

  /** A set of its own with the same origin and offsets. */
  clone(): OffsetSet {
    const copy = new OffsetSet(this.from)
    copy.addRanges(this.toRanges())
    return copy
  }

  /** The first offset from `offset` on that is in the set; `limit` or more when there is none below it. */
  private nextPresentFrom(offset: number, limit: number): number {
    if (offset >= this.dense)
      return offset < this.top ? nextPresent(this.directory, this.pages, offset, limit) : limit
    if (this.from < this.dense) return Math.max(offset, this.from)
    return this.nextPresentFrom(this.dense, limit)
  }

  /**
   * The first offset from `offset` on that is not in the set; `limit` or more when there is none below it.
   */
  private nextMissingFrom(offset: number, limit: number): number {
    if (offset >= this.dense)
      return offset < this.top ? nextMissing(this.directory, this.pages, offset, limit) : offset
    return offset >= this.from ? this.dense : offset
  }

  private countPresent(from: number, to: number): number {
    let count = 0
    for (let at = this.nextPresentFrom(from, to); at < to; ) {
      const end = Math.min(to, this.nextMissingFrom(at, to))
      count += end - at
      at = this.nextPresentFrom(end, to)
    }
    return count
  }

  /** Adds from the watermark up to `to`; gives how many of these are new. */
  private raiseWatermark(to: number): number {
    const { dense, directory } = this
    if (to >= this.top) {
      const added = to - dense - (this.present - (dense - this.from))
      if (this.top > dense) this.forgetPages()
      this.dense = this.top = to
      return added
    }
    // above the watermark there is something, hence a first entry
    const firstBegin = directory.firstStart * PAGE
    if (to < firstBegin) {
      this.dense = to
      return to - dense
    }
    let added = 0
    if (dense < firstBegin) {
      added = firstBegin - dense
      this.dense = firstBegin
    }
    if (to > this.dense) added += this.insert(this.dense, to)
    this.dense = nextMissing(this.directory, this.pages, to, OffsetRanges.END)
    this.dropBelowWatermark()
    return added
  }

  private dropBelowWatermark(): void {
    const { directory, pages } = this
    if (this.dense === this.top) {
      this.forgetPages()
      return
    }
    const page = pageOf(this.dense)
    if (directory.firstStart >= page) return
    directory.toFirst()
    while (directory.start < page) {
      if (directory.payload < 0) pages.release(positionOf(directory.payload))
      directory.remove()
    }
    pages.tidy()
  }

  private forgetPages(): void {
    this.directory.reset()
    this.pages.reset()
  }

  /** Adds `[from, to)`, which is not below the watermark, to the pages; gives how many of these are new. */
  private insert(from: number, to: number): number {
    if (to < 2 ** 31 && from >>> 12 === to >>> 12) {
      return this.insertWithin(from >>> 12, from & (PAGE - 1), to & (PAGE - 1))
    }
    let first = pageOf(from)
    const last = pageOf(to)
    const begin = from - first * PAGE
    const end = to - last * PAGE
    if (first === last) return this.insertWithin(first, begin, end)
    let added = 0
    if (begin > 0) {
      added = this.insertWithin(first, begin, PAGE)
      first += 1
    }
    if (first < last) added += this.cover(first, last)
    if (end > 0) added += this.insertWithin(last, 0, end)
    return added
  }

  /** Adds a part of one page, given as positions within it. */
  private insertWithin(page: number, from: number, to: number): number {
    const { directory, pages } = this
    if (!directory.locate(page)) {
      const prefix = Math.max(0, Math.min(PAGE, this.dense - page * PAGE))
      const position = prefix < from ? pages.create(prefix, from, to) : pages.create(0, 0, to)
      directory.insert(page, blockPayload(position))
      if (pages.count(position) === PAGE) this.settleFull(page)
      return to - from
    }
    if (directory.payload >= 0) return 0
    let added = pages.add(positionOf(directory.payload), from, to)
    if (added === NO_ROOM) {
      this.enlarge(pages.nextKind(positionOf(directory.payload)))
      added = pages.add(positionOf(directory.payload), from, to)
    }
    if (added > 0 && pages.count(positionOf(directory.payload)) === PAGE) this.settleFull(page)
    return added
  }

  /** Moves the page at the cursor into a larger block. */
  private enlarge(kind: number): void {
    const { directory, pages } = this
    pages.reserve(kind)
    // making room may have moved the block: its position must be read here, not before
    directory.payload = blockPayload(pages.enlarge(positionOf(directory.payload), kind))
  }

  /**
   * Turns the page at the cursor, which became full, into a run of full pages, joined with its neighbours.
   */
  private settleFull(page: number): void {
    this.cover(page, page + 1)
    this.pages.tidy()
  }

  /** Makes the pages `[first, last)` full; gives how many offsets are new. */
  private cover(first: number, last: number): number {
    const { directory, pages } = this
    let start = first
    let end = last
    let added = (last - first) * PAGE
    directory.locate(Math.max(0, first - 1))
    while (directory.valid && directory.start <= last) {
      const entry = directory.start
      const payload = directory.payload
      if (payload >= 0) {
        added -= Math.max(0, Math.min(payload, last) - Math.max(entry, first)) * PAGE
        if (added === 0 && entry <= first && payload >= last) return 0
        start = Math.min(start, entry)
        end = Math.max(end, payload)
      } else if (entry < first) {
        directory.next()
        continue
      } else if (entry === last) {
        break
      } else {
        added -= pages.count(positionOf(payload))
        pages.release(positionOf(payload))
      }
      directory.remove()
    }
    directory.insert(start, end)
    return added
  }

  /** Removes `[from, to)` from the pages. */
  private clear(from: number, to: number): void {
    const { directory, pages } = this
    const end = Math.ceil(to / PAGE)
    directory.locate(pageOf(from))
    while (directory.valid && directory.start < end) {
      const { start, payload } = directory
      if (payload >= 0) {
        directory.remove()
        if (start * PAGE < from) this.insert(start * PAGE, from)
        if (to < payload * PAGE) this.insert(to, payload * PAGE)
        directory.locate(payload)
        continue
      }
      const begin = Math.max(0, from - start * PAGE)
      const stop = Math.min(PAGE, to - start * PAGE)
      if (pages.clear(positionOf(payload), begin, stop) === NO_ROOM) {
        this.enlarge(pages.nextKind(positionOf(payload)))
        pages.clear(positionOf(directory.payload), begin, stop)
      }
      if (pages.count(positionOf(directory.payload)) > 0) {
        directory.next()
      } else {
        pages.release(positionOf(directory.payload))
        directory.remove()
      }
    }
  }

  /** Finds the highest offset again, after the highest ones were removed. */
  private lowerTop(): void {
    const { directory, pages } = this
    directory.toLast()
    if (directory.valid) {
      const { start, payload } = directory
      this.top = payload >= 0 ? payload * PAGE : start * PAGE + pages.end(positionOf(payload))
    }
    if (!directory.valid || this.top <= this.dense) {
      this.top = this.dense
      this.forgetPages()
    }
  }
}

/** An empty set that begins at `origin` (default 0). Throws `InvalidInput` for a bad one. */
export const make = (origin = 0): OffsetSet => new OffsetSet(origin)

/**
 * A set of `ranges` that begins at `origin` (default: the lowest offset in it, or 0). Throws `InvalidInput`
 * for a bad origin.
 */
export const fromRanges = (ranges: OffsetRanges.OffsetRanges, origin?: number): OffsetSet => {
  const set = new OffsetSet(origin ?? OffsetRanges.first(ranges) ?? 0)
  set.addRanges(ranges)
  return set
}
