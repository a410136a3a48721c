/** Kafka's partition of a key: murmur2 (Austin Appleby's, public domain) with the seed that Kafka's clients share. */
export const murmur2 = (bytes: Uint8Array): number => {
  const length = bytes.length
  const multiplier = 0x5bd1e995
  let hash = 0x9747b28c ^ length
  const words = length >>> 2
  for (let word = 0; word < words; word++) {
    const at = word * 4
    let k = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
    k = Math.imul(k, multiplier)
    k ^= k >>> 24
    hash = Math.imul(hash, multiplier) ^ Math.imul(k, multiplier)
  }
  const tail = words * 4
  const rest = length - tail
  if (rest >= 3) hash ^= bytes[tail + 2]! << 16
  if (rest >= 2) hash ^= bytes[tail + 1]! << 8
  if (rest >= 1) hash = Math.imul(hash ^ bytes[tail]!, multiplier)
  hash ^= hash >>> 13
  hash = Math.imul(hash, multiplier)
  return hash ^ (hash >>> 15)
}

/** The partition that Kafka's default partitioner gives to a key. */
export const partitionOf = (key: Uint8Array, partitions: number): number =>
  (murmur2(key) & 0x7fffffff) % partitions
