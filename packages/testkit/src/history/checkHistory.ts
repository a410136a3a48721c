/** Checks a history, stream by stream and key by key, and tells in plain words what no order explains. */
import { OffsetRanges } from "@tidemark/core"
import type { History, KeyCall, StreamCall, Timed, Times } from "./History.ts"
import { type KeySpecificationState, keySpecification } from "./keySpecification.ts"
import { explain, type Offence, type Specification, shortestOffence } from "./linearizability.ts"
import { type StreamSpecificationState, streamSpecification } from "./streamSpecification.ts"

/** What is wrong with the history of one stream or key. */
export interface Finding {
  /** The stream, or namespace and key. */
  readonly name: string
  /** In plain words: the shortest part that no order of its calls explains, or that the search was given up. */
  readonly message: string
}

/** How a history is judged. */
export interface HistoryOptions {
  /**
   * How far the store's clock may be from those of the callers, in milliseconds: a lease is judged over, or live, only
   * where it must be. Default: 5, for one machine.
   */
  readonly skewMillis?: number
  /** Give the search for one stream or key up after so many steps. Default: 2,000,000. */
  readonly limit?: number
}

const changesNothing = ({ call }: { readonly call: StreamCall | KeyCall }): boolean => {
  const { answer } = call
  if (answer === undefined) return false
  if (
    call.verb === "progress" ||
    call.verb === "lookup" ||
    answer === "LeaseLost" ||
    answer === "AlreadyCompleted"
  )
    return true
  if (call.verb === "complete")
    return typeof answer === "object" && "completed" in answer && answer.completed.length === 0
  if (call.verb !== "claim") return false
  if (typeof answer !== "object") return true
  return "_tag" in answer ? answer._tag !== "Claimed" : "granted" in answer && answer.granted.length === 0
}

const rangesText = (flat: ReadonlyArray<number>): string =>
  flat.length === 0 ? "nothing" : String(OffsetRanges.fromSortedUnsafe(flat))

const answerText = (call: StreamCall | KeyCall): string => {
  const { answer } = call
  if (answer === undefined) return "no answer came"
  if (typeof answer === "string") return answer
  if (typeof answer === "number") return `until ${answer}`
  if ("granted" in answer) {
    const token = answer.token === undefined ? "" : `, token ${answer.token}, until ${answer.until}`
    const held = answer.held.map(
      ({ owner, ranges, until }) => `; ${rangesText(ranges)} held by ${owner} until ${until}`
    )
    return `granted ${rangesText(answer.granted)}${token}; completed before ${rangesText(answer.completed)}${held.join("")}`
  }
  if ("alreadyCompleted" in answer) {
    return `completed ${rangesText(answer.completed)}, already completed ${rangesText(answer.alreadyCompleted)}, lease lost ${rangesText(answer.leaseLost)}`
  }
  if ("watermark" in answer) return `completed ${rangesText(answer.completed)}, note ${answer.note}`
  const { _tag, ...rest } = answer
  return [_tag, ...Object.entries(rest).map(([name, value]) => `${name} ${value}`)].join(" ")
}

const callText = (call: StreamCall | KeyCall): string => {
  const ranges = "ranges" in call && call.ranges !== undefined ? ` ${rangesText(call.ranges)}` : ""
  const lease = "leaseMillis" in call ? ` for ${call.leaseMillis} ms` : ""
  const note = "note" in call ? ` ${JSON.stringify(call.note)}` : ""
  const claim = "claimId" in call ? ` by claim ${call.claimId}` : ""
  return `${call.verb}${ranges}${note}${claim}${lease}`
}

/** Times from the first call on, in milliseconds, as the order depends on them. */
const lineOf = (call: Times & { readonly call: StreamCall | KeyCall }, since: number): string => {
  const at = (instant: number): string =>
    instant === Number.POSITIVE_INFINITY ? "..." : (instant - since).toFixed(3)
  const wall = call.to === Number.POSITIVE_INFINITY ? `${call.from}-...` : `${call.from}-${call.to}`
  return `  ${at(call.start)} to ${at(call.end)} (${wall}) ${call.caller}: ${callText(call.call)} -> ${answerText(call.call)}`
}

const streamText = ({ claims, completed, lastToken, note }: StreamSpecificationState): string =>
  [
    `completed ${rangesText(completed.flat)}, last token ${lastToken}, note ${note}`,
    ...claims.map(
      ({ id, notBefore, open, token, until }) =>
        `claim ${id} holds ${open} with token ${token ?? "unknown"} until ${until ?? `${notBefore} or later`}`
    )
  ].join(", ")

const keyText = ({ entry, lastToken }: KeySpecificationState): string => {
  const last = `last token ${lastToken}`
  if (entry._tag === "Free") return `free, ${last}`
  if (entry._tag === "Done")
    return `completed with result ${entry.result} until about ${entry.notBefore}, ${last}`
  return `held by claim ${entry.id} with token ${entry.token ?? "unknown"} until ${entry.until ?? `${entry.notBefore} or later`}, ${last}`
}

const shownStates = 5

const offenceText = <State, Call extends Times & { readonly call: StreamCall | KeyCall }>(
  what: string,
  { before, calls }: Offence<State, Call>,
  stateText: (state: State) => string
): string => {
  const states = before.slice(0, shownStates).map(stateText)
  if (before.length > shownStates) states.push(`one of ${before.length - shownStates} other states`)
  const since = calls[0]?.start ?? 0
  return (
    `${what}: no order of these calls explains their answers. Before: ${states.join("; or: ")}. Then, in milliseconds ` +
    `(and by the wall clock):\n${calls.map((call) => lineOf(call, since)).join("\n")}`
  )
}

const judge = <State, Call extends Times & { readonly call: StreamCall | KeyCall }>(
  what: string,
  specification: Specification<State, Call>,
  calls: ReadonlyArray<Call>,
  stateText: (state: State) => string,
  limit: number | undefined
): Finding | undefined => {
  const verdict = explain(specification, calls, limit === undefined ? {} : { limit })
  if (verdict._tag === "Explained") return undefined
  if (verdict._tag === "TooHard") {
    const message = `${what}: not decided after ${verdict.steps} steps; fewer calls at once are easier to judge`
    return { name: what, message }
  }
  return {
    name: what,
    message: offenceText(what, shortestOffence(specification, calls, changesNothing), stateText)
  }
}

/**
 * What no order of the calls explains, stream by stream and key by key; nothing where the history is linearizable.
 *
 * Calls that were not answered may have taken effect at any time after they were made, or never. The store's time is
 * only known within the bounds of each call, so that a lease which ends within them may have been live or over.
 *
 * @example
 * const findings = checkHistory(historyOf(lines))
 * for (const { message } of findings) console.log(message)
 */
export const checkHistory = (
  history: History,
  { limit, skewMillis = 5 }: HistoryOptions = {}
): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = []
  const objects = Map.groupBy(history, ({ name, service }) => `${service} ${name}`)
  for (const [what, calls] of objects) {
    const finding =
      calls[0].service === "stream"
        ? judge(
            what,
            streamSpecification(skewMillis),
            calls as ReadonlyArray<Timed<StreamCall>>,
            streamText,
            limit
          )
        : judge(what, keySpecification(skewMillis), calls as ReadonlyArray<Timed<KeyCall>>, keyText, limit)
    if (finding !== undefined) findings.push(finding)
  }
  return findings
}
