import * as OffsetRanges from "../OffsetRanges.ts"
import type { Listed } from "./ClaimList.ts"
import type { ClaimRecord, ClaimTerms } from "./Claims.ts"

/** A claim as a stream remembers it. */
export interface StreamClaimRecord extends ClaimRecord {
  readonly requested: OffsetRanges.OffsetRanges
  /** What was granted and not given back. What of it is completed, the stream's completed set tells. */
  readonly held: OffsetRanges.OffsetRanges
}

const severalOffsets = -1

/**
 * A claim at work. A claim on one offset keeps the number: most often it is completed at once, and nobody ever asks
 * for its ranges.
 */
export class StreamClaim implements StreamClaimRecord, Listed {
  /**
   * Claims come and go, and when a full collection of garbage finds none, V8 throws away all the code that it compiled
   * for them. So one stays.
   */
  static readonly none: StreamClaim = new StreamClaim(
    { claimId: "", owner: "", leaseMillis: 1 },
    Number.MAX_SAFE_INTEGER,
    Number.MAX_SAFE_INTEGER,
    0,
    0,
    OffsetRanges.empty,
    OffsetRanges.empty
  )

  readonly claimId: string
  readonly owner: string
  readonly token: number
  readonly leaseMillis: number
  until: number
  /** How many offsets of `held` are not completed; `Infinity` for an open-ended claim. */
  remaining: number
  at = -1
  /** The one offset that was asked for and is held. */
  private readonly offset: number
  private requestedRanges: OffsetRanges.OffsetRanges
  private heldRanges: OffsetRanges.OffsetRanges

  private constructor(
    { claimId, owner, leaseMillis }: ClaimTerms,
    token: number,
    until: number,
    remaining: number,
    offset: number,
    requested: OffsetRanges.OffsetRanges,
    held: OffsetRanges.OffsetRanges
  ) {
    this.claimId = claimId
    this.owner = owner
    this.token = token
    this.leaseMillis = leaseMillis
    this.until = until
    this.remaining = remaining
    this.offset = offset
    this.requestedRanges = requested
    this.heldRanges = held
  }

  static onRanges(
    terms: ClaimTerms,
    token: number,
    until: number,
    requested: OffsetRanges.OffsetRanges,
    held: OffsetRanges.OffsetRanges,
    undone = held
  ): StreamClaim {
    return new StreamClaim(terms, token, until, sizeOf(undone), severalOffsets, requested, held)
  }

  static onOffset(terms: ClaimTerms, token: number, until: number, offset: number): StreamClaim {
    return new StreamClaim(terms, token, until, 1, offset, OffsetRanges.empty, OffsetRanges.empty)
  }

  get requested(): OffsetRanges.OffsetRanges {
    this.spellOut()
    return this.requestedRanges
  }

  get held(): OffsetRanges.OffsetRanges {
    this.spellOut()
    return this.heldRanges
  }

  holds(offset: number): boolean {
    return this.offset === severalOffsets
      ? OffsetRanges.contains(this.heldRanges, offset)
      : this.offset === offset
  }

  overlaps(ranges: OffsetRanges.OffsetRanges): boolean {
    return this.offset === severalOffsets
      ? OffsetRanges.overlaps(ranges, this.heldRanges)
      : OffsetRanges.contains(ranges, this.offset)
  }

  /** Holds only `held` from now on, of which `undone` is not completed. */
  reduce(held: OffsetRanges.OffsetRanges, undone: OffsetRanges.OffsetRanges): void {
    this.spellOut()
    this.heldRanges = held
    this.remaining = sizeOf(undone)
  }

  private spellOut(): void {
    if (this.offset === severalOffsets || this.requestedRanges !== OffsetRanges.empty) return
    this.requestedRanges = this.heldRanges = OffsetRanges.of(this.offset)
  }
}

const sizeOf = (ranges: OffsetRanges.OffsetRanges): number =>
  OffsetRanges.isOpenEnded(ranges) ? Number.POSITIVE_INFINITY : OffsetRanges.size(ranges)
