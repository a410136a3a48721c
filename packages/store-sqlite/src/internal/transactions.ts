/** The user's functions in transactions, together with the mark that a claim is done. */
import {
  type HandlerClaim,
  InvalidInput,
  type KeyClaimRef,
  LeaseLost,
  OffsetRanges,
  Policies,
  type Protocol,
  type StoreError
} from "@tidemark/core"
import { Effect, Exit } from "effect"
import {
  AlreadyCompleted,
  type ClaimedKeys,
  type ClaimedOffsets,
  type CompleteKeysOptions,
  type CompleteWithError,
  type SqliteDatabaseService,
  TransactionFailed,
  type Work
} from "../SqliteDatabase.ts"
import type { Connection } from "./Connection.ts"
import type { Database } from "./Database.ts"
import { EndedTransaction, isOfTheStore, storeError } from "./failures.ts"
import { type Store, wakeKeys, wakeStream } from "./Store.ts"

/** Against the bound on what shares a commit: a function takes longer than an item. */
const itemsPerFunction = 16

const notSynchronous = () =>
  new TransactionFailed({
    reason: "NotSynchronous",
    detail:
      "it returned a promise or an effect, whose writes would not be part of the transaction, or rows that are still to " +
      "be read; it was rolled back. Do what has to be awaited before, read the rows, and give a function that only works " +
      "on the database"
  })

/** The function is to blame that the transaction as a whole failed. */
const blamed = (cause: unknown): TransactionFailed =>
  cause instanceof EndedTransaction
    ? new TransactionFailed({
        reason: "EndedTransaction",
        detail:
          "it ended the transaction by COMMIT or ROLLBACK; nothing is marked, and what it had written before a COMMIT " +
          "may be there. Leave the transaction to tidemark (savepoints are fine)"
      })
    : threw(cause)

const threw = (cause: unknown): TransactionFailed =>
  new TransactionFailed({ reason: "Threw", detail: `it was rolled back: ${String(cause)}`, cause })

const isLater = (value: unknown): boolean =>
  Effect.isEffect(value) ||
  (typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function")

type WorkError = StoreError | TransactionFailed

/**
 * Runs `work` within a savepoint of the transaction: what it throws undoes its own writes, and nothing else. Throws
 * where the transaction is gone.
 */
const within = <A>(verb: string, connection: Connection, work: Work<A>): Exit.Exit<A, WorkError> => {
  const { db } = connection
  // should it commit, against the rules, what others have written goes with its marks
  connection.flush()
  db.exec("SAVEPOINT tidemark_work")
  const exit = tried(verb, db, work)
  if (!db.isTransaction) throw new EndedTransaction()
  try {
    db.exec(
      Exit.isSuccess(exit) ? "RELEASE tidemark_work" : "ROLLBACK TO tidemark_work; RELEASE tidemark_work"
    )
  } catch {
    // there is no such savepoint, since the transaction was ended and another begun
    throw new EndedTransaction()
  }
  return exit
}

const tried = <A>(verb: string, db: Database, work: Work<A>): Exit.Exit<A, WorkError> => {
  try {
    const { isRows, value } = db.endingRows((isRows) => {
      const value = work(db)
      return { value, isRows: isRows(value) }
    })
    if (!isRows && !isLater(value)) return Exit.succeed(value)
    // what it rejects with is no more news
    if (value instanceof Promise) value.catch(() => {})
    return Exit.fail(notSynchronous())
  } catch (cause) {
    if (!isOfTheStore(cause)) {
      return Exit.fail(threw(cause))
    }
    // where the disk is full, or fails, SQLite may have rolled back everything
    if (!db.isTransaction) throw cause
    return Exit.fail(storeError(verb, cause))
  }
}

const invalid = (field: string, value: string, allowed: string): InvalidInput =>
  new InvalidInput({ field, value, allowed })

const checkRanges = (ranges: OffsetRanges.OffsetRanges): InvalidInput | undefined =>
  !OffsetRanges.isOffsetRanges(ranges) || OffsetRanges.isEmpty(ranges) || OffsetRanges.isOpenEnded(ranges)
    ? invalid("ranges", String(ranges), "non-empty OffsetRanges with an end: what was done of the claim")
    : undefined

/** What is no text can't have been claimed. */
const checkText = (field: string, value: unknown): InvalidInput | undefined =>
  typeof value === "string" ? undefined : invalid(field, String(value), "a string: that of the claim")

const checkItems = (items: ReadonlyArray<Protocol.KeyCompletion>): InvalidInput | undefined => {
  if (items.length === 0) return invalid("keys", "empty", "the keys that the claim was granted")
  for (const { key, result = "" } of items) {
    const bad = checkText("key", key) ?? checkText("result", result)
    if (bad !== undefined) return bad
  }
  return undefined
}

const onOffsets =
  (store: Store) =>
  <A>(
    claim: ClaimedOffsets,
    ranges: OffsetRanges.OffsetRanges,
    work: Work<A>
  ): Effect.Effect<A, CompleteWithError> => {
    const { stream, claimId, token = 0 } = claim
    const bad = checkText("stream", stream) ?? checkText("claimId", claimId) ?? checkRanges(ranges)
    if (bad !== undefined) return Effect.fail(bad)
    const what = `${ranges} of stream ${stream}`
    const { connection, streams } = store
    const completed = store.writeOr(
      "completeWith",
      itemsPerFunction,
      (now) => {
        const { completed, lost } = streams.standing(stream, claimId, ranges, now)
        if (lost) return Exit.fail<CompleteWithError>(new LeaseLost({ what, claimId, token }))
        if (!OffsetRanges.isEmpty(completed)) {
          return Exit.fail(new AlreadyCompleted({ what, completed: String(completed) }))
        }
        const exit = within("completeWith", connection, work)
        if (Exit.isSuccess(exit)) streams.complete(stream, claimId, ranges, now)
        return exit
      },
      blamed
    )
    return Effect.map(completed, (value) => {
      claim.noteCompleted?.(ranges)
      wakeStream(store, stream)
      return value
    })
  }

const onKeys =
  (store: Store, defaultRetentionMillis: number) =>
  <A>(
    claim: ClaimedKeys,
    keys: ReadonlyArray<string | Protocol.KeyCompletion>,
    work: Work<A>,
    options: CompleteKeysOptions = {}
  ): Effect.Effect<A, CompleteWithError> => {
    const { namespace, claimId, token = 0 } = claim
    const items = keys.map((key) => (typeof key === "string" ? { key } : key))
    const retention = Policies.duration("retention", options.retention ?? defaultRetentionMillis)
    if (typeof retention !== "number") return Effect.fail(retention)
    const bad = checkText("namespace", namespace) ?? checkText("claimId", claimId) ?? checkItems(items)
    if (bad !== undefined) return Effect.fail(bad)
    const what = `${items.length === 1 ? `key ${items[0].key}` : `${items.length} keys`} of ${namespace}`
    const { connection, keys: table } = store
    const completed = store.writeOr(
      "completeWith",
      itemsPerFunction + items.length,
      (now) => {
        const { completed, lost } = table.standing(claimId, namespace, items, now)
        if (lost) return Exit.fail<CompleteWithError>(new LeaseLost({ what, claimId, token }))
        if (completed.length > 0) {
          return Exit.fail(new AlreadyCompleted({ what, completed: completed.join(", ") }))
        }
        const exit = within("completeWith", connection, work)
        if (Exit.isSuccess(exit)) table.complete(claimId, namespace, items, retention, now)
        return exit
      },
      blamed
    )
    const names = items.map(({ key }) => key)
    return Effect.map(completed, (value) => {
      claim.noteCompleted?.(names)
      wakeKeys(store, namespace, names)
      return value
    })
  }

/** The functions of the service that work in transactions. */
export const transactions = (
  store: Store,
  retentionMillis: number
): Pick<SqliteDatabaseService, "completeWith" | "transaction"> => {
  const offsets = onOffsets(store)
  const keys = onKeys(store, retentionMillis)
  function completeWith<A>(
    claim: HandlerClaim | ClaimedOffsets | ClaimedKeys,
    ...rest: ReadonlyArray<unknown>
  ): Effect.Effect<A, CompleteWithError> {
    if ("key" in claim) {
      const [work, options] = rest as [Work<A>, CompleteKeysOptions?]
      const { key, ref, token, noteCompleted } = claim
      return key._tag === "Offset"
        ? offsets(
            { stream: key.stream, claimId: ref.claimId, token, noteCompleted },
            OffsetRanges.of(key.offset),
            work
          )
        : keys({ ...(ref as KeyClaimRef), token, noteCompleted }, [key.id], work, options)
    }
    return "stream" in claim
      ? offsets(claim, ...(rest as [OffsetRanges.OffsetRanges, Work<A>]))
      : keys(
          claim,
          ...(rest as [ReadonlyArray<string | Protocol.KeyCompletion>, Work<A>, CompleteKeysOptions?])
        )
  }
  return {
    completeWith,
    transaction: (work) =>
      store.writeOr(
        "transaction",
        itemsPerFunction,
        () => within("transaction", store.connection, work),
        blamed
      )
  }
}
