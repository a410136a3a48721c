import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { describe, expect, it } from "@effect/vitest"
import { IdempotencyStore, OffsetRanges, OffsetStore } from "@tidemark/core"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { Context, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { describeWhereMounting, mountMemory, temporaryFolder } from "./files.ts"

const terms = (claimId: string) => ({ claimId, owner: claimId, leaseMillis: 60_000 })

/** Claims and completes so many keys of 600 bytes, in batches; answers how many were acknowledged, and the failure. */
const fill = (batches: number, first = 0) =>
  Effect.gen(function* () {
    const store = yield* IdempotencyStore
    let acknowledged = first
    for (let batch = first; batch < first + batches; batch++) {
      const items = keysOf(batch).map((key) => ({ key }))
      const claimId = `c${batch}`
      const exit = yield* Effect.exit(
        Effect.andThen(
          store.claim("n", items, terms(claimId)),
          store.complete({ namespace: "n", claimId }, items, { retentionMillis: 3_600_000 })
        )
      )
      if (Exit.isFailure(exit)) return { acknowledged, error: yield* Effect.flip(exit) }
      acknowledged += 1
    }
    return { acknowledged, error: undefined }
  })

const keysOf = (batch: number): ReadonlyArray<string> =>
  Array.from({ length: 20 }, (_, index) => `${batch}-${index}-`.padEnd(600, "x"))

/** What was acknowledged is there; the batch after it is claimed wholly or not at all, and nothing is completed. */
const expectKept = (acknowledged: number) =>
  Effect.gen(function* () {
    const store = yield* IdempotencyStore
    for (let batch = 0; batch < acknowledged; batch++) {
      const statuses = yield* store.lookup("n", keysOf(batch))
      expect(new Set(statuses.map(({ _tag }) => _tag))).toEqual(new Set(["Completed"]))
    }
    const next = yield* store.lookup("n", keysOf(acknowledged))
    expect(new Set(next.map(({ _tag }) => _tag)).size).toBe(1)
    expect(next[0]._tag).not.toBe("Completed")
  })

/** The verbs that only read, and those that write less than what is free, go on; all invariants hold. */
const expectWorking = (acknowledged: number) =>
  Effect.gen(function* () {
    const { db } = yield* openedBy
    expect(db.prepare("PRAGMA integrity_check").all()).toEqual([{ integrity_check: "ok" }])
    const { error } = yield* fill(3, acknowledged)
    expect(error).toBeUndefined()
    yield* expectKept(acknowledged + 3)
  })

const openedBy = Effect.flatMap(SqliteDatabase, (sqlite) => sqlite.transaction((db) => ({ db })))

describe("a full file", () => {
  it.live("is Full, keeps what was acknowledged, reads on, and works again when there is room", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "full.db")
      const small = SqliteStore.layer({ filename, synchronous: "normal", maxBytes: 1_000_000 })
      const acknowledged = yield* Effect.gen(function* () {
        const full = yield* fill(1_000)
        expect(full.error).toMatchObject({ _tag: "StoreError", reason: "Full", retriable: true })
        expect(full.acknowledged).toBeGreaterThan(5)
        yield* expectKept(full.acknowledged)
        // it is not that one call: another fails the same, and changes as little
        expect((yield* fill(1, full.acknowledged + 1)).error).toMatchObject({ reason: "Full" })
        yield* expectKept(full.acknowledged)
        const sqlite = yield* SqliteDatabase
        const work = (db: DatabaseSync) => db.exec("CREATE TABLE big AS SELECT zeroblob(2000000) AS zeros")
        expect(yield* Effect.flip(sqlite.transaction(work))).toMatchObject({
          _tag: "StoreError",
          reason: "Full"
        })
        yield* expectKept(full.acknowledged)
        return full.acknowledged
      }).pipe(Effect.provide(small))
      expect(statSync(filename).size).toBeLessThanOrEqual(1_000_000)
      yield* Effect.provide(
        Effect.andThen(expectKept(acknowledged), expectWorking(acknowledged)),
        SqliteStore.layer({ filename, synchronous: "normal" })
      )
    })
  )

  it.live("has room again when keys are forgotten", () =>
    Effect.gen(function* () {
      const store = yield* IdempotencyStore
      const { acknowledged } = yield* fill(1_000)
      for (let batch = 0; batch < 10; batch++) yield* store.forget("n", keysOf(batch))
      expect((yield* fill(3, acknowledged + 1)).error).toBeUndefined()
    }).pipe(
      Effect.provide(
        Layer.unwrap(
          Effect.map(temporaryFolder, (folder) =>
            SqliteStore.layer({
              filename: join(folder, "full.db"),
              synchronous: "normal",
              maxBytes: 1_000_000
            })
          )
        )
      )
    )
  )
})

await describeWhereMounting("a full disk", () => {
  it.live.each(["full", "normal"] as const)("%s: the same", (synchronous) =>
    Effect.gen(function* () {
      const folder = join(yield* temporaryFolder, "disk")
      mkdirSync(folder)
      yield* mountMemory(folder, "3m")
      const ballast = join(folder, "ballast")
      writeFileSync(ballast, Buffer.alloc(1_000_000))
      const layer = SqliteStore.layer({ filename: join(folder, "t.db"), synchronous })
      const acknowledged = yield* Effect.gen(function* () {
        const full = yield* fill(1_000)
        expect(full.error).toMatchObject({ _tag: "StoreError", reason: "Full", retriable: true })
        expect(full.acknowledged).toBeGreaterThan(5)
        yield* expectKept(full.acknowledged)
        expect((yield* fill(1, full.acknowledged + 1)).error).toMatchObject({ reason: "Full" })
        const offsets = yield* OffsetStore
        const claiming = yield* Effect.exit(offsets.claim("s", OffsetRanges.of(1), terms("o")))
        if (Exit.isFailure(claiming)) expect(yield* Effect.flip(claiming)).toMatchObject({ reason: "Full" })
        // the same process goes on as soon as there is room
        rmSync(ballast)
        const { error } = yield* fill(1, full.acknowledged)
        expect(error).toBeUndefined()
        return full.acknowledged + 1
      }).pipe(Effect.provide(layer))
      yield* Effect.provide(Effect.andThen(expectKept(acknowledged), expectWorking(acknowledged)), layer)
    })
  )
})

/** A connection of somebody else's. */
const elsewhere = (filename: string) =>
  Effect.acquireRelease(
    Effect.sync(() => new DatabaseSync(filename)),
    (db) => Effect.sync(() => db.close())
  )

describe("a file that another process holds", () => {
  it.live("is Busy after the lockTimeout, blocks nobody meanwhile, and changes nothing", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "busy.db")
      yield* Effect.gen(function* () {
        const sqlite = yield* SqliteDatabase
        yield* fill(1)
        const other = yield* elsewhere(filename)
        other.exec("BEGIN IMMEDIATE")
        let turns = 0
        const turning = yield* Effect.forkChild(
          Effect.forever(
            Effect.andThen(
              Effect.sleep(1),
              Effect.sync(() => turns++)
            )
          )
        )
        const before = performance.now()
        const { error } = yield* fill(1, 1)
        expect(performance.now() - before).toBeGreaterThanOrEqual(300)
        expect(error).toMatchObject({ _tag: "StoreError", reason: "Busy", retriable: true })
        expect(turns).toBeGreaterThan(10)
        yield* Fiber.interrupt(turning)
        // who only reads waits for nobody
        yield* expectKept(1)
        let ran = false
        const work = () => {
          ran = true
        }
        expect(yield* Effect.flip(sqlite.transaction(work))).toMatchObject({ reason: "Busy" })
        expect(ran).toBe(false)
        other.exec("ROLLBACK")
        expect((yield* fill(1, 1)).error).toBeUndefined()
        yield* expectKept(2)
      }).pipe(Effect.provide(SqliteStore.layer({ filename, lockTimeout: "300 millis" })))
    })
  )

  it.live("is waited for, by all who came meanwhile", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "busy.db")
      yield* Effect.gen(function* () {
        const store = yield* IdempotencyStore
        const other = yield* elsewhere(filename)
        other.exec("BEGIN IMMEDIATE")
        const claims = yield* Effect.forkChild(
          Effect.forEach(
            [0, 1, 2, 3],
            (index) =>
              Effect.andThen(Effect.sleep(index * 5), store.claim("n", [{ key: "k" }], terms(`c${index}`))),
            { concurrency: "unbounded" }
          ),
          { startImmediately: true }
        )
        yield* Effect.sleep(50)
        expect(claims.pollUnsafe()).toBeUndefined()
        other.exec("COMMIT")
        const tags = (yield* Fiber.join(claims)).map(([answer]) => answer._tag)
        expect(tags.toSorted()).toEqual(["Claimed", "InFlight", "InFlight", "InFlight"])
      }).pipe(Effect.provide(SqliteStore.layer({ filename })))
    })
  )

  it.live("is Busy to open", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "busy.db")
      const other = yield* elsewhere(filename)
      other.exec("BEGIN EXCLUSIVE")
      const layer = SqliteStore.layer({ filename, lockTimeout: "100 millis" })
      expect(yield* Effect.flip(Effect.scoped(Layer.build(layer)))).toMatchObject({
        reason: "Busy",
        verb: "open"
      })
      other.exec("ROLLBACK")
      yield* Effect.scoped(Layer.build(layer))
    })
  )
})

describe("a store that was closed", () => {
  it.effect("says so, whatever it is asked", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(SqliteStore.layer({ filename: ":memory:" }), scope)
      const store = Context.get(context, IdempotencyStore)
      yield* Scope.close(scope, Exit.void)
      const offsets = Context.get(context, OffsetStore)
      const sqlite = Context.get(context, SqliteDatabase)
      for (const asked of [
        store.lookup("n", ["k"]),
        store.claim("n", [{ key: "k" }], terms("c")),
        store.release({ namespace: "n", claimId: "c" }),
        offsets.progress("s"),
        offsets.complete({ stream: "s", claimId: "c" }, OffsetRanges.of(1)),
        sqlite.transaction(() => "never"),
        sqlite.sweep
      ]) {
        expect(yield* Effect.flip(asked as Effect.Effect<unknown, unknown>)).toMatchObject({
          _tag: "StoreError",
          reason: "Closed",
          retriable: false
        })
      }
      // hints come, so that whoever waits asks again, and is told
      yield* store.awaitSettled("n", "k")
      yield* offsets.awaitRelease("s")
    })
  )

  it.effect("says so too where somebody closed its database under it", () =>
    Effect.gen(function* () {
      const store = yield* IdempotencyStore
      const sqlite = yield* SqliteDatabase
      const error = yield* Effect.flip(sqlite.transaction((db) => db.close()))
      expect(error).toMatchObject({ _tag: "StoreError", reason: "Closed", retriable: false })
      expect(yield* Effect.flip(store.claim("n", [{ key: "k" }], terms("c")))).toMatchObject({
        reason: "Closed"
      })
      expect(yield* Effect.flip(store.lookup("n", ["k"]))).toMatchObject({ reason: "Closed" })
    }).pipe(Effect.provide(SqliteStore.layer({ filename: ":memory:" })))
  )
})

describe("tables that somebody has meddled with", () => {
  it.effect.each([
    "DROP TABLE tidemark_keys",
    "UPDATE tidemark_claims SET requested = 'nonsense'",
    "UPDATE tidemark_streams SET watermark = 1.5",
    "INSERT INTO tidemark_pages VALUES (1, 0, 1, 99, x'010203')"
  ])("are Corrupt: %s", (sql) =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "meddled.db")
      const ask = Effect.gen(function* () {
        const offsets = yield* OffsetStore
        const keys = yield* IdempotencyStore
        yield* offsets.claim("s", OffsetRanges.make(0, 10), terms("c"))
        yield* keys.claim("n", [{ key: "k" }], terms("c"))
      }).pipe(Effect.provide(SqliteStore.layer({ filename })))
      yield* ask
      const other = yield* elsewhere(filename)
      other.exec(sql)
      expect(yield* Effect.flip(ask)).toMatchObject({
        _tag: "StoreError",
        reason: "Corrupt",
        retriable: false
      })
    })
  )
})
