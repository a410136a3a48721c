import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { describe, expect, it } from "@effect/vitest"
import { type HandlerClaim, IdempotencyStore, Key, OffsetRanges, OffsetStore, Tracker } from "@tidemark/core"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { Effect, type Exit } from "effect"
import { TestClock } from "effect/testing"
import { temporaryFolder } from "./files.ts"

const terms = (claimId: string) => ({ claimId, owner: claimId, leaseMillis: 30_000 })
const key = { namespace: "n", claimId: "c" }
const stream = { stream: "s", claimId: "c" }

/** A store with a ledger beside it, a claim on key k and one on [0, 10). */
const withLedger = <A, E>(
  use: (given: {
    readonly sqlite: SqliteDatabase["Service"]
    readonly keys: IdempotencyStore["Service"]
    readonly offsets: OffsetStore["Service"]
    readonly append: (entry: string) => (db: DatabaseSync) => string
    /** As another process sees it. */
    readonly ledger: () => ReadonlyArray<string>
  }) => Effect.Effect<A, E>
) =>
  Effect.gen(function* () {
    const filename = join(yield* temporaryFolder, "ledger.db")
    return yield* Effect.gen(function* () {
      const sqlite = yield* SqliteDatabase
      const keys = yield* IdempotencyStore
      const offsets = yield* OffsetStore
      yield* sqlite.transaction((db) => db.exec("CREATE TABLE ledger (entry TEXT UNIQUE)"))
      yield* keys.claim("n", [{ key: "k" }], terms("c"))
      yield* offsets.claim("s", OffsetRanges.make(0, 10), terms("c"))
      const append = (entry: string) => (db: DatabaseSync) => {
        db.prepare("INSERT INTO ledger VALUES (?)").run(entry)
        return `appended ${entry}`
      }
      const ledger = () => {
        const db = new DatabaseSync(filename, { readOnly: true })
        const rows = db.prepare("SELECT entry FROM ledger ORDER BY rowid").all()
        db.close()
        return rows.map(({ entry }) => String(entry))
      }
      return yield* use({ sqlite, keys, offsets, append, ledger })
    }).pipe(Effect.provide(SqliteStore.layer({ filename })))
  })

const statusOf = (keys: IdempotencyStore["Service"], name = "k") =>
  Effect.map(keys.lookup("n", [name]), ([status]) => status._tag)

describe("completeWith", () => {
  it.effect("writes and marks together, and hands on what the function returns", () =>
    withLedger(({ append, keys, ledger, offsets, sqlite }) =>
      Effect.gen(function* () {
        expect(yield* sqlite.completeWith(key, ["k"], append("a"))).toBe("appended a")
        expect(yield* statusOf(keys)).toBe("Completed")
        expect(yield* sqlite.completeWith(stream, OffsetRanges.make(0, 4), append("b"))).toBe("appended b")
        expect(yield* offsets.progress("s")).toMatchObject({ watermark: 4 })
        expect(ledger()).toEqual(["a", "b"])
      })
    )
  )

  it.effect("keeps results, and for as long as is said", () =>
    withLedger(({ append, keys, sqlite }) =>
      Effect.gen(function* () {
        yield* sqlite.completeWith(key, [{ key: "k", result: "7" }], append("a"), { retention: "1 minute" })
        expect(yield* keys.lookup("n", ["k"])).toMatchObject([{ _tag: "Completed", result: "7" }])
        yield* TestClock.adjust("1 minute")
        expect(yield* statusOf(keys)).toBe("Unknown")
      })
    )
  )

  it.effect("does not run what is not held, and changes nothing", () =>
    withLedger(({ append, keys, ledger, offsets, sqlite }) =>
      Effect.gen(function* () {
        for (const attempt of [
          sqlite.completeWith({ ...key, claimId: "other" }, ["k"], append("a")),
          sqlite.completeWith({ ...key, namespace: "unknown" }, ["k"], append("a")),
          sqlite.completeWith(key, ["k", "not claimed"], append("a")),
          sqlite.completeWith({ ...stream, claimId: "other" }, OffsetRanges.of(1), append("a")),
          sqlite.completeWith({ ...stream, stream: "unknown" }, OffsetRanges.of(1), append("a")),
          sqlite.completeWith(stream, OffsetRanges.make(5, 11), append("a"))
        ]) {
          expect(yield* Effect.flip(attempt)).toMatchObject({ _tag: "LeaseLost" })
        }
        expect(ledger()).toEqual([])
        expect(yield* statusOf(keys)).toBe("InFlight")
        expect(yield* offsets.progress("s")).toMatchObject({ watermark: 0 })
      })
    )
  )

  it.effect("runs late as long as nobody else took the work over, and not when one did", () =>
    withLedger(({ append, keys, ledger, offsets, sqlite }) =>
      Effect.gen(function* () {
        yield* TestClock.adjust("31 seconds")
        yield* sqlite.completeWith(stream, OffsetRanges.of(0), append("late"))
        yield* keys.claim("n", [{ key: "k" }], terms("heir"))
        yield* offsets.claim("s", OffsetRanges.make(1, 10), terms("heir"))
        expect(yield* Effect.flip(sqlite.completeWith(key, ["k"], append("zombie")))).toMatchObject({
          _tag: "LeaseLost"
        })
        expect(
          yield* Effect.flip(sqlite.completeWith(stream, OffsetRanges.of(1), append("zombie")))
        ).toMatchObject({
          _tag: "LeaseLost"
        })
        expect(ledger()).toEqual(["late"])
      })
    )
  )

  it.effect("does not run what is completed, wholly or in part", () =>
    withLedger(({ append, keys, ledger, offsets, sqlite }) =>
      Effect.gen(function* () {
        yield* keys.complete(key, [{ key: "k" }])
        yield* offsets.complete(stream, OffsetRanges.make(0, 5))
        const done = yield* Effect.flip(sqlite.completeWith(key, ["k"], append("a")))
        expect(done).toMatchObject({ _tag: "AlreadyCompleted", completed: "k" })
        const part = yield* Effect.flip(sqlite.completeWith(stream, OffsetRanges.make(4, 7), append("a")))
        expect(part).toMatchObject({ _tag: "AlreadyCompleted", completed: "[4,5)" })
        expect(ledger()).toEqual([])
        expect(yield* offsets.progress("s")).toMatchObject({ watermark: 5 })
      })
    )
  )

  it.effect("rolls both back when the function throws, and keeps what it threw", () =>
    withLedger(({ append, keys, ledger, offsets, sqlite }) =>
      Effect.gen(function* () {
        const broke = new Error("the account is empty")
        const fails = (db: DatabaseSync) => {
          append("a")(db)
          throw broke
        }
        const error = yield* Effect.flip(sqlite.completeWith(key, ["k"], fails))
        expect(error).toMatchObject({
          _tag: "TransactionFailed",
          reason: "Threw",
          cause: broke,
          retriable: false
        })
        expect(error.message).toContain("the account is empty")
        yield* Effect.flip(sqlite.completeWith(stream, OffsetRanges.of(0), fails))
        expect(ledger()).toEqual([])
        expect(yield* statusOf(keys)).toBe("InFlight")
        // as if nothing had been
        yield* sqlite.completeWith(key, ["k"], append("a"))
        yield* sqlite.completeWith(stream, OffsetRanges.of(0), append("b"))
        expect(ledger()).toEqual(["a", "b"])
        expect(yield* offsets.progress("s")).toMatchObject({ watermark: 1 })
      })
    )
  )

  it.effect("takes no promise, thenable or effect, which would write after the transaction", () =>
    withLedger(({ append, keys, ledger, sqlite }) =>
      Effect.gen(function* () {
        for (const later of [
          async (db: DatabaseSync) => append("a")(db),
          async (db: DatabaseSync) => {
            append("a")(db)
            throw new Error("unheard")
          },
          (db: DatabaseSync) => ({
            // biome-ignore lint/suspicious/noThenProperty: what is not a promise, and is awaited like one
            then: () => append("a")(db)
          }),
          (db: DatabaseSync) => {
            append("a")(db)
            return Effect.void
          }
        ]) {
          const error = yield* Effect.flip(
            sqlite.completeWith(key, ["k"], later as (db: DatabaseSync) => unknown)
          )
          expect(error).toMatchObject({ _tag: "TransactionFailed", reason: "NotSynchronous" })
        }
        expect(ledger()).toEqual([])
        expect(yield* statusOf(keys)).toBe("InFlight")
      })
    )
  )

  it.effect.each([
    { name: "ROLLBACK", sql: "ROLLBACK", left: [] },
    { name: "COMMIT", sql: "COMMIT", left: ["a"] },
    { name: "COMMIT, and BEGIN to hide it", sql: "COMMIT; BEGIN", left: ["a"] },
    { name: "INSERT OR ROLLBACK", sql: "INSERT OR ROLLBACK INTO ledger VALUES ('a')", left: [] }
  ])("notices that the function ended the transaction by $name", ({ left, sql }) =>
    withLedger(({ append, keys, ledger, offsets, sqlite }) =>
      Effect.gen(function* () {
        const ends = (db: DatabaseSync) => {
          append("a")(db)
          db.exec(sql)
        }
        for (const attempt of [
          sqlite.completeWith(key, ["k"], ends),
          sqlite.completeWith(stream, OffsetRanges.of(0), (db) => {
            db.exec("DELETE FROM ledger")
            ends(db)
          })
        ]) {
          expect(yield* Effect.flip(attempt)).toMatchObject({
            _tag: "TransactionFailed",
            reason: "EndedTransaction"
          })
        }
        expect(ledger()).toEqual(left)
        expect(yield* statusOf(keys)).toBe("InFlight")
        yield* sqlite.completeWith(key, ["k"], append("b"))
        expect(yield* statusOf(keys)).toBe("Completed")
        yield* sqlite.completeWith(stream, OffsetRanges.of(0), append("c"))
        expect(yield* offsets.progress("s")).toMatchObject({ watermark: 1 })
      })
    )
  )

  it.effect("lets the function use savepoints of its own, also when it leaves one open", () =>
    withLedger(({ append, ledger, sqlite }) =>
      Effect.gen(function* () {
        yield* sqlite.completeWith(key, ["k"], (db) => {
          append("kept")(db)
          db.exec("SAVEPOINT own")
          append("undone")(db)
          db.exec("ROLLBACK TO own; SAVEPOINT left")
          append("kept too")(db)
        })
        expect(ledger()).toEqual(["kept", "kept too"])
      })
    )
  )

  it.effect("shares a commit, and not its fate", () =>
    withLedger(({ append, keys, ledger, offsets, sqlite }) =>
      Effect.gen(function* () {
        const names = Array.from({ length: 20 }, (_, index) => `k${index}`)
        yield* Effect.forEach(names, (name) => keys.claim("n", [{ key: name }], terms(name)))
        const one = (name: string, index: number) =>
          Effect.exit(
            sqlite.completeWith({ namespace: "n", claimId: name }, [name], (db) => {
              append(name)(db)
              if (index % 3 === 1) throw new Error(name)
              if (index % 3 === 2) return Promise.resolve() as unknown
              return name
            })
          )
        const exits = yield* Effect.forEach(names, one, { concurrency: "unbounded" })
        const good = names.filter((_, index) => index % 3 === 0)
        expect(exits.flatMap((exit) => (exit._tag === "Success" ? [exit.value] : []))).toEqual(good)
        expect(ledger()).toEqual(good)
        const statuses = yield* keys.lookup("n", names)
        expect(statuses.map(({ _tag }) => _tag === "Completed")).toEqual(
          names.map((name) => good.includes(name))
        )
        // positions too, of one stream and one claim
        const offset = (at: number) =>
          Effect.exit(
            sqlite.completeWith(stream, OffsetRanges.of(at), (db) => {
              append(`offset ${at}`)(db)
              if (at === 4) throw new Error("no")
            })
          )
        yield* Effect.forEach([0, 1, 2, 3, 4, 5], offset, { concurrency: "unbounded" })
        expect(String((yield* offsets.progress("s"))?.completed)).toBe("[0,4) [5,6)")
        expect(ledger().slice(good.length)).toEqual([0, 1, 2, 3, 5].map((at) => `offset ${at}`))
      })
    )
  )

  it.effect(
    "who shares a transaction that a function ended is told so, may ask again, and loses nothing",
    () =>
      withLedger(({ append, keys, ledger, sqlite }) =>
        Effect.gen(function* () {
          const [before, guilty, after] = yield* Effect.all(
            [
              keys.claim("n", [{ key: "x" }], terms("x")),
              sqlite.completeWith(key, ["k"], (db) => {
                append("a")(db)
                db.exec("ROLLBACK")
              }),
              keys.claim("n", [{ key: "y" }], terms("y"))
            ].map((attempt) => Effect.exit(attempt as Effect.Effect<unknown, unknown>)),
            { concurrency: "unbounded" }
          )
          const errorOf = (exit: Exit.Exit<unknown, unknown>) => Effect.flip(exit)
          expect(yield* errorOf(guilty)).toMatchObject({ reason: "EndedTransaction" })
          for (const innocent of [before, after]) {
            expect(yield* errorOf(innocent)).toMatchObject({
              _tag: "StoreError",
              reason: "Unavailable",
              retriable: true
            })
          }
          expect(ledger()).toEqual([])
          expect(yield* keys.claim("n", [{ key: "x" }], terms("x"))).toMatchObject([{ _tag: "Claimed" }])
        })
      )
  )

  it.effect("a rule that is broken only at the end of the transaction fails the one who broke it", () =>
    withLedger(({ append, keys, ledger, sqlite }) =>
      Effect.gen(function* () {
        yield* sqlite.transaction((db) =>
          db.exec(
            "CREATE TABLE account (id TEXT PRIMARY KEY); CREATE TABLE entry (account REFERENCES account DEFERRABLE INITIALLY DEFERRED)"
          )
        )
        const [bad, good] = yield* Effect.all(
          [
            Effect.exit(
              sqlite.completeWith(key, ["k"], (db) => db.exec("INSERT INTO entry VALUES ('nobody')"))
            ),
            Effect.exit(sqlite.completeWith(stream, OffsetRanges.of(0), append("good")))
          ],
          { concurrency: "unbounded" }
        )
        expect(good).toMatchObject({ _tag: "Success" })
        expect(yield* Effect.flip(bad)).toMatchObject({
          _tag: "TransactionFailed",
          reason: "Threw"
        })
        expect(ledger()).toEqual(["good"])
        expect(yield* statusOf(keys)).toBe("InFlight")
      })
    )
  )

  it.effect("refuses what can't be completed", () =>
    withLedger(({ append, sqlite }) =>
      Effect.gen(function* () {
        for (const attempt of [
          sqlite.completeWith(stream, OffsetRanges.empty, append("a")),
          sqlite.completeWith(stream, OffsetRanges.openEnded(3), append("a")),
          sqlite.completeWith(key, [], append("a")),
          sqlite.completeWith(key, ["k"], append("a"), { retention: 0 })
        ]) {
          expect(yield* Effect.flip(attempt)).toMatchObject({ _tag: "InvalidInput" })
        }
      })
    )
  )

  it.effect("wakes those who wait", () =>
    withLedger(({ append, keys, offsets, sqlite }) =>
      Effect.gen(function* () {
        const settled = yield* Effect.forkChild(keys.awaitSettled("n", "k"), { startImmediately: true })
        const released = yield* Effect.forkChild(offsets.awaitRelease("s"), { startImmediately: true })
        yield* sqlite.completeWith(key, ["k"], append("a"))
        yield* sqlite.completeWith(stream, OffsetRanges.of(0), append("b"))
        expect([settled.pollUnsafe()?._tag, released.pollUnsafe()?._tag]).toEqual(["Success", "Success"])
      })
    )
  )
})

describe("completeWith in a Tracker", () => {
  const withTracker = <A, E>(use: (tracker: Tracker["Service"]) => Effect.Effect<A, E>) =>
    Effect.flatMap(Tracker.make({ namespace: "orders" }), use)

  it.effect.each([
    { what: "an id", taken: Key.id("order-1") },
    { what: "an id of another namespace", taken: Key.id("order-1", { namespace: "others" }) },
    { what: "a position", taken: Key.offset("orders", 7) }
  ])("completes $what once, and the tracker finds nothing left to do", ({ taken }) =>
    withLedger(({ append, ledger, sqlite, offsets, keys }) =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          const once = tracker.once(taken, (claim) => sqlite.completeWith(claim, append("charged")))
          expect(yield* once).toEqual({ _tag: "Processed", value: "appended charged" })
          expect(yield* once).toEqual({ _tag: "Duplicate", value: undefined })
          expect(ledger()).toEqual(["charged"])
        })
      ).pipe(Effect.provideService(OffsetStore, offsets), Effect.provideService(IdempotencyStore, keys))
    )
  )

  it.effect("is free again, with nothing written, when the function throws", () =>
    withLedger(({ append, ledger, sqlite, offsets, keys }) =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          const handler = (fail: boolean) => (claim: HandlerClaim) =>
            sqlite.completeWith(claim, (db) => {
              append("charged")(db)
              if (fail) throw new Error("no")
            })
          expect(yield* Effect.flip(tracker.once(Key.id("a"), handler(true)))).toMatchObject({
            reason: "Threw"
          })
          expect(ledger()).toEqual([])
          expect(yield* tracker.once(Key.id("a"), handler(false))).toMatchObject({ _tag: "Processed" })
          expect(ledger()).toEqual(["charged"])
        })
      ).pipe(Effect.provideService(OffsetStore, offsets), Effect.provideService(IdempotencyStore, keys))
    )
  )

  it.effect("does each of many once, however many come at the same time, in batches too", () =>
    withLedger(({ append, ledger, sqlite, offsets, keys }) =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          const ids = Array.from({ length: 60 }, (_, index) => `order-${index % 20}`)
          const charge = (id: string, claim: HandlerClaim) => sqlite.completeWith(claim, append(id))
          yield* Effect.forEach(ids, (id) => tracker.once(Key.id(id), (claim) => charge(id, claim)), {
            concurrency: "unbounded"
          })
          expect(ledger().toSorted()).toEqual([...new Set(ids)].toSorted())
          const more = ids.map((id) => `${id}-again`)
          const outcomes = yield* tracker.onceAll(more, (id) => Key.id(id), charge, { concurrency: 8 })
          expect(outcomes.filter(({ _tag }) => _tag === "Processed")).toHaveLength(20)
          expect(ledger()).toHaveLength(40)
        })
      ).pipe(Effect.provideService(OffsetStore, offsets), Effect.provideService(IdempotencyStore, keys))
    )
  )
})

describe("transaction", () => {
  it.effect("is all or nothing, and gives what the function returns", () =>
    withLedger(({ append, ledger, sqlite }) =>
      Effect.gen(function* () {
        expect(yield* sqlite.transaction(append("a"))).toBe("appended a")
        const error = yield* Effect.flip(
          sqlite.transaction((db) => {
            append("b")(db)
            append("a")(db)
          })
        )
        expect(error).toMatchObject({ _tag: "TransactionFailed", reason: "Threw" })
        expect(error.message).toContain("UNIQUE")
        expect(ledger()).toEqual(["a"])
      })
    )
  )
})
