/** What is kept of parked records on bad days; the contract has the good ones. */
import { it } from "@effect/vitest"
import { ParkedRecords, type RecordToPark } from "@tidemark/core"
import { uniqueName } from "@tidemark/test-servers"
import { describeWithOwnRedis, describeWithRedis } from "@tidemark/test-servers/vitest"
import { Context, Effect, Stream } from "effect"
import { expect } from "vitest"
import { clientOf, expectFailure, ownRedis } from "./harness.ts"
import { openStore, RedisStore } from "./store.ts"

const recordAt = (offset: number, bytes = 100): RecordToPark => ({
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

const batchAt = (from: number, bytes?: number) =>
  Array.from({ length: 5 }, (_, index) => recordAt(from + index, bytes))

const openParked = (url: string, prefix: string) =>
  Effect.map(openStore(RedisStore.layer({ url, prefix })), ({ context }) =>
    Context.get(context, ParkedRecords)
  )

const offsetsIn = (parked: ParkedRecords["Service"]) =>
  Effect.map(Stream.runCollect(parked.list({ stream: "orders" })), (found) =>
    found.map(({ offset }) => offset)
  )

await describeWithOwnRedis("parked records in a Redis whose memory is full", () => {
  it.live("are Full: none of the call is there, all that was acknowledged is, and can be removed", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis({ config: { maxmemory: "8mb" } })
      const admin = yield* clientOf(redis.url)
      const parked = yield* openParked(redis.url, "days")
      let next = 0
      const filling = Effect.forever(
        Effect.suspend(() =>
          Effect.map(parked.park(batchAt(next, 100_000)), () => {
            next += 5
          })
        )
      )
      expectFailure(yield* Effect.flip(filling), { reason: "Full", retriable: true, naming: /maxmemory/ })
      expect(next).toBeGreaterThan(10)
      const there = Array.from({ length: next }, (_, offset) => offset)
      expect(yield* offsetsIn(parked)).toEqual(there)
      expect(yield* Effect.promise(() => admin.hlen("days:p:{orders}"))).toBe(2 * next + 1)
      // a record that is there already takes no memory
      expect(yield* parked.park([recordAt(0, 100_000)])).toEqual(["AlreadyParked"])
      expect(yield* parked.remove("orders", there.slice(0, 10))).toBe(10)
      expect(yield* parked.park(batchAt(next, 100_000))).toEqual(Array(5).fill("Parked"))
      for (const offset of yield* offsetsIn(parked)) {
        const record = yield* parked.get("orders", offset)
        expect(Buffer.compare(record?.value as Buffer, Buffer.alloc(100_000, offset))).toBe(0)
      }
    })
  )
})

await describeWithRedis("parked records that are not ours", ({ url }) => {
  it.live("of another format are WrongVersion, and are left alone", () =>
    Effect.gen(function* () {
      const prefix = uniqueName("parked")
      const admin = yield* clientOf(url)
      const parked = yield* openParked(url, prefix)
      yield* parked.park([recordAt(0)])
      yield* Effect.promise(() => admin.hset(`${prefix}:p:{orders}`, "v", "99"))
      for (const call of [
        parked.park([recordAt(1)]),
        parked.get("orders", 0),
        parked.remove("orders", [0]),
        offsetsIn(parked)
      ]) {
        const error = yield* Effect.flip<unknown, unknown, never>(call)
        expectFailure(error, { reason: "WrongVersion", retriable: false, naming: /99/ })
      }
      expect(yield* parked.count("orders")).toBe(1)
    })
  )

  it.live("of another type are Corrupt, which names the key; and so is what can't be read", () =>
    Effect.gen(function* () {
      const prefix = uniqueName("parked")
      const admin = yield* clientOf(url)
      const parked = yield* openParked(url, prefix)
      const [records, index] = [`${prefix}:p:{orders}`, `${prefix}:p:{orders}:i`]
      const corrupt = { reason: "Corrupt", retriable: false } as const
      yield* parked.park(batchAt(0))
      yield* Effect.promise(() => admin.hset(records, "d1", "cut off", "2", "{"))
      expectFailure(yield* Effect.flip(parked.get("orders", 1)), {
        ...corrupt,
        naming: /offset 1 of stream orders/
      })
      expectFailure(yield* Effect.flip(offsetsIn(parked)), {
        ...corrupt,
        naming: /offset 2 of stream orders/
      })
      expect((yield* parked.get("orders", 3))?.value).toHaveLength(100)
      for (const key of [index, records]) {
        yield* Effect.promise(() => admin.pipeline().del(key).set(key, "mine").exec())
        const error = yield* Effect.flip(parked.park([recordAt(9)]))
        expectFailure(error, { ...corrupt, naming: new RegExp(`${key.replaceAll(/[{}]/g, ".")}, a string`) })
        expect(yield* Effect.promise(() => admin.get(key))).toBe("mine")
        yield* Effect.promise(() => admin.del(key))
      }
    })
  )
})
