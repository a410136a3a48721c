import { describe, expect } from "@effect/vitest"
import { IdempotencyStore, ParkedRecords, type ParkedRecordsService, type RecordToPark } from "@tidemark/core"
import { Cause, Data, Effect, Exit, Fiber, Schedule, Schema } from "effect"
import { SetAsideFailed } from "../src/ConsumerErrors.ts"
import * as Decoder from "../src/Decoder.ts"
import { InProcessBroker } from "../src/InProcessKafka.ts"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import * as KafkaConsumer from "../src/KafkaConsumer.ts"
import { KafkaError } from "../src/KafkaErrors.ts"
import {
  begin,
  clockTests,
  isDone,
  Ledger,
  logLines,
  pass,
  type Running,
  records,
  settled,
  start,
  unhurried
} from "./consumerHarness.ts"

const test = clockTests({ topics: { orders: 1 } })

class Refused extends Data.TaggedError("Refused")<{ readonly message: string }> {}

const refused = new Refused({ message: "the card was refused" })

/** Takes effect, save for records of these values, which fail so many times first. */
const failing = (ledger: Ledger, times: Readonly<Record<string, number>>) => {
  const left = new Map(Object.entries(times))
  return (record: KafkaRecord) =>
    Effect.suspend(() => {
      const value = String(record.value)
      const failures = left.get(value) ?? 0
      left.set(value, failures - 1)
      if (failures > 0) return Effect.fail(refused)
      ledger.note(record)
      return Effect.void
    })
}

const always = Number.POSITIVE_INFINITY

const headersOf = (record: KafkaRecord): Record<string, string> =>
  Object.fromEntries(Object.entries(record.headers).map(([name, value]) => [name, String(value)]))

const deadLetters = (topic = "orders.dead-letter") =>
  Effect.map(InProcessBroker, (broker) => broker.records(topic, 0))

/** Whether so many records have come, and nothing of them is left to do. */
const hasDone = (consumer: Running<unknown>, count: number): boolean =>
  consumer.status().counters.received >= count && isDone(consumer, 1)

const failureOf = (running: Running<unknown>) =>
  Effect.map(running.exit, (exit) => (Exit.isFailure(exit) ? Cause.squash(exit.cause) : "it ended well"))

describe("retries in place", () => {
  test("tries again as the schedule says, and keeps the order of the key", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 12, 3))
      const consumer = yield* start({
        ...unhurried,
        retry: Schedule.spaced("10 seconds"),
        handler: failing(ledger, { 0: 3 })
      })
      yield* settled("the others done", () => ledger.count === 8)
      expect(ledger.byKey.get("orders/0/key 0")).toBeUndefined()
      yield* pass(29)
      expect(ledger.count).toBe(8)
      expect(consumer.status().counters.retries).toBe(2)
      yield* pass(2)
      yield* settled("all done", () => hasDone(consumer, 12))
      expect(ledger.byKey.get("orders/0/key 0")).toEqual([0, 3, 6, 9])
      expect(consumer.status().counters).toMatchObject({ processed: 12, retries: 3, leaseLosses: 0 })
    }))

  test("stops with the handler's failure when the schedule ends, and nothing is passed over", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 5, 5))
      const consumer = yield* start({
        ...unhurried,
        retry: Schedule.exponential("1 second").pipe(Schedule.upTo({ times: 2 })),
        handler: failing(ledger, { 2: always })
      })
      yield* pass(4)
      expect(yield* failureOf(consumer)).toBe(refused)
      expect(consumer.status().counters.retries).toBe(2)
      const again = yield* start({ ...unhurried, handler: failing(ledger, {}) })
      yield* settled("all done", () => ledger.count === 5 && isDone(again, 1))
      expect(ledger.count).toBe(5)
      expect(ledger.twice).toEqual([])
    }))

  test("does not retry a defect, nor an interruption", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.produce([{ topic: "orders", value: "one" }])
      for (const outcome of [Effect.die(new TypeError("a slip")), Effect.interrupt]) {
        let runs = 0
        const consumer = yield* start({
          ...unhurried,
          retry: Schedule.spaced("1 second"),
          handler: () => {
            runs++
            return outcome
          }
        })
        yield* pass(3)
        expect(Exit.isFailure(yield* consumer.exit)).toBe(true)
        expect(runs).toBe(1)
      }
    }))

  test("a stop ends the pause at once, and leaves the record undone", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const keys = yield* IdempotencyStore
      const ledger = new Ledger()
      yield* client.produce(records("orders", 4, 4))
      const options = { ...unhurried, identify: (record: KafkaRecord) => String(record.value) }
      const consumer = yield* start({
        ...options,
        retry: Schedule.spaced("1 hour"),
        handler: failing(ledger, { 1: always })
      })
      yield* settled("the others done", () => ledger.count === 3)
      // no time passes for it
      yield* consumer.stop
      const [undone] = yield* keys.lookup("group", ["1"])
      expect(undone._tag).toBe("Unknown")
      const again = yield* start({ ...options, handler: failing(ledger, {}) })
      yield* settled("all done", () => hasDone(again, 1))
      expect([...ledger.byValue.values()]).toEqual([1, 1, 1, 1])
    }))

  test("keeps the claims on the partition and the id while it waits", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce([{ topic: "orders", value: "0" }])
      const consumer = yield* start({
        ...unhurried,
        identify: (record) => String(record.value),
        retry: Schedule.spaced("1 minute"),
        handler: failing(ledger, { 0: 1 })
      })
      yield* pass(61)
      yield* settled("done", () => hasDone(consumer, 1))
      expect(ledger.count).toBe(1)
      expect(consumer.status().counters).toMatchObject({ leaseLosses: 0, keyLeaseLosses: 0, retries: 1 })
    }))
})

describe("poison", () => {
  test("dead-letters the record as it was, with why in its headers, and goes on", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const key = Buffer.from([0, 255, 1])
      const value = Buffer.from([254, 0, 128])
      yield* client.produce([
        { topic: "orders", value: "before" },
        {
          topic: "orders",
          key,
          value,
          headers: { tenant: "blue", twice: ["a", "b"] },
          timestampMillis: 1_234
        },
        { topic: "orders", key, value: "after" }
      ])
      const consumer = yield* start({
        ...unhurried,
        whenPoison: "dead-letter",
        retry: Schedule.recurs(2),
        handler: failing(ledger, { [String(value)]: always })
      })
      yield* settled("all done", () => hasDone(consumer, 3) && ledger.count === 2)
      const [letter, ...more] = yield* deadLetters()
      expect(more).toEqual([])
      expect(letter.key?.equals(key)).toBe(true)
      expect(letter.value?.equals(value)).toBe(true)
      expect(String(letter.headers.tenant)).toBe("blue")
      expect([letter.headers.twice].flat().map(String)).toEqual(["a", "b"])
      expect(headersOf(letter)).toMatchObject({
        "tidemark.id": "kafka/group/orders/0/1/1234",
        "tidemark.topic": "orders",
        "tidemark.partition": "0",
        "tidemark.offset": "1",
        "tidemark.timestamp": "1234",
        "tidemark.group": "group",
        "tidemark.attempts": "3",
        "tidemark.error-tag": "Refused",
        "tidemark.error-message": "the card was refused"
      })
      expect(consumer.status().counters).toMatchObject({ processed: 2, deadLettered: 1, retries: 2 })
      expect(consumer.status().partitions[0].watermark).toBe(3)
    }))

  test("dead-letters a defect without a retry, and a tombstone as one", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.produce([{ topic: "orders", key: "k", value: null }])
      const consumer = yield* start({
        ...unhurried,
        deadLetterTopic: "graves",
        whenPoison: "dead-letter",
        retry: Schedule.spaced("1 second"),
        handler: (record) => Effect.sync(() => (record.value as Buffer).length)
      })
      yield* settled("done", () => hasDone(consumer, 1))
      const [letter] = yield* deadLetters("graves")
      expect(letter.value).toBeUndefined()
      expect(headersOf(letter)).toMatchObject({ "tidemark.error-tag": "TypeError", "tidemark.attempts": "1" })
    }))

  test("its id does not count as processed: sent again, it is processed", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const keys = yield* IdempotencyStore
      const ledger = new Ledger()
      yield* client.produce([{ topic: "orders", value: "0" }])
      const consumer = yield* start({
        ...unhurried,
        identify: (record) => String(record.value),
        whenPoison: "dead-letter",
        handler: failing(ledger, { 0: 1 })
      })
      yield* settled("dead-lettered", () => hasDone(consumer, 1))
      const [before] = yield* keys.lookup("group", ["0"])
      expect(before._tag).toBe("Unknown")
      yield* client.produce([{ topic: "orders", value: "0" }])
      yield* settled("processed", () => ledger.count === 1 && hasDone(consumer, 2))
    }))

  test("records that follow one with the same id look for themselves when it is set aside", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(Array.from({ length: 3 }, () => ({ topic: "orders", value: "0" })))
      const consumer = yield* start({
        ...unhurried,
        identify: (record) => String(record.value),
        whenPoison: "dead-letter",
        handler: failing(ledger, { 0: 1 })
      })
      yield* settled("done", () => hasDone(consumer, 3))
      expect(ledger.count).toBe(1)
      expect(consumer.status().counters).toMatchObject({ deadLettered: 1, processed: 1, duplicatesByKey: 1 })
    }))

  test("a letter that can't be written is tried again, for a lease; then the consumer stops and says why", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      const ledger = new Ledger()
      yield* client.produce([{ topic: "orders", value: "0" }])
      const error = (retriable: boolean) =>
        new KafkaError({
          reason: retriable ? "Unreachable" : "RecordTooLarge",
          operation: "produce",
          brokers: ["nowhere"],
          detail: "planted",
          retriable
        })
      const options = {
        ...unhurried,
        whenPoison: "dead-letter",
        handler: failing(ledger, { 0: always })
      } as const
      broker.failNext("produce", error(false))
      const first = yield* start(options)
      yield* pass(1)
      const failure = yield* failureOf(first)
      expect(failure).toBeInstanceOf(SetAsideFailed)
      expect((failure as SetAsideFailed).message).toContain(
        'offset 0 of partition 0 of topic "orders" failed (Refused: the card was refused), and could not be set aside in topic ' +
          '"orders.dead-letter": produce at nowhere: RecordTooLarge: planted'
      )
      expect(yield* deadLetters()).toEqual([])
      broker.failNext("produce", error(true))
      broker.failNext("produce", error(true))
      const second = yield* start(options)
      yield* pass(3)
      yield* settled("dead-lettered", () => hasDone(second, 1))
      expect((yield* deadLetters()).length).toBe(1)
    }))

  test("a stop while a letter is being written waits for that: it is written once", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.produce([{ topic: "orders", value: "0" }])
      let isWriting = false
      const slow: typeof client = {
        ...broker.makeClient(),
        produce: (letters) =>
          Effect.suspend(() => {
            isWriting = true
            return Effect.andThen(client.produce(letters), Effect.sleep("2500 millis"))
          })
      }
      const options = {
        ...unhurried,
        whenPoison: "dead-letter",
        handler: () => Effect.fail(refused)
      } as const
      const consumer = yield* start(options, slow)
      yield* settled("being written", () => isWriting)
      const stopping = yield* Effect.forkScoped(consumer.stop)
      yield* pass(4)
      yield* Fiber.join(stopping)
      const again = yield* start(options)
      yield* client.produce([{ topic: "orders", value: "1" }])
      yield* settled("done", () => hasDone(again, 1))
      expect((yield* deadLetters()).map(({ value }) => String(value))).toEqual(["0", "1"])
    }))

  test("without createTopics a dead-letter topic that is missing is an error at the start", () =>
    Effect.gen(function* () {
      const consumer = yield* start({
        ...unhurried,
        whenPoison: "dead-letter",
        createTopics: false,
        handler: () => Effect.void
      })
      expect(yield* failureOf(consumer)).toMatchObject({ _tag: "KafkaError", reason: "UnknownTopic" })
    }))

  test("tells of each record that it sets aside", () => {
    const log = logLines()
    return Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.produce([{ topic: "orders", value: "0" }])
      const consumer = yield* start({
        ...unhurried,
        whenPoison: "dead-letter",
        handler: () => Effect.fail(refused)
      })
      yield* settled("done", () => hasDone(consumer, 1))
      expect(log.lines.join("\n")).toContain(
        'the record at offset 0 of partition 0 of topic "orders" was dead-lettered after 1 attempts'
      )
    }).pipe(Effect.provide(log.layer))
  })
})

describe("parking", () => {
  const store = () => {
    const kept: Array<RecordToPark> = []
    const service = {
      park: (given: ReadonlyArray<RecordToPark>) =>
        Effect.sync(() => {
          kept.push(...given)
          return given.map(() => "Parked" as const)
        })
    } as unknown as ParkedRecordsService
    return { kept, service }
  }

  test("parks the record with where it comes from", () => {
    const { kept, service } = store()
    return Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.produce([
        { topic: "orders", key: "k", value: "0", headers: { twice: ["a", "b"] }, timestampMillis: 7 }
      ])
      const consumer = yield* start({
        ...unhurried,
        whenPoison: "park",
        retry: Schedule.recurs(1),
        handler: () => Effect.fail(refused)
      })
      yield* settled("done", () => hasDone(consumer, 1))
      expect(consumer.status().counters).toMatchObject({ parked: 1, processed: 0 })
      expect(kept).toEqual([
        {
          stream: "kafka/group/orders/0",
          topic: "orders",
          partition: 0,
          offset: 0,
          timestampMillis: 7,
          key: Buffer.from("k"),
          value: Buffer.from("0"),
          headers: [
            { name: "twice", value: Buffer.from("a") },
            { name: "twice", value: Buffer.from("b") }
          ],
          errorTag: "Refused",
          errorMessage: "the card was refused",
          attempts: 2
        }
      ])
    }).pipe(Effect.provideService(ParkedRecords, service))
  })

  test("a store that can't park is a ConfigError at the start", () =>
    Effect.gen(function* () {
      const consumer = yield* start({ ...unhurried, whenPoison: "park", handler: () => Effect.void })
      const failure = yield* failureOf(consumer)
      expect(failure).toMatchObject({ _tag: "ConfigError" })
      expect(String((failure as Error).message)).toContain("ParkedRecords")
    }))
})

describe("decoding", () => {
  const Order = Schema.Struct({ id: Schema.String, amount: Schema.NumberFromString })
  const send = (...values: ReadonlyArray<string | null>) =>
    Effect.flatMap(KafkaClient, (client) =>
      client.produce(values.map((value) => ({ topic: "orders", key: "key", value })))
    )

  test("gives the handler, and identify, what the schema made of it", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      yield* send('{"id":"a","amount":"1"}', '{"id":"b","amount":"2"}', '{"id":"a","amount":"1"}')
      const consumer = yield* begin(
        yield* KafkaConsumer.make({
          ...unhurried,
          decode: Decoder.json(Order),
          identify: (order) => order.id,
          handler: (order, record, claim) =>
            Effect.sync(
              () => void seen.push(`${order.id} ${order.amount + 1} ${record.offset} ${claim.token > 0}`)
            )
        })
      )
      yield* settled("done", () => hasDone(consumer, 3))
      expect(seen).toEqual(["a 2 0 true", "b 3 1 true"])
      expect(consumer.status().counters.duplicatesByKey).toBe(1)
    }))

  for (const withIds of [false, true]) {
    test(`what can't be decoded is set aside without a retry ${withIds ? "with" : "without"} ids`, () =>
      Effect.gen(function* () {
        const seen: Array<string> = []
        yield* send('{"id":"a","amount":"1"}', "no JSON", '{"id":7}', null, '{"id":"b","amount":"2"}')
        const consumer = yield* begin(
          yield* KafkaConsumer.make({
            ...unhurried,
            decode: Decoder.json(Order),
            ...(withIds ? { identify: (order: typeof Order.Type) => order.id } : {}),
            retry: Schedule.spaced("1 second"),
            whenPoison: "dead-letter",
            handler: (order) => Effect.sync(() => void seen.push(order.id))
          })
        )
        yield* settled("done", () => hasDone(consumer, 5))
        expect(seen).toEqual(["a", "b"])
        const letters = (yield* deadLetters()).map(headersOf)
        expect(letters.map((headers) => headers["tidemark.offset"])).toEqual(["1", "2", "3"])
        expect(new Set(letters.map((headers) => headers["tidemark.error-tag"]))).toEqual(
          new Set(["DecodeFailed"])
        )
        expect(letters[0]["tidemark.error-message"]).toContain("it is not JSON in UTF-8")
        expect(letters[1]["tidemark.error-message"]).toContain('["id"]')
        expect(letters[2]["tidemark.error-message"]).toContain("there are no bytes")
        expect(consumer.status().counters).toMatchObject({ processed: 2, deadLettered: 3, retries: 0 })
      }))

    test(`a registry that does not answer is asked again ${withIds ? "with" : "without"} ids`, () =>
      Effect.gen(function* () {
        const seen: Array<string> = []
        let asked = 0
        yield* send("a", "b")
        const decode = Decoder.make((bytes) =>
          Effect.andThen(
            Effect.yieldNow,
            Effect.suspend(() =>
              asked++ < 3
                ? Effect.fail({ retriable: true, message: "no answer" })
                : Effect.succeed(String(bytes))
            )
          )
        )
        const consumer = yield* begin(
          yield* KafkaConsumer.make({
            ...unhurried,
            decode,
            ...(withIds ? { identify: (text: string) => text } : {}),
            retry: Schedule.spaced("1 second"),
            handler: (text) => Effect.sync(() => void seen.push(text))
          })
        )
        yield* pass(4)
        yield* settled("done", () => hasDone(consumer, 2))
        expect(seen).toEqual(["a", "b"])
      }))
  }

  test("without a policy the consumer stops with DecodeFailed, which names the record", () =>
    Effect.gen(function* () {
      yield* send("no JSON")
      const consumer = yield* begin(
        yield* KafkaConsumer.make({ ...unhurried, decode: Decoder.json(Order), handler: () => Effect.void })
      )
      const failure = yield* failureOf(consumer)
      expect(failure).toMatchObject({ _tag: "DecodeFailed", topic: "orders", partition: 0, offset: 0 })
    }))

  test("a stop while the registry is waited for leaves the records undone", () =>
    Effect.gen(function* () {
      yield* send("a")
      const consumer = yield* begin(
        yield* KafkaConsumer.make({
          ...unhurried,
          decode: Decoder.make(() => Effect.fail({ retriable: true })),
          identify: () => "id",
          retry: Schedule.spaced("1 hour"),
          handler: () => Effect.void
        })
      )
      yield* settled("received", () => consumer.status().counters.received === 1)
      yield* consumer.stop
      expect(consumer.status().counters.processed).toBe(0)
    }))
})

describe("whenInFlight: dead-letter", () => {
  test("sets aside a record whose id another owner has at work", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const keys = yield* IdempotencyStore
      const ledger = new Ledger()
      const terms = { claimId: crypto.randomUUID(), owner: "another", leaseMillis: 60_000 }
      yield* keys.claim("group", [{ key: "1" }], terms)
      yield* client.produce(records("orders", 3, 1))
      const consumer = yield* start({
        ...unhurried,
        identify: (record) => String(record.value),
        whenInFlight: "dead-letter",
        handler: failing(ledger, {})
      })
      yield* settled("done", () => hasDone(consumer, 3))
      expect([...ledger.byValue.keys()]).toEqual(["0", "2"])
      const [letter] = yield* deadLetters()
      expect(headersOf(letter)).toMatchObject({
        "tidemark.offset": "1",
        "tidemark.attempts": "0",
        "tidemark.error-tag": "InFlightElsewhere"
      })
      const [status] = yield* keys.lookup("group", ["1"])
      expect(status._tag).toBe("InFlight")
    }))
})
