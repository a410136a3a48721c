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

describe("a function that leaves rows unread", () => {
  const writing = "INSERT INTO ledger VALUES ('a'), ('b') RETURNING entry"
  const reading = "SELECT name FROM sqlite_schema"

  it.effect.each([
    { name: "of an INSERT", read: (db: DatabaseSync) => db.prepare(writing).iterate().next() },
    {
      name: "of an INSERT that it prepared and ran before, beside others",
      read: (db: DatabaseSync) => {
        const statement = db.prepare(writing)
        statement.all()
        db.exec("DELETE FROM ledger")
        for (const _ of db.prepare(reading).iterate()) break
        db.prepare(reading).iterate().next()
        statement.iterate().next()
      }
    },
    {
      name: "of an INSERT of a tag store",
      read: (db: DatabaseSync) =>
        db.createTagStore().iterate`INSERT INTO ledger VALUES (${"a"}), ('b') RETURNING entry`.next()
    }
  ])("$name commits all the same, and keeps nobody from it", ({ read }) =>
    withStore(({ elsewhere, offsets, sqlite }) =>
      Effect.gen(function* () {
        yield* sqlite.transaction((db) => db.exec("CREATE TABLE ledger (entry TEXT)"))
        yield* offsets.claim("s", OffsetRanges.make(0, 10), terms("c"))
        const claim = { stream: "s", claimId: "c" }
        const [first, second] = yield* together<unknown>([
          sqlite.completeWith(claim, OffsetRanges.of(0), read),
          offsets.complete(claim, OffsetRanges.of(1))
        ])
        expect([first._tag, second._tag]).toEqual(["Success", "Success"])
        yield* offsets.complete(claim, OffsetRanges.of(2))
        const entries = elsewhere((db) => db.prepare("SELECT entry FROM ledger").all())
        expect(entries).toEqual([{ entry: "a" }, { entry: "b" }])
        expect((yield* offsets.progress("s"))?.watermark).toBe(3)
        // nor the log from being begun anew
        expect(elsewhere((db) => db.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get())).toMatchObject({
          busy: 0
        })
      })
    )
  )

  it.effect("and throws: its own writes are rolled back, and nobody else's", () =>
    withStore(({ elsewhere, offsets, sqlite }) =>
      Effect.gen(function* () {
        yield* sqlite.transaction((db) => db.exec("CREATE TABLE ledger (entry TEXT)"))
        const [bad, good] = yield* together<unknown>([
          sqlite.transaction((db) => {
            db.prepare(writing).iterate().next()
            throw new Error("no")
          }),
          offsets.claim("s", OffsetRanges.make(0, 10), terms("c"))
        ])
        expect(yield* Effect.flip(bad as Exit.Exit<unknown, unknown>)).toMatchObject({ reason: "Threw" })
        expect(good._tag).toBe("Success")
        expect(elsewhere((db) => db.prepare("SELECT entry FROM ledger").all())).toEqual([])
      })
    )
  )

  it.effect("and returns them, or reads them later, is told that it can't", () =>
    withStore(({ elsewhere, offsets, sqlite }) =>
      Effect.gen(function* () {
        yield* sqlite.transaction((db) => db.exec("CREATE TABLE ledger (entry TEXT)"))
        const returned = yield* Effect.flip(sqlite.transaction((db) => db.prepare(writing).iterate()))
        expect(returned).toMatchObject({ _tag: "TransactionFailed", reason: "NotSynchronous" })
        expect(elsewhere((db) => db.prepare("SELECT entry FROM ledger").all())).toEqual([])
        const kept = yield* sqlite.transaction((db) => {
          const statement = db.prepare(writing)
          const rows = statement.iterate()
          return { statement, rows, names: rows.map(({ entry }) => entry) }
        })
        expect(() => kept.rows.next()).toThrow("within a function")
        expect(() => kept.names.next()).toThrow("within a function")
        expect(() => kept.statement.iterate()).toThrow("within a function")
        yield* offsets.claim("s", OffsetRanges.make(0, 10), terms("c"))
        expect(elsewhere((db) => db.prepare("SELECT entry FROM ledger").all())).toHaveLength(0)
      })
    )
  )
})
