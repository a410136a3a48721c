/** What checks are written with: failing with a message that a reader understands without the check's source. */
import { OffsetRanges } from "@tidemark/core"
import { Effect } from "effect"
import { ContractBroken } from "../Check.ts"

/** Objects in the order of their names, ranges as people read them. */
function readable(this: Record<string, unknown>, name: string, value: unknown): unknown {
  const raw = this[name]
  if (OffsetRanges.isOffsetRanges(raw)) return String(raw)
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(raw as object).sort(([a], [b]) => (a < b ? -1 : 1)))
}

const clipped = (text: string): string =>
  text.length > 1_500 ? `${text.slice(0, 1_500)}... (${text.length} characters)` : text

/** A value as text, the same for equal values; what is absent and what is `undefined` read alike. */
export const textOf = (value: unknown): string =>
  OffsetRanges.isOffsetRanges(value) ? String(value) : (JSON.stringify(value, readable) ?? "undefined")

export const broken = (detail: string): Effect.Effect<never, ContractBroken> =>
  Effect.fail(new ContractBroken({ detail }))

/** Fails unless the condition holds. */
export const ensure = (condition: boolean, detail: () => string): Effect.Effect<void, ContractBroken> =>
  condition ? Effect.void : broken(detail())

/** Fails unless both are equal, as values. */
export const same = (
  what: string,
  found: unknown,
  expected: unknown
): Effect.Effect<void, ContractBroken> => {
  const foundText = textOf(found)
  const expectedText = textOf(expected)
  return foundText === expectedText
    ? Effect.void
    : broken(`${what}: expected ${clipped(expectedText)}, found ${clipped(foundText)}`)
}

/** The error that the call fails with; fails where it does not, or fails otherwise. */
export const failsWith = <A, E extends { readonly _tag: string }>(
  what: string,
  call: Effect.Effect<A, E>,
  tag: E["_tag"]
): Effect.Effect<E, ContractBroken> =>
  Effect.matchEffect(call, {
    onSuccess: (answer) =>
      broken(`${what}: expected the error ${tag}, found the answer ${clipped(textOf(answer))}`),
    onFailure: (error) =>
      error._tag === tag
        ? Effect.succeed(error)
        : broken(`${what}: expected the error ${tag}, found ${error._tag}: ${String(error)}`)
  })
