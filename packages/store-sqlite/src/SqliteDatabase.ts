/**
 * The database itself: for handlers whose own tables lie beside tidemark's, so that what they write and the mark that
 * it is done come to be together, or not at all.
 */
import type { DatabaseSync } from "node:sqlite"
import type {
  HandlerClaim,
  InvalidInput,
  LeaseLost,
  OffsetRanges,
  Protocol,
  StoreError
} from "@tidemark/core"
import { Context, type Duration, type Effect, Schema } from "effect"

/** A claim on positions: that of `withClaim`, or `{ stream, claimId }` of one that was asked for. */
export interface ClaimedOffsets {
  readonly stream: string
  readonly claimId: string
  readonly token?: number | undefined
  /** Is told what was completed. */
  readonly noteCompleted?: (ranges: OffsetRanges.OffsetRanges) => void
}

/** A claim on keys: that of `withClaim`, or `{ namespace, claimId }` of one that was asked for. */
export interface ClaimedKeys {
  readonly namespace: string
  readonly claimId: string
  readonly token?: number | undefined
  /** Is told what was completed. */
  readonly noteCompleted?: (keys: ReadonlyArray<string>) => void
}

export interface CompleteKeysOptions {
  /** How long the keys are remembered. Default: the store's. */
  readonly retention?: Duration.Input
}

/**
 * Part of what was to be completed is completed already, by whomever: the function was not run, since its effects are
 * there, and nothing was changed.
 */
export class AlreadyCompleted extends Schema.TaggedError<AlreadyCompleted>()("AlreadyCompleted", {
  /** What was to be completed, for people. */
  what: Schema.String,
  /** Which of it is completed. */
  completed: Schema.String
}) {
  get retriable(): boolean {
    return false
  }
  override get message(): string {
    return `${this.completed} of ${this.what} was completed before; the function was not run. Ask only for what the claim granted`
  }
}

/** What a function did that made its transaction impossible. */
export const TransactionFailure = Schema.Literals([
  /** It threw: see `cause`. */
  "Threw",
  /**
   * It returned a promise, an effect, or rows that are still to be read: what is done later would not be part of the
   * transaction.
   */
  "NotSynchronous",
  /** It ended the transaction by COMMIT or ROLLBACK of its own: what it had written before a COMMIT may be there. */
  "EndedTransaction"
])
export type TransactionFailure = typeof TransactionFailure.Type

/** A function did not come to a good end: its writes were rolled back, and the mark with them. */
export class TransactionFailed extends Schema.TaggedError<TransactionFailed>()("TransactionFailed", {
  reason: TransactionFailure,
  detail: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  /** Whether it may go well another time is for whoever knows the function to say. */
  get retriable(): boolean {
    return false
  }
  override get message(): string {
    return `the function in the transaction: ${this.detail}`
  }
}

/** Work on the database, synchronous, within a transaction that is not its own to end. */
export type Work<A> = (db: DatabaseSync) => A

export interface SqliteDatabaseService {
  /**
   * Runs `work` and completes positions or keys of a claim in one transaction: exactly once, for what `work` writes to
   * this database.
   *
   * The claim is judged inside of the transaction, before `work` runs: it runs only if the claim holds all of it and
   * nothing of it is completed. `work` gets the connection, on which its statements are part of the transaction; it must
   * be synchronous, and neither begin nor end a transaction (savepoints are fine). It may share the commit with other
   * calls, but not its fate: what it throws rolls back its own writes and mark only. Where the commit fails for one of the
   * others, it is called again. Rows that it began to `iterate` over and left are let go when it returns.
   *
   * Fails with `LeaseLost` (not ours, or not any more) and `AlreadyCompleted` without having run `work`; with
   * `TransactionFailed` where `work` threw (kept as `cause`), was not synchronous, or ended the transaction; with
   * `StoreError` and `InvalidInput` as the verbs of a store do. In each case the claim is as it was, and nothing was
   * written, save what `work` itself committed.
   *
   * In a handler of a `Tracker`, give it the handler's claim, whose key it completes; the tracker then has nothing left to
   * complete. What the handler does after it is no part of the transaction. A result schema keeps no result then.
   *
   * @example
   * const sqlite = yield* SqliteDatabase
   * yield* tracker.once(Key.id(order.id), (claim) =>
   *   sqlite.completeWith(claim, (db) =>
   *     db.prepare("UPDATE account SET balance = balance - ? WHERE id = ?").run(order.amount, order.account)))
   */
  readonly completeWith: {
    <A>(
      claim: HandlerClaim,
      work: Work<A>,
      options?: CompleteKeysOptions
    ): Effect.Effect<A, CompleteWithError>
    <A>(
      claim: ClaimedOffsets,
      ranges: OffsetRanges.OffsetRanges,
      work: Work<A>
    ): Effect.Effect<A, CompleteWithError>
    <A>(
      claim: ClaimedKeys,
      keys: ReadonlyArray<string | Protocol.KeyCompletion>,
      work: Work<A>,
      options?: CompleteKeysOptions
    ): Effect.Effect<A, CompleteWithError>
  }
  /**
   * Runs `work` in a transaction, without any claim: to make tables, say, or to read.
   *
   * @example
   * yield* sqlite.transaction((db) => db.exec("CREATE TABLE IF NOT EXISTS account (id TEXT PRIMARY KEY, balance INTEGER)"))
   */
  readonly transaction: <A>(work: Work<A>) => Effect.Effect<A, StoreError | TransactionFailed>
  /** Removes what is expired, now, unless another process is at it: the same that happens by itself on the interval. */
  readonly sweep: Effect.Effect<void, StoreError>
}

export type CompleteWithError = StoreError | InvalidInput | LeaseLost | AlreadyCompleted | TransactionFailed

/** The database that a SQLite store keeps its tables in. */
export class SqliteDatabase extends Context.Service<SqliteDatabase, SqliteDatabaseService>()(
  "@tidemark/store-sqlite/SqliteDatabase"
) {}
