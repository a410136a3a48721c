/**
 * The checks of invariant 9. Each answers what is wrong, or `undefined`: on the hot path nothing is thrown and
 * nothing allocated while the input is good.
 */
import { Effect } from "effect"
import { InvalidInput } from "../Errors.ts"
import type { ClaimTerms } from "../protocol/Claims.ts"

const maxBytes = 1024
const maxNoteBytes = 256

const show = (value: unknown): string => {
  if (typeof value === "string") {
    const text = JSON.stringify(value)
    return text.length > 80 ? `${text.slice(0, 77)}..." (${value.length} characters)` : text
  }
  return typeof value === "object" && value !== null
    ? `an ${Array.isArray(value) ? "array" : "object"}`
    : String(value)
}

export const invalid = (field: string, value: unknown, allowed: string): InvalidInput =>
  new InvalidInput({ field, value: show(value), allowed })

/** A key, a namespace, a stream, an owner: 1 to 1,024 bytes of well-formed UTF-8. */
export const name = (field: string, value: unknown): InvalidInput | undefined => {
  if (
    typeof value === "string" &&
    value.length > 0 &&
    // a UTF-16 unit takes three bytes of UTF-8 at most, so that short strings need no counting
    (value.length <= maxBytes / 3 || (value.length <= maxBytes && Buffer.byteLength(value) <= maxBytes)) &&
    value.isWellFormed()
  ) {
    return undefined
  }
  return invalid(field, value, "1 to 1,024 bytes of UTF-8 without lone surrogates")
}

/** What is kept of a stream for later owners: 1 to 256 bytes of well-formed UTF-8. */
export const note = (field: string, value: unknown): InvalidInput | undefined =>
  name(field, value) === undefined && Buffer.byteLength(value as string) <= maxNoteBytes
    ? undefined
    : invalid(field, value, `1 to ${maxNoteBytes} bytes of UTF-8 without lone surrogates`)

export const offset = (field: string, value: unknown): InvalidInput | undefined =>
  Number.isSafeInteger(value) && (value as number) >= 0
    ? undefined
    : invalid(field, value, "a safe integer from 0 to 9007199254740991")

/** A time span that was given in milliseconds, at most what keeps every instant a safe integer. */
export const millis = (field: string, value: unknown): InvalidInput | undefined =>
  typeof value === "number" && value > 0 && value <= maxMillis
    ? undefined
    : invalid(field, value, "more than 0 and at most 100 years, in milliseconds")

export const maxMillis = 100 * 365 * 86_400_000

export const count = (
  field: string,
  value: unknown,
  max = Number.MAX_SAFE_INTEGER
): InvalidInput | undefined =>
  Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= max
    ? undefined
    : invalid(field, value, `an integer from 1 to ${max}`)

/** One of the words that a policy knows. */
export const oneOf = (
  field: string,
  value: unknown,
  words: ReadonlyArray<unknown>
): InvalidInput | undefined => (words.includes(value) ? undefined : invalid(field, value, words.join(", ")))

/** No option but those that are known: a misspelt one would silently mean the default. */
export const unknownOption = (
  what: string,
  given: object,
  known: ReadonlyArray<string>
): InvalidInput | undefined => {
  for (const option of Object.keys(given)) {
    if (!known.includes(option)) return invalid(`option of ${what}`, option, known.join(", "))
  }
  return undefined
}

/** The terms of a claim. */
export const terms = (terms: ClaimTerms): InvalidInput | undefined =>
  name("claimId", terms.claimId) ?? name("owner", terms.owner) ?? millis("lease", terms.leaseMillis)

/** Does what is asked where nothing is wrong with it, and else fails with what is. */
export const unless = <A, E, R>(
  bad: InvalidInput | undefined,
  ask: () => Effect.Effect<A, E, R>
): Effect.Effect<A, E | InvalidInput, R> => (bad === undefined ? ask() : Effect.fail(bad))

/** What is wrong with the first of them that is not as it should be. */
export const firstBad = <Item>(
  items: ReadonlyArray<Item>,
  check: (item: Item) => InvalidInput | undefined
): InvalidInput | undefined => {
  for (const item of items) {
    const bad = check(item)
    if (bad !== undefined) return bad
  }
  return undefined
}
