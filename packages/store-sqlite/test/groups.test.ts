/** Calls that share a commit: what goes wrong with one of them is no matter of the others. */
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { describe, expect, it } from "@effect/vitest"
import { IdempotencyStore, OffsetRanges, OffsetStore } from "@tidemark/core"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { Effect, Exit } from "effect"
import { temporaryFolder } from "./files.ts"

const terms = (claimId: string) => ({ claimId, owner: claimId, leaseMillis: 30_000 })

/** At once, so that they share a commit. */
const together = <E>(calls: ReadonlyArray<Effect.Effect<unknown, E>>) =>
  Effect.forEach(calls, (call) => Effect.exit(call), { concurrency: "unbounded" })

/** A store whose file others can open too. */
const withStore = <A, E>(
  use: (given: {
    readonly sqlite: SqliteDatabase["Service"]
    readonly keys: IdempotencyStore["Service"]
    readonly offsets: OffsetStore["Service"]
    /** What another program does to the file. */
    readonly elsewhere: <B>(act: (db: DatabaseSync) => B) => B
  }) => Effect.Effect<A, E>
) =>
  Effect.gen(function* () {
    const filename = join(yield* temporaryFolder, "groups.db")
    const elsewhere = <B>(act: (db: DatabaseSync) => B): B => {
      const db = new DatabaseSync(filename)
      try {
        return act(db)
      } finally {
        db.close()
      }
    }
    return yield* Effect.gen(function* () {
      const sqlite = yield* SqliteDatabase
      const keys = yield* IdempotencyStore
      const offsets = yield* OffsetStore
      return yield* use({ sqlite, keys, offsets, elsewhere })
    }).pipe(Effect.provide(SqliteStore.layer({ filename, lockTimeout: 50 })))
  })

describe("a group of calls", () => {
  it.effect("of which one meets a stream that is damaged: the others go their way", () =>
    withStore(({ elsewhere, keys, offsets }) =>
      Effect.gen(function* () {
        yield* offsets.claim("bad", OffsetRanges.make(0, 10), terms("b"))
        elsewhere((db) => {
          db.exec("UPDATE tidemark_claims SET requested = 'nonsense'")
          // what is in memory of it is older then
          db.exec("UPDATE tidemark_streams SET version = version + 1")
        })
        const [stream, bad, key] = yield* together([
          offsets.claim("good", OffsetRanges.make(0, 10), terms("g")),
          offsets.complete({ stream: "bad", claimId: "b" }, OffsetRanges.of(1)),
          keys.claim("n", [{ key: "k" }], terms("k"))
        ])
        expect(yield* Effect.flip(bad as Exit.Exit<unknown, unknown>)).toMatchObject({
          _tag: "StoreError",
          reason: "Corrupt"
        })
        expect(Exit.isSuccess(stream)).toBe(true)
        expect(key).toMatchObject({ _tag: "Success", value: [{ _tag: "Claimed" }] })
      })
    )
  )

  it.effect("in which one has a defect: the others go their way", () =>
    withStore(({ keys, offsets, sqlite }) =>
      Effect.gen(function* () {
        yield* keys.claim("n", [{ key: "a" }], terms("a"))
        const notText = { namespace: "n", claimId: { a: 1 } as unknown as string }
        const [stream, bad, key] = yield* together<unknown>([
          offsets.claim("good", OffsetRanges.make(0, 10), terms("g")),
          sqlite.completeWith(notText, ["a"], () => "done"),
          keys.claim("n", [{ key: "k" }], terms("k"))
        ])
        expect(yield* Effect.flip(bad as Exit.Exit<unknown, unknown>)).toMatchObject({
          _tag: "InvalidInput",
          field: "claimId"
        })
        expect(Exit.isSuccess(stream)).toBe(true)
        expect(Exit.isSuccess(key)).toBe(true)
      })
    )
  )

  it.effect("of which one commits by itself: what others wrote is there with its mark, or not at all", () =>
    withStore(({ elsewhere, offsets, sqlite }) =>
      Effect.gen(function* () {
        yield* sqlite.transaction((db) => db.exec("CREATE TABLE ledger (entry TEXT)"))
        yield* offsets.claim("s", OffsetRanges.make(0, 10), terms("c"))
        const append = (db: DatabaseSync) => db.exec("INSERT INTO ledger VALUES ('once')")
        const charge = sqlite.completeWith({ stream: "s", claimId: "c" }, OffsetRanges.of(0), append)
        const [first] = yield* together<unknown>([charge, sqlite.transaction((db) => db.exec("COMMIT"))])
        // it may or may not have taken effect, is the answer: so it is asked again
        expect(yield* Effect.flip(first as Exit.Exit<unknown, unknown>)).toMatchObject({ retriable: true })
        yield* Effect.exit(charge)
        expect(elsewhere((db) => db.prepare("SELECT entry FROM ledger").all())).toEqual([{ entry: "once" }])
        expect((yield* offsets.progress("s"))?.watermark).toBe(1)
      })
    )
  )
})

describe("a function that leaves a statement unfinished", () => {
  it.live("is told so, as are those who can't commit for it; when it is finished, they can", () =>
    withStore(({ elsewhere, offsets, sqlite }) =>
      Effect.gen(function* () {
        yield* sqlite.transaction((db) => db.exec("CREATE TABLE ledger (entry TEXT)"))
        yield* offsets.claim("s", OffsetRanges.make(0, 10), terms("c"))
        let rows: Iterator<unknown> | undefined
        const unfinished = sqlite.completeWith({ stream: "s", claimId: "c" }, OffsetRanges.of(0), (db) => {
          rows = db.prepare("INSERT INTO ledger VALUES ('a'), ('b') RETURNING entry").iterate()
          rows.next()
        })
        expect(yield* Effect.flip(unfinished)).toMatchObject({
          _tag: "TransactionFailed",
          reason: "EndedTransaction",
          message: expect.stringContaining("unfinished")
        })
        const next = offsets.complete({ stream: "s", claimId: "c" }, OffsetRanges.of(1))
        expect(yield* Effect.flip(next)).toMatchObject({
          reason: "Busy",
          retriable: true,
          message: expect.stringContaining("unfinished")
        })
        rows?.return?.()
        yield* next
        expect(elsewhere((db) => db.prepare("SELECT entry FROM ledger").all())).toEqual([])
        expect(String((yield* offsets.progress("s"))?.completed)).toBe("[1,2)")
      })
    )
  )
})
