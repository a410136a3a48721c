/** Random commands for streams. */
import { OffsetRanges } from "@tidemark/core"
import * as fc from "fast-check"

/** Offsets of the little world, from 0; `end: undefined` is without an end. */
export type Spread = ReadonlyArray<readonly [from: number, to: number | undefined]>

/** A call on one of two streams, by one of a few claims, through one of two instances. */
export type OffsetCommand =
  | {
      readonly verb: "claim"
      readonly stream: number
      readonly id: number
      readonly ranges: Spread
      readonly lease: number
    }
  | {
      readonly verb: "complete"
      readonly stream: number
      readonly id: number
      readonly ranges: Spread
    }
  | {
      readonly verb: "claimOffset"
      readonly stream: number
      readonly id: number
      readonly offset: number
      readonly lease: number
    }
  | { readonly verb: "completeOffset"; readonly stream: number; readonly id: number; readonly offset: number }
  | {
      readonly verb: "release"
      readonly stream: number
      readonly id: number
      readonly ranges: Spread | undefined
    }
  | {
      readonly verb: "renew"
      readonly claims: ReadonlyArray<{ readonly stream: number; readonly id: number; readonly lease: number }>
    }
  | {
      readonly verb: "annotate"
      readonly notes: ReadonlyArray<{ readonly stream: number; readonly id: number; readonly note: string }>
    }
  | { readonly verb: "progress"; readonly stream: number }
  | { readonly verb: "isCompleted"; readonly stream: number; readonly offset: number }
  | { readonly verb: "rewind"; readonly stream: number; readonly to: number }
  | { readonly verb: "skip"; readonly stream: number; readonly ranges: Spread }
  | { readonly verb: "forget"; readonly stream: number }
  | { readonly verb: "copy"; readonly from: number; readonly to: number }
  | { readonly verb: "pass"; readonly millis: number }
  | { readonly verb: "restart" }
  | {
      /** For stores whose time can't be moved: a short claim, the wait for its end, and what comes of it. */
      readonly verb: "expire"
      readonly stream: number
      readonly id: number
      readonly ranges: Spread
      readonly afterwards: "complete" | "renew" | "askAgain" | "takeOver" | "release" | "forgotten"
    }

/** Which instance of the store does it. */
export type Placed<Command> = Command & { readonly at: number }

/** How many offsets the little world has; the last one is only in what has no end. */
const width = 40

/** Where the little world lies: at the beginning, somewhere, or at the end of all offsets. */
export const base: fc.Arbitrary<number> = fc.constantFrom(
  0,
  5_000_000_000,
  Number.MAX_SAFE_INTEGER - width + 1
)

/** The offsets as they are, when the little world begins at `base`. */
export const placed = (spread: Spread, base: number): OffsetRanges.OffsetRanges =>
  OffsetRanges.fromRanges(
    spread.map(([from, to]) => [base + from, to === undefined ? OffsetRanges.END : base + to])
  )

const offset = fc.integer({ min: 0, max: width - 2 })
const closed: fc.Arbitrary<Spread> = fc.oneof(
  fc
    .tuple(offset, fc.integer({ min: 1, max: 12 }))
    .map(([from, size]) => [[from, Math.min(from + size, width - 1)] as const]),
  fc
    .uniqueArray(offset, { minLength: 1, maxLength: 12 })
    .map((offsets) => offsets.map((from) => [from, from + 1] as const))
)
const open: fc.Arbitrary<Spread> = fc
  .integer({ min: 0, max: width - 1 })
  .map((from) => [[from, undefined] as const])
const asked = fc.oneof({ weight: 4, arbitrary: closed }, { weight: 1, arbitrary: open })
const stream = fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constant(1) })
const id = fc.integer({ min: 0, max: 6 })
const note = fc.oneof(
  fc.constantFrom("note", "with a NUL \u0000", "{}", "0", "\u{1F30A}".repeat(64)),
  fc
    .string({ unit: "grapheme", minLength: 1, maxLength: 20 })
    .filter((text) => Buffer.byteLength(text) <= 256)
)
const verb = <Verb extends OffsetCommand["verb"]>(name: Verb) => fc.constant(name)

/** @param exact - whether time can be moved: then leases are short, and end by themselves. */
export const offsetCommand = (exact: boolean): fc.Arbitrary<Placed<OffsetCommand>> => {
  const lease = exact
    ? fc.integer({ min: 1, max: 50 })
    : fc.integer({ min: 10_000, max: 20_000 }).map((n) => n * 1_000)
  const command: fc.Arbitrary<OffsetCommand> = fc.oneof(
    { weight: 12, arbitrary: fc.record({ verb: verb("claim"), stream, id, ranges: asked, lease }) },
    { weight: 12, arbitrary: fc.record({ verb: verb("complete"), stream, id, ranges: closed }) },
    { weight: 3, arbitrary: fc.record({ verb: verb("claimOffset"), stream, id, offset, lease }) },
    { weight: 3, arbitrary: fc.record({ verb: verb("completeOffset"), stream, id, offset }) },
    {
      weight: 4,
      arbitrary: fc.record({
        verb: verb("release"),
        stream,
        id,
        ranges: fc.option(asked, { nil: undefined })
      })
    },
    {
      weight: 4,
      arbitrary: fc.record({
        verb: verb("renew"),
        claims: fc.array(fc.record({ stream, id, lease }), { minLength: 1, maxLength: 4 })
      })
    },
    {
      weight: 3,
      arbitrary: fc.record({
        verb: verb("annotate"),
        notes: fc.array(fc.record({ stream, id, note }), { minLength: 1, maxLength: 3 })
      })
    },
    { weight: 4, arbitrary: fc.record({ verb: verb("progress"), stream }) },
    { weight: 2, arbitrary: fc.record({ verb: verb("isCompleted"), stream, offset }) },
    { weight: 1, arbitrary: fc.record({ verb: verb("rewind"), stream, to: offset }) },
    { weight: 1, arbitrary: fc.record({ verb: verb("skip"), stream, ranges: closed }) },
    { weight: 1, arbitrary: fc.record({ verb: verb("forget"), stream }) },
    { weight: 1, arbitrary: fc.record({ verb: verb("copy"), from: stream, to: fc.constantFrom(0, 1) }) },
    { weight: 1, arbitrary: fc.record({ verb: verb("restart") }) },
    exact
      ? { weight: 6, arbitrary: fc.record({ verb: verb("pass"), millis: fc.integer({ min: 1, max: 120 }) }) }
      : {
          weight: 1,
          arbitrary: fc.record({
            verb: verb("expire"),
            stream,
            id: fc.integer({ min: 7, max: 1_000_000 }),
            ranges: closed,
            afterwards: fc.constantFrom(
              "complete",
              "renew",
              "askAgain",
              "takeOver",
              "release",
              "forgotten" as const
            )
          })
        }
  )
  return fc.tuple(fc.constantFrom(0, 1), command).map(([at, one]) => ({ ...one, at }))
}
