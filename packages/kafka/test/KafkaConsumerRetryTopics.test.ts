import { describe, expect, it } from "@effect/vitest"
import { Key, OffsetStore } from "@tidemark/core"
import { Effect, Schedule } from "effect"
import * as DeadLetters from "../src/DeadLetters.ts"
import { InProcessBroker } from "../src/InProcessKafka.ts"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import { formatDelay, nameFor } from "../src/RetryTopics.ts"
import {
  clockTests,
  isDone,
  Ledger,
  owns,
  pass,
  type Running,
  records,
  settled,
  start,
  streamOf,
  unhurried
} from "./consumerHarness.ts"

const test = clockTests({ topics: { orders: 2 } })

/** Fails so many times for each of these values, wherever they come; then takes effect. */
const failing = (ledger: Ledger, times: Readonly<Record<string, number>>) => {
  const left = new Map(Object.entries(times))
  return (record: KafkaRecord) =>
    Effect.suspend(() => {
      const value = String(record.value)
      const failures = left.get(value) ?? 0
      left.set(value, failures - 1)
      if (failures > 0) return Effect.fail("not yet")
      ledger.note(record)
      return Effect.void
    })
}

const always = Number.POSITIVE_INFINITY

const recordsIn = (topic: string) =>
  Effect.map(InProcessBroker, (broker) => [0, 1].flatMap((partition) => broker.records(topic, partition)))

const text = (record: KafkaRecord, header: string): string => String(record.headers[`tidemark.${header}`])

const partitionOf = (consumer: Running<unknown>, topic: string, partition: number) =>
  consumer.status().partitions.find((one) => one.topic === topic && one.partition === partition)

const retrying = { ...unhurried, retryTopics: ["30 seconds", "5 minutes"] } as const

describe("names of retry topics", () => {
  it("have the delay in the largest unit that it is a whole number of", () => {
    const delays = [1, 1_500, 30_000, 90_000, 300_000, 5_400_000, 7_200_000, 86_400_000, 129_600_000]
    expect(delays.map(formatDelay)).toEqual(["1ms", "1500ms", "30s", "90s", "5m", "90m", "2h", "1d", "36h"])
    expect(nameFor("orders", 30_000)).toBe("orders.retry.30s")
  })
})

describe("retry topics", () => {
  test("a record that fails waits in each in turn, and the others go on", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 20, 4))
      const consumer = yield* start({ ...retrying, handler: failing(ledger, { 5: 2 }) })
      yield* settled("the others done", () => ledger.count === 19)
      const [letter, ...more] = yield* recordsIn("orders.retry.30s")
      expect(more).toEqual([])
      expect(text(letter, "attempts")).toBe("1")
      expect(text(letter, "not-before")).toBe("30000")
      expect(text(letter, "error-message")).toBe("not yet")
      expect(text(letter, "topic")).toBe("orders")
      yield* pass(29)
      expect(yield* recordsIn("orders.retry.5m")).toEqual([])
      const held = partitionOf(consumer, "orders.retry.30s", letter.partition)
      expect(held).toMatchObject({ heldUntil: 30_000, running: 0, inFlight: 1, phase: "owned" })
      yield* pass(2)
      const [second] = yield* recordsIn("orders.retry.5m")
      expect(text(second, "attempts")).toBe("2")
      for (const header of ["id", "topic", "partition", "offset", "timestamp"])
        expect(text(second, header)).toBe(text(letter, header))
      yield* pass(298)
      expect(ledger.count).toBe(19)
      yield* pass(4)
      yield* settled("done", () => isDone(consumer, 6))
      expect(ledger.byValue.get("5")).toBe(1)
      expect(consumer.status().counters).toMatchObject({
        retried: 2,
        processed: 20,
        leaseLosses: 0,
        rebalances: 1
      })
      expect(partitionOf(consumer, "orders.retry.5m", second.partition)?.heldUntil).toBeUndefined()
    }))

  test("after the last delay it is dead-lettered, with where it came from first", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce([
        { topic: "orders", partition: 1, value: "bad", headers: { a: "b" }, timestampMillis: 7 }
      ])
      const consumer = yield* start({
        ...retrying,
        retryTopics: ["1 second"],
        retry: Schedule.recurs(1),
        whenPoison: "dead-letter",
        handler: failing(ledger, { bad: always })
      })
      yield* pass(3)
      yield* settled("done", () => isDone(consumer, 4))
      const [letter, ...more] = yield* recordsIn("orders.dead-letter")
      expect(more).toEqual([])
      expect(String(letter.value)).toBe("bad")
      expect(Object.keys(letter.headers).sort()).toEqual([
        "a",
        ...[
          "attempts",
          "error-message",
          "error-tag",
          "group",
          "id",
          "offset",
          "partition",
          "timestamp",
          "topic"
        ].map((name) => `tidemark.${name}`)
      ])
      expect(text(letter, "id")).toBe("kafka/group/orders/1/0/7")
      expect(text(letter, "attempts")).toBe("4")
      expect(text(letter, "partition")).toBe("1")
    }))

  test("without a policy it stops after the last delay, and the record is not done", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.produce([{ topic: "orders", value: "bad" }])
      const options = { ...retrying, retryTopics: ["1 second"] } as const
      const ledger = new Ledger()
      const consumer = yield* start({ ...options, handler: failing(ledger, { bad: always }) })
      yield* pass(2)
      expect(String(yield* consumer.exit)).toContain("not yet")
      const again = yield* start({ ...options, handler: failing(ledger, {}) })
      yield* pass(2)
      yield* settled("done", () => isDone(again, 4))
      expect(ledger.byValue.get("bad")).toBe(1)
    }))

  test("a defect does not wait for another try", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.produce([{ topic: "orders", value: "bad" }])
      const consumer = yield* start({
        ...retrying,
        whenPoison: "dead-letter",
        handler: () => Effect.die("a slip")
      })
      yield* settled("dead-lettered", () => consumer.status().counters.deadLettered === 1)
      expect(yield* recordsIn("orders.retry.30s")).toEqual([])
    }))

  for (const identify of [undefined, (record: KafkaRecord) => String(record.value)])
    test(`what was sent to a retry topic twice takes effect once, ${identify === undefined ? "without" : "with"} identify`, () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const broker = yield* InProcessBroker
        const ledger = new Ledger()
        const twice: typeof client = {
          ...broker.makeClient(),
          produce: (given) => client.produce(given.flatMap((record) => [record, record]))
        }
        yield* client.produce([{ topic: "orders", key: "k", value: "late" }])
        const consumer = yield* start({ ...retrying, identify, handler: failing(ledger, { late: 1 }) }, twice)
        yield* settled("sent to wait", () => consumer.status().counters.retried === 1)
        yield* pass(31)
        yield* settled("done", () => isDone(consumer, 6) && consumer.status().counters.duplicatesByKey === 1)
        expect(ledger.byValue.get("late")).toBe(1)
      }))

  test("another group's records in the same retry topics are its own", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const [mine, others] = [new Ledger(), new Ledger()]
      yield* client.produce([{ topic: "orders", key: "k", value: "late" }])
      const first = yield* start({ ...retrying, handler: failing(mine, { late: 2 }) })
      const second = yield* start({
        ...retrying,
        groupId: "another",
        identify: (record) => String(record.value),
        handler: failing(others, {})
      })
      yield* settled("sent to wait", () => first.status().counters.retried === 1)
      yield* settled("seen", () => second.status().counters.ofOtherGroups === 1 && isDone(second, 6))
      yield* pass(340)
      yield* settled("done", () => mine.count === 1 && second.status().counters.ofOtherGroups === 2)
      expect([...others.byRecord.keys()]).toEqual(
        [...mine.byRecord.keys()].map(() => expect.stringMatching(/^orders\/\d\/0$/))
      )
      expect(second.status().counters.processed).toBe(1)
    }))

  test("a record that was sent back keeps its id in retry topics, and gets a new one as a dead letter", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const id = "kafka/group/orders/1/5/7"
      yield* client.produce([
        { topic: "orders", value: "bad", headers: { "tidemark.id": id }, timestampMillis: 9 }
      ])
      const consumer = yield* start({
        ...retrying,
        retryTopics: ["1 second"],
        whenPoison: "dead-letter",
        handler: () => Effect.fail("not yet")
      })
      yield* pass(3)
      yield* settled("done", () => consumer.status().counters.deadLettered === 1)
      expect((yield* recordsIn("orders.retry.1s")).map((record) => text(record, "id"))).toEqual([id])
      expect((yield* recordsIn("orders.dead-letter")).map((record) => text(record, "id"))).toEqual([
        expect.stringMatching(/^kafka\/group\/orders\/[01]\/0\/9$/)
      ])
    }))

  test("what fails again after a rewind waits again and takes effect, also with the id of a letter", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const ledger = new Ledger()
      const failsAt = (record: KafkaRecord) =>
        record.topic === "orders" ? Effect.fail("not yet") : Effect.sync(() => ledger.note(record))
      yield* client.produce([
        { topic: "orders", partition: 0, value: "bad", timestampMillis: 7 },
        {
          topic: "orders",
          partition: 0,
          value: "sent back",
          headers: { "tidemark.id": "kafka/group/orders/1/5/7" }
        }
      ])
      const consumer = yield* start({ ...retrying, handler: failsAt })
      yield* pass(31)
      yield* settled("done", () => ledger.count === 2 && isDone(consumer, 6))
      for (const times of [2, 3]) {
        yield* store.rewind(streamOf(0), 0)
        yield* pass(45)
        yield* settled("done again", () => ledger.count === 2 * times && isDone(consumer, 6))
        expect([...ledger.byValue.values()]).toEqual([times, times])
      }
      expect((yield* recordsIn("orders.retry.30s")).map((record) => text(record, "id")).toSorted()).toEqual([
        "kafka/group/orders/0/0/7",
        "kafka/group/orders/0/0/7/1",
        "kafka/group/orders/0/0/7/2",
        ...Array.from({ length: 3 }, () => "kafka/group/orders/1/5/7")
      ])
      expect(consumer.status().counters).toMatchObject({ duplicatesByKey: 0, retried: 6 })
    }))

  test("a retry topic that is rewound is handled again", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const ledger = new Ledger()
      yield* client.produce([{ topic: "orders", partition: 0, value: "late" }])
      const consumer = yield* start({ ...retrying, handler: failing(ledger, { late: 1 }) })
      yield* pass(31)
      yield* settled("done", () => ledger.count === 1 && isDone(consumer, 6))
      const [{ partition }] = yield* recordsIn("orders.retry.30s")
      yield* store.rewind(Key.kafkaStream({ group: "group", topic: "orders.retry.30s", partition }), 0)
      yield* pass(15)
      yield* settled("done again", () => ledger.count === 2 && isDone(consumer, 6))
      expect(consumer.status().counters.duplicatesByKey).toBe(0)
    }))

  const fail = () => Effect.fail("bad")
  for (const [name, handling] of [
    ["records", { handler: fail }],
    ["batches", { handleBatch: fail }]
  ] as const)
    test(`what dies again after a rewind is another letter, and goes back too: ${name}`, () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const store = yield* OffsetStore
        yield* client.produce([{ topic: "orders", partition: 0, value: "bad", timestampMillis: 7 }])
        const options = { ...retrying, retryTopics: ["1 second"], whenPoison: "dead-letter" } as const
        const topic = "orders.dead-letter"
        for (const [sent, alreadySent, id] of [
          [1, 0, "kafka/group/orders/0/0/7"],
          // the copy that was sent back dies too
          [2, 1, "kafka/group/orders/0/0/7/1"],
          [4, 3, "kafka/group/orders/0/0/7/2"]
        ] as const) {
          const consumer = yield* start({ ...options, ...handling })
          yield* settled("owned", () => owns(consumer, 4))
          yield* pass(3)
          yield* settled("done", () => isDone(consumer, 4))
          yield* consumer.stop
          const ids = (yield* recordsIn(topic)).map((record) => DeadLetters.read(record)?.id)
          expect(ids).toContain(id)
          expect(yield* DeadLetters.redrive({ topic })).toMatchObject({ sent, alreadySent })
          yield* store.rewind(streamOf(0), 0)
        }
      }))

  test("records that nobody sent there to wait, and ones of a clock that goes ahead, don't wait for ever", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.createTopics([{ topic: "orders.retry.30s", partitions: 1 }])
      yield* client.produce([
        { topic: "orders.retry.30s", value: "foreign" },
        { topic: "orders.retry.30s", value: "ahead", headers: { "tidemark.not-before": "99999999" } },
        { topic: "orders.retry.30s", value: "broken", headers: { "tidemark.not-before": "soon" } }
      ])
      const consumer = yield* start({
        ...retrying,
        retryTopics: ["30 seconds"],
        handler: failing(ledger, {})
      })
      yield* settled("the first done", () => ledger.count === 1)
      yield* pass(29)
      expect([...ledger.byValue.keys()]).toEqual(["foreign"])
      yield* pass(2)
      yield* settled("done", () => isDone(consumer, 3))
      expect([...ledger.byValue.keys()]).toEqual(["foreign", "ahead", "broken"])
    }))

  test("start: latest does not pass over what another member has sent to a retry topic", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.createTopics([{ topic: "orders.retry.30s", partitions: 2 }])
      yield* client.produce([{ topic: "orders.retry.30s", value: "waits" }])
      const consumer = yield* start({
        ...retrying,
        retryTopics: ["30 seconds"],
        start: "latest",
        handler: failing(ledger, {})
      })
      yield* settled("done", () => ledger.count === 1 && isDone(consumer, 4))
    }))

  test("a stop while records wait leaves them to the next run, which waits for what is left", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce([{ topic: "orders", value: "bad" }])
      const first = yield* start({ ...retrying, handler: failing(ledger, { bad: 1 }) })
      yield* settled("sent to wait", () => first.status().counters.retried === 1)
      yield* pass(20)
      yield* first.stop
      const second = yield* start({ ...retrying, handler: failing(ledger, {}) })
      yield* pass(8)
      expect(ledger.count).toBe(0)
      yield* pass(3)
      yield* settled("done", () => ledger.count === 1 && isDone(second, 6))
    }))

  test("retry topics get as many partitions as their source; without createTopics they must be there", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const bare = yield* start({ ...retrying, createTopics: false, handler: () => Effect.void })
      expect(String(yield* bare.exit)).toContain("UnknownTopic")
      const consumer = yield* start({ ...retrying, whenPoison: "dead-letter", handler: () => Effect.void })
      yield* settled("owned", () => owns(consumer, 6))
      const counts = yield* client.partitionCounts([
        "orders.retry.30s",
        "orders.retry.5m",
        "orders.dead-letter"
      ])
      expect([...counts.values()]).toEqual([2, 2, 2])
    }))
})
