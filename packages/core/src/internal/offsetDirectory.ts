/**
 * Which pages hold offsets, in order: a sorted list in leaves of at most 64 entries, with one cursor.
 *
 * An entry is two numbers: the page it begins at, and either the page where a run of full pages ends, or,
 * negative, the position of a partly filled page in the pool. Leaves keep insertion and removal in the middle
 * cheap however many entries there are: a search, and a move of at most one leaf and of the list of leaves.
 */

const LEAF_ENTRIES = 64
const SMALLEST_LEAF = 4

interface Leaf {
  /** `[start, payload, start, payload, ...]`, of which the first `count` pairs are in use. */
  entries: Float64Array
  count: number
}

const noEntries = new Float64Array(0)

/** What stands in a directory for the block at `position`: its complement, so that 0 is negative too. */
export const blockPayload = (position: number): number => ~position

/**
 * The position that {@link blockPayload} made negative. Complementing is its own inverse, and gives an
 * integer.
 */
export const positionOf = (payload: number): number => ~payload

/** The sorted list of pages and full runs. The cursor stands at an entry, or behind the last one. */
export class OffsetDirectory {
  private leaves: Array<Leaf>
  private leaf: Leaf
  private leafIndex = 0
  private at = 0

  constructor() {
    this.leaf = { entries: noEntries, count: 0 }
    this.leaves = [this.leaf]
  }

  /** Whether the cursor stands at an entry. */
  get valid(): boolean {
    return this.at < this.leaf.count
  }

  /** The page where the current entry begins. */
  get start(): number {
    return this.leaf.entries[2 * this.at]
  }

  /** The page where the current entry's full run ends; of a partly filled page {@link blockPayload}. */
  get payload(): number {
    return this.leaf.entries[2 * this.at + 1]
  }

  set payload(payload: number) {
    this.leaf.entries[2 * this.at + 1] = payload
  }

  /** The page where the first entry begins; only where there is one. */
  get firstStart(): number {
    return this.leaves[0].entries[0]
  }

  /** Roughly the bytes taken, this object included. */
  get byteLength(): number {
    let bytes = 120
    for (const leaf of this.leaves) bytes += leaf.entries.length === 0 ? 48 : 250 + leaf.entries.byteLength
    return bytes
  }

  /** Forgets all entries. */
  reset(): void {
    this.leaf = this.leaves[0]
    this.leaf.count = 0
    if (this.leaf.entries.length > 2 * SMALLEST_LEAF) this.leaf.entries = noEntries
    if (this.leaves.length > 1) this.leaves = [this.leaf]
    this.leafIndex = 0
    this.at = 0
  }

  /** Moves the cursor to the first entry which ends after `page`; says whether that entry covers the page. */
  locate(page: number): boolean {
    if (this.at < this.leaf.count && this.leaf.entries[2 * this.at] === page) return true
    if (this.leaves.length > 1) this.enterLeafOf(page)
    const { entries, count } = this.leaf
    let low = 0
    let high = count
    while (low < high) {
      const middle = (low + high) >>> 1
      if (entries[2 * middle] <= page) low = middle + 1
      else high = middle
    }
    if (low > 0) {
      const payload = entries[2 * low - 1]
      if (payload < 0 ? entries[2 * low - 2] === page : payload > page) {
        this.at = low - 1
        return true
      }
    }
    this.at = low
    this.skipLeafEnd()
    return false
  }

  /** Moves the cursor to the first entry. */
  toFirst(): void {
    this.leafIndex = 0
    this.leaf = this.leaves[0]
    this.at = 0
  }

  /** Moves the cursor to the last entry. */
  toLast(): void {
    this.leafIndex = this.leaves.length - 1
    this.leaf = this.leaves[this.leafIndex]
    this.at = Math.max(0, this.leaf.count - 1)
  }

  /** Moves the cursor on, and says whether it stands at an entry. */
  next(): boolean {
    this.at += 1
    this.skipLeafEnd()
    return this.valid
  }

  /**
   * Inserts an entry where the cursor stands, which must be its place in the order, and leaves the cursor at
   * it.
   */
  insert(start: number, payload: number): void {
    if (this.leaf.count === LEAF_ENTRIES) this.split()
    const { leaf, at } = this
    if (2 * leaf.count === leaf.entries.length) {
      resize(leaf, leaf.count === 0 ? SMALLEST_LEAF : Math.min(LEAF_ENTRIES, leaf.count * 2))
    }
    const { entries } = leaf
    if (at < leaf.count) entries.copyWithin(2 * at + 2, 2 * at, 2 * leaf.count)
    entries[2 * at] = start
    entries[2 * at + 1] = payload
    leaf.count += 1
  }

  /** Removes the current entry; the cursor moves to the one that followed it. */
  remove(): void {
    const { leaf } = this
    leaf.entries.copyWithin(2 * this.at, 2 * this.at + 2, 2 * leaf.count)
    leaf.count -= 1
    if (this.leaves.length > 1 && leaf.count <= LEAF_ENTRIES / 4) this.join()
    else if (8 * leaf.count < leaf.entries.length && leaf.entries.length > 2 * SMALLEST_LEAF) {
      resize(leaf, leaf.entries.length / 4)
    }
    this.skipLeafEnd()
  }

  /** Replaces the position of each partly filled page. */
  relocate(move: (position: number) => number): void {
    for (const { entries, count } of this.leaves) {
      for (let i = 1; i < 2 * count; i += 2) {
        if (entries[i] < 0) entries[i] = blockPayload(move(positionOf(entries[i])))
      }
    }
  }

  private skipLeafEnd(): void {
    if (this.at < this.leaf.count || this.leafIndex + 1 === this.leaves.length) return
    this.leafIndex += 1
    this.leaf = this.leaves[this.leafIndex]
    this.at = 0
  }

  /** Enters the last leaf that begins at or before `page`, or the first one. */
  private enterLeafOf(page: number): void {
    let low = 1
    let high = this.leaves.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.leaves[middle].entries[0] <= page) low = middle + 1
      else high = middle
    }
    this.leafIndex = low - 1
    this.leaf = this.leaves[this.leafIndex]
  }

  private split(): void {
    const { leaf, at } = this
    // a leaf that is filled by appending stays full
    const kept = at === LEAF_ENTRIES ? LEAF_ENTRIES : LEAF_ENTRIES / 2
    const upper: Leaf = { entries: noEntries, count: 0 }
    if (kept < LEAF_ENTRIES) {
      upper.entries = leaf.entries.slice(2 * kept, 2 * LEAF_ENTRIES)
      upper.count = LEAF_ENTRIES - kept
      leaf.count = kept
    }
    this.leaves.splice(this.leafIndex + 1, 0, upper)
    if (at >= kept && (at > kept || upper.count === 0)) {
      this.leafIndex += 1
      this.leaf = upper
      this.at = at - kept
    }
  }

  /**
   * Joins the current leaf, which became small, with a neighbour that has room; drops it when it is empty.
   */
  private join(): void {
    if (this.leaf.count === 0) {
      this.leaves.splice(this.leafIndex, 1)
      if (this.leafIndex < this.leaves.length) {
        this.leaf = this.leaves[this.leafIndex]
        this.at = 0
      } else {
        this.leafIndex -= 1
        this.leaf = this.leaves[this.leafIndex]
        this.at = this.leaf.count
      }
      return
    }
    const left = this.leafIndex + 1 < this.leaves.length ? this.leafIndex : this.leafIndex - 1
    const into = this.leaves[left]
    const from = this.leaves[left + 1]
    if (into.count + from.count > LEAF_ENTRIES / 2) return
    if (this.leaf === from) this.at += into.count
    resize(into, LEAF_ENTRIES / 2)
    into.entries.set(from.entries.subarray(0, 2 * from.count), 2 * into.count)
    into.count += from.count
    this.leaves.splice(left + 1, 1)
    this.leafIndex = left
    this.leaf = into
  }
}

const resize = (leaf: Leaf, entries: number): void => {
  const resized = new Float64Array(2 * entries)
  resized.set(leaf.entries.subarray(0, 2 * leaf.count))
  leaf.entries = resized
}
