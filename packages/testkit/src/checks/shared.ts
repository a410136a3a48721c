/** What the checks of all services have in common. */
import type { Protocol } from "@tidemark/core"
import { Effect } from "effect"
import type { ContractBroken } from "../Check.ts"
import { ensure, same } from "../internal/expect.ts"
import type { StoreTime } from "../Subject.ts"

/** The terms of a claim; the owner is the claim's id, so that answers which name an owner can be checked. */
export const terms = (claimId: string, leaseMillis: number): Protocol.ClaimTerms => ({
  claimId,
  owner: claimId,
  leaseMillis
})

/** Fails unless `until` is the end of a lease (or a retention) of `millis` that began between two instants. */
export const endsAfter = (
  what: string,
  until: number | undefined,
  millis: number,
  { from, to, time }: { readonly from: number; readonly to: number; readonly time: StoreTime }
): Effect.Effect<void, ContractBroken> =>
  ensure(
    until !== undefined &&
      until >= from + millis - time.toleranceMillis &&
      until <= to + millis + time.toleranceMillis,
    () =>
      `${what} ends at ${until}, but ${millis} ms from now is between ${from + millis} and ${to + millis}` +
      (time.exact ? "" : ` (give or take ${time.toleranceMillis} ms between the clocks)`)
  )

/** The answer of a call, with our idea of the store's time before and after it. */
export const timed = <A, E>(time: StoreTime, call: Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const from = yield* time.now
    const answer = yield* call
    return { answer, from, to: yield* time.now, time }
  })

/** Claims all but every seventh of these, and fails unless a renewal of all answers each by itself, in order. */
export const renewsEachByItself = <Ref>(
  time: StoreTime,
  refs: ReadonlyArray<Ref>,
  claim: (ref: Ref) => Effect.Effect<unknown, unknown>,
  renew: (
    renewals: ReadonlyArray<Ref & { readonly leaseMillis: number }>
  ) => Effect.Effect<ReadonlyArray<number | undefined>, unknown>
) =>
  Effect.gen(function* () {
    const isUnknown = (index: number): boolean => index % 7 === 3
    for (const ref of refs.filter((_, index) => !isUnknown(index))) yield* claim(ref)
    const renewals = refs.map((ref, index) => ({ ...ref, leaseMillis: time.longMillis + index }))
    const { answer, ...span } = yield* timed(time, renew(renewals))
    yield* same("the number of answers", answer.length, refs.length)
    for (const [index, until] of answer.entries()) {
      if (isUnknown(index)) yield* same(`answer ${index}, of a claim that never was`, until, undefined)
      else yield* endsAfter(`the lease of claim ${index}`, until, time.longMillis + index, span)
    }
  })

/** Names of every sort that the contract allows, each different from all others. */
export const allowedNames = (unique: string): ReadonlyArray<readonly [what: string, name: string]> => {
  const padded = (filler: string): string => {
    const room = 1_024 - Buffer.byteLength(unique) - 1
    return `${unique} ${filler.repeat(Math.floor(room / Buffer.byteLength(filler)))}`
  }
  return [
    ["one that is 1,024 bytes long", padded("x").padEnd(1_024, "x")],
    ["one of emojis, 4 bytes each, near 1,024 bytes", padded("\u{1F30A}")],
    ["one with a NUL", `${unique}\u0000nul`],
    ["one with a NUL and more", `${unique}\u0000nul\u0000`],
    ["one with braces, which Redis Cluster hashes by", `${unique}{a}`],
    ["one with other braces", `${unique}{b}`],
    ["one with empty braces", `${unique}{}{`],
    ["one with separators", `${unique}:a/b|c,d;e`],
    ["one with separators placed otherwise", `${unique}:a/b|c,d:e`],
    ["one with quotes", `${unique}'"\`\\`],
    ["one with patterns", `${unique}*?[a-z]%_`],
    ["one that reads like an escape", `${unique}%7B%25`],
    ["one with line ends", `${unique}\r\n`],
    ["one with a space at its end", `${unique} `],
    ["one with a small letter", `${unique}a`],
    ["one with a capital letter", `${unique}A`],
    ["one with a composed letter", `${unique}\u00e9`],
    ["one with a decomposed letter, never normalised", `${unique}e\u0301`],
    ["one that reads like a number", `${unique}1`],
    ["one that reads like another number", `${unique}1.0`],
    ["one with a prototype's name", `${unique}__proto__`]
  ]
}

/** Names that the contract refuses. */
export const refusedNames: ReadonlyArray<readonly [what: string, name: string]> = [
  ["an empty one", ""],
  ["one of 1,025 bytes", "x".repeat(1_025)],
  ["one of 513 characters and 1,026 bytes", "\u00e9".repeat(513)],
  ["one with a lone surrogate", "a\ud800b"]
]

/** Names without which no object can be told from its prototype. */
export const treacherousNames: ReadonlyArray<string> = [
  "__proto__",
  "constructor",
  "toString",
  "hasOwnProperty"
]

/** Spans of time that the contract refuses, in milliseconds. */
export const refusedMillis: ReadonlyArray<number> = [
  0,
  -1,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  100 * 365 * 86_400_000 + 1
]
