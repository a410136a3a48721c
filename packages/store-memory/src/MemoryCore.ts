/**
 * The synchronous core of the memory store: the rules of the protocol, on streams and on a bounded table of keys,
 * with its counters. No clock: times are given. The layer puts Effect around it.
 */
import { type OffsetRanges, type Policies, Protocol } from "@tidemark/core"
import { CompactKeyTable } from "./CompactKeyTable.ts"

/** What the memory store has counted since it was made. */
export interface MemoryStats {
  /** Items that were claimed, completed, released or looked up. */
  readonly operations: number
  /** Items of claims and look-ups that were known: completed, or held by another. */
  readonly hits: number
  /** Items of claims and look-ups that were new. */
  readonly misses: number
  /** `hits / (hits + misses)`; 0 before the first. */
  readonly hitRate: number
  /** Completed keys that were forgotten before their time, for want of room. */
  readonly evictions: number
  /** Keys that were removed when their time was over. */
  readonly expired: number
  /** Claims that were refused for want of room. */
  readonly rejected: number
  /** Keys at present, completed or held; never above `maxSize`. */
  readonly size: number
  readonly largestSize: number
  readonly maxSize: number
  /** Streams at present. */
  readonly streams: number
  readonly sweeps: number
  /** How long the last sweep worked, in milliseconds, the pauses between its slices left out. */
  readonly lastSweepMillis: number
  readonly totalSweepMillis: number
  /** Of keys and streams, roughly. */
  readonly estimatedBytes: number
}

/** Entries that one slice of a sweep or an eviction handles: some 0.1 to 0.3 ms of work. */
const sliceSize = 512

/** Entries that are evicted at once, before an insertion, when the bound is reached. */
const evictedAtOnce = 64

export interface MemoryCoreOptions {
  readonly maxSize: number
  readonly whenFull: Policies.WhenFull
  /** Milliseconds since the epoch. */
  readonly now: number
  /** Called when there is work for the background: the bound is near, or was reached. */
  readonly onPressure?: () => void
}

export class MemoryCore {
  readonly table: CompactKeyTable
  readonly keys: Protocol.KeyState
  private readonly streams = new Map<string, Protocol.StreamState>()
  private lastName = ""
  private lastStream: Protocol.StreamState | undefined
  private readonly whenFull: Policies.WhenFull
  private readonly onPressure: () => void
  /** Where eviction stops. */
  private readonly evictDownTo: number
  private readonly sweepFrom: number
  private tokenFloor = 0
  /** The time of the last call. */
  private now: number
  private nearBound = false
  /** The calendar was looked through in vain: not again before this time. */
  private nothingDueBefore = 0
  /** Whether an eviction is under way that the background has to finish. */
  evicting = false

  private operations = 0
  private hits = 0
  private misses = 0
  private evictions = 0
  private expired = 0
  private rejected = 0
  private largestSize = 0
  private sweeps = 0
  private lastSweepMillis = 0
  private totalSweepMillis = 0

  constructor(options: MemoryCoreOptions) {
    this.now = options.now
    this.table = new CompactKeyTable(options.maxSize, options.now)
    this.keys = new Protocol.KeyState(this.table)
    this.whenFull = options.whenFull
    this.onPressure = options.onPressure ?? (() => {})
    this.evictDownTo = Math.floor(options.maxSize * 0.8)
    this.sweepFrom = Math.ceil(options.maxSize * 0.9)
    this.table.makeRoom = () => this.makeRoom()
  }

  get stats(): MemoryStats {
    let streamBytes = 0
    for (const stream of this.streams.values()) streamBytes += stream.estimatedBytes
    const asked = this.hits + this.misses
    return {
      operations: this.operations,
      hits: this.hits,
      misses: this.misses,
      hitRate: asked === 0 ? 0 : this.hits / asked,
      evictions: this.evictions,
      expired: this.expired,
      rejected: this.rejected,
      size: this.table.size,
      largestSize: this.largestSize,
      maxSize: this.table.bound,
      streams: this.streams.size,
      sweeps: this.sweeps,
      lastSweepMillis: this.lastSweepMillis,
      totalSweepMillis: this.totalSweepMillis,
      estimatedBytes: this.table.estimatedBytes + streamBytes
    }
  }

  claimKeys(
    namespace: string,
    items: ReadonlyArray<Protocol.KeyItem>,
    terms: Protocol.ClaimTerms,
    now: number
  ): Protocol.KeyClaimOutcome {
    this.now = now
    const outcome = this.keys.claim(namespace, items, terms, now)
    this.operations += items.length
    if (outcome._tag === "Answers") {
      this.misses += outcome.granted
      this.hits += items.length - outcome.granted
    } else if (outcome._tag === "Full") {
      this.rejected += 1
    }
    this.noteSize()
    return outcome
  }

  claimKey(
    namespace: string,
    item: Protocol.KeyItem,
    terms: Protocol.ClaimTerms,
    now: number
  ): Protocol.OneKeyClaimOutcome {
    this.now = now
    const outcome = this.keys.claimKey(namespace, item, terms, now)
    this.operations += 1
    if (outcome._tag === "Claimed") this.misses += 1
    else if (outcome._tag === "Full") this.rejected += 1
    else if (outcome._tag !== "ClaimIdReused") this.hits += 1
    this.noteSize()
    return outcome
  }

  completeKey(
    claimId: string,
    namespace: string,
    item: Protocol.KeyCompletion,
    retentionMillis: number,
    now: number
  ): Protocol.KeyCompleteAnswer {
    this.operations += 1
    return this.keys.completeKey(claimId, namespace, item, retentionMillis, now)
  }

  completeKeys(
    claimId: string,
    namespace: string,
    items: ReadonlyArray<Protocol.KeyCompletion>,
    retentionMillis: number,
    now: number
  ): ReadonlyArray<Protocol.KeyCompleteAnswer> {
    this.operations += items.length
    return this.keys.complete(claimId, namespace, items, retentionMillis, now)
  }

  lookupKeys(namespace: string, keys: ReadonlyArray<string>, now: number): ReadonlyArray<Protocol.KeyStatus> {
    this.operations += keys.length
    return keys.map((key) => {
      const status = this.keys.lookup(namespace, key, now)
      if (status._tag === "Unknown") this.misses += 1
      else this.hits += 1
      return status
    })
  }

  claimOffsets(
    stream: string,
    ranges: OffsetRanges.OffsetRanges,
    terms: Protocol.ClaimTerms,
    now: number
  ): Protocol.OffsetClaimAnswer | undefined {
    this.operations += 1
    const answer = this.streamOrNew(stream).claim(ranges, terms, now)
    if (answer?.token === undefined) this.hits += 1
    else this.misses += 1
    return answer
  }

  claimOffset(
    stream: string,
    offset: number,
    terms: Protocol.ClaimTerms,
    now: number
  ): Protocol.OneOffsetAnswer | undefined {
    this.operations += 1
    const answer = this.streamOrNew(stream).claimOffset(offset, terms, now)
    if (answer?._tag === "Claimed") this.misses += 1
    else this.hits += 1
    return answer
  }

  completeOffsets(
    stream: string,
    claimId: string,
    ranges: OffsetRanges.OffsetRanges,
    now: number
  ): Protocol.CompleteAnswer {
    this.operations += 1
    return (this.stream(stream) ?? new Protocol.StreamState()).complete(claimId, ranges, now)
  }

  completeOffset(stream: string, claimId: string, offset: number, now: number): Protocol.KeyCompleteAnswer {
    this.operations += 1
    return this.stream(stream)?.completeOffset(claimId, offset, now) ?? "LeaseLost"
  }

  /** A stream that is known, for the other verbs. */
  stream(name: string): Protocol.StreamState | undefined {
    // most often the one that was asked for last
    if (name === this.lastName) return this.lastStream
    this.lastStream = this.streams.get(name)
    this.lastName = name
    return this.lastStream
  }

  /** A stream, made where it was not known. */
  streamOrNew(name: string): Protocol.StreamState {
    const known = this.stream(name)
    if (known !== undefined) return known
    const state = new Protocol.StreamState(this.tokenFloor)
    this.streams.set(name, state)
    this.lastStream = state
    return state
  }

  /** Removes all that is known of a stream; its tokens go on from where they were, should it come again. */
  forgetStream(name: string): boolean {
    const state = this.stream(name)
    if (state === undefined) return false
    this.lastStream = undefined
    this.tokenFloor = Math.max(this.tokenFloor, state.token)
    return this.streams.delete(name)
  }

  /**
   * Removes what is expired, in slices: each `next` does one, and tells whether there is more.
   */
  *sweep(now: number): Generator<void, void> {
    const { table } = this
    let worked = 0
    let from = performance.now()
    let budget = sliceSize
    for (const tick of table.dueTicks(now)) {
      for (let entry = table.firstOfTick(tick); entry !== -1; entry = table.firstOfTick(tick)) {
        table.remove(entry)
        this.expired += 1
        if (--budget === 0) {
          budget = sliceSize
          worked += performance.now() - from
          yield
          from = performance.now()
        }
      }
    }
    for (let at = this.keys.claimCount; at > 0; ) {
      const size = table.size
      at = this.keys.forgetOldClaims(now, at, sliceSize)
      this.expired += size - table.size
      worked += performance.now() - from
      if (at > 0) yield
      from = performance.now()
    }
    this.sweeps += 1
    this.lastSweepMillis = worked
    this.totalSweepMillis += worked
    this.noteSize()
  }

  /** Goes on with an eviction that the bound has begun, down to 80 % of it: each `next` does one slice. */
  *evict(now: number): Generator<void, void> {
    this.now = now
    while (this.evicting) {
      this.evictSome(sliceSize)
      if (this.table.size <= this.evictDownTo || this.table.completed === 0) this.evicting = false
      else yield
    }
  }

  private makeRoom(): boolean {
    this.removeSomeOver()
    if (this.table.size < this.table.bound) return true
    if (this.whenFull === "reject") return false
    this.evictSome(Math.min(evictedAtOnce, Math.max(1, this.table.bound - this.evictDownTo)))
    if (this.table.size >= this.table.bound) return false
    if (!this.evicting && this.table.size > this.evictDownTo) {
      this.evicting = true
      this.onPressure()
    }
    return true
  }

  /** What nothing is lost with: completed keys whose retention is over, and claims that are over. */
  private removeSomeOver(): void {
    const { table, now } = this
    const before = table.size
    this.removeSomeDue(before - evictedAtOnce)
    if (table.size >= table.bound) this.keys.forgetOverClaims(now, evictedAtOnce)
    this.expired += before - table.size
  }

  /** Completed keys that are due, down to that size; looks through the calendar once a second at most. */
  private removeSomeDue(downTo: number): void {
    const { table, now } = this
    if (now < this.nothingDueBefore) return
    for (const tick of table.dueTicks(now)) {
      for (let entry = table.firstOfTick(tick); entry !== -1; entry = table.firstOfTick(tick)) {
        if (table.size <= downTo) return
        table.remove(entry)
      }
    }
    this.nothingDueBefore = now + 1_000
  }

  /** The completed keys that were used longest ago; a live claim is never evicted (invariant 5). */
  private evictSome(count: number): void {
    for (let evicted = 0; evicted < count && this.table.size > this.evictDownTo; evicted++) {
      const entry = this.table.leastRecentlyUsed()
      if (entry === -1) return
      if (this.table.completedUntil(entry) <= this.now) this.expired += 1
      else this.evictions += 1
      this.table.remove(entry)
    }
  }

  private noteSize(): void {
    const { size } = this.table
    if (size > this.largestSize) this.largestSize = size
    const near = size >= this.sweepFrom
    if (near && !this.nearBound) this.onPressure()
    this.nearBound = near
  }
}
