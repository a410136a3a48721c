/**
 * What a near cache knows: keys that are completed, exactly as the store would answer for them, until a time. Bounded
 * by entries and by characters; forgetting any of them costs a question to the store and no more. No clock: times are
 * given, in milliseconds of any clock that never goes back.
 */
import type { Protocol } from "@tidemark/core"
import { CompactKeyTable } from "./CompactKeyTable.ts"

/** Expired entries that are removed at once; the others follow at the next call. */
const sweptAtOnce = 512
/** How often the calendar of expiries is looked at, in milliseconds. */
const sweepEveryMillis = 1_000

/** In the table's terms an entry is held by a claim before it is completed: here for no time at all. */
const nobody = (): Protocol.KeyClaimRecord => ({
  claimId: "",
  owner: "",
  token: 0,
  leaseMillis: 0,
  until: 0,
  namespace: "",
  requested: [],
  held: 0,
  entries: [],
  slot: -1,
  at: -1
})

export interface CompletedKeysOptions {
  /** Keys at most. */
  readonly maxEntries: number
  /** Characters at most, of keys, results and fingerprints together. */
  readonly maxCharacters: number
  readonly now: number
}

export class CompletedKeys {
  /** Entries that were forgotten before their time, for want of room. */
  evictions = 0
  private readonly table: CompactKeyTable
  private readonly maxCharacters: number
  private readonly holder = nobody()
  private sweptAt: number

  constructor({ maxCharacters, maxEntries, now }: CompletedKeysOptions) {
    this.table = new CompactKeyTable(maxEntries, now)
    this.table.makeRoom = () => this.evictOne()
    this.maxCharacters = maxCharacters
    this.sweptAt = now
  }

  get size(): number {
    return this.table.size
  }

  get estimatedBytes(): number {
    return this.table.estimatedBytes
  }

  /**
   * What the store would answer to a claim on these keys: for each that it is completed, or that its payload is another.
   * `undefined` unless all of them are known.
   */
  answer(
    namespace: string,
    items: ReadonlyArray<Protocol.KeyItem>,
    now: number
  ): ReadonlyArray<Protocol.KeyClaimAnswer> | undefined {
    const { table } = this
    const entries = new Array<number>(items.length)
    for (let index = 0; index < items.length; index++) {
      const entry = table.find(namespace, items[index].key)
      if (entry === -1 || now >= table.completedUntil(entry)) return undefined
      entries[index] = entry
    }
    return items.map(({ fingerprint }, index): Protocol.KeyClaimAnswer => {
      const entry = entries[index]
      const stored = table.fingerprint(entry)
      if (fingerprint !== undefined && stored !== undefined && fingerprint !== stored) {
        return { _tag: "Mismatch", fingerprint: stored }
      }
      table.touch(entry)
      return { _tag: "Completed", result: table.result(entry) }
    })
  }

  /** Takes in that a key is completed, until then; what takes too much room for that is left out. */
  add(
    namespace: string,
    completion: Protocol.KeyCompletion & Protocol.KeyItem,
    until: number,
    now: number
  ): void {
    const { fingerprint, key, result } = completion
    this.remove(namespace, key)
    this.sweep(now)
    const characters = key.length + (result?.length ?? 0) + (fingerprint?.length ?? 0)
    if (characters > this.maxCharacters || until <= now) return
    while (this.table.characters + characters > this.maxCharacters && this.evictOne()) {}
    const entry = this.table.insert(namespace, key, this.holder)
    this.table.setFingerprint(entry, fingerprint)
    this.table.complete(entry, until, result)
  }

  remove(namespace: string, key: string): void {
    const entry = this.table.find(namespace, key)
    if (entry !== -1) this.table.remove(entry)
  }

  private evictOne(): boolean {
    const entry = this.table.leastRecentlyUsed()
    if (entry === -1) return false
    this.evictions += 1
    this.table.remove(entry)
    return true
  }

  /** Now and then, a little of what is over. */
  private sweep(now: number): void {
    if (now - this.sweptAt < sweepEveryMillis) return
    let left = sweptAtOnce
    for (const tick of this.table.dueTicks(now)) {
      for (let entry = this.table.firstOfTick(tick); entry !== -1; entry = this.table.firstOfTick(tick)) {
        if (left-- === 0) return
        this.table.remove(entry)
      }
    }
    this.sweptAt = now
  }
}
