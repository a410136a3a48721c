/**
 * The content of partly filled pages of 4,096 offsets, all in one pool of 32-bit words.
 *
 * A page is a block of words: a header (kind, number of runs, number of offsets), then either up to 31 sorted
 * runs, one word each, or a bitmap. So a page costs what is cheaper for it, as in Roaring bitmaps (Lemire et
 * al., 2016); unlike there, no page is an object of its own, since at 512 bytes a page these would cost as
 * much as the bits.
 */
import { clearBits, nextBit, setBits } from "./bits.ts"

/** How many offsets a page has. */
export const PAGE = 4096

/** The page that holds an offset. To multiply is exact here, and several times as fast as to divide. */
export const pageOf = (offset: number): number => Math.floor(offset * (1 / PAGE))

/**
 * What {@link OffsetPages.add} and {@link OffsetPages.clear} answer when the block must be enlarged first.
 */
export const NO_ROOM = -1

const BITMAP = 5
const WORDS_PER_BITMAP = PAGE / 32
/** Words per block, header included, by kind: five sizes for runs, then the bitmap. */
const SIZES: ReadonlyArray<number> = [2, 4, 8, 16, 32, 1 + WORDS_PER_BITMAP]

const SMALLEST_STEP = 32
/** Below this many words, memory is kept for the next pages instead of being given back. */
const KEPT_WORDS = 192

/**
 * How much to grow at once: little, as it counts in the bytes kept per offset; more where copying takes
 * longer.
 */
const slack = (used: number): number => Math.max(SMALLEST_STEP, used >>> (used < 8192 ? 5 : 4))

const noWords = new Int32Array(0)

// A header: kind in bits 0-7, runs in bits 8-15, offsets in bits 16-28. A run: `from << 16 | to`.
const kindOf = (header: number): number => header & 0xff
const runsOf = (header: number): number => (header >>> 8) & 0xff
const countOf = (header: number): number => header >>> 16

/**
 * The pool. Positions of blocks stay valid until {@link OffsetPages.reserve} or {@link OffsetPages.tidy},
 * which may move all of them, and tell their owner so by `relocate`.
 */
export class OffsetPages {
  private words: Int32Array = noWords
  private used = 0
  private freeWords = 0
  /**
   * For each kind the first free block, as position + 1; the next one stands in its first word. 0 ends the
   * list.
   */
  private free: Array<number> | undefined
  private readonly relocate: (move: (position: number) => number) => void

  /** `relocate` must replace each position in use by what `move` gives for it, each exactly once. */
  constructor(relocate: (move: (position: number) => number) => void) {
    this.relocate = relocate
  }

  /** Roughly the bytes of the pool, beyond an empty one. */
  get byteLength(): number {
    return this.words.length === 0 ? 0 : 200 + this.words.byteLength
  }

  /** How many offsets are in the page. */
  count(position: number): number {
    return countOf(this.words[position])
  }

  /** The kind of the next larger block. */
  nextKind(position: number): number {
    return kindOf(this.words[position]) + 1
  }

  /** The kind of block that has room for this many more runs, or `undefined` when the page's own has. */
  kindFor(position: number, more: number): number | undefined {
    const header = this.words[position]
    let kind = kindOf(header)
    if (kind === BITMAP) return undefined
    const runs = runsOf(header) + more
    while (kind < BITMAP && runs >= SIZES[kind]) kind += 1
    return kind === kindOf(header) ? undefined : kind
  }

  /** Makes sure that the next block of this kind can be allocated without moving any. */
  reserve(kind: number): void {
    const size = SIZES[kind]
    if (this.used + size <= this.words.length || (this.free !== undefined && this.free[kind] !== 0)) return
    if (this.freeWords * 16 > this.used) {
      this.compact(size)
    } else {
      const words = new Int32Array(this.used + Math.max(size, slack(this.used)))
      words.set(this.words.subarray(0, this.used))
      this.words = words
    }
  }

  /**
   * A new page with one run (or, if `prefix` > 0, another one from 0 to `prefix`, which ends before it
   * begins).
   */
  create(prefix: number, from: number, to: number): number {
    const runs = prefix > 0 ? 2 : 1
    const kind = runs - 1
    this.reserve(kind)
    const position = this.allocate(kind)
    const { words } = this
    words[position] = ((prefix + to - from) << 16) | (runs << 8) | kind
    if (prefix > 0) words[position + 1] = prefix
    words[position + runs] = (from << 16) | to
    return position
  }

  /** Moves a page into a larger block of this kind, which must be reserved; gives its new position. */
  enlarge(position: number, kind: number): number {
    const header = this.words[position]
    const next = this.allocate(kind)
    const { words } = this
    const runs = runsOf(header)
    if (kind === BITMAP) {
      words.fill(0, next + 1, next + SIZES[BITMAP])
      for (let i = 1; i <= runs; i++) {
        setBits(words, next + 1, words[position + i] >>> 16, words[position + i] & 0xffff)
      }
      words[next] = (countOf(header) << 16) | BITMAP
    } else {
      for (let i = 1; i <= runs; i++) words[next + i] = words[position + i]
      words[next] = header - kindOf(header) + kind
    }
    this.release(position)
    return next
  }

  /** Gives a block back for reuse. */
  release(position: number): void {
    const kind = kindOf(this.words[position])
    this.free ??= [0, 0, 0, 0, 0, 0]
    this.words[position] = this.free[kind]
    this.free[kind] = position + 1
    this.freeWords += SIZES[kind]
  }

  /** Forgets all pages. */
  reset(): void {
    this.used = 0
    this.freeWords = 0
    this.free = undefined
    if (this.words.length > KEPT_WORDS) this.words = noWords
  }

  /** Gives memory back where more than a sixteenth of the pool is free. */
  tidy(): void {
    if (this.used > KEPT_WORDS && this.freeWords * 16 > this.used) this.compact(0)
  }

  /** Adds `[from, to)`; gives the number of new offsets, or {@link NO_ROOM} with nothing changed. */
  add(position: number, from: number, to: number): number {
    const { words } = this
    const header = words[position]
    if (kindOf(header) !== BITMAP) return this.addRun(position, header, from, to)
    const added = setBits(words, position + 1, from, to)
    words[position] = header + (added << 16)
    return added
  }

  /**
   * Adds the ranges `[flat[i], flat[i + 1])`, for `i` from `begin` to `end`, less `base`; gives the number of
   * new offsets. There must be room for as many more runs: see {@link kindFor}.
   */
  addAll(position: number, base: number, flat: ReadonlyArray<number>, begin: number, end: number): number {
    const { words } = this
    let added = 0
    if (kindOf(words[position]) !== BITMAP) {
      for (let i = begin; i < end; i += 2) {
        added += this.addRun(position, words[position], flat[i] - base, flat[i + 1] - base)
      }
      return added
    }
    for (let i = begin; i < end; i += 2) {
      const from = flat[i] - base
      const to = flat[i + 1] - base
      if (to - from === 1) {
        const at = position + 1 + (from >>> 5)
        const word = words[at]
        added += ((word >>> (from & 31)) & 1) ^ 1
        words[at] = word | (1 << (from & 31))
      } else {
        added += setBits(words, position + 1, from, to)
      }
    }
    words[position] += added << 16
    return added
  }

  private addRun(position: number, header: number, addFrom: number, addTo: number): number {
    const { words } = this
    const runs = runsOf(header)
    const end = position + 1 + runs
    let from = addFrom
    let to = addTo
    // from the last run backwards, as most additions are near the end: to the first that touches or follows
    let begin = end
    while (begin > position + 1 && (words[begin - 1] & 0xffff) >= from) begin -= 1
    let next = begin
    let known = 0
    while (next < end && words[next] >>> 16 <= addTo) {
      const runFrom = words[next] >>> 16
      const runTo = words[next] & 0xffff
      if (runFrom < from) from = runFrom
      if (runTo > to) to = runTo
      known += runTo - runFrom
      next += 1
    }
    if (next === begin) {
      if (runs + 1 === SIZES[kindOf(header)]) return NO_ROOM
      for (let i = end; i > begin; i--) words[i] = words[i - 1]
    } else {
      for (let i = begin + 1, j = next; j < end; i++, j++) words[i] = words[j]
    }
    words[begin] = (from << 16) | to
    const added = to - from - known
    words[position] = header + (added << 16) + ((1 - (next - begin)) << 8)
    return added
  }

  /**
   * Removes `[from, to)`; gives the number of offsets that were there, or {@link NO_ROOM} with nothing
   * changed.
   */
  clear(position: number, from: number, to: number): number {
    const { words } = this
    const header = words[position]
    if (kindOf(header) !== BITMAP) return this.clearRuns(position, header, from, to)
    const removed = clearBits(words, position + 1, from, to)
    words[position] = header - (removed << 16)
    return removed
  }

  private clearRuns(position: number, header: number, from: number, to: number): number {
    const { words } = this
    const kept: Array<number> = []
    let count = 0
    const keep = (runFrom: number, runTo: number) => {
      if (runFrom >= runTo) return
      kept.push((runFrom << 16) | runTo)
      count += runTo - runFrom
    }
    for (let i = 1; i <= runsOf(header); i++) {
      const runFrom = words[position + i] >>> 16
      const runTo = words[position + i] & 0xffff
      keep(runFrom, Math.min(runTo, from))
      keep(Math.max(runFrom, to), runTo)
    }
    if (kept.length >= SIZES[kindOf(header)]) return NO_ROOM
    words.set(kept, position + 1)
    words[position] = (count << 16) | (kept.length << 8) | kindOf(header)
    return countOf(header) - count
  }

  /** Whether the page has this offset. */
  has(position: number, offset: number): boolean {
    const { words } = this
    const header = words[position]
    if (kindOf(header) === BITMAP) return (words[position + 1 + (offset >>> 5)] & (1 << (offset & 31))) !== 0
    const end = position + 1 + runsOf(header)
    const at = this.runEndingAfter(position + 1, end, offset)
    return at < end && words[at] >>> 16 <= offset
  }

  /**
   * The first offset of the page, from `from` on, that is in it; `limit` or more when there is none below.
   */
  nextPresent(position: number, from: number, limit: number): number {
    const { words } = this
    const header = words[position]
    if (kindOf(header) === BITMAP) return nextBit(words, position + 1, from, limit, 0)
    const end = position + 1 + runsOf(header)
    const at = this.runEndingAfter(position + 1, end, from)
    return at === end ? limit : Math.max(from, words[at] >>> 16)
  }

  /**
   * The first offset of the page, from `from` on, that is not in it; `limit` or more when there is none
   * below.
   */
  nextMissing(position: number, from: number, limit: number): number {
    const { words } = this
    const header = words[position]
    if (kindOf(header) === BITMAP) return nextBit(words, position + 1, from, limit, -1)
    const end = position + 1 + runsOf(header)
    const at = this.runEndingAfter(position + 1, end, from)
    return at === end || words[at] >>> 16 > from ? from : words[at] & 0xffff
  }

  /** One more than the highest offset in the page. */
  end(position: number): number {
    const { words } = this
    const header = words[position]
    if (kindOf(header) !== BITMAP) return words[position + runsOf(header)] & 0xffff
    let at = position + WORDS_PER_BITMAP
    while (words[at] === 0) at -= 1
    return ((at - position) << 5) - Math.clz32(words[at])
  }

  private runEndingAfter(begin: number, end: number, offset: number): number {
    const { words } = this
    let low = begin
    let high = end
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((words[middle] & 0xffff) > offset) high = middle
      else low = middle + 1
    }
    return low
  }

  private allocate(kind: number): number {
    const reused = this.free === undefined ? 0 : this.free[kind]
    if (this.free !== undefined && reused !== 0) {
      this.free[kind] = this.words[reused - 1]
      this.freeWords -= SIZES[kind]
      return reused - 1
    }
    const position = this.used
    this.used += SIZES[kind]
    return position
  }

  /** Copies the blocks in use into a new pool with room for `extra` more words. */
  private compact(extra: number): void {
    const from = this.words
    const live = this.used - this.freeWords
    const to = new Int32Array(live + Math.max(extra, slack(live)))
    let used = 0
    this.relocate((position) => {
      const size = SIZES[kindOf(from[position])]
      const moved = used
      for (let i = 0; i < size; i++) to[moved + i] = from[position + i]
      used += size
      return moved
    })
    this.words = to
    this.used = used
    this.freeWords = 0
    this.free = undefined
  }
}
