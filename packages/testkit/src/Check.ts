/**
 * A store's contract as data: named checks, each an effect that fails with a plain message. What runs them is a thin
 * layer: `@tidemark/testkit/vitest` for vitest, {@link runChecks} for anything else.
 */
import { Cause, type Effect, Exit, Schema, type Scope } from "effect"
import type { Subject } from "./Subject.ts"

/** The invariants of the protocol in one line each, by number; `docs/writing-a-store.md` has them in full. */
export const invariants = {
  1: "at any instant at most one live claim covers an offset, a key or a lock",
  2: "tokens strictly grow per stream, key and lock",
  3: "complete judges item by item",
  4: "what is completed never becomes new again",
  5: "a live claim is never evicted or swept",
  6: "answers come item by item, in order, and nothing is half written",
  7: "a lost answer can be asked for again",
  8: "leases are judged by the store's clock",
  9: "bad input is a typed error before anything is written"
} as const

/** The number of an invariant. */
export type Invariant = keyof typeof invariants

/** A store did not do what the contract says; `message` says what was expected and what was found. */
export class ContractBroken extends Schema.TaggedError<ContractBroken>()("ContractBroken", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** One thing that a store must do. */
export interface Check<Service> {
  /** Absent: what an optional service promises besides. */
  readonly invariant?: Invariant
  /** What is promised, as a sentence without its end: "a claim of what is held answers who holds it and until when". */
  readonly name: string
  /** Only a store that outlives its instances, as it says by `durable`, can be asked for this. */
  readonly onlyDurable?: boolean
  /** Runs on the clock of the machine also where `TestClock` could drive the store: several fibers race. */
  readonly liveClock?: boolean
  /** Fails, with whatever error, where the store does not do it; instants are exact only where `subject.time.exact`. */
  readonly run: (subject: Subject<Service>) => Effect.Effect<void, unknown, Scope.Scope>
}

/** How one check went. */
export type Outcome =
  | { readonly _tag: "Passed"; readonly check: string }
  | { readonly _tag: "Failed"; readonly check: string; readonly message: string }
  /** The store can't be asked for it, for the reason given. */
  | { readonly _tag: "Skipped"; readonly check: string; readonly reason: string }

/** A cause as one message for people: what the contract says was broken, or the store's own error. */
const explain = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  if (error instanceof ContractBroken) return error.message
  const named =
    error instanceof Error ? `${error.name}: ${error.message}\n${error.stack ?? ""}` : String(error)
  return `the check could not go on: ${named}`
}

/** The whole name of a check, with its invariant. */
const titleOf = ({ invariant, name }: Pick<Check<never>, "invariant" | "name">): string =>
  invariant === undefined ? name : `${invariant}. ${name}`

/** What came of a check, from how its effect ended: with why it was skipped, with `undefined`, or not at all. */
export const outcomeOf = (
  check: Pick<Check<never>, "invariant" | "name">,
  exit: Exit.Exit<string | undefined, unknown>
): Outcome => {
  const title = titleOf(check)
  if (Exit.isFailure(exit)) return { _tag: "Failed", check: title, message: explain(exit.cause) }
  return exit.value === undefined
    ? { _tag: "Passed", check: title }
    : { _tag: "Skipped", check: title, reason: exit.value }
}
