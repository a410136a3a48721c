/**
 * Decides whether some order of concurrent calls explains all their answers: linearizability.
 *
 * The search is Wing and Gong's ("Testing and verifying concurrent objects", J. Parallel Distrib. Comput. 17, 1993):
 * of the calls that no other one has to precede, try each as the next, and go back where none fits. What was tried is
 * remembered, as the pair of the calls done and the state reached, which Lowe added ("Testing for linearizability",
 * Concurrency and Computation 29, 2017). Histories are to be split into independent objects first, since each may be
 * judged by itself (Herlihy and Wing's locality; Horn and Kroening, FORTE 2015).
 */

/** When a call was under way, on one clock for all calls of a history. */
export interface Interval {
  readonly start: number
  /** `Infinity` where the call was never answered. */
  readonly end: number
  /** Whether the call need not have taken effect: it was not answered (yet). */
  readonly isOptional: boolean
}

/** What an object may answer. */
export interface Specification<State, Call> {
  readonly initial: State
  /** The states that the call, with the answer it had, may lead to; none where the answer can't be given. */
  readonly step: (state: State, call: Call) => ReadonlyArray<State>
  /** The same text for equal states. */
  readonly keyOf: (state: State) => string
}

/** What a search found. */
export type Verdict<State> =
  | { readonly _tag: "Explained"; readonly states: ReadonlyArray<State> }
  /** No order explains the answers. */
  | { readonly _tag: "Unexplained" }
  /** The search was given up after so many steps. */
  | { readonly _tag: "TooHard"; readonly steps: number }

interface Node<State> {
  /** All required calls before this one are done. */
  readonly first: number
  /** Numbers of required calls after `first` that are done, ascending. */
  readonly beyond: ReadonlyArray<number>
  /** Numbers of optional calls that are done, ascending. */
  readonly optional: ReadonlyArray<number>
  readonly state: State
}

const withNumber = (numbers: ReadonlyArray<number>, more: number): ReadonlyArray<number> =>
  [...numbers, more].sort((a, b) => a - b)

const defaultLimit = 2_000_000

/** How {@link explain} searches. */
export interface SearchOptions<State> {
  /** The states to begin in. Default: the initial one. */
  readonly from?: ReadonlyArray<State>
  /** Find all the states in which the calls may leave the object, not only one. */
  readonly all?: boolean
  /** Give up after so many steps. Default: 2,000,000. */
  readonly limit?: number
}

/** Whether some order of the calls explains their answers, and which states it may lead to. */
export const explain = <State, Call extends Interval>(
  { initial, keyOf, step }: Specification<State, Call>,
  calls: ReadonlyArray<Call>,
  { all = false, from = [initial], limit = defaultLimit }: SearchOptions<State> = {}
): Verdict<State> => {
  const required = calls.filter((call) => !call.isOptional).sort((a, b) => a.start - b.start)
  const optional = calls.filter((call) => call.isOptional).sort((a, b) => a.start - b.start)
  const seen = new Set<string>()
  const found = new Map<string, State>()
  const stack: Array<Node<State>> = []
  const push = (node: Node<State>): void => {
    const key = `${node.first};${node.beyond};${node.optional};${keyOf(node.state)}`
    if (seen.has(key)) return
    seen.add(key)
    stack.push(node)
  }
  for (const state of from) push({ first: 0, beyond: [], optional: [], state })
  while (stack.length > 0) {
    const node = stack.pop() as Node<State>
    if (node.first === required.length) {
      found.set(keyOf(node.state), node.state)
      if (!all) break
    }
    if (seen.size > limit) return { _tag: "TooHard", steps: seen.size }
    // what must be done by then: whatever starts later has to wait for it
    let firstEnd = Number.POSITIVE_INFINITY
    const next: Array<number> = []
    for (let number = node.first; number < required.length; number++) {
      if (required[number].start > firstEnd) break
      if (node.beyond.includes(number)) continue
      next.push(number)
      firstEnd = Math.min(firstEnd, required[number].end)
    }
    for (let number = 0; number < optional.length && optional[number].start <= firstEnd; number++) {
      if (node.optional.includes(number)) continue
      for (const state of step(node.state, optional[number])) {
        push({ ...node, optional: withNumber(node.optional, number), state })
      }
    }
    // the one that ends first is tried first: the stack is last in, first out
    const candidates = next.filter((number) => required[number].start <= firstEnd)
    candidates.sort((a, b) => required[b].end - required[a].end)
    for (const number of candidates) {
      for (const state of step(node.state, required[number])) push(done(node, number, state))
    }
  }
  return found.size === 0 ? { _tag: "Unexplained" } : { _tag: "Explained", states: [...found.values()] }
}

const done = <State>(node: Node<State>, number: number, state: State): Node<State> => {
  if (number !== node.first) return { ...node, beyond: withNumber(node.beyond, number), state }
  let first = number + 1
  let taken = 0
  while (node.beyond[taken] === first) {
    first += 1
    taken += 1
  }
  return { ...node, first, beyond: node.beyond.slice(taken), state }
}

/** A part of a history that no order explains, as short as it could be made. */
export interface Offence<State, Call> {
  /** The states in which the object may have been when the part began. */
  readonly before: ReadonlyArray<State>
  /** In the order in which they started. The last one to end is the one whose answer can't be explained. */
  readonly calls: ReadonlyArray<Call>
}

/** The calls as they were known at an instant: what was not answered then need not have taken effect. */
const knownAt = <Call extends Interval>(calls: ReadonlyArray<Call>, instant: number): ReadonlyArray<Call> =>
  calls
    .filter((call) => call.start <= instant)
    .map((call) => (call.end <= instant ? call : { ...call, isOptional: true }))

/**
 * The shortest offending part of a history that no order explains: up to the first answer that can't be explained,
 * without the calls that changed nothing and are not needed for it, and from the last instant before it at which
 * nothing was under way.
 *
 * @param changesNothing - whether the answer says that the call left the object as it was. Such a call may be left
 * out of any history that can be explained, so that what is left still offends by itself.
 */
export const shortestOffence = <State, Call extends Interval>(
  specification: Specification<State, Call>,
  calls: ReadonlyArray<Call>,
  changesNothing: (call: Call) => boolean,
  limit = 200_000
): Offence<State, Call> => {
  const offends = (part: ReadonlyArray<Call>): boolean =>
    explain(specification, part, { limit })._tag === "Unexplained"
  const ends = calls
    .filter((call) => !call.isOptional)
    .map((call) => call.end)
    .sort((a, b) => a - b)
  // the beginning of a history that can be explained can be explained too
  let low = 0
  let high = ends.length - 1
  while (low < high) {
    const middle = (low + high) >>> 1
    if (offends(knownAt(calls, ends[middle]))) high = middle
    else low = middle + 1
  }
  const last = ends[high]
  let part = knownAt(calls, last).toSorted((a, b) => a.start - b.start)
  for (const call of part.toReversed()) {
    if (call.end === last || !changesNothing(call)) continue
    const shorter = part.filter((other) => other !== call)
    if (offends(shorter)) part = shorter
  }
  for (let cut = part.length - 1; cut > 0; cut--) {
    const before = part.slice(0, cut)
    const after = part.slice(cut)
    if (before.some((call) => call.end > after[0].start)) continue
    const verdict = explain(specification, before, { all: true, limit })
    if (verdict._tag === "Explained") return { before: verdict.states, calls: after }
  }
  return { before: [specification.initial], calls: part }
}
