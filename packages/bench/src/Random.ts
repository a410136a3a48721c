/** Chance with a seed, so that every run works on the same input. */

/** A generator of numbers in [0, 2^32): xorshift (Marsaglia, 2003). */
export const random32 = (seed: number): (() => number) => {
  let state = seed | 0 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
}

/** `values` in an order of chance: a copy. */
export const shuffled = <T>(values: ReadonlyArray<T>, seed: number): Array<T> => {
  const next = random32(seed)
  const order = [...values]
  for (let i = order.length - 1; i > 0; i--) {
    const j = next() % (i + 1)
    const moved = order[i]
    order[i] = order[j]
    order[j] = moved
  }
  return order
}

const bytes = Buffer.alloc(16)

/** A generator of ids in the form of a UUID, as new flat strings of 36 characters, like those out of a message. */
export const uuids = (seed: number): (() => string) => {
  const next = random32(seed)
  return () => {
    for (let i = 0; i < 16; i += 4) bytes.writeUInt32LE(next(), i)
    const hex = bytes.toString("hex")
    const text = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
    return Buffer.from(text, "latin1").toString("latin1")
  }
}
