import { describe, expect, it } from "@effect/vitest"
import { InvalidInput } from "@tidemark/core"
import { Effect, Exit } from "effect"
import * as DeadLetters from "../src/DeadLetters.ts"
import { InProcessBroker } from "../src/InProcessKafka.ts"
import { KafkaClient, type KafkaRecord, type ProducerRecord } from "../src/KafkaClient.ts"
import { KafkaError } from "../src/KafkaErrors.ts"
import { isDone, layers, liveTests, quick, start } from "./consumerHarness.ts"
import { until } from "./kafkaClientSuite.ts"

const test = liveTests({ topics: { orders: 2 }, maxRecordsPerBatch: 3 })

const topic = "orders.dead-letter"

/** Dead-letters these records by a consumer. */
const deadLetter = (records: ReadonlyArray<ProducerRecord>) =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    yield* client.produce(records)
    const consumer = yield* start({
      ...quick,
      whenPoison: "dead-letter",
      handler: (record) => Effect.fail(`${record.value}`)
    })
    yield* until(
      "dead-lettered",
      () => consumer.status().counters.deadLettered === records.length && isDone(consumer, 2)
    )
    yield* consumer.stop
  })

const recordsIn = (topic: string, from = 0) =>
  Effect.map(InProcessBroker, (broker) =>
    [0, 1].flatMap((partition) => broker.records(topic, partition).filter(({ offset }) => offset >= from))
  )

const values = (records: ReadonlyArray<KafkaRecord>): ReadonlyArray<string> =>
  records.map(({ value }) => String(value))

const numbered = (count: number): ReadonlyArray<ProducerRecord> =>
  Array.from({ length: count }, (_, index) => ({
    topic: "orders",
    partition: index % 2,
    key: `key ${index % 3}`,
    value: `${index}`,
    headers: { "trace-id": `trace ${index}`, twice: ["a", "b"] },
    timestampMillis: 1_000 + index
  }))

describe("DeadLetters.redrive", () => {
  test("sends each letter back where it came from, as it was, in the order of its key, and once in however many runs", () =>
    Effect.gen(function* () {
      yield* deadLetter(numbered(20))
      const first = yield* DeadLetters.redrive({ topic })
      expect(first).toEqual({ sent: 20, alreadySent: 0, passedOver: 0, unreadable: 0 })
      const back = yield* recordsIn("orders", 10)
      for (const partition of [0, 1])
        for (const key of ["key 0", "key 1", "key 2"]) {
          const numbers = back
            .filter((record) => record.partition === partition && String(record.key) === key)
            .map(({ value }) => Number(value))
          expect(numbers).toEqual(
            [...Array(20).keys()].filter((number) => number % 2 === partition && `key ${number % 3}` === key)
          )
        }
      for (const record of back) {
        const number = Number(record.value)
        expect(String(record.key)).toBe(`key ${number % 3}`)
        expect(Object.keys(record.headers).sort()).toEqual(["tidemark.id", "trace-id", "twice"])
        expect([record.headers["twice"]].flat().map(String)).toEqual(["a", "b"])
        expect(String(record.headers["tidemark.id"])).toBe(
          `kafka/group/orders/${number % 2}/${Math.floor(number / 2)}/${1_000 + number}`
        )
        expect(DeadLetters.idOf(record)).toBe(String(record.headers["tidemark.id"]))
      }
      const second = yield* DeadLetters.redrive({ topic })
      expect(second).toEqual({ sent: 0, alreadySent: 20, passedOver: 0, unreadable: 0 })
      expect((yield* recordsIn("orders", 10)).length).toBe(20)
    }))

  test("copies of one letter go back once; what no consumer has written stays", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* deadLetter(numbered(2))
      const [letter] = yield* recordsIn(topic)
      const { headers, key, value } = letter
      yield* client.produce([
        {
          topic,
          key: key as Buffer,
          value: value as Buffer,
          headers: headers as ProducerRecord["headers"] & {}
        },
        { topic, value: "foreign" },
        {
          topic,
          value: "half",
          headers: { "tidemark.id": "kafka/group/orders/0/0/1", "tidemark.topic": "orders" }
        }
      ])
      expect(yield* DeadLetters.redrive({ topic })).toEqual({
        sent: 2,
        alreadySent: 1,
        passedOver: 0,
        unreadable: 2
      })
    }))

  test("where and to choose: what was passed over can go back later", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.createTopics([{ topic: "repaired", partitions: 1 }])
      yield* deadLetter(numbered(6))
      const some = yield* DeadLetters.redrive({
        topic,
        where: ({ errorMessage, key }) => errorMessage === "4" || String(key) === "key 0",
        to: ({ offset }) => (offset === 2 ? "repaired" : "orders")
      })
      expect(some).toEqual({ sent: 3, alreadySent: 0, passedOver: 3, unreadable: 0 })
      expect(values(broker.records("repaired", 0))).toEqual(["4"])
      const rest = yield* DeadLetters.redrive({ topic })
      expect(rest).toMatchObject({ sent: 3, alreadySent: 3 })
      const all = [...values(yield* recordsIn("orders", 3)), ...values(broker.records("repaired", 0))]
      expect(all.sort()).toEqual(["0", "1", "2", "3", "4", "5"])
    }))

  test("a run that dies in the middle of a transaction has sent nothing of it; the next one sends each once", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* deadLetter(numbered(20))
      for (const dieAt of [1, 3, 4]) {
        let commits = 0
        const mortal: typeof client = {
          ...broker.makeClient(),
          transactionalProducer: (options) =>
            Effect.map(client.transactionalProducer(options), (producer) => ({
              ...producer,
              commit: Effect.suspend(() => (++commits < dieAt ? producer.commit : Effect.die("killed")))
            }))
        }
        const exit = yield* Effect.exit(
          Effect.provideService(DeadLetters.redrive({ topic }), KafkaClient, mortal)
        )
        expect(Exit.isFailure(exit)).toBe(true)
      }
      yield* DeadLetters.redrive({ topic })
      const back = values(yield* recordsIn("orders", 10))
      expect(back.length).toBe(20)
      expect(new Set(back).size).toBe(20)
    }))

  test("of two runs the later one goes on, the earlier one is fenced, and each letter goes back once", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* deadLetter(numbered(20))
      let commits = 0
      // in the middle of its work another run comes and does all that is left
      const slow: typeof client = {
        ...broker.makeClient(),
        transactionalProducer: (options) =>
          Effect.map(client.transactionalProducer(options), (producer) => ({
            ...producer,
            commit: Effect.suspend(() =>
              ++commits === 2
                ? Effect.andThen(
                    Effect.orDie(Effect.provideService(DeadLetters.redrive({ topic }), KafkaClient, client)),
                    producer.commit
                  )
                : producer.commit
            )
          }))
      }
      const failure = yield* Effect.flip(
        Effect.provideService(DeadLetters.redrive({ topic }), KafkaClient, slow)
      )
      expect(failure).toMatchObject({ _tag: "KafkaError", reason: "Fenced" })
      const back = values(yield* recordsIn("orders", 10))
      expect(back.length).toBe(20)
      expect(new Set(back).size).toBe(20)
    }))

  test("a letter that fails again is a new letter, and can go back again", () =>
    Effect.gen(function* () {
      yield* deadLetter(numbered(2))
      yield* DeadLetters.redrive({ topic })
      const consumer = yield* start({
        ...quick,
        whenPoison: "dead-letter",
        identify: DeadLetters.idOf,
        handler: () => Effect.fail("still bad")
      })
      yield* until(
        "dead-lettered again",
        () => consumer.status().counters.deadLettered === 2 && isDone(consumer, 2)
      )
      yield* consumer.stop
      expect(yield* DeadLetters.redrive({ topic })).toMatchObject({ sent: 2, alreadySent: 2 })
    }))

  test("an empty dead-letter topic, one that is missing, and one that can't be", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.createTopics([{ topic, partitions: 3 }])
      expect(yield* DeadLetters.redrive({ topic })).toMatchObject({ sent: 0, unreadable: 0 })
      expect(yield* Effect.flip(DeadLetters.redrive({ topic: "none" }))).toMatchObject({
        reason: "UnknownTopic"
      })
      expect(yield* Effect.flip(DeadLetters.redrive({ topic: "a b" }))).toBeInstanceOf(InvalidInput)
    }))

  test("a letter whose topic is gone is an error that names it, and nothing is sent of its batch", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      yield* deadLetter(numbered(2))
      broker.deleteTopic("orders")
      const failure = yield* Effect.flip(DeadLetters.redrive({ topic }))
      expect(failure).toBeInstanceOf(KafkaError)
      expect(failure.message).toContain('"orders"')
    }))
})

describe("DeadLetters.read", () => {
  it.live("gives what the headers say, and the record as it was", () =>
    Effect.gen(function* () {
      yield* deadLetter([
        { topic: "orders", partition: 1, key: "k", value: "bad", headers: { a: "b" }, timestampMillis: 7 }
      ])
      const [record] = yield* recordsIn(topic)
      expect(DeadLetters.read(record)).toEqual({
        id: "kafka/group/orders/1/0/7",
        groupId: "group",
        topic: "orders",
        partition: 1,
        offset: 0,
        timestampMillis: 7,
        attempts: 1,
        errorTag: "Error",
        errorMessage: "bad",
        key: Buffer.from("k"),
        value: Buffer.from("bad"),
        headers: { a: Buffer.from("b") }
      })
    }).pipe(Effect.scoped, Effect.provide(layers({ topics: { orders: 2 } })))
  )
})

describe("DeadLetters.idOf", () => {
  const record = (topic: string, id: string | undefined): KafkaRecord => ({
    topic,
    partition: 0,
    offset: 0,
    key: undefined,
    value: undefined,
    timestampMillis: 0,
    headers: id === undefined ? {} : { "tidemark.id": id }
  })

  it("is that of the record, and not of one whose headers its producer copied", () => {
    const id = "kafka/my%20group/orders/0/1/2"
    expect(DeadLetters.idOf(record("orders", id))).toBe(id)
    expect(DeadLetters.idOf(record("orders.retry.5m", id))).toBe(id)
    expect(DeadLetters.idOf(record("invoices", id))).toBeUndefined()
    expect(DeadLetters.idOf(record("orders", undefined))).toBeUndefined()
    expect(DeadLetters.idOf(record("orders", "nonsense"))).toBeUndefined()
  })
})
