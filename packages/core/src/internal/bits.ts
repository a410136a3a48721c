/** Bitmaps in the words of an array: bit 0 is the lowest bit of the word at `base`. */

const population = (word: number): number => {
  let bits = word - ((word >>> 1) & 0x55555555)
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333)
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}

/** Sets the bits `[from, to)` of the bitmap at `base`; gives how many were not set before. */
export const setBits = (words: Int32Array, base: number, from: number, to: number): number => {
  let at = base + (from >>> 5)
  const last = base + ((to - 1) >>> 5)
  let mask = -1 << (from & 31)
  let added = 0
  while (at < last) {
    added += population(mask & ~words[at])
    words[at] |= mask
    mask = -1
    at += 1
  }
  mask &= -1 >>> (31 - ((to - 1) & 31))
  added += population(mask & ~words[at])
  words[at] |= mask
  return added
}

/** Clears the bits `[from, to)` of the bitmap at `base`; gives how many were set before. */
export const clearBits = (words: Int32Array, base: number, from: number, to: number): number => {
  let at = base + (from >>> 5)
  const last = base + ((to - 1) >>> 5)
  let mask = -1 << (from & 31)
  let removed = 0
  while (at < last) {
    removed += population(mask & words[at])
    words[at] &= ~mask
    mask = -1
    at += 1
  }
  mask &= -1 >>> (31 - ((to - 1) & 31))
  removed += population(mask & words[at])
  words[at] &= ~mask
  return removed
}

/**
 * The first bit from `from` on that is set (`flip` 0) or not (`flip` -1); `limit` or more when none is below
 * it.
 */
export const nextBit = (
  words: Int32Array,
  base: number,
  from: number,
  limit: number,
  flip: 0 | -1
): number => {
  let index = from >>> 5
  const last = (limit - 1) >>> 5
  let word = (words[base + index] ^ flip) & (-1 << (from & 31))
  while (word === 0) {
    if (index >= last) return limit
    index += 1
    word = words[base + index] ^ flip
  }
  return (index << 5) + 31 - Math.clz32(word & -word)
}
