import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { describe, expect, it } from "@effect/vitest"
import { IdempotencyStore, OffsetRanges, OffsetStore } from "@tidemark/core"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { ConfigProvider, Effect, Layer } from "effect"
import { applicationId, migrate, migrations, standing } from "../src/internal/schema.ts"
import { describeWhereMounting, mountMemory, temporaryFolder } from "./files.ts"

const terms = (claimId: string) => ({ claimId, owner: claimId, leaseMillis: 30_000 })

const opening = (options: SqliteStore.SqliteStoreOptions) =>
  Effect.flip(Effect.scoped(Layer.build(SqliteStore.layer(options))))

/** Completes [0, 10) of a stream and key k. */
const work = Effect.gen(function* () {
  const offsets = yield* OffsetStore
  const keys = yield* IdempotencyStore
  yield* offsets.claim("s", OffsetRanges.make(0, 10), terms("c"))
  yield* offsets.complete({ stream: "s", claimId: "c" }, OffsetRanges.make(0, 10))
  yield* keys.claim("n", [{ key: "k" }], terms("c"))
  yield* keys.complete({ namespace: "n", claimId: "c" }, [{ key: "k" }])
})

const isThere = Effect.gen(function* () {
  const progress = yield* (yield* OffsetStore).progress("s")
  const [status] = yield* (yield* IdempotencyStore).lookup("n", ["k"])
  return [progress?.watermark, status._tag]
})

const write = (filename: string, sql: string): Buffer => {
  const db = new DatabaseSync(filename)
  db.exec(sql)
  db.close()
  return readFileSync(filename)
}

describe("opening", () => {
  it.effect("a file keeps what was acknowledged; memory is one's own", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "kept.db")
      yield* Effect.provide(work, SqliteStore.layer({ filename }))
      expect(yield* Effect.provide(isThere, SqliteStore.layer({ filename }))).toEqual([10, "Completed"])
      const memory = SqliteStore.layer({ filename: ":memory:" })
      expect(yield* Effect.provide(Effect.andThen(work, isThere), memory)).toEqual([10, "Completed"])
      expect(yield* Effect.provide(isThere, memory)).toEqual([undefined, "Unknown"])
    })
  )

  it.effect("takes a file that has the user's tables, and leaves these alone", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "users.db")
      write(filename, "CREATE TABLE ledger (entry TEXT); INSERT INTO ledger VALUES ('first')")
      yield* Effect.provide(work, SqliteStore.layer({ filename }))
      const db = new DatabaseSync(filename)
      expect(db.prepare("SELECT * FROM ledger").all()).toEqual([{ entry: "first" }])
      db.close()
    })
  )

  it.effect.each([
    {
      name: "a newer tidemark's",
      reason: "WrongVersion",
      sql: `PRAGMA application_id = ${applicationId}; PRAGMA user_version = ${migrations.length + 1}`
    },
    {
      name: "another program's",
      reason: "Misconfigured",
      sql: "PRAGMA application_id = 7; CREATE TABLE t (c)"
    },
    {
      name: "one with versions of another's",
      reason: "Misconfigured",
      sql: "PRAGMA user_version = 7; CREATE TABLE t (c)"
    }
  ])("refuses $name, and leaves the file as it was", ({ reason, sql }) =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const filename = join(folder, "foreign.db")
      const before = write(filename, sql)
      const error = yield* opening({ filename })
      expect(error).toMatchObject({ _tag: "StoreError", verb: "open", reason, retriable: false })
      expect(error.message).toContain(filename)
      expect(readFileSync(filename).equals(before)).toBe(true)
      expect(existsSync(`${filename}-wal`)).toBe(false)
    })
  )

  it.effect("refuses a file that is no database, or is damaged, and leaves it as it was", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "text.db")
      writeFileSync(filename, "Dear diary, ".repeat(100))
      expect(yield* opening({ filename })).toMatchObject({ reason: "Corrupt", retriable: false })
      expect(readFileSync(filename, "utf8")).toBe("Dear diary, ".repeat(100))
    })
  )

  it.effect("says that a file is damaged when it meets the damage", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "cut.db")
      yield* Effect.provide(work, SqliteStore.layer({ filename }))
      truncateSync(filename, 4_096)
      const error = yield* Effect.flip(Effect.provide(work, SqliteStore.layer({ filename })))
      expect(error).toMatchObject({ _tag: "StoreError", reason: "Corrupt", retriable: false })
    })
  )

  it.effect("tells a missing folder, and a folder in the place of the file", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const missing = yield* opening({ filename: join(folder, "missing/tidemark.db") })
      expect(missing).toMatchObject({ reason: "Misconfigured", retriable: false })
      expect(missing.message).toContain(`${folder}/missing does not exist`)
      const place = yield* opening({ filename: folder })
      expect(place).toMatchObject({ reason: "Misconfigured", retriable: false })
      expect(place.message).toContain("is a folder")
    })
  )

  it.effect("refuses bad options before anything is opened", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "never.db")
      for (const [field, options] of [
        ["filename", { filename: "" }],
        ["filename", { filename: undefined as unknown as string }],
        ["synchronous", { filename, synchronous: "off" as "full" }],
        ["retention", { filename, retention: 0 }],
        ["lockTimeout", { filename, lockTimeout: "soon" as "1 second" }],
        ["sweepInterval", { filename, sweepInterval: -1 }],
        ["maxBytes", { filename, maxBytes: 1 }],
        ["option of SqliteStore", { filename, file: "x" } as SqliteStore.SqliteStoreOptions]
      ] as const) {
        expect(yield* opening(options)).toMatchObject({ _tag: "InvalidInput", field })
      }
      expect(existsSync(filename)).toBe(false)
    })
  )

  it.effect("reads its settings from the environment, and else from the code", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "configured.db")
      const configured = (env: Record<string, string>, base?: Partial<SqliteStore.SqliteStoreOptions>) =>
        Effect.map(IdempotencyStore, ({ retentionMillis }) => retentionMillis).pipe(
          Effect.provide(SqliteStore.layerConfig(base)),
          Effect.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env })))
        )
      expect(yield* configured({ SQLITE_FILENAME: filename })).toBe(86_400_000)
      expect(yield* configured({ OFFSET_CACHE_TTL_SECONDS: "60" }, { filename, retention: "1 hour" })).toBe(
        60_000
      )
      expect(yield* configured({}, { filename, retention: "1 hour" })).toBe(3_600_000)
      for (const env of [{}, { SQLITE_FILENAME: filename, SQLITE_SYNCHRONOUS: "off" }]) {
        expect(yield* Effect.flip(configured(env))).toMatchObject({ _tag: "ConfigError" })
      }
    })
  )

  it.effect("keeps what a file of the first version holds, and can note something there", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "first.db")
      const db = new DatabaseSync(filename)
      migrate(db, 0, migrations.slice(0, 1))
      db.exec(
        `INSERT INTO tidemark_streams
          (name, version, origin, watermark, highest, gap_count, epoch, last_token, touched_at)
          VALUES ('orders', 1, 0, 7, 7, 0, 2, 41, 0)`
      )
      db.close()
      const use = Effect.gen(function* () {
        const store = yield* OffsetStore
        expect(yield* store.progress("orders")).toMatchObject({ watermark: 7, epoch: 2, note: undefined })
        yield* store.claim("orders", OffsetRanges.openEnded(7), terms("c"))
        const note = { stream: "orders", claimId: "c", note: "noted" }
        expect(yield* store.annotate([note])).toEqual([true])
        expect((yield* store.progress("orders"))?.note).toBe("noted")
      })
      yield* Effect.provide(use, SqliteStore.layer({ filename }))
    })
  )

  it("brings an older version forward, step by step", () => {
    const db = new DatabaseSync(":memory:")
    const steps = ["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y", "CREATE TABLE b (z)"]
    expect(standing(db, steps)).toEqual({ _tag: "Behind", version: 0 })
    migrate(db, 0, steps.slice(0, 1))
    expect(standing(db, steps)).toEqual({ _tag: "Behind", version: 1 })
    migrate(db, 1, steps)
    expect(standing(db, steps)).toEqual({ _tag: "Current" })
    expect(standing(db, steps.slice(0, 2))).toEqual({ _tag: "Newer", version: 3 })
    db.exec("INSERT INTO a (x, y) VALUES (1, 2); INSERT INTO b VALUES (3)")
    db.close()
  })
})

describe("a file that a newer program migrates while an older one has it open", () => {
  it.effect("is WrongVersion to the older one in every verb, which writes nothing any more", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "migrated.db")
      yield* Effect.gen(function* () {
        yield* work
        const offsets = yield* OffsetStore
        const keys = yield* IdempotencyStore
        const sqlite = yield* SqliteDatabase
        const newer = yield* Effect.acquireRelease(
          Effect.sync(() => new DatabaseSync(filename)),
          (db) => Effect.sync(() => db.close())
        )
        newer.exec("BEGIN IMMEDIATE")
        migrate(newer, migrations.length, [
          ...migrations,
          "ALTER TABLE tidemark_keys RENAME COLUMN key TO id"
        ])
        newer.exec("COMMIT")
        const rows = () => newer.prepare("SELECT count(*) AS n FROM tidemark_batches").get()
        const before = rows()
        let ran = false
        const attempts: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
          keys.claim("n", [{ key: "other" }], terms("d")),
          keys.complete({ namespace: "n", claimId: "c" }, [{ key: "k" }]),
          keys.lookup("n", ["k"]),
          offsets.claim("s", OffsetRanges.of(11), terms("d")),
          offsets.renew([{ stream: "s", claimId: "c", leaseMillis: 1_000 }]),
          offsets.progress("s"),
          sqlite.transaction(() => {
            ran = true
          }),
          sqlite.sweep
        ]
        // alone, and sharing a commit
        for (const attempt of [...attempts, Effect.all(attempts, { concurrency: "unbounded" })]) {
          const error = yield* Effect.flip(attempt)
          expect(error).toMatchObject({ _tag: "StoreError", reason: "WrongVersion", retriable: false })
          expect(String(error)).toContain(`version ${migrations.length + 1}`)
        }
        expect(ran).toBe(false)
        expect(rows()).toEqual(before)
      }).pipe(Effect.provide(SqliteStore.layer({ filename })))
      expect(yield* opening({ filename })).toMatchObject({ reason: "WrongVersion", verb: "open" })
    })
  )
})

await describeWhereMounting("a file system of its own", () => {
  it.effect("that takes no writes: ReadOnly", () =>
    Effect.gen(function* () {
      const folder = join(yield* temporaryFolder, "mounted")
      mkdirSync(folder)
      yield* mountMemory(folder, "4m")
      const filename = join(folder, "t.db")
      yield* Effect.provide(work, SqliteStore.layer({ filename }))
      execFileSync("mount", ["-o", "remount,ro", folder])
      for (const options of [{ filename }, { filename: join(folder, "new.db") }]) {
        const error = yield* opening(options)
        expect(error).toMatchObject({ _tag: "StoreError", reason: "ReadOnly", retriable: false })
        expect(error.message).toContain(folder)
      }
      execFileSync("mount", ["-o", "remount,rw", folder])
      expect(yield* Effect.provide(isThere, SqliteStore.layer({ filename }))).toEqual([10, "Completed"])
    })
  )
})
