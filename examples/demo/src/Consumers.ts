/** What a race needs of the place where its consumers live: this process (`sameProcess`), or one each (`processes`). */
import type { Effect, Scope } from "effect"
import type { Job } from "./Contestants.ts"
import type { Ledger } from "./Ledger.ts"

/** A consumer that was started. */
export interface Consumer {
  readonly name: string
  /** How many partitions it has now; -1 before it has joined. */
  readonly assigned: number
  /** Ends it without a word, at once; succeeds when the ledger has all that it did before. */
  readonly kill: Effect.Effect<void>
  /** Ends it as one ends a consumer, and waits for it; gives up after 10 s. */
  readonly stop: Effect.Effect<void>
  /** Fails when it ends though it is neither killed nor stopped; never succeeds. */
  readonly failure: Effect.Effect<never, unknown>
}

/** Starts a consumer, which notes what it does in the ledger. It ends with the Scope at the latest. */
export type StartConsumer = (job: Job, ledger: Ledger) => Effect.Effect<Consumer, unknown, Scope.Scope>

/** A consumer that a race can't do without did not do its part. */
export class RaceFailed extends Error {
  override readonly name = "RaceFailed"
}

/** One kind of store, ready for use. */
export interface Store {
  /** For people: which it is, and where consumers live with it. */
  readonly description: string
  /** How a killed consumer dies, for people. */
  readonly death: string
  /** Makes room for one contestant, which shares nothing with the others. `name` is fit for files and keys. */
  readonly open: (name: string, orders: number) => Effect.Effect<StartConsumer, unknown, Scope.Scope>
}
