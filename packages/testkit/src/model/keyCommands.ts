/** Random commands for idempotency keys. */
import type { Protocol } from "@tidemark/core"
import * as fc from "fast-check"

/** A call on the keys of two namespaces, by one of a few claims. A claim id belongs to one namespace: even, or odd. */
export type KeyCommand =
  | {
      readonly verb: "claim"
      readonly id: number
      readonly items: ReadonlyArray<Protocol.KeyItem>
      readonly lease: number
    }
  | {
      readonly verb: "complete"
      readonly id: number
      readonly items: ReadonlyArray<Protocol.KeyCompletion>
      /** `undefined`: the store's own. */
      readonly retention: number | undefined
    }
  | { readonly verb: "release"; readonly id: number; readonly keys: ReadonlyArray<string> | undefined }
  | {
      readonly verb: "renew"
      readonly claims: ReadonlyArray<{ readonly id: number; readonly lease: number }>
    }
  | { readonly verb: "lookup"; readonly namespace: number; readonly keys: ReadonlyArray<string> }
  | { readonly verb: "forget"; readonly namespace: number; readonly keys: ReadonlyArray<string> }
  | { readonly verb: "pass"; readonly millis: number }
  | { readonly verb: "restart" }
  | {
      /** For stores whose time can't be moved: a short claim, the wait for its end, and what comes of it. */
      readonly verb: "expire"
      readonly id: number
      readonly items: ReadonlyArray<Protocol.KeyItem>
      readonly afterwards:
        | "complete"
        | "renew"
        | "askAgain"
        | "takeOver"
        | "release"
        | "forgotten"
        | "forgetKeys"
    }
  | {
      /** For stores whose time can't be moved: completed with a short retention, and the wait for its end. */
      readonly verb: "completeBriefly"
      readonly id: number
      readonly items: ReadonlyArray<Protocol.KeyCompletion>
    }

/** Not to be written out in a message. */
export const longKey = "k".repeat(1_024)

const goodKey = fc.oneof(
  { weight: 12, arbitrary: fc.integer({ min: 0, max: 7 }).map((number) => `key-${number}`) },
  {
    weight: 2,
    arbitrary: fc.constantFrom(longKey, "\u{1F30A}{}", "key-0 ", "key-0\u0000", "KEY-0", "\u00e9", "e\u0301")
  }
)
const badKey = fc.constantFrom("", `${longKey}k`, "\ud800")
const anyKey = fc.oneof({ weight: 20, arbitrary: goodKey }, { weight: 1, arbitrary: badKey })
const id = fc.integer({ min: 0, max: 7 })
const fingerprint = fc.option(fc.constantFrom("f", "g"), { nil: undefined })
const result = fc.option(fc.constantFrom("1", '"two"', ""), { nil: undefined })
const items = fc.array(fc.record({ key: anyKey, fingerprint }), { minLength: 1, maxLength: 6 })
const goodItems = fc.array(fc.record({ key: goodKey, fingerprint }), { minLength: 1, maxLength: 6 })
const completions = fc.array(fc.record({ key: anyKey, result }), { minLength: 1, maxLength: 6 })
const keys = fc.array(goodKey, { minLength: 1, maxLength: 5 })
const anyKeys = fc.array(anyKey, { minLength: 1, maxLength: 5 })
const namespace = fc.constantFrom(0, 1)
const verb = <Verb extends KeyCommand["verb"]>(name: Verb) => fc.constant(name)

/** @param exact - whether time can be moved: then leases and retentions are short, and end by themselves. */
export const keyCommand = (exact: boolean): fc.Arbitrary<KeyCommand & { readonly at: number }> => {
  const long = fc.integer({ min: 10_000, max: 20_000 }).map((n) => n * 1_000)
  const lease = exact ? fc.integer({ min: 1, max: 50 }) : long
  const retention = fc.option(exact ? fc.integer({ min: 1, max: 300 }) : long, { nil: undefined, freq: 8 })
  const ofTime: ReadonlyArray<fc.WeightedArbitrary<KeyCommand>> = exact
    ? [{ weight: 6, arbitrary: fc.record({ verb: verb("pass"), millis: fc.integer({ min: 1, max: 120 }) }) }]
    : [
        {
          weight: 1,
          arbitrary: fc.record({
            verb: verb("expire"),
            id: fc.integer({ min: 8, max: 1_000_000 }),
            items: goodItems,
            afterwards: fc.constantFrom(
              "complete",
              "renew",
              "askAgain",
              "takeOver",
              "release",
              "forgotten",
              "forgetKeys" as const
            )
          })
        },
        { weight: 1, arbitrary: fc.record({ verb: verb("completeBriefly"), id, items: completions }) }
      ]
  const command: fc.Arbitrary<KeyCommand> = fc.oneof(
    { weight: 12, arbitrary: fc.record({ verb: verb("claim"), id, items, lease }) },
    { weight: 12, arbitrary: fc.record({ verb: verb("complete"), id, items: completions, retention }) },
    {
      weight: 4,
      arbitrary: fc.record({ verb: verb("release"), id, keys: fc.option(keys, { nil: undefined }) })
    },
    {
      weight: 4,
      arbitrary: fc.record({
        verb: verb("renew"),
        claims: fc.array(fc.record({ id, lease }), { minLength: 1, maxLength: 4 })
      })
    },
    { weight: 4, arbitrary: fc.record({ verb: verb("lookup"), namespace, keys: anyKeys }) },
    { weight: 1, arbitrary: fc.record({ verb: verb("forget"), namespace, keys }) },
    { weight: 1, arbitrary: fc.record({ verb: verb("restart") }) },
    ...ofTime
  )
  return fc.tuple(fc.constantFrom(0, 1), command).map(([at, one]) => ({ ...one, at }))
}
