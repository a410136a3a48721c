/**
 * The rules of the protocol for one stream: who is granted what, what supersedes what, what `complete` answers.
 *
 * Pure in the sense that counts: no clock, no randomness, nothing outside; the same calls with the same times give
 * the same answers. The state is changed in place, since a claim in memory must cost some tens of nanoseconds.
 * The memory store runs it directly; for every other store it is the model that the store is compared with.
 */
import * as OffsetRanges from "../OffsetRanges.ts"
import * as OffsetSet from "../OffsetSet.ts"
import { ClaimList } from "./ClaimList.ts"
import { type ClaimTerms, isForgotten, isLive, nextToken, renewedUntil } from "./Claims.ts"
import type { KeyCompleteAnswer } from "./KeyState.ts"
import { StreamClaim, type StreamClaimRecord } from "./StreamClaim.ts"

export type { StreamClaimRecord } from "./StreamClaim.ts"

/** A part of what was asked for that another claim holds. */
export interface HeldRanges {
  readonly ranges: OffsetRanges.OffsetRanges
  /** When the holder's lease ends unless it is renewed: milliseconds since the epoch, by the store's clock. */
  readonly until: number
  readonly owner: string
}

/** The answer to a claim: the parts of what was asked for, disjoint, and together all of it. */
export interface OffsetClaimAnswer {
  /** Ours to process; empty where nothing could be granted. */
  readonly granted: OffsetRanges.OffsetRanges
  /** The fencing token, where something was granted; else `undefined`. */
  readonly token: number | undefined
  /** When our lease ends unless it is renewed, by the store's clock; `undefined` where nothing was granted. */
  readonly until: number | undefined
  readonly completed: OffsetRanges.OffsetRanges
  readonly held: ReadonlyArray<HeldRanges>
}

/** The answer to a complete: the parts of what was given, disjoint, and together all of it (invariant 3). */
export interface CompleteAnswer {
  readonly completed: OffsetRanges.OffsetRanges
  /** Was completed before, by whomever; nothing changed. */
  readonly alreadyCompleted: OffsetRanges.OffsetRanges
  /** Not held by this claim (any more); nothing changed. */
  readonly leaseLost: OffsetRanges.OffsetRanges
}

/** The answer to a claim on one offset, in the words of the answers for keys. */
export type OneOffsetAnswer =
  | { readonly _tag: "Claimed"; readonly token: number; readonly until: number }
  | { readonly _tag: "Completed" }
  | { readonly _tag: "InFlight"; readonly until: number; readonly owner: string }

/** A live claim, for people. */
export interface LiveClaim {
  readonly claimId: string
  readonly owner: string
  readonly token: number
  readonly until: number
  readonly ranges: OffsetRanges.OffsetRanges
}

/** How far a stream has come. */
export interface Progress {
  /** Where the first claim began. */
  readonly origin: number
  /** The end of the contiguous completed run from the origin. */
  readonly watermark: number
  /** One past the highest completed offset; the origin where nothing is. */
  readonly highest: number
  /** How many offsets between watermark and highest are not completed. */
  readonly gapCount: number
  readonly completed: OffsetRanges.OffsetRanges
  readonly epoch: number
  /** The last fencing token that was given out. */
  readonly lastToken: number
  readonly claims: ReadonlyArray<LiveClaim>
  /** What an owner has noted last; `undefined` where none has. */
  readonly note: string | undefined
}

/** All that a stream is, for stores that keep it outside of memory. */
export interface StreamSnapshot {
  /** The completed offsets, with their origin. */
  readonly completed: OffsetSet.OffsetSet
  readonly epoch: number
  readonly lastToken: number
  readonly claims: ReadonlyArray<StreamClaimRecord>
  readonly note: string | undefined
}

const nothingHeld: ReadonlyArray<HeldRanges> = []
const oneCompleted: OneOffsetAnswer = { _tag: "Completed" }

export class StreamState {
  private readonly completed: OffsetSet.OffsetSet
  private started: boolean
  private epoch = 0
  private lastToken: number
  private note: string | undefined
  private readonly claims = new ClaimList<StreamClaim>()

  /** @param tokenFloor - the last token that this stream may have given out in an earlier life. */
  constructor(tokenFloor = 0, completed: OffsetSet.OffsetSet = OffsetSet.make(0)) {
    this.completed = completed
    this.started = false
    this.lastToken = tokenFloor
  }

  /** A stream as it was when the snapshot was taken, whose set of completed offsets becomes its own. */
  static restore({ completed, epoch, lastToken, claims, note }: StreamSnapshot): StreamState {
    const state = new StreamState(lastToken, completed)
    state.started = true
    state.epoch = epoch
    state.note = note
    for (const claim of claims) {
      const { token, until, requested, held } = claim
      state.claims.add(
        StreamClaim.onRanges(claim, token, until, requested, held, completed.subtractFrom(held))
      )
    }
    return state
  }

  /** All that the stream is, to be read and not changed; `undefined` where nothing was ever claimed of it. */
  get snapshot(): StreamSnapshot | undefined {
    if (!this.started) return undefined
    const { completed, epoch, lastToken, note } = this
    return { completed, epoch, lastToken, claims: this.claims.all, note }
  }

  get token(): number {
    return this.lastToken
  }

  /** What the completed set and the claims cost, roughly. */
  get estimatedBytes(): number {
    return 400 + this.completed.estimatedBytes + this.claims.size * 200
  }

  /** @returns the answer, or `undefined` when the claim id is in use for other ranges (`ClaimIdReused`). */
  claim(ranges: OffsetRanges.OffsetRanges, terms: ClaimTerms, now: number): OffsetClaimAnswer | undefined {
    this.forgetOldClaims(now)
    const known = this.claims.find(terms.claimId)
    if (known !== undefined) {
      return OffsetRanges.equals(known.requested, ranges) ? this.answerAgain(known, now) : undefined
    }
    const { missing, present } = this.partition(ranges)
    if (OffsetRanges.isEmpty(missing)) {
      return { granted: missing, token: undefined, until: undefined, completed: present, held: nothingHeld }
    }
    const held = this.claims.size === 0 ? nothingHeld : this.heldByOthers(missing, undefined, now)
    let granted = missing
    if (held.length > 0) {
      granted = OffsetRanges.isOpenEnded(ranges) ? OffsetRanges.empty : withoutHeld(missing, held)
      if (OffsetRanges.isEmpty(granted)) {
        return { granted, token: undefined, until: undefined, completed: present, held }
      }
    }
    this.dropOverlapped(granted)
    this.include(OffsetRanges.first(granted) as number)
    const token = nextToken(this.lastToken, now)
    this.lastToken = token
    const until = now + terms.leaseMillis
    this.claims.add(StreamClaim.onRanges(terms, token, until, ranges, granted))
    return { granted, token, until, completed: present, held }
  }

  /** What {@link claim} does, for one offset: the same rules and effects, without sets of ranges. */
  claimOffset(offset: number, terms: ClaimTerms, now: number): OneOffsetAnswer | undefined {
    this.forgetOldClaims(now)
    if (this.claims.find(terms.claimId) !== undefined) {
      return answerOfOne(this.claim(OffsetRanges.of(offset), terms, now))
    }
    if (this.isCompleted(offset)) return oneCompleted
    const holder = this.holderOf(offset)
    if (holder !== undefined) {
      if (isLive(holder, now)) return { _tag: "InFlight", until: holder.until, owner: holder.owner }
      this.claims.remove(holder)
    }
    this.include(offset)
    const token = nextToken(this.lastToken, now)
    this.lastToken = token
    const until = now + terms.leaseMillis
    this.claims.add(StreamClaim.onOffset(terms, token, until, offset))
    return { _tag: "Claimed", token, until }
  }

  complete(claimId: string, ranges: OffsetRanges.OffsetRanges, now: number): CompleteAnswer {
    const { missing, present } = this.partition(ranges)
    const claim = this.claims.find(claimId)
    if (claim === undefined || isForgotten(claim, now)) {
      return { completed: OffsetRanges.empty, alreadyCompleted: present, leaseLost: missing }
    }
    const inside = OffsetRanges.intersect(missing, claim.held)
    if (!OffsetRanges.isEmpty(inside)) {
      claim.remaining -= this.completed.addRanges(inside)
      if (claim.remaining === 0) this.claims.remove(claim)
    }
    return {
      completed: inside,
      alreadyCompleted: present,
      leaseLost: inside === missing ? OffsetRanges.empty : OffsetRanges.subtract(missing, inside)
    }
  }

  /** What {@link complete} does, for one offset. */
  completeOffset(claimId: string, offset: number, now: number): KeyCompleteAnswer {
    if (this.isCompleted(offset)) return "AlreadyCompleted"
    const claim = this.claims.find(claimId)
    if (claim === undefined || isForgotten(claim, now) || !claim.holds(offset)) return "LeaseLost"
    this.completed.addMissing(offset)
    claim.remaining -= 1
    if (claim.remaining === 0) this.claims.remove(claim)
    return "Completed"
  }

  /** Gives back undone what is not completed of `ranges`, or of all. Of an unknown claim: nothing to do. */
  release(claimId: string, ranges?: OffsetRanges.OffsetRanges): void {
    const claim = this.claims.find(claimId)
    if (claim === undefined) return
    const held = ranges === undefined ? OffsetRanges.empty : OffsetRanges.subtract(claim.held, ranges)
    const remaining = this.completed.subtractFrom(held)
    if (OffsetRanges.isEmpty(remaining)) {
      this.claims.remove(claim)
      return
    }
    claim.reduce(held, remaining)
  }

  /** @returns until when, or `undefined` where the lease is lost. */
  renew(claimId: string, leaseMillis: number, now: number): number | undefined {
    const claim = this.claims.find(claimId)
    if (claim === undefined || isForgotten(claim, now)) return undefined
    claim.until = renewedUntil(claim, leaseMillis, now)
    return claim.until
  }

  /** Notes something for later owners. @returns whether the claim is there to do so. */
  annotate(claimId: string, note: string, now: number): boolean {
    const claim = this.claims.find(claimId)
    if (claim === undefined || isForgotten(claim, now)) return false
    this.note = note
    return true
  }

  isCompleted(offset: number): boolean {
    return this.started && this.completed.has(offset)
  }

  /** @returns `undefined` for a stream that nothing was ever claimed of. */
  progress(now: number): Progress | undefined {
    if (!this.started) return undefined
    return {
      origin: this.completed.origin,
      watermark: this.completed.watermark,
      highest: this.completed.highest,
      gapCount: this.completed.gapCount,
      completed: this.completed.toRanges(),
      epoch: this.epoch,
      lastToken: this.lastToken,
      claims: this.claims.all
        .filter((claim) => isLive(claim, now))
        .map(({ claimId, owner, token, until, held }) => ({
          claimId,
          owner,
          token,
          until,
          ranges: this.completed.subtractFrom(held)
        })),
      note: this.note
    }
  }

  /** An operator's act: what is at `to` or above counts as never completed. Supersedes all claims. */
  rewind(to: number): void {
    if (!this.started) {
      this.started = true
      this.completed.reset(to)
    } else if (to < this.completed.origin) {
      // what lies between the new origin and the old one was never ours, and is to be processed too
      this.completed.reset(to)
    } else {
      this.completed.remove(to, OffsetRanges.END)
    }
    this.supersede()
  }

  /** An operator's act: `ranges` count as completed. Supersedes all claims. */
  skip(ranges: OffsetRanges.OffsetRanges): void {
    const first = OffsetRanges.first(ranges)
    if (first === undefined) return
    this.include(first)
    this.completed.addRanges(ranges)
    this.supersede()
  }

  /** Takes over the progress and the note (not the claims, not the tokens) of another stream. */
  adopt(from: Progress): void {
    this.started = true
    this.completed.reset(from.origin)
    this.completed.addRanges(from.completed)
    this.epoch = from.epoch
    this.note = from.note
    this.claims.clear()
  }

  /** The origin is where the first claim began, or a lower one since. */
  private include(first: number): void {
    if (!this.started) {
      this.started = true
      this.completed.reset(first)
    } else if (first < this.completed.origin) {
      this.completed.lowerOrigin(first)
    }
  }

  private supersede(): void {
    this.epoch += 1
    this.claims.clear()
  }

  /** What of the ranges is completed, and what is not. */
  private partition(ranges: OffsetRanges.OffsetRanges): OffsetSet.Partition {
    return this.started ? this.completed.partition(ranges) : { missing: ranges, present: OffsetRanges.empty }
  }

  private forgetOldClaims(now: number): void {
    const { all } = this.claims
    for (let index = all.length - 1; index >= 0; index--) {
      if (isForgotten(all[index], now)) this.claims.remove(all[index])
    }
  }

  /** The same claim asked again (its answer was lost): the same token and ranges, the lease not prolonged. */
  private answerAgain(claim: StreamClaim, now: number): OffsetClaimAnswer {
    const { missing, present } = this.completed.partition(claim.requested)
    const granted = OffsetRanges.intersect(missing, claim.held)
    return {
      granted,
      token: claim.token,
      until: claim.until,
      completed: present,
      held: this.heldByOthers(OffsetRanges.subtract(missing, granted), claim, now)
    }
  }

  /** At most one claim holds what is not completed: who gets it anew drops the one that is over. */
  private holderOf(offset: number): StreamClaim | undefined {
    const { all } = this.claims
    for (let index = 0; index < all.length; index++) if (all[index].holds(offset)) return all[index]
    return undefined
  }

  private heldByOthers(
    ranges: OffsetRanges.OffsetRanges,
    self: StreamClaim | undefined,
    now: number
  ): ReadonlyArray<HeldRanges> {
    let held: Array<HeldRanges> | undefined
    for (const claim of this.claims.all) {
      if (claim === self || !isLive(claim, now) || !claim.overlaps(ranges)) continue
      held ??= []
      held.push({
        ranges: OffsetRanges.intersect(ranges, claim.held),
        until: claim.until,
        owner: claim.owner
      })
    }
    return held ?? nothingHeld
  }

  /** Overlapping a claim that is over deletes it whole (invariant 3); live ones were left out of `granted`. */
  private dropOverlapped(granted: OffsetRanges.OffsetRanges): void {
    const { all } = this.claims
    for (let index = all.length - 1; index >= 0; index--) {
      if (all[index].overlaps(granted)) this.claims.remove(all[index])
    }
  }
}

/** What an answer says of the one offset that was asked for. */
export const answerOfOne = (answer: OffsetClaimAnswer | undefined): OneOffsetAnswer | undefined => {
  if (answer === undefined) return undefined
  const { granted, token, until, held } = answer
  if (token !== undefined && until !== undefined && !OffsetRanges.isEmpty(granted)) {
    return { _tag: "Claimed", token, until }
  }
  return held.length > 0 ? { _tag: "InFlight", until: held[0].until, owner: held[0].owner } : oneCompleted
}

/** What an answer says of the one offset that was completed. */
export const completionOfOne = ({ completed, leaseLost }: CompleteAnswer): KeyCompleteAnswer => {
  if (!OffsetRanges.isEmpty(completed)) return "Completed"
  return OffsetRanges.isEmpty(leaseLost) ? "AlreadyCompleted" : "LeaseLost"
}

const withoutHeld = (
  ranges: OffsetRanges.OffsetRanges,
  held: ReadonlyArray<HeldRanges>
): OffsetRanges.OffsetRanges => held.reduce((rest, part) => OffsetRanges.subtract(rest, part.ranges), ranges)
