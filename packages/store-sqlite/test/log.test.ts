/** The write-ahead log stays short, and no commit pays for it. */
import { statSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { describe, expect, it } from "@effect/vitest"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { Effect } from "effect"
import { temporaryFolder } from "./files.ts"

const limit = 16 * 1024 * 1024 * 1.01

const withBulk = <A, E>(
  use: (given: {
    readonly write: (bytes: number) => Effect.Effect<void>
    readonly size: () => number
    readonly logSize: () => number
    readonly reader: DatabaseSync
  }) => Effect.Effect<A, E>
) =>
  Effect.gen(function* () {
    const filename = join(yield* temporaryFolder, "log.db")
    return yield* Effect.gen(function* () {
      const sqlite = yield* SqliteDatabase
      yield* sqlite.transaction((db) => db.exec("CREATE TABLE bulk (content BLOB)"))
      const reader = yield* Effect.acquireRelease(
        Effect.sync(() => new DatabaseSync(filename, { readOnly: true })),
        (db) => Effect.sync(() => db.close())
      )
      return yield* use({
        write: (bytes) =>
          Effect.orDie(
            sqlite.transaction((db) => {
              db.prepare("INSERT INTO bulk VALUES (zeroblob(?))").run(bytes)
            })
          ),
        size: () => statSync(filename).size,
        logSize: () => statSync(`${filename}-wal`).size,
        reader
      })
    }).pipe(Effect.provide(SqliteStore.layer({ filename, synchronous: "normal" })))
  })

describe("the log", () => {
  it.live("is copied into the database after the callers have their answers", () =>
    withBulk(({ logSize, size, write }) =>
      Effect.gen(function* () {
        const before = size()
        yield* write(6_000_000)
        // SQLite by itself would have copied it within this commit
        expect([size(), logSize() > 6_000_000]).toEqual([before, true])
        while (size() < 6_000_000) yield* write(10)
        // and it is begun anew, not added to
        for (let count = 0; count < 10; count++) yield* write(10)
        expect(logSize()).toBeLessThan(8_000_000)
      })
    )
  )

  it.live("that somebody reads from for long keeps nobody from writing, and is cut back when that ends", () =>
    withBulk(({ logSize, reader, write }) =>
      Effect.gen(function* () {
        reader.exec("BEGIN; SELECT count(*) FROM bulk")
        for (let count = 0; count < 80; count++) yield* write(500_000)
        expect(logSize()).toBeGreaterThan(2 * limit)
        reader.exec("COMMIT")
        while (logSize() > limit) yield* write(200_000)
        const seen = [...Array(60)].map(() => write(500_000).pipe(Effect.map(logSize)))
        expect(Math.max(...(yield* Effect.all(seen)))).toBeLessThan(2 * limit)
      })
    )
  )
})
