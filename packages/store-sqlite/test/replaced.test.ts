/** A file that is taken away, or exchanged for another, under a process that has it open. */
import { copyFileSync, renameSync, rmSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { IdempotencyStore, OffsetRanges, OffsetStore } from "@tidemark/core"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { Effect } from "effect"
import { Place } from "../src/internal/Place.ts"
import { temporaryFolder } from "./files.ts"

const terms = (claimId: string) => ({ claimId, owner: claimId, leaseMillis: 30_000 })

describe("Place", () => {
  it.effect("looks once in a second as long as all is well, and each time when it is not", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const [file, aside, other] = ["a", "b", "c"].map((name) => join(folder, name))
      copyFileSync(import.meta.filename, file)
      copyFileSync(import.meta.filename, other)
      let now = 0
      const place = new Place(file, () => now)
      expect(place.isLost).toBe(false)
      renameSync(file, aside)
      now = 999
      expect([place.isLost, place.isLostNow]).toEqual([false, true])
      now = 1_000
      expect(place.isLost).toBe(true)
      renameSync(other, file)
      expect(place.isLost).toBe(true)
      renameSync(aside, file)
      expect(place.isLost).toBe(false)
      rmSync(file)
      expect(place.isLost).toBe(false)
      now = 2_000
      expect(place.isLost).toBe(true)
    })
  )
})

describe("a file that is replaced under a running process", () => {
  it.live.each([
    {
      name: "moved away, a copy in its place",
      act: (file: string) => {
        copyFileSync(file, `${file}.copy`)
        renameSync(file, `${file}.old`)
        renameSync(`${file}.copy`, file)
      }
    },
    { name: "removed", act: (file: string) => rmSync(file) }
  ])("$name: Replaced within a second in every verb; nothing is written to it any more", ({ act }) =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "replaced.db")
      yield* Effect.gen(function* () {
        const keys = yield* IdempotencyStore
        const offsets = yield* OffsetStore
        const sqlite = yield* SqliteDatabase
        yield* keys.claim("n", [{ key: "k" }], terms("c"))
        act(filename)
        const claim = (count: number) => keys.claim("n", [{ key: `k${count}` }], terms(`c${count}`))
        let count = 0
        let error = yield* Effect.option(Effect.flip(claim(count)))
        while (error._tag === "None") error = yield* Effect.option(Effect.flip(claim(++count)))
        let ran = false
        for (const attempt of [
          claim(count),
          keys.lookup("n", ["k"]),
          keys.complete({ namespace: "n", claimId: "c" }, [{ key: "k" }]),
          offsets.claim("s", OffsetRanges.of(0), terms("c")),
          offsets.progress("s"),
          sqlite.sweep,
          sqlite.transaction(() => {
            ran = true
          })
        ]) {
          const failure = yield* Effect.flip(attempt as Effect.Effect<unknown, unknown>)
          expect(failure).toMatchObject({ _tag: "StoreError", reason: "Replaced", retriable: false })
          expect(String(failure)).toContain(filename)
        }
        expect(ran).toBe(false)
      }).pipe(Effect.provide(SqliteStore.layer({ filename, synchronous: "normal" })))
    })
  )

  it.live("goes on when it is put back", () =>
    Effect.gen(function* () {
      const filename = join(yield* temporaryFolder, "back.db")
      yield* Effect.gen(function* () {
        const keys = yield* IdempotencyStore
        yield* keys.claim("n", [{ key: "k" }], terms("c"))
        renameSync(filename, `${filename}.aside`)
        const lookup = Effect.result(keys.lookup("n", ["k"]))
        while ((yield* lookup)._tag === "Success") yield* Effect.yieldNow
        renameSync(`${filename}.aside`, filename)
        expect(yield* keys.complete({ namespace: "n", claimId: "c" }, [{ key: "k" }])).toEqual(["Completed"])
      }).pipe(Effect.provide(SqliteStore.layer({ filename, synchronous: "normal" })))
    })
  )
})
