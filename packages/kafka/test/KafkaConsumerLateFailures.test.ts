/** Handlers that fail, or go on, when their record is no longer theirs: its next owner runs it, and nobody sets it aside. */
import { describe, expect } from "@effect/vitest"
import { IdempotencyStore, type KeyClaimRef, OffsetStore } from "@tidemark/core"
import { Effect, Schedule } from "effect"
import { InProcessBroker } from "../src/InProcessKafka.ts"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import type { BatchClaim, RecordClaim } from "../src/KafkaConsumer.ts"
import { KafkaError } from "../src/KafkaErrors.ts"
import {
  clockTests,
  isDone,
  Ledger,
  logLines,
  pass,
  records,
  settled,
  start,
  streamOf,
  unhurried
} from "./consumerHarness.ts"

const test = clockTests({ topics: { orders: 1 } })

/** With a deadline, too, which puts a handler on a fiber of its own. */
const ways: ReadonlyArray<readonly [how: string, options: { readonly stallTimeout?: "1 hour" }]> = [
  ["", {}],
  [", with a stall timeout", { stallTimeout: "1 hour" }]
]

const textOf = ({ value }: KafkaRecord): string => String(value)

const recordsIn = (topic: string) => Effect.map(InProcessBroker, (broker) => broker.records(topic, 0))

/** A keeper that never comes to look at the clock, as in a process that was frozen until this moment. */
const noKeeper = { hold: () => {}, drop: () => {} }

const frozenOffsets = Effect.map(OffsetStore, (store) => ({
  ...store,
  leases: noKeeper as unknown as typeof store.leases
}))

/** Notes who began what, and under which claim. */
class Begun {
  readonly all: Array<{ readonly value: string; readonly claimId: string; readonly keyToken: unknown }> = []

  note(record: KafkaRecord, { claimId, keyToken }: RecordClaim): void {
    this.all.push({ value: textOf(record), claimId, keyToken })
  }

  /** What was begun under each claim, one after the other. */
  get byClaim(): ReadonlyArray<ReadonlyArray<string>> {
    const claims = new Map<string, Array<string>>()
    for (const { claimId, value } of this.all) claims.set(claimId, [...(claims.get(claimId) ?? []), value])
    return [...claims.values()]
  }
}

/** Fails the first time, after so long in which nothing can interrupt it; takes effect the second time. */
const failsLate =
  (ledger: Ledger, begun: Begun, millis: number) => (record: KafkaRecord, claim: RecordClaim) =>
    Effect.suspend(() => {
      begun.note(record, claim)
      if (begun.all.length > 1) return Effect.sync(() => ledger.note(record))
      return Effect.uninterruptible(Effect.andThen(Effect.sleep(millis), Effect.fail("too late")))
    })

const policies = {
  "dead-lettered": { whenPoison: "dead-letter" },
  "sent to a retry topic": { retryTopics: ["1 minute"] }
} as const

describe.each(ways)("KafkaConsumer, when a claim is lost under a handler that fails%s", (_, way) => {
  for (const [how, policy] of Object.entries(policies))
    test(`its record is not ${how}: its owner runs it`, () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const store = yield* OffsetStore
        const ledger = new Ledger()
        const begun = new Begun()
        const log = logLines()
        yield* client.produce(records("orders", 1))
        const handler = failsLate(ledger, begun, 12_000)
        const consumer = yield* Effect.provide(start({ ...unhurried, ...way, ...policy, handler }), log.layer)
        yield* settled("at work", () => consumer.status().running === 1)
        yield* store.rewind(streamOf(0), 0)
        yield* pass(13)
        yield* settled("done", () => ledger.count === 1 && consumer.status().counters.processed === 1)
        expect(begun.byClaim).toEqual([["0"], ["0"]])
        const { deadLettered, leaseLosses, retried } = consumer.status().counters
        expect({ deadLettered, leaseLosses, retried }).toEqual({
          deadLettered: 0,
          leaseLosses: 1,
          retried: 0
        })
        expect(
          log.lines.filter((line) => line.includes("offset 0 of partition 0") && line.includes("too late"))
        ).toHaveLength(1)
      }))

  test("nor when its keeper has not looked at the clock, and no attempt begins after the lease", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const begun = new Begun()
      yield* client.produce(records("orders", 1))
      const consumer = yield* Effect.provideServiceEffect(
        start({
          ...unhurried,
          ...way,
          retry: Schedule.spaced("4 seconds"),
          handler: (record, claim) => {
            begun.note(record, claim)
            return begun.all.length > 4 ? Effect.void : Effect.fail("not yet")
          }
        }),
        OffsetStore,
        frozenOffsets
      )
      yield* pass(30)
      yield* settled("done", () => consumer.status().counters.processed === 1)
      // at 0, 4 and 8 s of a lease of 10 s
      expect(begun.byClaim).toEqual([
        ["0", "0", "0"],
        ["0", "0"]
      ])
    }))

  for (const whenPoison of ["dead-letter", "stop"] as const)
    test(`nor, with ${whenPoison}, when the lease on its id is over: the id is asked for anew`, () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const keys = yield* IdempotencyStore
        const ledger = new Ledger()
        const begun = new Begun()
        yield* client.produce(records("orders", 1))
        const consumer = yield* Effect.provideService(
          start({
            ...unhurried,
            ...way,
            whenPoison,
            identify: textOf,
            handler: failsLate(ledger, begun, 12_000)
          }),
          IdempotencyStore,
          { ...keys, leases: noKeeper as unknown as typeof keys.leases }
        )
        yield* pass(13)
        yield* settled("done", () => ledger.count === 1 && isDone(consumer, 1))
        expect(new Set(begun.all.map(({ keyToken }) => keyToken)).size).toBe(2)
        expect(consumer.status().counters).toMatchObject({ deadLettered: 0, processed: 1, leaseLosses: 0 })
      }))

  test("nor does it wait for its next attempt without its id", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const keys = yield* IdempotencyStore
      const ledger = new Ledger()
      const begun = new Begun()
      const held: Array<{ readonly ref: KeyClaimRef; readonly onLost: () => void }> = []
      const keeper = { hold: (lease: (typeof held)[number]) => held.push(lease), drop: () => {} }
      yield* client.produce(records("orders", 1))
      const consumer = yield* Effect.provideService(
        start({
          ...unhurried,
          ...way,
          retry: Schedule.spaced("1 hour"),
          identify: textOf,
          handler: failsLate(ledger, begun, 3_000)
        }),
        IdempotencyStore,
        { ...keys, leases: keeper as unknown as typeof keys.leases }
      )
      yield* settled("at work", () => consumer.status().running === 1)
      yield* keys.release(held[0].ref)
      held[0].onLost()
      yield* pass(4)
      yield* settled("done", () => ledger.count === 1 && isDone(consumer, 1))
      expect(new Set(begun.all.map(({ keyToken }) => keyToken)).size).toBe(2)
    }))

  test("a finalizer that dies does not make it poison", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const begun = new Begun()
      yield* client.produce(records("orders", 1))
      const consumer = yield* start({
        ...unhurried,
        ...way,
        whenPoison: "dead-letter",
        handler: (record, claim) => {
          begun.note(record, claim)
          return begun.all.length > 1
            ? Effect.void
            : Effect.onInterrupt(Effect.never, () => Effect.die(new Error("no connection to give back")))
        }
      })
      yield* settled("at work", () => consumer.status().running === 1)
      yield* store.rewind(streamOf(0), 0)
      yield* pass(6)
      yield* settled("done", () => consumer.status().counters.processed === 1)
      expect(begun.byClaim).toEqual([["0"], ["0"]])
      expect(consumer.status().counters).toMatchObject({ deadLettered: 0, leaseLosses: 1 })
    }))
})

describe("KafkaConsumer, whose keeper has not looked at the clock", () => {
  test("does not try to store a record elsewhere after the lease", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = broker.makeClient()
      const ledger = new Ledger()
      const begun = new Begun()
      yield* client.produce(records("orders", 1))
      let times = 0
      yield* Effect.provideServiceEffect(
        start(
          { ...unhurried, whenPoison: "dead-letter", handler: failsLate(ledger, begun, 8_000) },
          {
            ...client,
            // from 8 s to 10 s after the claim, which ends then
            produce: (letters) =>
              times++ === 0
                ? Effect.andThen(
                    Effect.sleep("2 seconds"),
                    Effect.fail(
                      new KafkaError({
                        reason: "Unreachable",
                        operation: "produce",
                        brokers: ["nowhere"],
                        detail: "planted",
                        retriable: true
                      })
                    )
                  )
                : client.produce(letters)
          }
        ),
        OffsetStore,
        frozenOffsets
      )
      yield* pass(20)
      yield* settled("done", () => ledger.count === 1)
      expect({ times, begun: begun.byClaim }).toEqual({ times: 1, begun: [["0"], ["0"]] })
      expect(yield* recordsIn("orders.dead-letter")).toEqual([])
    }))

  test("starts nothing under a lease that is over", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const begun = new Begun()
      yield* client.produce(records("orders", 5))
      const consumer = yield* Effect.provideServiceEffect(
        start({
          ...unhurried,
          concurrency: 1,
          handler: (record, claim) => {
            begun.note(record, claim)
            return Effect.uninterruptible(Effect.sleep("4 seconds"))
          }
        }),
        OffsetStore,
        frozenOffsets
      )
      yield* pass(30)
      yield* settled("done", () => consumer.status().counters.processed === 5)
      expect(begun.byClaim).toEqual([
        ["0", "1", "2"],
        ["3", "4"]
      ])
    }))
})

describe.each(ways)("KafkaConsumer, with a batch that is handled one by one%s", (_, way) => {
  /** Nothing in them can be interrupted; a batch fails, and each record by itself takes 4 s. */
  const oneByOne = (ledger: Ledger, begun: Begun) => (given: ReadonlyArray<KafkaRecord>, claim: BatchClaim) =>
    Effect.uninterruptible(
      Effect.suspend(() => {
        if (given.length > 1) return Effect.fail("not together")
        begun.note(given[0], { ...claim, keyToken: claim.keyTokens[0] })
        return Effect.map(Effect.sleep("4 seconds"), () => ledger.noteAll(given))
      })
    )

  const options = { ...unhurried, ...way, order: "partition", whenPoison: "dead-letter" } as const

  test("begins none of the rest when the claim is lost", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const ledger = new Ledger()
      const begun = new Begun()
      yield* client.produce(records("orders", 6, 1))
      const consumer = yield* start({ ...options, handleBatch: oneByOne(ledger, begun) })
      yield* settled("at the first", () => begun.all.length === 1)
      yield* store.rewind(streamOf(0), 0)
      yield* pass(50)
      yield* settled("done", () => ledger.byRecord.size === 6)
      expect(begun.byClaim).toEqual([["0"], ["0", "1", "2", "3", "4", "5"]])
      // that one had begun, and the operator has said that it shall run again
      expect(ledger.twice).toEqual(["orders/0/0"])
      expect(consumer.status().counters).toMatchObject({ leaseLosses: 1, deadLettered: 0 })
    }))

  test("begins none of the rest after the drain timeout, and the next owner has them at once", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const begun = new Begun()
      yield* client.produce(records("orders", 3, 1))
      const consumer = yield* start({
        ...options,
        drainTimeout: "3.5 seconds",
        handleBatch: oneByOne(ledger, begun)
      })
      yield* settled("at the first", () => begun.all.length === 1)
      const stopping = yield* Effect.forkScoped(consumer.stop)
      yield* pass(5)
      yield* settled("stopped", () => stopping.pollUnsafe() !== undefined)
      expect(begun.byClaim).toEqual([["0"]])
      const again = yield* start({
        ...options,
        handleBatch: (given) => Effect.sync(() => ledger.noteAll(given))
      })
      yield* settled("done", () => ledger.count === 3 && isDone(again, 1))
      expect(ledger.twice).toEqual([])
    }))
})
