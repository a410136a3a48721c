/**
 * The rules of the protocol for idempotency keys: who is granted what, what supersedes what, what `complete`
 * answers. As pure as `StreamState`: no clock, no randomness; the same calls with the same times give the same
 * answers.
 *
 * The rules are kept apart from how entries are laid out in memory: they work on a `KeyTable`, which the memory
 * store implements in some 100 bytes an entry and with a bound, and {@link MapKeyTable} in the plainest way, for
 * the model that other stores are compared with.
 */
import { ClaimList } from "./ClaimList.ts"
import { type ClaimRecord, type ClaimTerms, isForgotten, isLive, nextToken, renewedUntil } from "./Claims.ts"

/** One key of a claim. */
export interface KeyItem {
  readonly key: string
  /** A digest of the payload: the same key with another digest is a `Mismatch`. */
  readonly fingerprint?: string | undefined
}

/** One key of a completion. */
export interface KeyCompletion {
  readonly key: string
  /** What later askers get, encoded as text; `undefined`: nothing. */
  readonly result?: string | undefined
}

/** What a claim answers for one key. */
export type KeyClaimAnswer =
  | { readonly _tag: "Claimed"; readonly token: number; readonly until: number }
  | { readonly _tag: "Completed"; readonly result: string | undefined }
  | { readonly _tag: "InFlight"; readonly until: number; readonly owner: string }
  | { readonly _tag: "Mismatch"; readonly fingerprint: string }

/** What a completion answers for one key. */
export type KeyCompleteAnswer = "Completed" | "AlreadyCompleted" | "LeaseLost"

/** What is known of one key. */
export type KeyStatus =
  | { readonly _tag: "Unknown" }
  | { readonly _tag: "Completed"; readonly result: string | undefined; readonly until: number }
  | { readonly _tag: "InFlight"; readonly until: number; readonly owner: string }

/** A claim on keys, while at least one of them is held. */
export interface KeyClaimRecord extends ClaimRecord {
  readonly namespace: string
  readonly requested: ReadonlyArray<KeyItem>
  /** How many keys it still holds. */
  held: number
  /** Its entries, in the order of `requested`; -1 where a key was not granted. May be out of date: to be checked. */
  readonly entries: Array<number>
  /** The table's own. */
  slot: number
  /** The list's own. */
  at: number
}

/**
 * Where entries are kept. An entry is named by a number, which stays the same until it is removed; -1 is none.
 * An entry is either held by a claim or completed.
 */
export interface KeyTable {
  readonly find: (namespace: string, key: string) => number
  /** @returns the new entry, or -1 when there is no room. */
  readonly insert: (namespace: string, key: string, claim: KeyClaimRecord) => number
  readonly remove: (entry: number) => void
  /** The claim that holds the entry; `undefined` where it is completed, or was removed. */
  readonly claimOf: (entry: number) => KeyClaimRecord | undefined
  readonly setClaim: (entry: number, claim: KeyClaimRecord) => void
  readonly complete: (entry: number, until: number, result: string | undefined) => void
  /** When a completed entry is forgotten. */
  readonly completedUntil: (entry: number) => number
  readonly result: (entry: number) => string | undefined
  readonly fingerprint: (entry: number) => string | undefined
  readonly setFingerprint: (entry: number, fingerprint: string | undefined) => void
  /** A completed entry was asked for. */
  readonly touch: (entry: number) => void
}

export type KeyClaimOutcome =
  | { readonly _tag: "Answers"; readonly answers: ReadonlyArray<KeyClaimAnswer>; readonly granted: number }
  | { readonly _tag: "ClaimIdReused" }
  /** There was no room for all; nothing was granted. */
  | { readonly _tag: "Full" }

/** What a claim on one key comes to. */
export type OneKeyClaimOutcome =
  | KeyClaimAnswer
  | { readonly _tag: "ClaimIdReused" }
  /** There was no room for it. */
  | { readonly _tag: "Full" }

const claimIdReused = { _tag: "ClaimIdReused" } as const
const full = { _tag: "Full" } as const

export class KeyState {
  private readonly table: KeyTable
  private readonly claims = new ClaimList<KeyClaimRecord>()
  private lastToken = 0
  /** No claim is over before this time. */
  private noneOverBefore = Number.POSITIVE_INFINITY

  constructor(table: KeyTable) {
    this.table = table
  }

  get claimCount(): number {
    return this.claims.size
  }

  claim(namespace: string, items: ReadonlyArray<KeyItem>, terms: ClaimTerms, now: number): KeyClaimOutcome {
    const known = this.findClaim(terms.claimId, now)
    if (known !== undefined) {
      if (!sameRequest(known, namespace, items)) return claimIdReused
      return {
        _tag: "Answers",
        answers: items.map((item, index) => this.answerAgain(known, items, index, item, now)),
        granted: known.held
      }
    }
    const claim = newClaim(namespace, items, terms, nextToken(this.lastToken, now), now)
    const claimed: KeyClaimAnswer = { _tag: "Claimed", token: claim.token, until: claim.until }
    const answers = new Array<KeyClaimAnswer>(items.length)
    for (let index = 0; index < items.length; index++) {
      const item = items[index]
      const entry = this.table.find(namespace, item.key)
      const refusal = entry === -1 ? undefined : this.refusal(entry, item, now)
      if (refusal !== undefined) {
        claim.entries[index] = -1
      } else if (!this.take(claim, index, item, entry)) {
        this.giveBack(claim)
        return full
      }
      answers[index] = refusal ?? claimed
    }
    if (claim.held > 0) this.keep(claim)
    return { _tag: "Answers", answers, granted: claim.held }
  }

  /** What {@link claim} does, for one key: the same rules and effects, with fewer objects. */
  claimKey(namespace: string, item: KeyItem, terms: ClaimTerms, now: number): OneKeyClaimOutcome {
    if (this.findClaim(terms.claimId, now) !== undefined) {
      const outcome = this.claim(namespace, [item], terms, now)
      return outcome._tag === "Answers" ? outcome.answers[0] : outcome
    }
    const entry = this.table.find(namespace, item.key)
    if (entry !== -1) {
      const refusal = this.refusal(entry, item, now)
      if (refusal !== undefined) return refusal
    }
    const claim = newClaim(namespace, [item], terms, nextToken(this.lastToken, now), now)
    if (!this.take(claim, 0, item, entry)) return full
    this.keep(claim)
    return { _tag: "Claimed", token: claim.token, until: claim.until }
  }

  complete(
    claimId: string,
    namespace: string,
    items: ReadonlyArray<KeyCompletion>,
    retentionMillis: number,
    now: number
  ): ReadonlyArray<KeyCompleteAnswer> {
    const claim = this.findClaim(claimId, now)
    const answers = new Array<KeyCompleteAnswer>(items.length)
    for (let index = 0; index < items.length; index++) {
      answers[index] = this.completeOne(claim, namespace, items[index], index, retentionMillis, now)
    }
    return answers
  }

  /** What {@link complete} does, for one key. */
  completeKey(
    claimId: string,
    namespace: string,
    item: KeyCompletion,
    retentionMillis: number,
    now: number
  ): KeyCompleteAnswer {
    return this.completeOne(this.findClaim(claimId, now), namespace, item, 0, retentionMillis, now)
  }

  /** Gives back undone what is held of `keys`, or all. Of an unknown claim: nothing to do (invariant 7). */
  release(claimId: string, keys?: ReadonlyArray<string>): void {
    const claim = this.claims.find(claimId)
    if (claim === undefined) return
    if (keys === undefined) this.giveBack(claim)
    else for (const key of keys) this.giveBackOne(claim, key)
  }

  /** The keys that a claim asked for; of an unknown claim none. */
  keysOf(claimId: string): ReadonlyArray<string> {
    return this.claims.find(claimId)?.requested.map((item) => item.key) ?? []
  }

  /** @returns until when, or `undefined` where the lease is lost. */
  renew(claimId: string, leaseMillis: number, now: number): number | undefined {
    const claim = this.findClaim(claimId, now)
    if (claim === undefined) return undefined
    claim.until = renewedUntil(claim, leaseMillis, now)
    return claim.until
  }

  /** A question, never a gate: the answer may be old by the time it is read. */
  lookup(namespace: string, key: string, now: number): KeyStatus {
    const { table } = this
    const entry = table.find(namespace, key)
    if (entry === -1) return { _tag: "Unknown" }
    const holder = table.claimOf(entry)
    if (holder !== undefined) {
      return isLive(holder, now)
        ? { _tag: "InFlight", until: holder.until, owner: holder.owner }
        : { _tag: "Unknown" }
    }
    const until = table.completedUntil(entry)
    if (now >= until) return { _tag: "Unknown" }
    table.touch(entry)
    return { _tag: "Completed", result: table.result(entry), until }
  }

  /** An operator's act: as if the key had never been seen. Supersedes the claim on it. */
  forget(namespace: string, key: string): boolean {
    const entry = this.table.find(namespace, key)
    if (entry === -1) return false
    this.removeEntry(entry)
    return true
  }

  /**
   * Forgets claims whose time has long been over, for sweeps: looks at up to `count` claims before number `below`.
   *
   * @returns where to go on from; 0 when all were looked at.
   */
  forgetOldClaims(now: number, below: number, count: number): number {
    const { all } = this.claims
    let at = Math.min(below, all.length)
    for (const end = Math.max(0, at - count); at > end; ) {
      at -= 1
      if (isForgotten(all[at], now)) this.giveBack(all[at])
    }
    return at
  }

  /**
   * Forgets claims that are over, before their 10 leases have passed, to make room for live ones: being kept is a
   * convenience for their late owners (invariant 3). Stops when `count` keys or more are free again.
   */
  forgetOverClaims(now: number, count: number): void {
    if (now < this.noneOverBefore) return
    const { all } = this.claims
    let free = 0
    let earliest = Number.POSITIVE_INFINITY
    for (let at = all.length - 1; at >= 0; at--) {
      const claim = all[at]
      if (isLive(claim, now)) {
        earliest = Math.min(earliest, claim.until)
      } else {
        free += claim.held
        this.giveBack(claim)
        // there may be more: they are looked for when room is needed again
        if (free >= count) return
      }
    }
    this.noneOverBefore = earliest
  }

  /**
   * The entry of a key that is about to be completed, most often asked for in the order in which it was claimed:
   * then no look-up is needed.
   */
  private entryOf(claim: KeyClaimRecord | undefined, namespace: string, key: string, index: number): number {
    if (claim !== undefined && index < claim.requested.length && claim.requested[index].key === key) {
      const entry = claim.entries[index]
      if (entry !== -1 && claim.namespace === namespace && this.table.claimOf(entry) === claim) return entry
    }
    return this.table.find(namespace, key)
  }

  private findClaim(claimId: string, now: number): KeyClaimRecord | undefined {
    const claim = this.claims.find(claimId)
    if (claim === undefined || !isForgotten(claim, now)) return claim
    this.giveBack(claim)
    return undefined
  }

  /**
   * Gives a key to a claim: a new entry, or one whose time is over, which it takes from whoever holds it.
   *
   * @returns whether there was room.
   */
  private take(claim: KeyClaimRecord, index: number, item: KeyItem, known: number): boolean {
    const { table } = this
    let entry = known
    if (entry === -1) {
      entry = table.insert(claim.namespace, item.key, claim)
      if (entry === -1) return false
    } else {
      const holder = table.claimOf(entry)
      if (holder !== undefined) this.letGo(holder)
      table.setClaim(entry, claim)
    }
    table.setFingerprint(entry, item.fingerprint)
    claim.entries[index] = entry
    claim.held += 1
    return true
  }

  /** A claim that was granted something. */
  private keep(claim: KeyClaimRecord): void {
    this.claims.add(claim)
    this.lastToken = claim.token
    if (claim.until < this.noneOverBefore) this.noneOverBefore = claim.until
  }

  private completeOne(
    claim: KeyClaimRecord | undefined,
    namespace: string,
    item: KeyCompletion,
    index: number,
    retentionMillis: number,
    now: number
  ): KeyCompleteAnswer {
    const { table } = this
    const entry = this.entryOf(claim, namespace, item.key, index)
    if (entry === -1) return "LeaseLost"
    const holder = table.claimOf(entry)
    if (holder === undefined) return now < table.completedUntil(entry) ? "AlreadyCompleted" : "LeaseLost"
    if (holder !== claim) return "LeaseLost"
    table.complete(entry, now + retentionMillis, item.result)
    this.letGo(holder)
    return "Completed"
  }

  /** Why an existing entry can't be had; `undefined` where its time is over. */
  private refusal(entry: number, item: KeyItem, now: number): KeyClaimAnswer | undefined {
    const { table } = this
    const holder = table.claimOf(entry)
    if (holder === undefined ? now >= table.completedUntil(entry) : !isLive(holder, now)) return undefined
    if (item.fingerprint !== undefined) {
      const stored = table.fingerprint(entry)
      if (stored !== undefined && stored !== item.fingerprint)
        return { _tag: "Mismatch", fingerprint: stored }
    }
    if (holder !== undefined) return { _tag: "InFlight", until: holder.until, owner: holder.owner }
    table.touch(entry)
    return { _tag: "Completed", result: table.result(entry) }
  }

  /** The same claim asked again (its answer was lost): the same token and keys, the lease not prolonged. */
  private answerAgain(
    claim: KeyClaimRecord,
    items: ReadonlyArray<KeyItem>,
    index: number,
    item: KeyItem,
    now: number
  ): KeyClaimAnswer {
    const entry = this.table.find(claim.namespace, item.key)
    const first = items.findIndex((other) => other.key === item.key) === index
    if (entry !== -1 && first && this.table.claimOf(entry) === claim) {
      return { _tag: "Claimed", token: claim.token, until: claim.until }
    }
    const refusal = entry === -1 ? undefined : this.refusal(entry, item, now)
    // what this claim did not get, or gave back, it never gets later: its token may be too old by now
    return refusal ?? { _tag: "InFlight", until: now, owner: claim.owner }
  }

  private giveBack(claim: KeyClaimRecord): void {
    for (const item of claim.requested) this.giveBackOne(claim, item.key)
    this.claims.remove(claim)
  }

  private giveBackOne(claim: KeyClaimRecord, key: string): void {
    const entry = this.table.find(claim.namespace, key)
    if (entry !== -1 && this.table.claimOf(entry) === claim) this.removeEntry(entry)
  }

  private removeEntry(entry: number): void {
    const holder = this.table.claimOf(entry)
    this.table.remove(entry)
    if (holder !== undefined) this.letGo(holder)
  }

  private letGo(claim: KeyClaimRecord): void {
    claim.held -= 1
    if (claim.held === 0) this.claims.remove(claim)
  }
}

const newClaim = (
  namespace: string,
  requested: ReadonlyArray<KeyItem>,
  { claimId, leaseMillis, owner }: ClaimTerms,
  token: number,
  now: number
): KeyClaimRecord => ({
  claimId,
  owner,
  token,
  leaseMillis,
  until: now + leaseMillis,
  namespace,
  requested,
  held: 0,
  entries: new Array<number>(requested.length),
  slot: -1,
  at: -1
})

const sameRequest = (claim: KeyClaimRecord, namespace: string, items: ReadonlyArray<KeyItem>): boolean =>
  claim.namespace === namespace &&
  (claim.requested === items ||
    (claim.requested.length === items.length &&
      claim.requested.every(
        (item, index) => item.key === items[index].key && item.fingerprint === items[index].fingerprint
      )))
