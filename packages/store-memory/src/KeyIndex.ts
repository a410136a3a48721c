/**
 * Finds the number of an entry by its key and the number of its namespace: what a `Map` of strings would do, in a third
 * of the bytes and of the time, since a look-up reads one place of one flat array where a `Map` follows pointers to an
 * entry, and on to the string in it.
 *
 * Open addressing with linear probing; a removal moves back what was pushed on by what is removed (Knuth, The Art of
 * Computer Programming, volume 3, algorithm 6.4R), so that nothing is left behind.
 */

const none = -1
/** Of so many places at most three quarters are taken. */
const fewestPlaces = 64

/** UTF-16 units of a key that are hashed; longer ones (there are none: 1,024 bytes of UTF-8 is the limit) only go on. */
const hashedUnits = 1_024

/**
 * What each unit of a key is multiplied with, twice over: by chance, and new in each process. The sums are strongly
 * universal in their upper halves (Lemire and Kaser, Strongly Universal String Hashing is Fast, 2014): who does not know
 * these numbers can't find keys that collide more often than by chance, so that no sender makes the store slow. The
 * last four belong to the namespace.
 */
const factors = crypto.getRandomValues(new Int32Array(2 * hashedUnits + 6))

/** Of a key of a namespace: a signed integer of 32 bits. */
export type Hash = (space: number, key: string) => number

const universalHash: Hash = (space, key) => {
  const units = Math.min(key.length, hashedUnits)
  const ofSpace = 2 * hashedUnits + 2
  // of the length too, as if a 1 came after the last unit: units that are 0 would else not count
  let low = factors[2 * units] + Math.imul(factors[ofSpace], space & 0xffff)
  let high = factors[2 * units + 1] + Math.imul(factors[ofSpace + 1], space & 0xffff)
  if (space > 0xffff) {
    low += Math.imul(factors[ofSpace + 2], space >>> 16)
    high += Math.imul(factors[ofSpace + 3], space >>> 16)
  }
  for (let index = 0; index < units; index++) {
    const unit = key.charCodeAt(index)
    low = (low + Math.imul(factors[2 * index], unit)) | 0
    high = (high + Math.imul(factors[2 * index + 1], unit)) | 0
  }
  return (low >>> 16) | (high & 0xffff0000)
}

export class KeyIndex {
  private keys: Array<string>
  private spaces: Int32Array
  private size = 0
  /** Two numbers a place: the hash, and the entry + 1; 0: the place is free. */
  private places = new Int32Array(2 * fewestPlaces)
  private mask = fewestPlaces - 1
  /** What was looked for last: most often it is added next. */
  private lastSpace = none
  private lastKey = ""
  private lastHash = 0

  private readonly hash: Hash

  /**
   * @param capacity - entries are numbers below it.
   * @param hash - another one than the store's own, to try how keys with the same hash are told apart.
   */
  constructor(capacity: number, hash: Hash = universalHash) {
    this.hash = hash
    this.keys = new Array<string>(capacity)
    this.spaces = new Int32Array(capacity)
  }

  /** Of what grows with the entries, the keys' own bytes left out. */
  get bytes(): number {
    return this.keys.length * 12 + this.places.byteLength
  }

  /** The entry of a key; -1: there is none. */
  find(space: number, key: string): number {
    const wanted = this.hashOf(space, key)
    const { keys, mask, places, spaces } = this
    for (let at = wanted & mask; ; at = (at + 1) & mask) {
      const entry = places[2 * at + 1] - 1
      if (entry === none) return none
      if (places[2 * at] === wanted && keys[entry] === key && spaces[entry] === space) return entry
    }
  }

  /** Adds a key that is not in it. */
  add(space: number, key: string, entry: number): void {
    this.size += 1
    if (this.size * 4 > (this.mask + 1) * 3) this.doublePlaces()
    this.keys[entry] = key
    this.spaces[entry] = space
    put(this.places, this.mask, this.hashOf(space, key), entry + 1)
  }

  remove(entry: number): void {
    const { mask, places } = this
    let free = this.hashOf(this.spaces[entry], this.keys[entry]) & mask
    while (places[2 * free + 1] !== entry + 1) free = (free + 1) & mask
    for (let at = (free + 1) & mask; places[2 * at + 1] !== 0; at = (at + 1) & mask) {
      const wanted = places[2 * at]
      // may stand in the free place unless it would come before the one that it is looked for from
      if (((at - wanted) & mask) < ((at - free) & mask)) continue
      places[2 * free] = wanted
      places[2 * free + 1] = places[2 * at + 1]
      free = at
    }
    places[2 * free + 1] = 0
    this.keys[entry] = ""
    this.size -= 1
  }

  keyOf(entry: number): string {
    return this.keys[entry]
  }

  spaceOf(entry: number): number {
    return this.spaces[entry]
  }

  /** Takes numbers below `capacity` from now on. */
  grow(capacity: number): void {
    // to set its length would make it longer by half than was asked for
    const keys = new Array<string>(capacity)
    for (let entry = 0; entry < this.keys.length; entry++) keys[entry] = this.keys[entry]
    this.keys = keys
    const spaces = new Int32Array(capacity)
    spaces.set(this.spaces)
    this.spaces = spaces
  }

  private hashOf(space: number, key: string): number {
    if (space !== this.lastSpace || key !== this.lastKey) {
      this.lastHash = this.hash(space, key)
      this.lastSpace = space
      this.lastKey = key
    }
    return this.lastHash
  }

  private doublePlaces(): void {
    const { places } = this
    const doubled = new Int32Array(2 * places.length)
    const mask = 2 * this.mask + 1
    for (let at = 0; at < places.length; at += 2) {
      if (places[at + 1] !== 0) put(doubled, mask, places[at], places[at + 1])
    }
    this.places = doubled
    this.mask = mask
  }
}

const put = (places: Int32Array, mask: number, wanted: number, numbered: number): void => {
  let at = wanted & mask
  while (places[2 * at + 1] !== 0) at = (at + 1) & mask
  places[2 * at] = wanted
  places[2 * at + 1] = numbered
}
