/** Handlers that take long, and those that take too long. */
import { describe, expect, it } from "@effect/vitest"
import { MemoryStore } from "@tidemark/store-memory"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Effect, Fiber, Layer, Schedule } from "effect"
import { HandlerStalled, PartlyDone } from "../src/index.ts"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import * as KafkaConsumer from "../src/KafkaConsumer.ts"
import * as KafkaJs from "../src/KafkaJs.ts"
import {
  clockTests,
  isDone,
  Ledger,
  logLines,
  pass,
  records,
  settled,
  start,
  unhurried
} from "./consumerHarness.ts"
import { uniqueName, until } from "./kafkaClientSuite.ts"

const test = clockTests({ topics: { orders: 1 } })

const failureOf = ({ failure }: KafkaConsumer.ConsumerStatus): unknown => {
  const [reason] = failure?.reasons ?? []
  return reason?._tag === "Fail" ? reason.error : undefined
}

/** Hangs at these values, the first time or always; all else takes effect at once. */
const hanging = (ledger: Ledger, values: ReadonlyArray<string>, times = Number.POSITIVE_INFINITY) => {
  const hung = new Map<string, number>()
  let interrupted = 0
  return {
    interrupted: () => interrupted,
    handler: (record: KafkaRecord): Effect.Effect<void> =>
      Effect.suspend(() => {
        const value = String(record.value)
        const before = hung.get(value) ?? 0
        if (!values.includes(value) || before >= times) return Effect.sync(() => ledger.note(record))
        hung.set(value, before + 1)
        return Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++))
      })
  }
}

describe("KafkaConsumer with a stall timeout", () => {
  test("interrupts a handler that is over it, says which, and completes the others", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const log = logLines()
      yield* client.produce(records("orders", 10))
      const { handler, interrupted } = hanging(ledger, ["3"])
      const consumer = yield* Effect.provide(
        start({ ...unhurried, stallTimeout: "5 seconds", handler }),
        log.layer
      )
      yield* settled("at work", () => consumer.status().running === 1 && ledger.count === 9)
      yield* pass(4)
      expect(consumer.status().phase).toBe("running")
      yield* pass(2)
      yield* consumer.exit
      const status = consumer.status()
      expect(failureOf(status)).toBeInstanceOf(HandlerStalled)
      expect(failureOf(status)).toMatchObject({
        topic: "orders",
        partition: 0,
        offset: 3,
        records: 1,
        millis: 5_000
      })
      expect({ interrupted: interrupted(), stalled: status.counters.stalled }).toEqual({
        interrupted: 1,
        stalled: 1
      })
      expect(
        log.lines.filter((line) => line.includes("offset 3 of partition 0") && line.includes("5000 ms"))
      ).toHaveLength(1)
      expect(yield* client.committed("group", [{ topic: "orders", partition: 0 }])).toMatchObject([
        { offset: 3 }
      ])
    }))

  test("counts each attempt by itself, and retries what stalled", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 10))
      const { handler, interrupted } = hanging(ledger, ["3", "4"], 2)
      const consumer = yield* start({
        ...unhurried,
        stallTimeout: "5 seconds",
        retry: Schedule.spaced("4 seconds").pipe(Schedule.upTo({ times: 5 })),
        handler
      })
      yield* pass(20)
      yield* settled("done", () => isDone(consumer, 1) && ledger.count === 10)
      expect(interrupted()).toBe(4)
      expect(consumer.status().counters).toMatchObject({ stalled: 4, retries: 4, processed: 10 })
    }))

  test("sets aside what stalls for good", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 10))
      const { handler } = hanging(ledger, ["3"])
      const consumer = yield* start({
        ...unhurried,
        stallTimeout: "5 seconds",
        whenPoison: "dead-letter",
        handler
      })
      yield* pass(6)
      yield* settled("done", () => isDone(consumer, 1) && ledger.count === 9)
      expect(consumer.status().counters).toMatchObject({ stalled: 1, deadLettered: 1, processed: 9 })
    }))

  test("sets aside what stalls for good also where its finalizer dies", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.produce(records("orders", 1))
      const consumer = yield* start({
        ...unhurried,
        stallTimeout: "5 seconds",
        whenPoison: "dead-letter",
        handler: () =>
          Effect.onInterrupt(Effect.never, () => Effect.die(new Error("no connection to give back")))
      })
      yield* pass(6)
      yield* settled("done", () => consumer.status().counters.deadLettered === 1)
      expect(consumer.status()).toMatchObject({ phase: "running", counters: { stalled: 1, processed: 0 } })
    }))

  test("leaves a handler alone that can't be interrupted, and completes it if it ends well", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 1))
      const consumer = yield* start({
        ...unhurried,
        stallTimeout: "5 seconds",
        handler: (record) =>
          Effect.uninterruptible(Effect.map(Effect.sleep("8 seconds"), () => ledger.note(record)))
      })
      yield* pass(7)
      expect(consumer.status()).toMatchObject({ running: 1, counters: { stalled: 1 } })
      yield* pass(2)
      yield* settled("done", () => isDone(consumer, 1) && ledger.count === 1)
      expect(consumer.status().phase).toBe("running")
    }))

  test("does not mind handlers that end in time, by success or by failure", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 20))
      const consumer = yield* start({
        ...unhurried,
        stallTimeout: "5 seconds",
        retry: Schedule.recurs(1),
        handler: (record) =>
          Effect.andThen(
            record.offset % 3 === 0 ? Effect.void : Effect.sleep("4 seconds"),
            Effect.suspend(() => {
              ledger.note(record)
              return ledger.byValue.get(String(record.value)) === 1 && record.offset % 2 === 0
                ? Effect.fail("once")
                : Effect.void
            })
          )
      })
      yield* pass(60)
      yield* settled("done", () => isDone(consumer, 1) && ledger.byRecord.size === 20)
      expect(consumer.status().counters).toMatchObject({ stalled: 0, retries: 10, processed: 20 })
    }))

  test("holds for a batch, and names its first record and how many there are", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.produce(records("orders", 6, 1))
      const consumer = yield* start({
        ...unhurried,
        stallTimeout: "5 seconds",
        handleBatch: () => Effect.never
      })
      yield* pass(6)
      yield* consumer.exit
      const error = failureOf(consumer.status())
      expect(error).toMatchObject({ _tag: "HandlerStalled", offset: 0, records: 6 })
      expect((error as HandlerStalled).message).toContain("offset 0 of partition 0")
      expect((error as HandlerStalled).message).toContain("and the 5 after it in its batch")
      expect(error).not.toBeInstanceOf(PartlyDone)
    }))
})

// the least that a broker of others allows is 6 s
const sessionMillis = process.env.KAFKA_BROKERS === undefined ? 2_000 : 6_000

await describeWithKafka("KafkaConsumer on Kafka, with a handler that takes three sessions", ({ brokers }) => {
  it.live(
    "keeps its partition, runs it once, and nobody else does",
    () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const topic = uniqueName("topic")
        yield* client.createTopics([{ topic, partitions: 2 }])
        yield* client.produce(
          [0, 1].flatMap((partition) =>
            ["slow", "quick"].map((value) => ({ topic, partition, key: value, value }))
          )
        )
        const ledger = new Ledger()
        const options = {
          topics: [topic],
          groupId: uniqueName("group"),
          sessionTimeout: sessionMillis,
          handler: (record: KafkaRecord) =>
            Effect.andThen(
              String(record.value) === "slow" ? Effect.sleep(3 * sessionMillis) : Effect.void,
              Effect.sync(() => ledger.note(record))
            )
        }
        const consumers = [yield* KafkaConsumer.make(options), yield* KafkaConsumer.make(options)]
        const statuses = () => consumers.map(({ status }) => Effect.runSync(status))
        const owned = () =>
          statuses().flatMap(({ partitions }) => partitions.filter(({ phase }) => phase === "owned"))
        const first = yield* Effect.forkChild(consumers[0].run)
        yield* until("at work", () => statuses()[0].running === 2)
        const second = yield* Effect.forkChild(consumers[1].run)
        yield* until(
          "done",
          () => owned().filter(({ lag, unfinished }) => unfinished === 0 && lag === 0).length === 2
        )
        expect(ledger.byRecord.size).toBe(4)
        const [{ counters }] = statuses()
        expect(counters.leaseLosses).toBe(0)
        yield* Fiber.interrupt(first)
        yield* Fiber.interrupt(second)
      }).pipe(Effect.provide(Layer.mergeAll(KafkaJs.layer({ brokers }), MemoryStore.layer()))),
    60_000
  )
})
