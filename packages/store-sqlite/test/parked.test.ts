import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { OffsetRanges, OffsetStore, ParkedRecords, type RecordToPark } from "@tidemark/core"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { Effect, Stream } from "effect"
import { temporaryFolder } from "./files.ts"

const recordAt = (offset: number, bytes: number): RecordToPark => ({
  stream: "orders",
  offset,
  topic: "orders",
  partition: 0,
  timestampMillis: 1_700_000_000_000,
  key: undefined,
  value: Buffer.alloc(bytes, offset),
  headers: [],
  errorTag: "CardDeclined",
  errorMessage: "no",
  attempts: 3
})

const batchAt = (from: number, bytes: number) =>
  Array.from({ length: 4 }, (_, index) => recordAt(from + index, bytes))

const parkedOffsets = Effect.flatMap(ParkedRecords, (parked) =>
  Effect.map(Stream.runCollect(parked.list()), (found) => found.map(({ offset }) => offset))
)

describe("parked records in a file", () => {
  it.live(
    "of which there is no room are Full: none of the call is there, and all that was acknowledged",
    () =>
      Effect.gen(function* () {
        const filename = join(yield* temporaryFolder, "full.db")
        const acknowledged = yield* Effect.gen(function* () {
          const parked = yield* ParkedRecords
          const offsets = yield* OffsetStore
          yield* offsets.claim("orders", OffsetRanges.openEnded(0), {
            claimId: "c",
            owner: "o",
            leaseMillis: 60_000
          })
          let next = 0
          const filling = Effect.forever(
            Effect.suspend(() =>
              Effect.map(parked.park(batchAt(next, 30_000)), () => {
                next += 4
              })
            )
          )
          const error = yield* Effect.flip(filling)
          expect(error).toMatchObject({ _tag: "StoreError", verb: "park", reason: "Full", retriable: true })
          expect(next).toBeGreaterThan(8)
          const there = Array.from({ length: next }, (_, offset) => offset)
          expect(yield* parkedOffsets).toEqual(there)
          // what takes less room goes on
          yield* offsets.complete({ stream: "orders", claimId: "c" }, OffsetRanges.make(0, next))
          expect(yield* parked.remove("orders", [0, 1])).toBe(2)
          return next
        }).pipe(Effect.provide(SqliteStore.layer({ filename, maxBytes: 1_000_000 })))
        yield* Effect.gen(function* () {
          const parked = yield* ParkedRecords
          expect(yield* parked.park(batchAt(acknowledged, 30_000))).toEqual(Array(4).fill("Parked"))
          const all = yield* parkedOffsets
          expect(all).toEqual(Array.from({ length: acknowledged + 2 }, (_, index) => index + 2))
          for (const offset of all) {
            const record = yield* parked.get("orders", offset)
            expect(Buffer.compare(record?.value as Buffer, Buffer.alloc(30_000, offset))).toBe(0)
          }
        }).pipe(Effect.provide(SqliteStore.layer({ filename })))
      })
  )

  it.live("that somebody has meddled with are Corrupt, and named", () =>
    Effect.gen(function* () {
      const parked = yield* ParkedRecords
      const sqlite = yield* SqliteDatabase
      yield* parked.park(batchAt(0, 100))
      yield* sqlite.transaction((db) =>
        db.exec("UPDATE tidemark_parked SET content = substr(content, 1, 50) WHERE position = 2")
      )
      expect(yield* Effect.flip(parked.get("orders", 2))).toMatchObject({
        _tag: "StoreError",
        reason: "Corrupt",
        retriable: false,
        message: expect.stringMatching(/offset 2 of stream orders/)
      })
      expect((yield* parked.get("orders", 3))?.value).toHaveLength(100)
      expect(yield* parkedOffsets).toEqual([0, 1, 2, 3])
    }).pipe(Effect.provide(SqliteStore.layer({ filename: ":memory:" })))
  )
})
