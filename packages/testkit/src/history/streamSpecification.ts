/**
 * What one stream may answer when many call it at once.
 *
 * Written from the words of the contract, apart from the rules in `Protocol`. The store's time of a call is only known
 * to lie between the call's start and its end: a lease may have been over where it can have been over then, and may
 * have lived where it can have lived.
 */
import { OffsetRanges } from "@tidemark/core"
import type { StreamCall, Timed } from "./History.ts"
import type { Specification } from "./linearizability.ts"

const { empty, equals, intersect, isEmpty, isOpenEnded, subtract, union } = OffsetRanges
type Ranges = OffsetRanges.OffsetRanges

interface StreamClaim {
  readonly id: string
  readonly requested: Ranges
  /** Granted, not given back, and not completed. */
  readonly open: Ranges
  readonly leaseMillis: number
  /** `undefined` while no answer told it. */
  readonly token: number | undefined
  /** The token lies between these. */
  readonly above: number
  readonly below: number
  /** The end of the lease; `undefined` while no answer told it. */
  readonly until: number | undefined
  /** The lease does not end earlier. */
  readonly notBefore: number
  /** The longest lease that was asked for: while its end is not known, that may be it. */
  readonly longestMillis: number
}

/** A stream as far as the answers so far tell. */
export interface StreamSpecificationState {
  readonly completed: Ranges
  readonly claims: ReadonlyArray<StreamClaim>
  readonly lastToken: number
  readonly note: string | undefined
}

/** After this many leases past its end a claim that nobody overlapped is forgotten (invariant 3). */
const leasesKept = 10

const read = (flat: ReadonlyArray<number>): Ranges => OffsetRanges.fromSortedUnsafe(flat)

type Call = Timed<StreamCall>
type CallOf<Verb extends StreamCall["verb"]> = Extract<StreamCall, { readonly verb: Verb }>
type State = StreamSpecificationState

/** @param skewMillis - how far the store's clock may be from the recorder's. */
export const streamSpecification = (skewMillis: number): Specification<State, Call> => {
  const earliestEnd = (claim: StreamClaim): number => claim.until ?? claim.notBefore
  const mayBeOver = (claim: StreamClaim, { to }: Call): boolean => earliestEnd(claim) <= to + skewMillis
  const mayLive = (claim: StreamClaim, { from }: Call): boolean =>
    claim.until === undefined || claim.until > from - skewMillis
  const mayBeForgotten = (claim: StreamClaim, { to }: Call): boolean =>
    earliestEnd(claim) + leasesKept * claim.leaseMillis <= to + skewMillis
  const mayBeKept = (claim: StreamClaim, { from }: Call): boolean =>
    claim.until === undefined || claim.until + leasesKept * claim.leaseMillis > from - skewMillis

  const without = (state: State, id: string): State => ({
    ...state,
    claims: state.claims.filter((claim) => claim.id !== id)
  })
  const replaced = (state: State, changed: StreamClaim): State =>
    isEmpty(changed.open)
      ? without(state, changed.id)
      : { ...state, claims: state.claims.map((claim) => (claim.id === changed.id ? changed : claim)) }
  /** The claim as the call may find it: kept, or no more. */
  const found = (state: State, id: string, call: Call): ReadonlyArray<StreamClaim | undefined> => {
    const claim = state.claims.find((one) => one.id === id)
    if (claim === undefined) return [undefined]
    const views: Array<StreamClaim | undefined> = []
    if (mayBeKept(claim, call)) views.push(claim)
    if (mayBeForgotten(claim, call)) views.push(undefined)
    return views
  }
  const endsRightly = (until: number, leaseMillis: number, { from, to }: Call): boolean =>
    until >= from + leaseMillis - skewMillis && until <= to + leaseMillis + skewMillis

  const askedAgain = (
    state: State,
    known: StreamClaim,
    call: Call,
    { answer, ranges }: CallOf<"claim">
  ): ReadonlyArray<State> => {
    const isSame = equals(known.requested, read(ranges))
    if (answer === undefined) return [state]
    if (answer === "ClaimIdReused") return isSame ? [] : [state]
    if (!isSame || !equals(read(answer.completed), intersect(known.requested, state.completed))) return []
    const { token, until } = answer
    if (!equals(read(answer.granted), known.open) || token === undefined || until === undefined) return []
    if (known.token === undefined ? token <= known.above || token >= known.below : token !== known.token)
      return []
    const untilFits =
      known.until === undefined
        ? until >= known.notBefore && until <= call.to + known.longestMillis + skewMillis
        : until === known.until
    if (!untilFits) return []
    const others = without(state, known.id).claims
    const rest = subtract(subtract(known.requested, read(answer.completed)), known.open)
    if (!heldFits(others, rest, answer.held, call)) return []
    return [{ ...replaced(state, { ...known, token, until }), lastToken: Math.max(state.lastToken, token) }]
  }

  /** Whether what an answer calls held is what others may hold then; each claim is live as a whole, or over. */
  const heldFits = (
    others: ReadonlyArray<StreamClaim>,
    asked: Ranges,
    held: ReadonlyArray<{ readonly ranges: ReadonlyArray<number>; readonly owner: string }>,
    call: Call
  ): boolean => {
    let explained = empty
    for (const claim of others) {
      const part = intersect(claim.open, asked)
      if (isEmpty(part)) continue
      const told = held
        .filter(({ owner }) => owner === claim.id)
        .reduce((all, { ranges }) => union(all, read(ranges)), empty)
      if (equals(told, part) ? !mayLive(claim, call) : !isEmpty(told) || !mayBeOver(claim, call)) return false
      explained = union(explained, told)
    }
    const told = held.reduce((all, { ranges }) => union(all, read(ranges)), empty)
    return equals(told, explained)
  }

  const granted = (
    state: State,
    call: Call,
    { claimId, leaseMillis, ranges }: CallOf<"claim">,
    grant: Ranges,
    told: { readonly token: number; readonly until: number } | undefined
  ): State => ({
    ...state,
    lastToken: told?.token ?? state.lastToken,
    claims: [
      ...state.claims
        .filter((claim) => !OffsetRanges.overlaps(claim.open, grant))
        .map((claim) =>
          claim.token === undefined && told !== undefined && told.token < claim.below
            ? { ...claim, below: told.token }
            : claim
        ),
      {
        id: claimId,
        requested: read(ranges),
        open: grant,
        leaseMillis,
        token: told?.token,
        above: state.lastToken,
        below: Number.POSITIVE_INFINITY,
        until: told?.until,
        notBefore: call.from + leaseMillis - skewMillis,
        longestMillis: leaseMillis
      }
    ]
  })

  const askedAnew = (state: State, call: Call, claim: CallOf<"claim">): ReadonlyArray<State> => {
    const { answer, leaseMillis } = claim
    const asked = read(claim.ranges)
    const missing = subtract(asked, state.completed)
    const overlapping = state.claims.filter((one) => OffsetRanges.overlaps(one.open, missing))
    if (answer === undefined) {
      return liveSets(overlapping, call).flatMap((live) => {
        if (live.length > 0 && isOpenEnded(asked)) return [state]
        const grant = live.reduce((rest, one) => subtract(rest, one.open), missing)
        return isEmpty(grant) ? [state] : [granted(state, call, claim, grant, undefined)]
      })
    }
    if (answer === "ClaimIdReused") return []
    if (!equals(read(answer.completed), subtract(asked, missing))) return []
    if (!heldFits(state.claims, missing, answer.held, call)) return []
    const free = answer.held.reduce((rest, { ranges }) => subtract(rest, read(ranges)), missing)
    const grant = answer.held.length > 0 && isOpenEnded(asked) ? empty : free
    const { token, until } = answer
    if (!equals(read(answer.granted), grant)) return []
    if (isEmpty(grant)) return token === undefined && until === undefined ? [state] : []
    if (token === undefined || until === undefined) return []
    const tokenFits = token > state.lastToken && token >= (call.from - skewMillis) * 1_000
    if (!tokenFits || !endsRightly(until, leaseMillis, call)) return []
    return [granted(state, call, claim, grant, { token, until })]
  }

  /** Which of the claims may have been live at a call that nobody answered. */
  const liveSets = (
    claims: ReadonlyArray<StreamClaim>,
    call: Call
  ): ReadonlyArray<ReadonlyArray<StreamClaim>> =>
    claims.reduce<ReadonlyArray<ReadonlyArray<StreamClaim>>>(
      (sets, claim) =>
        sets.flatMap((set) => [
          ...(mayLive(claim, call) ? [[...set, claim]] : []),
          ...(mayBeOver(claim, call) ? [set] : [])
        ]),
      [[]]
    )

  const complete = (
    state: State,
    call: Call,
    { answer, claimId, ranges }: CallOf<"complete">
  ): ReadonlyArray<State> => {
    const asked = read(ranges)
    const already = intersect(asked, state.completed)
    return found(state, claimId, call).flatMap((claim) => {
      const ours = claim === undefined ? empty : intersect(asked, claim.open)
      if (
        answer !== undefined &&
        !(
          equals(read(answer.alreadyCompleted), already) &&
          equals(read(answer.completed), ours) &&
          equals(read(answer.leaseLost), subtract(subtract(asked, already), ours))
        )
      ) {
        return []
      }
      if (claim === undefined) return [without(state, claimId)]
      const next = { ...state, completed: union(state.completed, ours) }
      return [replaced(next, { ...claim, open: subtract(claim.open, ours) })]
    })
  }

  const renew = (
    state: State,
    call: Call,
    { answer, claimId, leaseMillis }: CallOf<"renew">
  ): ReadonlyArray<State> =>
    found(state, claimId, call).flatMap((claim) => {
      if (claim === undefined)
        return answer === undefined || answer === "LeaseLost" ? [without(state, claimId)] : []
      if (answer === "LeaseLost") return []
      const least = Math.max(earliestEnd(claim), call.from + leaseMillis - skewMillis)
      if (answer === undefined)
        return [
          replaced(state, {
            ...claim,
            until: undefined,
            notBefore: least,
            longestMillis: Math.max(claim.longestMillis, leaseMillis)
          })
        ]
      const most =
        claim.until === undefined
          ? Number.POSITIVE_INFINITY
          : Math.max(claim.until, call.to + leaseMillis + skewMillis)
      return answer >= least && answer <= most ? [replaced(state, { ...claim, until: answer })] : []
    })

  const annotate = (
    state: State,
    call: Call,
    { answer, claimId, note }: CallOf<"annotate">
  ): ReadonlyArray<State> =>
    found(state, claimId, call).flatMap((claim) => {
      if (answer !== undefined && answer !== (claim === undefined ? "LeaseLost" : "noted")) return []
      return [claim === undefined ? without(state, claimId) : { ...state, note }]
    })

  return {
    initial: { completed: empty, claims: [], lastToken: 0, note: undefined },
    keyOf: ({ claims, completed, lastToken, note }) =>
      `${completed.flat}|${lastToken}|${note}|` +
      claims
        .map(
          (claim) =>
            `${claim.id} ${claim.open.flat} ${claim.token ?? `${claim.above}-${claim.below}`} ${claim.until ?? `>${claim.notBefore}~${claim.longestMillis}`}`
        )
        .sort()
        .join("|"),
    step: (state, timed) => {
      const { call } = timed
      switch (call.verb) {
        case "claim":
          return found(state, call.claimId, timed).flatMap((known) =>
            known === undefined
              ? askedAnew(without(state, call.claimId), timed, call)
              : askedAgain(state, known, timed, call)
          )
        case "complete":
          return complete(state, timed, call)
        case "release": {
          const claim = state.claims.find((one) => one.id === call.claimId)
          if (claim === undefined) return [state]
          const open = call.ranges === undefined ? empty : subtract(claim.open, read(call.ranges))
          return [replaced(state, { ...claim, open })]
        }
        case "renew":
          return renew(state, timed, call)
        case "annotate":
          return annotate(state, timed, call)
        case "progress": {
          const { answer } = call
          if (answer === undefined) return [state]
          const completed = answer === "nothing" ? empty : read(answer.completed)
          const note = answer === "nothing" ? undefined : answer.note
          return equals(completed, state.completed) && note === state.note ? [state] : []
        }
      }
    }
  }
}
