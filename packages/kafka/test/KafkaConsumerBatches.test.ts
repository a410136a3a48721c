/** `handleBatch`: which records come together, and what becomes of them. */
import { describe, expect } from "@effect/vitest"
import { ClaimId, IdempotencyStore, OffsetStore } from "@tidemark/core"
import { Cause, Deferred, Effect, Exit } from "effect"
import { PartlyDone } from "../src/index.ts"
import { KafkaClient, type KafkaRecord, type ProducerRecord } from "../src/KafkaClient.ts"
import type { BatchClaim } from "../src/KafkaConsumer.ts"
import * as KafkaConsumer from "../src/KafkaConsumer.ts"
import {
  clockTests,
  expectOnce,
  isDone,
  Ledger,
  owns,
  pass,
  type Running,
  settled,
  start,
  streamOf,
  unhurried
} from "./consumerHarness.ts"

const test = clockTests({ topics: { orders: 1 } })

const valuesOf = (records: ReadonlyArray<KafkaRecord>): string =>
  records.map(({ value }) => String(value)).join(" ")

/** Records on partition 0, from "a1 b1": key and value. */
const messages = (text: string): ReadonlyArray<ProducerRecord> =>
  text.split(" ").map((value) => ({
    topic: "orders",
    partition: 0,
    value,
    ...(value.startsWith("-") ? {} : { key: value[0] })
  }))

/** Notes what came together, and the effects. */
const noting = () => {
  const ledger = new Ledger()
  const batches: Array<string> = []
  const handleBatch = (records: ReadonlyArray<KafkaRecord>): Effect.Effect<void> =>
    Effect.sync(() => {
      batches.push(valuesOf(records))
      ledger.noteAll(records)
    })
  return { ledger, batches, handleBatch }
}

/** Whether so many records were handled or were duplicates, and all is completed. */
const areDone = (consumer: Running<unknown>, count: number): boolean => {
  const { duplicatesByKey, processed } = consumer.status().counters
  return processed + duplicatesByKey >= count && isDone(consumer, 1)
}

const identify = (record: KafkaRecord): string => String(record.value)

describe("KafkaConsumer with handleBatch", () => {
  test("gets the records of one key together, in order, and those without a key", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const { batches, handleBatch, ledger } = noting()
      yield* client.produce(messages("a1 b1 -1 a2 b2 a3 -2 c1"))
      const consumer = yield* start({ ...unhurried, handleBatch })
      yield* settled("done", () => areDone(consumer, 8))
      expect(batches.toSorted()).toEqual(["-1 -2", "a1 a2 a3", "b1 b2", "c1"])
      expect(ledger.disordered).toEqual([])
      expect(consumer.status().counters).toMatchObject({ processed: 8 })
    }))

  test("gets the records of a partition together, in order, at most maxBatchRecords", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const { batches, handleBatch } = noting()
      yield* client.produce(messages("a1 b1 -1 a2 b2 a3 -2"))
      const consumer = yield* start({ ...unhurried, order: "partition", maxBatchRecords: 3, handleBatch })
      yield* settled("done", () => areDone(consumer, 7))
      expect(batches).toEqual(["a1 b1 -1", "a2 b2 a3", "-2"])
    }))

  test("gets any records together where there is no order, several batches at once", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const gate = yield* Deferred.make<void>()
      const batches: Array<string> = []
      yield* client.produce(messages("a1 a2 a3 a4 a5"))
      const consumer = yield* start({
        ...unhurried,
        order: "none",
        maxBatchRecords: 2,
        handleBatch: (records) => {
          batches.push(valuesOf(records))
          return Effect.map(Deferred.await(gate), () => ledger.noteAll(records))
        }
      })
      yield* settled("at work", () => consumer.status().running === 5)
      expect(batches).toEqual(["a1 a2", "a3 a4", "a5"])
      yield* Deferred.succeed(gate, undefined)
      yield* settled("done", () => areDone(consumer, 5))
      expectOnce(ledger, 5)
    }))

  test("goes on with other keys beside a slow one, and with what has come meanwhile behind it", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const gate = yield* Deferred.make<void>()
      const batches: Array<string> = []
      const handleBatch = (records: ReadonlyArray<KafkaRecord>) => {
        batches.push(valuesOf(records))
        return valuesOf(records) === "a1" ? Deferred.await(gate) : Effect.void
      }
      yield* client.produce(messages("a1"))
      const consumer = yield* start({ ...unhurried, handleBatch })
      yield* settled("at work", () => consumer.status().running === 1)
      yield* client.produce(messages("a2 b1 b2"))
      yield* settled("received", () => batches.includes("b1 b2"))
      yield* client.produce(messages("a3 b3"))
      yield* settled("received", () => batches.includes("b3"))
      yield* Deferred.succeed(gate, undefined)
      yield* settled("done", () => areDone(consumer, 6))
      expect(batches).toEqual(["a1", "b1 b2", "b3", "a2 a3"])
    }))

  test("that fails completes nothing of the batch, and what else is at work", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const ledger = new Ledger()
      yield* client.produce(messages("a1 b1 a2 b2"))
      const consumer = yield* start({
        ...unhurried,
        handleBatch: (records) =>
          String(records[0].key) === "a"
            ? Effect.andThen(Effect.sleep(100), Effect.fail("refused"))
            : Effect.map(Effect.sleep(500), () => ledger.noteAll(records))
      })
      yield* pass(1)
      const exit = yield* consumer.exit
      expect(Exit.isFailure(exit) && exit.cause.reasons.find(Cause.isFailReason)?.error).toBe("refused")
      expect(String((yield* store.progress(streamOf(0)))?.completed)).toBe("[1,2) [3,4)")
      const { handleBatch, ledger: after } = noting()
      const next = yield* start({ ...unhurried, handleBatch })
      yield* settled("done", () => areDone(next, 2))
      expect([...after.byValue.keys()]).toEqual(["a1", "a2"])
    }))

  for (const order of ["key", "partition", "none"] as const)
    test(`that fails with PartlyDone completes what is done, order ${order}`, () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const store = yield* OffsetStore
        const keys = yield* IdempotencyStore
        yield* client.produce(messages("a1 a2 a3 a4"))
        const consumer = yield* start({
          ...unhurried,
          order,
          identify,
          handleBatch: (records) =>
            Effect.fail(new PartlyDone({ done: [records[0], records[2]], cause: new Error("no more") }))
        })
        yield* pass(1)
        const exit = yield* consumer.exit
        const error = Exit.isFailure(exit) && exit.cause.reasons.find(Cause.isFailReason)?.error
        expect(error).toBeInstanceOf(PartlyDone)
        expect((error as PartlyDone).message).toContain(
          "2 records of a batch are done and completed, the others are not: no more"
        )
        expect(String((yield* store.progress(streamOf(0)))?.completed)).toBe("[0,1) [2,3)")
        expect(yield* keys.lookup("group", ["a1", "a2", "a3", "a4"])).toMatchObject([
          { _tag: "Completed" },
          { _tag: "Unknown" },
          { _tag: "Completed" },
          { _tag: "Unknown" }
        ])
        const { batches, handleBatch } = noting()
        const next = yield* start({ ...unhurried, order, identify, handleBatch })
        yield* settled("done", () => areDone(next, 2))
        expect(batches).toEqual(["a2 a4"])
      }))

  test("leaves out what is a duplicate, also within the batch, and knows the ids' tokens", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const keys = yield* IdempotencyStore
      const claimId = ClaimId.make()
      yield* keys.claim("group", [{ key: "a2" }], { claimId, owner: "before", leaseMillis: 1_000 })
      yield* keys.complete({ namespace: "group", claimId }, [{ key: "a2" }])
      const { batches, handleBatch, ledger } = noting()
      const claims: Array<BatchClaim> = []
      yield* client.produce(messages("a1 a2 a3 a1 a4 a4"))
      const consumer = yield* start({
        ...unhurried,
        order: "partition",
        identify,
        handleBatch: (records, claim) => {
          claims.push(claim)
          return handleBatch(records)
        }
      })
      yield* settled("done", () => areDone(consumer, 6))
      expect(batches).toEqual(["a1 a3", "a4"])
      expect(claims.map(({ keyTokens }) => keyTokens.length)).toEqual([2, 1])
      expect(claims[0].keyTokens.every((token) => token !== undefined && token > 0)).toBe(true)
      expect(claims[0].stream).toBe(streamOf(0))
      expect(consumer.status().counters.duplicatesByKey).toBe(3)
      expect(ledger.byValue.get("a1")).toBe(1)
    }))

  for (const order of ["key", "partition"] as const)
    test(`ends a batch before an id that another has, order ${order}`, () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const keys = yield* IdempotencyStore
        const held = { namespace: "group", claimId: ClaimId.make() }
        yield* keys.claim("group", [{ key: "a2" }], {
          claimId: held.claimId,
          owner: "another",
          leaseMillis: 60_000
        })
        const { batches, handleBatch } = noting()
        yield* client.produce(messages("a1 a2 a3"))
        const consumer = yield* start({ ...unhurried, order, identify, handleBatch })
        yield* settled("the first", () => batches.length === 1)
        yield* pass(3)
        expect(batches).toEqual(["a1"])
        yield* keys.release(held)
        yield* pass(2)
        yield* settled("done", () => areDone(consumer, 3))
        // nobody holds a key behind one that is waited for
        expect(batches).toEqual(["a1", "a2", "a3"])
      }))

  test("is interrupted as a whole when an id of it is lost, and runs again", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const keys = yield* IdempotencyStore
      const begun: Array<string> = []
      let interrupted = 0
      yield* client.produce(messages("a1 a2 a3"))
      // nobody renews the ids' leases, which last 10 s
      const leases = { hold: () => {}, drop: () => {} }
      let lose: (() => void) | undefined
      const consumer = yield* Effect.provideService(
        start({
          ...unhurried,
          identify,
          handleBatch: (records) => {
            begun.push(valuesOf(records))
            return begun.length > 1
              ? Effect.void
              : Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++))
          }
        }),
        IdempotencyStore,
        {
          ...keys,
          leases: {
            ...leases,
            hold: (lease) => {
              lose ??= () => lease.onLost()
            }
          }
        }
      )
      yield* settled("at work", () => consumer.status().running === 3)
      // the store goes by the lease, so that the first is waited for, and the others are not held meanwhile
      lose?.()
      yield* pass(12)
      yield* settled("done", () => areDone(consumer, 3))
      expect({ begun, interrupted }).toEqual({ begun: ["a1 a2 a3", "a1", "a2 a3"], interrupted: 1 })
      expect(owns(consumer, 1)).toBe(true)
    }))

  test("counts its records against maxUnmarked", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const { batches, handleBatch } = noting()
      yield* client.produce(messages("a1 a2 a3 a4 a5 a6 a7"))
      const consumer = yield* start({ ...unhurried, maxUnmarked: 3, handleBatch })
      yield* settled("done", () => areDone(consumer, 7))
      expect(batches).toEqual(["a1 a2 a3", "a4 a5 a6", "a7"])
    }))

  test("stands instead of a handler, not beside one", () =>
    Effect.gen(function* () {
      const handler = () => Effect.void
      const wrong: ReadonlyArray<readonly [options: object, message: string]> = [
        [{ handler, handleBatch: handler }, "handler is"],
        [{ whenInFlight: "dead-letter", handleBatch: handler }, "whenInFlight is"],
        [{}, "handler is undefined"],
        [{ handler, maxBatchRecords: 10 }, "maxBatchRecords is 10; allowed: to be absent"],
        [{ handleBatch: handler, maxBatchRecords: 0 }, "maxBatchRecords is 0"],
        [{ handleBatch: 5 }, "handleBatch is 5"]
      ]
      for (const [options, message] of wrong) {
        const error = yield* Effect.flip(KafkaConsumer.make({ ...unhurried, ...options } as never))
        expect(error.message).toContain(message)
      }
    }))
})
