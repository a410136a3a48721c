/**
 * Which bucket a key belongs to: HalfSipHash-1-3, keyed, so that nobody who chooses ids can choose their buckets.
 *
 * Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), and its variant of 32-bit words, as the
 * Linux kernel uses it for hash tables. The words are pairs of UTF-16 units.
 */

/** The two halves of the secret. */
export type HashSecret = readonly [number, number]

export const hash32 = (text: string, [first, second]: HashSecret): number => {
  let a = first
  let b = second
  let c = 0x6c796765 ^ first
  let d = 0x74656462 ^ second
  const { length } = text
  const words = (length >> 1) + 1
  for (let word = 0; word < words + 3; word++) {
    let value = 0
    if (word < words - 1) {
      value = text.charCodeAt(2 * word) | (text.charCodeAt(2 * word + 1) << 16)
    } else if (word === words - 1) {
      value = (length & 1 ? text.charCodeAt(length - 1) : 0) | (length << 16)
    } else if (word === words) {
      c ^= 0xff
    }
    d ^= value
    a = (a + b) | 0
    b = (b << 5) | (b >>> 27)
    b ^= a
    a = (a << 16) | (a >>> 16)
    c = (c + d) | 0
    d = (d << 8) | (d >>> 24)
    d ^= c
    a = (a + d) | 0
    d = (d << 7) | (d >>> 25)
    d ^= a
    c = (c + b) | 0
    b = (b << 13) | (b >>> 19)
    b ^= c
    c = (c << 16) | (c >>> 16)
    a ^= value
  }
  return (b ^ d) >>> 0
}

/** A hash as the scripts want it: five digits of seven bits, the highest first. */
export const encodeHash = (hash: number): string =>
  String.fromCharCode(hash >>> 28, (hash >>> 21) & 127, (hash >>> 14) & 127, (hash >>> 7) & 127, hash & 127)
