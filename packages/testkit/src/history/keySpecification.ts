/**
 * What one key may answer when many call it at once; as `streamSpecification`, and with the same caution about time.
 *
 * A call on many keys is taken apart into one for each. What depends on the claim's other keys is therefore taken as
 * it comes: whether a claim that was not granted this key is still known, and whether it can be renewed.
 */
import type { KeyCall, Timed } from "./History.ts"
import type { Specification } from "./linearizability.ts"

interface Held {
  readonly _tag: "Held"
  readonly id: string
  readonly leaseMillis: number
  /** `undefined` while no answer told it; it lies between `above` and `below` then. */
  readonly token: number | undefined
  readonly above: number
  /** The end of the lease; `undefined` while no answer told it. */
  readonly until: number | undefined
  /** The lease does not end earlier. */
  readonly notBefore: number
  /** The longest lease that was asked for: while its end is not known, that may be it. */
  readonly longestMillis: number
}

interface Done {
  readonly _tag: "Done"
  readonly result: string | undefined
  /** The retention ends between these. */
  readonly notBefore: number
  readonly notAfter: number
}

/** A key as far as the answers so far tell. */
export interface KeySpecificationState {
  readonly entry: Held | Done | { readonly _tag: "Free" }
  readonly lastToken: number
}

const leasesKept = 10
const free = { _tag: "Free" } as const

type State = KeySpecificationState
type Call = Timed<KeyCall>
type CallOf<Verb extends KeyCall["verb"]> = Extract<KeyCall, { readonly verb: Verb }>

/** @param skewMillis - how far the store's clock may be from the recorder's. */
export const keySpecification = (skewMillis: number): Specification<State, Call> => {
  const earliestEnd = (held: Held): number => held.until ?? held.notBefore
  const mayBeOver = (held: Held, { to }: Call): boolean => earliestEnd(held) <= to + skewMillis
  const mayLive = (held: Held, { from }: Call): boolean =>
    held.until === undefined || held.until > from - skewMillis
  const mayBeForgotten = (held: Held, { to }: Call): boolean =>
    earliestEnd(held) + leasesKept * held.leaseMillis <= to + skewMillis
  const mayBeKept = (held: Held, { from }: Call): boolean =>
    held.until === undefined || held.until + leasesKept * held.leaseMillis > from - skewMillis
  const mayBeRemembered = (done: Done, { from }: Call): boolean => done.notAfter > from - skewMillis
  const mayBePast = (done: Done, { to }: Call): boolean => done.notBefore <= to + skewMillis

  const claim = (state: State, timed: Call, call: CallOf<"claim">): ReadonlyArray<State> => {
    const { answer, claimId, leaseMillis } = call
    const { entry, lastToken } = state
    const results: Array<State> = []
    const isOwn = entry._tag === "Held" && entry.id === claimId && mayBeKept(entry, timed)
    const isFree =
      entry._tag === "Free" ||
      (entry._tag === "Held"
        ? entry.id === claimId
          ? mayBeForgotten(entry, timed)
          : mayBeOver(entry, timed)
        : mayBePast(entry, timed))
    if (answer === undefined) {
      if (isFree) results.push({ lastToken, entry: begun(state, timed, call) })
      if (isOwn || !isFree) results.push(state)
      return results
    }
    if (answer === "ClaimIdReused") return []
    switch (answer._tag) {
      case "Claimed": {
        const { token, until } = answer
        if (isOwn) {
          const tokenFits = entry.token === undefined ? token > entry.above : token === entry.token
          const untilFits =
            entry.until === undefined
              ? until >= entry.notBefore && until <= timed.to + entry.longestMillis + skewMillis
              : until === entry.until
          if (tokenFits && untilFits) {
            results.push({ lastToken: Math.max(lastToken, token), entry: { ...entry, token, until } })
          }
        }
        const endsRightly =
          until >= timed.from + leaseMillis - skewMillis && until <= timed.to + leaseMillis + skewMillis
        if (isFree && token > lastToken && token >= (timed.from - skewMillis) * 1_000 && endsRightly) {
          results.push({ lastToken: token, entry: { ...begun(state, timed, call), token, until } })
        }
        return results
      }
      case "Completed":
        return entry._tag === "Done" && mayBeRemembered(entry, timed) && entry.result === answer.result
          ? [state]
          : []
      case "InFlight": {
        // told to a claim that is known, but was not granted the key at first, or gave it back
        const isTurnedAway = isFree && answer.owner === claimId
        const isHeld =
          entry._tag === "Held" &&
          entry.id === answer.owner &&
          entry.id !== claimId &&
          mayLive(entry, timed) &&
          (entry.until === undefined ? answer.until >= entry.notBefore : answer.until === entry.until)
        return isHeld || isTurnedAway ? [state] : []
      }
    }
  }

  const begun = (state: State, { from }: Call, { claimId, leaseMillis }: CallOf<"claim">): Held => ({
    _tag: "Held",
    id: claimId,
    leaseMillis,
    token: undefined,
    above: state.lastToken,
    until: undefined,
    notBefore: from + leaseMillis - skewMillis,
    longestMillis: leaseMillis
  })

  const complete = (state: State, timed: Call, call: CallOf<"complete">): ReadonlyArray<State> => {
    const { answer, claimId, result, retentionMillis } = call
    const { entry } = state
    const isOwn = entry._tag === "Held" && entry.id === claimId
    const results: Array<State> = []
    if (isOwn && mayBeKept(entry, timed) && (answer === undefined || answer === "Completed")) {
      const notBefore = timed.from + retentionMillis - skewMillis
      const notAfter = timed.to + retentionMillis + skewMillis
      results.push({ ...state, entry: { _tag: "Done", result, notBefore, notAfter } })
    }
    const isDone = entry._tag === "Done" && mayBeRemembered(entry, timed)
    if (isDone && (answer === undefined || answer === "AlreadyCompleted")) results.push(state)
    const isLost =
      entry._tag === "Free" ||
      (entry._tag === "Done" ? mayBePast(entry, timed) : entry.id !== claimId || mayBeForgotten(entry, timed))
    if (isLost && (answer === undefined || answer === "LeaseLost")) {
      results.push(isOwn ? { ...state, entry: free } : state)
    }
    return results
  }

  const renew = (state: State, timed: Call, call: CallOf<"renew">): ReadonlyArray<State> => {
    const { answer, claimId, inShards, isAlone, leaseMillis } = call
    /** The answer may be that of another key: of this one it tells nothing but that it lasts no shorter. */
    const isOfAny = inShards === true && !isAlone
    const { entry } = state
    if (entry._tag !== "Held" || entry.id !== claimId) {
      return isAlone && typeof answer === "number" ? [] : [state]
    }
    const results: Array<State> = []
    if (mayBeForgotten(entry, timed) && (isOfAny || typeof answer !== "number"))
      results.push({ ...state, entry: free })
    if (mayBeKept(entry, timed) && answer !== "LeaseLost") {
      const notBefore = Math.max(earliestEnd(entry), timed.from + leaseMillis - skewMillis)
      const most =
        entry.until === undefined
          ? Number.POSITIVE_INFINITY
          : Math.max(entry.until, timed.to + leaseMillis + skewMillis)
      const longestMillis = Math.max(entry.longestMillis, leaseMillis)
      if (answer === undefined || isOfAny) {
        results.push({ ...state, entry: { ...entry, until: undefined, notBefore, longestMillis } })
      } else if (answer >= notBefore && answer <= most) {
        results.push({ ...state, entry: { ...entry, until: answer } })
      }
    }
    return results
  }

  const lookup = (state: State, timed: Call, { answer }: CallOf<"lookup">): ReadonlyArray<State> => {
    const { entry } = state
    if (answer === undefined) return [state]
    if (answer._tag === "Unknown") {
      const isUnknown =
        entry._tag === "Free" || (entry._tag === "Held" ? mayBeOver(entry, timed) : mayBePast(entry, timed))
      return isUnknown ? [state] : []
    }
    if (answer._tag === "Completed") {
      const fits =
        entry._tag === "Done" &&
        mayBeRemembered(entry, timed) &&
        entry.result === answer.result &&
        answer.until >= entry.notBefore &&
        answer.until <= entry.notAfter
      return fits ? [state] : []
    }
    const fits =
      entry._tag === "Held" &&
      entry.id === answer.owner &&
      mayLive(entry, timed) &&
      (entry.until === undefined ? answer.until >= entry.notBefore : answer.until === entry.until)
    return fits ? [state] : []
  }

  return {
    initial: { entry: free, lastToken: 0 },
    keyOf: ({ entry, lastToken }) => JSON.stringify([entry, lastToken]),
    step: (state, timed) => {
      const { call } = timed
      switch (call.verb) {
        case "claim":
          return claim(state, timed, call)
        case "complete":
          return complete(state, timed, call)
        case "release":
          return [
            state.entry._tag === "Held" && state.entry.id === call.claimId ? { ...state, entry: free } : state
          ]
        case "renew":
          return renew(state, timed, call)
        case "lookup":
          return lookup(state, timed, call)
      }
    }
  }
}
