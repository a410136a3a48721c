import { existsSync, statSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { describe, expect, it } from "@effect/vitest"
import { IdempotencyStore, Lock, OffsetRanges, OffsetStore } from "@tidemark/core"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { Effect, Fiber, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"
import { temporaryFolder } from "./files.ts"

const terms = (claimId: string, leaseMillis = 30_000) => ({ claimId, owner: claimId, leaseMillis })

/** How many rows the tables of claims and keys have. */
const rows = Effect.flatMap(SqliteDatabase, (sqlite) =>
  sqlite.transaction((db) => {
    const count = (table: string) =>
      Number(db.prepare(`SELECT count(*) AS n FROM tidemark_${table}`).get()?.n)
    return {
      keys: count("keys"),
      batches: count("batches"),
      lists: count("batch_keys"),
      claims: count("claims")
    }
  })
)

const nothing = { keys: 0, batches: 0, lists: 0, claims: 0 }

const remember = (claimId: string, keys: ReadonlyArray<string>, retentionMillis: number) =>
  Effect.gen(function* () {
    const store = yield* IdempotencyStore
    const items = keys.map((key) => ({ key }))
    yield* store.claim("n", items, terms(claimId))
    yield* store.complete({ namespace: "n", claimId }, items, { retentionMillis })
  })

const names = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, index) => `${prefix}-${index}`)

describe("the sweep", () => {
  it.effect("removes by itself what is over, and nothing else", () =>
    Effect.gen(function* () {
      const keys = yield* IdempotencyStore
      const offsets = yield* OffsetStore
      yield* remember("short", names("short", 1_200), 10_000)
      yield* remember("long", ["long"], 3_600_000)
      yield* keys.claim("n", [{ key: "abandoned" }], terms("abandoned", 1_000))
      yield* keys.claim("n", [{ key: "live" }], terms("live", 3_600_000))
      yield* offsets.claim("s", OffsetRanges.of(1), terms("abandoned", 1_000))
      yield* offsets.claim("s", OffsetRanges.of(2), terms("live", 3_600_000))
      yield* TestClock.adjust("10999 millis")
      expect(yield* rows).toEqual({ keys: 1_203, batches: 4, lists: 1, claims: 2 })
      // an abandoned claim is kept for ten leases after its end
      yield* TestClock.adjust("49 seconds")
      expect(yield* rows).toEqual({ keys: 1_203, batches: 4, lists: 1, claims: 2 })
      yield* TestClock.adjust("1 second")
      // it takes some turns, but no more time
      let left = yield* rows
      while (left.keys > 2) {
        yield* Effect.yieldNow
        left = yield* rows
      }
      expect(left).toEqual({ keys: 2, batches: 2, lists: 0, claims: 1 })
      expect(yield* keys.lookup("n", ["short-0", "long", "abandoned", "live"])).toMatchObject([
        { _tag: "Unknown" },
        { _tag: "Completed" },
        { _tag: "Unknown" },
        { _tag: "InFlight" }
      ])
      expect((yield* offsets.progress("s"))?.claims).toHaveLength(1)
    }).pipe(Effect.provide(SqliteStore.layer({ filename: ":memory:" })))
  )

  it.effect("tells what keeps it from its work, a defect too, and is at it again the next time", () => {
    const lines: Array<string> = []
    const logger = Logger.layer([Logger.make(({ message }) => lines.push(String(message)))])
    return Effect.gen(function* () {
      const sqlite = yield* SqliteDatabase
      yield* remember("short", ["a", "b"], 10_000)
      const setKeys = (keys: string) =>
        sqlite.transaction((db) => db.prepare("UPDATE tidemark_batch_keys SET keys = ?").run(keys))
      for (const nonsense of ["nonsense", "7"]) {
        yield* setKeys(nonsense)
        yield* TestClock.adjust("1 minute")
        while (lines.length === 0) yield* Effect.yieldNow
        expect(lines.splice(0)).toEqual([expect.stringContaining("what is expired could not be removed")])
      }
      yield* setKeys('["a","b"]')
      yield* TestClock.adjust("1 minute")
      while ((yield* rows).keys > 0) yield* Effect.yieldNow
      expect(yield* rows).toEqual(nothing)
    }).pipe(Effect.provide(SqliteStore.layer({ filename: ":memory:" })), Effect.provide(logger))
  })

  it.effect("is led by one process: nobody else sweeps while one does", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "led.db")
      yield* Effect.gen(function* () {
        yield* remember("c", ["k"], 1_000)
        yield* TestClock.adjust("1 second")
        const other = Effect.gen(function* () {
          yield* (yield* SqliteDatabase).sweep
        }).pipe(Effect.provide(SqliteStore.layer({ filename })))
        yield* (yield* Lock).withLock("tidemark sweep")(
          Effect.gen(function* () {
            yield* other
            expect(yield* rows).toMatchObject({ keys: 2 })
          })
        )
        yield* other
        expect(yield* rows).toEqual(nothing)
      }).pipe(Effect.provide(SqliteStore.layer({ filename })))
    })
  )

  it.effect.each([
    { synchronous: "full", level: 2 },
    { synchronous: "normal", level: 1 }
  ] as const)("leaves commits as they were: $synchronous", ({ level, synchronous }) =>
    Effect.gen(function* () {
      const sqlite = yield* SqliteDatabase
      const current = sqlite.transaction((db) => db.prepare("PRAGMA synchronous").get()?.synchronous)
      expect(yield* current).toBe(level)
      yield* remember("c", ["k"], 1_000)
      yield* TestClock.adjust("1 second")
      yield* sqlite.sweep
      expect(yield* rows).toEqual(nothing)
      expect(yield* current).toBe(level)
    }).pipe(
      Effect.provide(
        Layer.unwrap(
          Effect.map(temporaryFolder, (folder) =>
            SqliteStore.layer({ filename: join(folder, "level.db"), synchronous })
          )
        )
      )
    )
  )

  it.effect("lets others have their turn between slices, also within one large batch", () =>
    Effect.gen(function* () {
      const sqlite = yield* SqliteDatabase
      yield* remember("large", names("large", 30_000), 1_000)
      yield* TestClock.adjust("1 second")
      let turns = 0
      const turning = yield* Effect.forkChild(
        Effect.forever(
          Effect.andThen(
            Effect.yieldNow,
            Effect.sync(() => turns++)
          )
        )
      )
      yield* sqlite.sweep
      yield* Fiber.interrupt(turning)
      expect(yield* rows).toEqual(nothing)
      expect(turns).toBeGreaterThan(5)
    }).pipe(Effect.provide(SqliteStore.layer({ filename: ":memory:" })))
  )

  it.effect("keeps the file from growing without end", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "grows.db")
      const sizes: Array<number> = []
      yield* Effect.gen(function* () {
        const sqlite = yield* SqliteDatabase
        for (let day = 0; day < 40; day++) {
          for (let batch = 0; batch < 5; batch++)
            yield* remember(`${day}-${batch}`, names(`${day}-${batch}`, 500), 1_000)
          yield* TestClock.adjust("1 second")
          yield* sqlite.sweep
          sizes.push(statSync(filename).size + statSync(`${filename}-wal`).size)
        }
      }).pipe(Effect.provide(SqliteStore.layer({ filename, synchronous: "normal" })))
      // the log grows to some 1,000 pages, and is begun anew
      expect(Math.max(...sizes.slice(20))).toBeLessThanOrEqual(Math.max(...sizes.slice(0, 20)) * 1.1)
      // the last to close it leaves one file
      expect(existsSync(`${filename}-wal`)).toBe(false)
    })
  )

  it.effect("cuts back a log that a reader has kept from being begun anew", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "read.db")
      yield* Effect.gen(function* () {
        const sqlite = yield* SqliteDatabase
        yield* sqlite.transaction((db) => db.exec("CREATE TABLE bulk (content BLOB)"))
        const reader = yield* Effect.acquireRelease(
          Effect.sync(() => new DatabaseSync(filename, { readOnly: true })),
          (db) => Effect.sync(() => db.close())
        )
        reader.exec("BEGIN; SELECT count(*) FROM bulk")
        for (let round = 0; round < 10; round++) {
          yield* sqlite.transaction((db) => db.exec("INSERT INTO bulk VALUES (zeroblob(2000000))"))
        }
        const log = () => statSync(`${filename}-wal`).size
        expect(log()).toBeGreaterThan(16 * 1024 * 1024)
        // as long as the reader reads, its snapshot is needed
        yield* sqlite.sweep
        expect(log()).toBeGreaterThan(16 * 1024 * 1024)
        reader.exec("COMMIT")
        yield* sqlite.sweep
        expect(log()).toBeLessThanOrEqual(16 * 1024 * 1024)
      }).pipe(Effect.provide(SqliteStore.layer({ filename, synchronous: "normal" })))
    })
  )
})
