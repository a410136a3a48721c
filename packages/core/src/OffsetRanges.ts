/**
 * Immutable sets of offsets, as half-open ranges `[from, to)`.
 *
 * The ranges of a set are sorted, disjoint and never touch, so that a set has exactly one form: in memory, on
 * the wire and on disk. An offset is a safe integer from 0 to `Number.MAX_SAFE_INTEGER`; `to` may therefore
 * be {@link END}, 2^53, which is exact, and which also ends an open-ended range ("everything from here on").
 *
 * What builds a set from outside values (`make`, `of`, `fromOffsets`, `fromRanges`, `add`, `remove`,
 * `decode`) checks them, and throws {@link InvalidInput} before anything is made. What combines sets doesn't
 * fail.
 *
 * @example
 * import { OffsetRanges } from "@tidemark/core"
 *
 * const done = OffsetRanges.fromOffsets([3, 0, 1, 2, 7])
 * String(done)                            // "[0,4) [7,8)"
 * OffsetRanges.watermark(done, 0)         // 4
 * String(OffsetRanges.gaps(done, 0))      // "[4,7)"
 */
import { Effect, Equal, Hash, Schema, SchemaIssue, SchemaTransformation } from "effect"
import { InvalidInput } from "./Errors.ts"
import { nextBit } from "./internal/bits.ts"

/** The end of all offsets, 2^53: one more than the highest offset. Also the `to` of an open-ended range. */
export const END = 2 ** 53

const ALLOWED_OFFSET = `an integer from 0 to ${Number.MAX_SAFE_INTEGER}`
const ALLOWED_END = `an integer greater than "from", at most ${END}`
const ALLOWED_WIRE = "a flat array of numbers [from, to, from, to, ...], sorted, disjoint, not touching"

/**
 * An immutable set of offsets. Iterating gives its ranges as `[from, to]`, in order; `String(ranges)` reads
 * `[0,5) [7,9)`. Two sets with the same offsets are equal for `Equal.equals`.
 */
export class OffsetRanges implements Equal.Equal {
  /**
   * The ranges as `[from0, to0, from1, to1, ...]`: what loops over many ranges should read. Never to be
   * written to.
   */
  readonly flat: ReadonlyArray<number>

  /**
   * Takes `flat` as it is: see {@link fromSortedUnsafe}. Outside values go through {@link make} and its like.
   */
  constructor(flat: ReadonlyArray<number>) {
    this.flat = flat
  }

  *[Symbol.iterator](): IterableIterator<[from: number, to: number]> {
    const { flat } = this
    for (let i = 0; i < flat.length; i += 2) yield [flat[i], flat[i + 1]]
  }

  [Equal.symbol](that: unknown): boolean {
    return that instanceof OffsetRanges && equals(this, that)
  }

  [Hash.symbol](): number {
    return Hash.array(this.flat)
  }

  toString(): string {
    let text = ""
    for (let i = 0; i < this.flat.length; i += 2) {
      text += `${i === 0 ? "" : " "}[${this.flat[i]},${this.flat[i + 1]})`
    }
    return text
  }

  toJSON(): ReadonlyArray<number> {
    return this.flat
  }
}

/** The set without offsets. */
export const empty: OffsetRanges = new OffsetRanges([])

/** Whether a value is an {@link OffsetRanges}. */
export const isOffsetRanges = (value: unknown): value is OffsetRanges => value instanceof OffsetRanges

/**
 * Throws {@link InvalidInput} unless `offset` is an integer from 0 to `Number.MAX_SAFE_INTEGER`; `field` is
 * the name the error gives it.
 */
export const assertOffset = (offset: number, field = "offset"): void => {
  if (!(Number.isSafeInteger(offset) && offset >= 0)) {
    throw new InvalidInput({ field, value: String(offset), allowed: ALLOWED_OFFSET })
  }
}

/** Throws {@link InvalidInput} unless `[from, to)` is a range with at least one offset. */
export const assertRange = (from: number, to: number): void => {
  assertOffset(from, "from")
  if (!(to > from && (Number.isSafeInteger(to) || to === END))) {
    throw new InvalidInput({ field: "to", value: `${to} (from ${from})`, allowed: ALLOWED_END })
  }
}

/**
 * Wraps ranges that are known to be sound: an even number of entries, each greater than the one before it,
 * offsets within bounds. The array becomes the set's own; unchecked, since this is on the path of every
 * claim.
 */
export const fromSortedUnsafe = (flat: ReadonlyArray<number>): OffsetRanges =>
  flat.length === 0 ? empty : new OffsetRanges(flat)

/**
 * The one range `[from, to)`. Throws {@link InvalidInput} for a bad offset, and for a reversed or empty
 * range.
 */
export const make = (from: number, to: number): OffsetRanges => {
  assertRange(from, to)
  // adding 0 turns -0, which is an integer too, into 0
  return new OffsetRanges([from + 0, to])
}

/** A single offset. Throws {@link InvalidInput} for a bad one. */
export const of = (offset: number): OffsetRanges => {
  assertOffset(offset)
  return new OffsetRanges([offset + 0, offset + 1])
}

/** "Everything from `from` on": `[from, END)`. Throws {@link InvalidInput} for a bad offset. */
export const openEnded = (from: number): OffsetRanges => {
  assertOffset(from, "from")
  return new OffsetRanges([from + 0, END])
}

/** Whether the last range reaches {@link END}. */
export const isOpenEnded = (ranges: OffsetRanges): boolean =>
  ranges.flat.length > 0 && ranges.flat[ranges.flat.length - 1] === END

/**
 * The set of these offsets, in any order, repeated or not; fastest when they ascend. Throws
 * {@link InvalidInput}.
 */
export const fromOffsets = (offsets: Iterable<number>): OffsetRanges => {
  const values = Array.isArray(offsets) ? (offsets as ReadonlyArray<number>) : Array.from(offsets)
  return fromAscending(values) ?? fromUnsorted(values)
}

/** `undefined` where the offsets don't ascend. */
const fromAscending = (offsets: ArrayLike<number>): OffsetRanges | undefined => {
  const flat: Array<number> = []
  let end = -1
  for (let i = 0; i < offsets.length; i++) {
    const offset = offsets[i]
    assertOffset(offset)
    if (offset === end) {
      flat[flat.length - 1] = ++end
    } else if (offset > end) {
      end = offset + 1
      flat.push(offset + 0, end)
    } else if (offset < flat[flat.length - 2]) {
      return undefined
    }
  }
  return fromSortedUnsafe(flat)
}

/** Bits of a bitmap that are worth an offset: to sort takes longer. */
const BITS_PER_OFFSET = 64

const fromUnsorted = (offsets: ReadonlyArray<number>): OffsetRanges => {
  let low = Number.MAX_SAFE_INTEGER
  let high = 0
  for (let i = 0; i < offsets.length; i++) {
    const offset = offsets[i]
    assertOffset(offset)
    if (offset < low) low = offset
    if (offset > high) high = offset
  }
  const span = high - low + 1
  if (span > Math.min(BITS_PER_OFFSET * offsets.length, 2 ** 30)) {
    return fromAscending(new Float64Array(offsets).sort()) as OffsetRanges
  }
  const words = new Int32Array(Math.ceil(span / 32))
  for (let i = 0; i < offsets.length; i++) {
    const bit = offsets[i] - low
    words[bit >>> 5] |= 1 << (bit & 31)
  }
  const flat: Array<number> = []
  for (let at = 0; at < span; ) {
    const end = nextBit(words, 0, at, span, -1)
    flat.push(low + at, low + end)
    at = end < span ? nextBit(words, 0, end, span, 0) : span
  }
  return fromSortedUnsafe(flat)
}

/**
 * The union of these `[from, to)` pairs, in any order, overlapping or not; fastest when they ascend. Throws
 * {@link InvalidInput} for a bad offset, and for a reversed or empty range.
 */
export const fromRanges = (ranges: Iterable<readonly [from: number, to: number]>): OffsetRanges => {
  const pairs = Array.from(ranges)
  let ascending = true
  for (let i = 0; i < pairs.length; i++) {
    assertRange(pairs[i][0], pairs[i][1])
    if (i > 0 && pairs[i][0] < pairs[i - 1][0]) ascending = false
  }
  if (!ascending) pairs.sort((a, b) => a[0] - b[0])
  const flat: Array<number> = []
  for (const [from, to] of pairs) appendRange(flat, from + 0, to)
  return fromSortedUnsafe(flat)
}

/** Appends a range that begins at or after the last one's beginning, and joins them where they meet. */
const appendRange = (flat: Array<number>, from: number, to: number): void => {
  const last = flat.length - 1
  if (last > 0 && from <= flat[last]) {
    if (to > flat[last]) flat[last] = to
  } else {
    flat.push(from, to)
  }
}

/** The position of the first range whose end is greater than `offset`, as an even index into `flat`. */
const firstEndingAfter = (flat: ReadonlyArray<number>, offset: number): number => {
  let low = 0
  let high = flat.length >>> 1
  while (low < high) {
    const middle = (low + high) >>> 1
    if (flat[2 * middle + 1] > offset) high = middle
    else low = middle + 1
  }
  return 2 * low
}

/** The position of the first range that begins at or after `offset`, as an even index into `flat`. */
const firstBeginningFrom = (flat: ReadonlyArray<number>, offset: number): number => {
  let low = 0
  let high = flat.length >>> 1
  while (low < high) {
    const middle = (low + high) >>> 1
    if (flat[2 * middle] >= offset) high = middle
    else low = middle + 1
  }
  return 2 * low
}

/** `ranges` and `[from, to)`. Throws {@link InvalidInput} as {@link make} does. */
export const add = (ranges: OffsetRanges, from: number, to: number): OffsetRanges => {
  assertRange(from, to)
  const { flat } = ranges
  // those that touch the new range belong to it too, hence `from - 1` and `to + 1`; END + 1 is not exact
  const begin = firstEndingAfter(flat, from - 1)
  const end = to === END ? flat.length : firstBeginningFrom(flat, to + 1)
  if (begin === end) return new OffsetRanges([...flat.slice(0, begin), from + 0, to, ...flat.slice(end)])
  if (end === begin + 2 && flat[begin] <= from && flat[begin + 1] >= to) return ranges
  return new OffsetRanges([
    ...flat.slice(0, begin),
    Math.min(from + 0, flat[begin]),
    Math.max(to, flat[end - 1]),
    ...flat.slice(end)
  ])
}

/** `ranges` without the offsets of `[from, to)`. Throws {@link InvalidInput} as {@link make} does. */
export const remove = (ranges: OffsetRanges, from: number, to: number): OffsetRanges => {
  assertRange(from, to)
  const { flat } = ranges
  const begin = firstEndingAfter(flat, from)
  const end = firstBeginningFrom(flat, to)
  if (begin === end) return ranges
  const next = flat.slice(0, begin)
  if (flat[begin] < from) next.push(flat[begin], from)
  if (flat[end - 1] > to) next.push(to, flat[end - 1])
  for (let i = end; i < flat.length; i++) next.push(flat[i])
  return fromSortedUnsafe(next)
}

/** The offsets that are in `a`, in `b`, or in both. */
export const union = (a: OffsetRanges, b: OffsetRanges): OffsetRanges => {
  const left = a.flat
  const right = b.flat
  if (left.length === 0) return b
  if (right.length === 0) return a
  const flat: Array<number> = []
  let i = 0
  let j = 0
  while (i < left.length || j < right.length) {
    if (j === right.length || (i < left.length && left[i] <= right[j])) {
      appendRange(flat, left[i], left[i + 1])
      i += 2
    } else {
      appendRange(flat, right[j], right[j + 1])
      j += 2
    }
  }
  return new OffsetRanges(flat)
}

/** The offsets of `a` that are not in `b`; `a` itself where they have none in common. */
export const subtract = (a: OffsetRanges, b: OffsetRanges): OffsetRanges => {
  if (!overlaps(a, b)) return a
  const left = a.flat
  const right = b.flat
  const flat: Array<number> = []
  let j = firstEndingAfter(right, left[0])
  for (let i = 0; i < left.length; i += 2) {
    let from = left[i]
    const to = left[i + 1]
    while (j < right.length && right[j + 1] <= from) j += 2
    while (j < right.length && right[j] < to) {
      if (right[j] > from) flat.push(from, right[j])
      from = right[j + 1]
      if (from >= to) break
      j += 2
    }
    if (from < to) flat.push(from, to)
  }
  return fromSortedUnsafe(flat)
}

/** The offsets that are in both; `a` itself where one range of `b` covers it, or where they are equal. */
export const intersect = (a: OffsetRanges, b: OffsetRanges): OffsetRanges => {
  const left = a.flat
  const right = b.flat
  if (left.length === 0 || right.length === 0) return empty
  if (right.length === 2 && right[0] <= left[0] && left[left.length - 1] <= right[1]) return a
  if (equals(a, b)) return a
  const flat: Array<number> = []
  let i = firstEndingAfter(left, right[0])
  let j = firstEndingAfter(right, left[0])
  while (i < left.length && j < right.length) {
    const from = Math.max(left[i], right[j])
    const to = Math.min(left[i + 1], right[j + 1])
    if (from < to) flat.push(from, to)
    if (left[i + 1] <= right[j + 1]) i += 2
    else j += 2
  }
  return fromSortedUnsafe(flat)
}

/** Whether `offset` is in the set: O(log n). Values that are no offsets aren't. */
export const contains = (ranges: OffsetRanges, offset: number): boolean => {
  const { flat } = ranges
  const at = firstEndingAfter(flat, offset)
  return at < flat.length && flat[at] <= offset && Number.isInteger(offset)
}

/** Whether all of `[from, to)` is in the set. Throws {@link InvalidInput} as {@link make} does. */
export const containsRange = (ranges: OffsetRanges, from: number, to: number): boolean => {
  assertRange(from, to)
  const { flat } = ranges
  const at = firstEndingAfter(flat, from)
  return at < flat.length && flat[at] <= from && flat[at + 1] >= to
}

/** Whether the two sets have an offset in common. */
export const overlaps = (a: OffsetRanges, b: OffsetRanges): boolean => {
  const left = a.flat
  const right = b.flat
  if (left.length === 0 || right.length === 0) return false
  let i = firstEndingAfter(left, right[0])
  let j = firstEndingAfter(right, left[0])
  while (i < left.length && j < right.length) {
    if (left[i + 1] <= right[j]) i += 2
    else if (right[j + 1] <= left[i]) j += 2
    else return true
  }
  return false
}

/** Whether there is no offset in the set. */
export const isEmpty = (ranges: OffsetRanges): boolean => ranges.flat.length === 0

/** Whether both hold the same offsets. */
export const equals = (a: OffsetRanges, b: OffsetRanges): boolean => {
  if (a === b) return true
  if (a.flat.length !== b.flat.length) return false
  for (let i = 0; i < a.flat.length; i++) {
    if (a.flat[i] !== b.flat[i]) return false
  }
  return true
}

/** How many ranges the set has. */
export const rangeCount = (ranges: OffsetRanges): number => ranges.flat.length >>> 1

/** How many offsets the set has: exact, and at most {@link END}, which only `openEnded(0)` reaches. */
export const size = (ranges: OffsetRanges): number => {
  const { flat } = ranges
  let total = 0
  for (let i = 0; i < flat.length; i += 2) total += flat[i + 1] - flat[i]
  return total
}

/** The lowest offset, or `undefined` for the empty set. */
export const first = (ranges: OffsetRanges): number | undefined => ranges.flat[0]

/** One more than the highest offset ({@link END} when open-ended), or `undefined` for the empty set. */
export const end = (ranges: OffsetRanges): number | undefined => ranges.flat.at(-1)

/**
 * The end of the contiguous run which covers `origin`: below it, from `origin` on, all is in the set.
 * `origin` itself when it isn't. Throws {@link InvalidInput} for a bad origin.
 */
export const watermark = (ranges: OffsetRanges, origin: number): number => {
  assertOffset(origin, "origin")
  const { flat } = ranges
  const at = firstEndingAfter(flat, origin)
  return at < flat.length && flat[at] <= origin ? flat[at + 1] : origin + 0
}

/**
 * What is missing between `origin` and the highest offset of the set. The first gap begins at the watermark.
 * Throws {@link InvalidInput} for a bad origin.
 */
export const gaps = (ranges: OffsetRanges, origin: number): OffsetRanges => {
  assertOffset(origin, "origin")
  const { flat } = ranges
  const missing: Array<number> = []
  let from = origin + 0
  for (let i = firstEndingAfter(flat, origin); i < flat.length; i += 2) {
    if (flat[i] > from) missing.push(from, flat[i])
    from = flat[i + 1]
  }
  return fromSortedUnsafe(missing)
}

/** The ranges as `[[from, to], ...]`. */
export const toArray = (ranges: OffsetRanges): Array<[from: number, to: number]> => [...ranges]

/** The wire form: a flat array `[from, to, from, to, ...]`, which JSON carries exactly. A copy. */
export const encode = (ranges: OffsetRanges): Array<number> => ranges.flat.slice()

/**
 * Reads the wire form, and accepts nothing but it: throws {@link InvalidInput}, which names the entry, for
 * anything that isn't a flat array of bounds, sorted, disjoint and not touching.
 */
export const decode = (value: unknown): OffsetRanges => {
  const problem = wireProblem(value)
  if (problem !== undefined) throw problem
  return fromSortedUnsafe((value as ReadonlyArray<number>).map((bound) => bound + 0))
}

const wireProblem = (value: unknown): InvalidInput | undefined => {
  if (!Array.isArray(value)) {
    return new InvalidInput({ field: "ranges", value: typeof value, allowed: ALLOWED_WIRE })
  }
  if (value.length % 2 !== 0) {
    return new InvalidInput({ field: "ranges", value: `${value.length} bounds`, allowed: ALLOWED_WIRE })
  }
  let previous = -1
  for (let i = 0; i < value.length; i++) {
    const bound: unknown = value[i]
    const isEnd = bound === END && i === value.length - 1
    if (typeof bound !== "number" || !(Number.isSafeInteger(bound) || isEnd) || bound <= previous) {
      const lowest = previous + 1
      return new InvalidInput({
        field: `ranges[${i}]`,
        value: typeof bound === "number" ? String(bound) : typeof bound,
        allowed: `an integer from ${lowest} to ${i % 2 === 0 ? Number.MAX_SAFE_INTEGER : END}; ${ALLOWED_WIRE}`
      })
    }
    previous = bound
  }
  return undefined
}

/**
 * The schema of a set, whose encoded side is the wire form of {@link encode}. Decoding anything else fails
 * with an issue that says which entry is wrong, and why.
 */
export const FromWire: Schema.Codec<OffsetRanges, ReadonlyArray<number>> = Schema.Array(Schema.Number).pipe(
  Schema.decodeTo(
    Schema.declare(isOffsetRanges, { expected: "OffsetRanges" }),
    SchemaTransformation.transformEffect({
      decode: (flat: ReadonlyArray<number>, options) => {
        const problem = wireProblem(flat)
        return problem === undefined
          ? Effect.succeed(decode(flat))
          : Effect.fail(new SchemaIssue.InvalidValue({ message: problem.message }, flat, options))
      },
      encode: (ranges: OffsetRanges) => Effect.succeed(encode(ranges))
    })
  )
)
