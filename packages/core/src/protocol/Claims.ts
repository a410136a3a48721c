/** What the rules for streams and the rules for keys have in common. */

/** How a claim is asked for. Times are milliseconds. */
export interface ClaimTerms {
  /** Random, made once by the caller, the same in every retry of this claim; names the claim in every verb. */
  readonly claimId: string
  /** A label for people: who is it? Never decides anything. */
  readonly owner: string
  readonly leaseMillis: number
}

/** After this many leases past its end, a claim that nobody overlapped is forgotten (invariant 3). */
export const leasesKept = 10

/** A claim as the rules remember it. */
export interface ClaimRecord {
  readonly claimId: string
  readonly owner: string
  readonly token: number
  readonly leaseMillis: number
  /** When the lease ends, by the store's clock. */
  until: number
}

export const isLive = (claim: ClaimRecord, now: number): boolean => now < claim.until

/** From when on a claim that nobody renewed or overlapped is as if it had never been. */
export const forgottenAt = (claim: ClaimRecord): number => claim.until + leasesKept * claim.leaseMillis

export const isForgotten = (claim: ClaimRecord, now: number): boolean => now >= forgottenAt(claim)

/** Never shortens, and revives a claim that is over but that nobody overlapped (invariant 7). */
export const renewedUntil = (claim: ClaimRecord, leaseMillis: number, now: number): number =>
  Math.max(claim.until, now + leaseMillis)

/**
 * The next fencing token (invariant 2): grows with every claim, and also across a restart that lost the last one,
 * as long as the clock is not behind it.
 */
export const nextToken = (last: number, nowMillis: number): number =>
  Math.max(last + 1, Math.floor(nowMillis * 1000))
