/**
 * Keeps idempotency keys in 36 bytes each, and 11 to 21 in the index, beside the string: an entry is a number, and
 * what belongs to it lies at that number in flat arrays. Bounded; never more entries than the bound.
 *
 * Completed entries form one list by last use (LRU), for eviction, and each is in one bucket of a calendar, by the
 * second in which it is due, for expiry without a scan. What a claim holds is in neither.
 */
import type { Protocol } from "@tidemark/core"
import { KeyIndex } from "./KeyIndex.ts"

type KeyClaimRecord = Protocol.KeyClaimRecord

const none = -1
/** Stands in `older` of an entry that a claim holds; `newer` is the claim's number then. */
const heldMark = -2
const tickMillis = 1_000
const maxTick = 2 ** 31 - 1
const noRecord = undefined as unknown as KeyClaimRecord

const grown = <T extends Int32Array | Float64Array>(array: T, size: number): T => {
  const larger = new (array.constructor as new (size: number) => T)(size)
  larger.set(array)
  return larger
}

export class CompactKeyTable implements Protocol.KeyTable {
  readonly bound: number
  /** Entries at present. */
  size = 0
  /** Makes room for one entry when the bound is reached; answers whether it could. */
  makeRoom: () => boolean = () => false

  /** Namespaces by number. */
  private readonly names = new Map<string, number>()
  private readonly spaceNames: Array<string> = []
  /** Entries of each namespace. */
  private readonly spaceSizes: Array<number> = []
  private readonly freeSpaces: Array<number> = []
  /** The namespace that was asked for last. */
  private lastName: string | undefined
  private lastSpace = none
  private readonly index: KeyIndex

  private capacity: number
  private used = 0
  private free = none
  /** Until when it is completed; that says in which bucket of the calendar it is, too. */
  private until: Float64Array
  /** Towards the entry that was used longer ago. */
  private older: Int32Array
  /** Towards the entry that was used since; for a free entry the next free one. */
  private newer: Int32Array
  private before: Int32Array
  private after: Int32Array
  private oldest = none
  private newest = none
  private completedCount = 0

  /** The first entry of each second that has any. */
  private readonly buckets = new Map<number, number>()
  /** The second that entries were last put into; its first entry is kept here, and put back when another opens. */
  private openTick = none
  private openHead = none
  private readonly firstTick: number

  private readonly records: Array<KeyClaimRecord> = []
  private readonly recordUses: Array<number> = []
  private readonly freeRecords: Array<number> = []

  private readonly results = new Map<number, string>()
  private readonly fingerprints = new Map<number, string>()
  private textBytes = 0

  /** @param now - milliseconds since the epoch: due times are kept relative to it. */
  constructor(bound: number, now: number) {
    this.bound = bound
    this.firstTick = Math.floor(now / tickMillis)
    this.capacity = Math.min(bound, 64)
    this.index = new KeyIndex(this.capacity)
    this.until = new Float64Array(this.capacity)
    this.older = new Int32Array(this.capacity)
    this.newer = new Int32Array(this.capacity)
    this.before = new Int32Array(this.capacity)
    this.after = new Int32Array(this.capacity)
  }

  /** Completed entries at present: those that may be evicted. */
  get completed(): number {
    return this.completedCount
  }

  /** Characters of keys, results and fingerprints at present. */
  get characters(): number {
    return this.textBytes
  }

  /** An estimate, checked against measurements of V8: strings take 16 bytes and their characters. */
  get estimatedBytes(): number {
    const side = 40 * (this.results.size + this.fingerprints.size) + 150 * this.records.length
    const spaces = 100 * this.spaceNames.length
    return this.capacity * 24 + this.index.bytes + spaces + side + this.size * 16 + this.textBytes
  }

  find(namespace: string, key: string): number {
    const space = this.spaceOf(namespace)
    return space === none ? none : this.index.find(space, key)
  }

  insert(namespace: string, key: string, claim: KeyClaimRecord): number {
    if (this.size >= this.bound && !this.makeRoom()) return none
    const entry = this.takeEntry()
    const known = this.spaceOf(namespace)
    const space = known === none ? this.addSpace(namespace) : known
    this.spaceSizes[space] += 1
    this.index.add(space, key, entry)
    this.textBytes += key.length
    this.size += 1
    this.hold(entry, claim)
    return entry
  }

  remove(entry: number): void {
    this.letGo(entry)
    this.dropSideData(entry)
    const space = this.index.spaceOf(entry)
    this.textBytes -= this.index.keyOf(entry).length
    this.index.remove(entry)
    this.spaceSizes[space] -= 1
    if (this.spaceSizes[space] === 0) this.dropSpace(space)
    this.older[entry] = none
    this.newer[entry] = this.free
    this.free = entry
    this.size -= 1
  }

  claimOf(entry: number): KeyClaimRecord | undefined {
    return this.older[entry] === heldMark ? this.records[this.newer[entry]] : undefined
  }

  setClaim(entry: number, claim: KeyClaimRecord): void {
    this.letGo(entry)
    this.dropResult(entry)
    this.hold(entry, claim)
  }

  complete(entry: number, until: number, result: string | undefined): void {
    this.letGo(entry)
    this.until[entry] = until
    this.append(entry)
    this.completedCount += 1
    this.schedule(entry, until)
    if (result !== undefined) {
      this.results.set(entry, result)
      this.textBytes += result.length
    }
  }

  completedUntil(entry: number): number {
    return this.until[entry]
  }

  result(entry: number): string | undefined {
    return this.results.size === 0 ? undefined : this.results.get(entry)
  }

  fingerprint(entry: number): string | undefined {
    return this.fingerprints.size === 0 ? undefined : this.fingerprints.get(entry)
  }

  setFingerprint(entry: number, fingerprint: string | undefined): void {
    if (fingerprint === undefined) {
      if (this.fingerprints.size > 0) this.dropFingerprint(entry)
      return
    }
    this.dropFingerprint(entry)
    this.fingerprints.set(entry, fingerprint)
    this.textBytes += fingerprint.length
  }

  touch(entry: number): void {
    if (this.newest === entry) return
    this.unlink(entry)
    this.append(entry)
  }

  /** The completed entry that was used longest ago; -1: none. */
  leastRecentlyUsed(): number {
    return this.oldest
  }

  /** The seconds of the calendar that are wholly over: whatever is in them is due. */
  *dueTicks(now: number): IterableIterator<number> {
    this.openBucket(none)
    const current = Math.min(maxTick, Math.floor(now / tickMillis) - this.firstTick)
    for (const tick of this.buckets.keys()) if (tick < current) yield tick
  }

  /** An entry of that second of the calendar; -1: none is left. */
  firstOfTick(tick: number): number {
    return tick === this.openTick ? this.openHead : (this.buckets.get(tick) ?? none)
  }

  private spaceOf(namespace: string): number {
    if (namespace !== this.lastName) {
      this.lastName = namespace
      this.lastSpace = this.names.get(namespace) ?? none
    }
    return this.lastSpace
  }

  private addSpace(namespace: string): number {
    const space = this.freeSpaces.pop() ?? this.spaceNames.length
    this.names.set(namespace, space)
    this.spaceNames[space] = namespace
    this.spaceSizes[space] = 0
    this.lastName = undefined
    return space
  }

  /** A namespace without keys costs nothing: there may be one a tenant. */
  private dropSpace(space: number): void {
    this.names.delete(this.spaceNames[space])
    this.spaceNames[space] = ""
    this.freeSpaces.push(space)
    this.lastName = undefined
  }

  private takeEntry(): number {
    if (this.free !== none) {
      const entry = this.free
      this.free = this.newer[entry]
      return entry
    }
    if (this.used === this.capacity) this.grow()
    return this.used++
  }

  private grow(): void {
    const capacity = Math.min(this.bound, Math.ceil(this.capacity * 1.5))
    this.capacity = capacity
    this.index.grow(capacity)
    this.until = grown(this.until, capacity)
    this.older = grown(this.older, capacity)
    this.newer = grown(this.newer, capacity)
    this.before = grown(this.before, capacity)
    this.after = grown(this.after, capacity)
  }

  private hold(entry: number, claim: KeyClaimRecord): void {
    if (claim.slot === none) {
      claim.slot = this.freeRecords.pop() ?? this.records.length
      this.records[claim.slot] = claim
      this.recordUses[claim.slot] = 0
    }
    this.recordUses[claim.slot] += 1
    this.older[entry] = heldMark
    this.newer[entry] = claim.slot
  }

  /** From the claim that holds it, or from the list and the calendar of the completed. */
  private letGo(entry: number): void {
    if (this.older[entry] !== heldMark) {
      this.unlink(entry)
      this.completedCount -= 1
      this.unschedule(entry)
      return
    }
    const slot = this.newer[entry]
    this.recordUses[slot] -= 1
    if (this.recordUses[slot] === 0) {
      this.records[slot].slot = none
      this.records[slot] = noRecord
      this.freeRecords.push(slot)
    }
  }

  private append(entry: number): void {
    this.older[entry] = this.newest
    this.newer[entry] = none
    if (this.newest === none) this.oldest = entry
    else this.newer[this.newest] = entry
    this.newest = entry
  }

  private unlink(entry: number): void {
    const older = this.older[entry]
    const newer = this.newer[entry]
    if (older === none) this.oldest = newer
    else this.newer[older] = newer
    if (newer === none) this.newest = older
    else this.older[newer] = older
  }

  private schedule(entry: number, due: number): void {
    const tick = this.tickOf(due)
    if (tick !== this.openTick) this.openBucket(tick)
    const head = this.openHead
    this.before[entry] = none
    this.after[entry] = head
    if (head !== none) this.before[head] = entry
    this.openHead = entry
  }

  private unschedule(entry: number): void {
    const before = this.before[entry]
    const after = this.after[entry]
    if (after !== none) this.before[after] = before
    if (before !== none) this.after[before] = after
    else this.setHead(this.tickOf(this.until[entry]), after)
  }

  private tickOf(due: number): number {
    return Math.min(maxTick, Math.max(0, Math.floor(due / tickMillis) - this.firstTick))
  }

  private setHead(tick: number, head: number): void {
    if (tick === this.openTick) this.openHead = head
    else if (head === none) this.buckets.delete(tick)
    else this.buckets.set(tick, head)
  }

  private openBucket(tick: number): void {
    const last = this.openTick
    this.openTick = none
    if (last !== none) this.setHead(last, this.openHead)
    this.openHead = tick === none ? none : (this.buckets.get(tick) ?? none)
    this.openTick = tick
  }

  private dropSideData(entry: number): void {
    this.dropResult(entry)
    if (this.fingerprints.size > 0) this.dropFingerprint(entry)
  }

  private dropResult(entry: number): void {
    if (this.results.size === 0) return
    const result = this.results.get(entry)
    if (result === undefined) return
    this.textBytes -= result.length
    this.results.delete(entry)
  }

  private dropFingerprint(entry: number): void {
    const fingerprint = this.fingerprints.get(entry)
    if (fingerprint === undefined) return
    this.textBytes -= fingerprint.length
    this.fingerprints.delete(entry)
  }
}
