import { describe, expect } from "@effect/vitest"
import { ClaimId, IdempotencyStore, InvalidInput, OffsetStore } from "@tidemark/core"
import { Cause, Effect, Exit } from "effect"
import { InProcessBroker } from "../src/InProcessKafka.ts"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import type { Order } from "../src/KafkaConsumer.ts"
import {
  expectOnce,
  isDone,
  Ledger,
  liveTests,
  mortal,
  quick,
  random,
  start,
  work
} from "./consumerHarness.ts"
import { until } from "./kafkaClientSuite.ts"

const test = liveTests({ topics: { orders: 4, payments: 2 } })

const identify = (record: KafkaRecord): string => String(record.value)
const orders: ReadonlyArray<Order> = ["key", "partition", "none"]

/** Messages of which some are sent again: at once, or later, to whatever partition. */
const withRetries = (topic: string, count: number, part: number) =>
  Array.from({ length: count }, (_, index) => {
    const message = { topic, key: `key ${index % 40}`, value: `message ${index}` }
    if (Math.random() >= part) return [message]
    return Math.random() < 0.5
      ? [message, message]
      : [message, { topic, value: `message ${index - (index % 17)}` }]
  }).flat()

const everyValueOnce = (ledger: Ledger, count: number): void => {
  expect([...ledger.byValue].filter(([, times]) => times > 1)).toEqual([])
  expect(ledger.byValue.size).toBe(count)
}

describe("KafkaConsumer with idempotency keys", () => {
  for (const order of orders) {
    test(`order ${order}: an id takes effect once, at whichever offsets it comes`, () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const ledger = new Ledger()
        const messages = withRetries("orders", 600, 0.2)
        yield* client.produce(messages)
        const consumer = yield* start({
          ...quick,
          order,
          identify,
          concurrency: 32,
          handler: work(ledger, random(3))
        })
        yield* until("all done", () => ledger.byValue.size === 600 && isDone(consumer, 4))
        everyValueOnce(ledger, 600)
        expect(consumer.status().counters.duplicatesByKey).toBe(messages.length - 600)
        if (order !== "none") expect(ledger.disordered).toEqual([])
      }))

    test(`order ${order}: the same id three times in one batch`, () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const ledger = new Ledger()
        const same = { topic: "orders", partition: 0, key: "customer", value: "one" }
        yield* client.produce([same, same, { ...same, value: "two" }, { ...same, key: "another" }, same])
        const consumer = yield* start({
          ...quick,
          order,
          identify,
          handler: work(ledger, () => 5)
        })
        yield* until("all done", () => ledger.count >= 2 && isDone(consumer, 4))
        everyValueOnce(ledger, 2)
        expect(consumer.status().counters).toMatchObject({ processed: 2, duplicatesByKey: 3 })
      }))
  }

  test("records without an id count by their position alone", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(Array.from({ length: 10 }, () => ({ topic: "orders", value: "same" })))
      const consumer = yield* start({
        ...quick,
        identify: () => undefined,
        handler: work(ledger, () => 1)
      })
      yield* until("all done", () => ledger.count === 10 && isDone(consumer, 4))
      expectOnce(ledger, 10)
    }))

  test("the handler gets the id's token, and the id is remembered in the group's namespace", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const keys = yield* IdempotencyStore
      const tokens: Array<number | undefined> = []
      yield* client.produce([{ topic: "orders", value: "one" }])
      const consumer = yield* start({
        ...quick,
        identify,
        retention: "1 hour",
        handler: (_, claim) => Effect.sync(() => void tokens.push(claim.keyToken))
      })
      yield* until("done", () => tokens.length === 1 && isDone(consumer, 4))
      expect(tokens[0]).toBeGreaterThan(0)
      const [status] = yield* keys.lookup("group", ["one"])
      expect(status).toMatchObject({ _tag: "Completed" })
      expect(status._tag === "Completed" && status.until - Date.now()).toBeGreaterThan(3_500_000)
    }))

  test("members join and leave while ids repeat: each takes effect once", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const options = {
        ...quick,
        identify,
        concurrency: 32,
        handler: work(ledger, random(6))
      }
      yield* client.produce(withRetries("orders", 1_500, 0.1))
      const first = yield* start(options)
      yield* until("under way", () => ledger.count > 200)
      const second = yield* start(options)
      yield* until("further", () => ledger.count > 600)
      yield* first.stop
      yield* until("further", () => ledger.count > 900)
      const third = yield* start(options)
      yield* until("all done", () => ledger.byValue.size === 1_500 && isDone(second, 2) && isDone(third, 2))
      everyValueOnce(ledger, 1_500)
      expect(ledger.disordered).toEqual([])
    }))

  test("an id that another owner has at work is waited for, and holds up nobody else", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const keys = yield* IdempotencyStore
      const ledger = new Ledger()
      const held = { namespace: "group", claimId: ClaimId.make() }
      const terms = { claimId: held.claimId, owner: "another", leaseMillis: 60_000 }
      yield* keys.claim("group", [{ key: "held" }, { key: "done" }], terms)
      const at = { topic: "orders", partition: 0 }
      yield* client.produce([
        { ...at, key: "a", value: "held" },
        { ...at, key: "a", value: "behind it" },
        { ...at, key: "b", value: "beside it" },
        { ...at, key: "c", value: "done" }
      ])
      const consumer = yield* start({
        ...quick,
        identify,
        handler: work(ledger, () => 1)
      })
      yield* until("the one beside it is done", () => ledger.byValue.has("beside it"))
      // nobody waits while holding what it has not started
      yield* until(
        "given back",
        () => Effect.runSync(keys.lookup("group", ["behind it"]))[0]._tag === "Unknown"
      )
      expect(ledger.count).toBe(1)
      yield* keys.complete(held, [{ key: "done" }])
      yield* keys.release(held)
      yield* until("all done", () => isDone(consumer, 4) && ledger.count === 3)
      expect([...ledger.byValue.keys()]).toEqual(["beside it", "held", "behind it"])
      expect(consumer.status().counters.duplicatesByKey).toBe(1)
    }))

  test("two consumers that could each wait for what lies behind the other do not", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const keys = yield* IdempotencyStore
      const ledger = new Ledger()
      const claimId = ClaimId.make()
      yield* keys.claim("group", [{ key: "q" }], { claimId, owner: "another", leaseMillis: 60_000 })
      // the first is slow to notice that q was given back, so that the second gets it
      const slow = { ...keys, awaitSettled: () => Effect.never }
      const options = { ...quick, order: "partition" as const, identify, handler: work(ledger, () => 1) }
      const first = yield* Effect.provideService(start(options), IdempotencyStore, slow)
      yield* until("the first runs", () => first.status().partitions.length === 4)
      const second = yield* start({ ...options, topics: ["payments"], groupId: "group" })
      yield* until("the second runs", () => second.status().partitions.length === 2)
      yield* client.produce(["q", "p"].map((value) => ({ topic: "orders", partition: 0, value })))
      yield* until("the first waits", () => first.status().partitions.some(({ inFlight }) => inFlight === 2))
      yield* until("p is given back", () => Effect.runSync(keys.lookup("group", ["p"]))[0]._tag === "Unknown")
      yield* keys.release({ namespace: "group", claimId })
      yield* client.produce(["p", "q"].map((value) => ({ topic: "payments", partition: 0, value })))
      yield* until("all done", () => ledger.count >= 2 && isDone(first, 4) && isDone(second, 2))
      everyValueOnce(ledger, 2)
    }))

  for (const order of ["key", "partition"] as const) {
    test(
      `order ${order}: consumers with crossing ids all come to their end`,
      () =>
        Effect.gen(function* () {
          const client = yield* KafkaClient
          const ledger = new Ledger()
          const shuffled = (): Array<number> =>
            Array.from({ length: 60 }, (_, index) => index).sort(() => Math.random() - 0.5)
          const produce = (topic: string, partition: number) =>
            client.produce(
              shuffled().map((id) => ({
                topic,
                partition,
                key: `key ${Math.floor(Math.random() * 4)}`,
                value: `${id}`
              }))
            )
          for (const partition of [0, 1]) {
            yield* produce("orders", partition)
            yield* produce("payments", partition)
          }
          const begin = (topic: string) =>
            start({
              ...quick,
              topics: [topic],
              order,
              identify,
              concurrency: 4,
              handler: work(ledger, random(4))
            })
          const first = yield* begin("orders")
          const second = yield* begin("payments")
          yield* until("all done", () => isDone(first, 4) && isDone(second, 2) && ledger.count >= 60)
          everyValueOnce(ledger, 60)
        }),
      { maxRecordsPerBatch: 7 }
    )
  }

  test("an id that a dead owner holds is had when its lease ends", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      const stores = yield* mortal
      const ledger = new Ledger()
      yield* client.produce([{ topic: "orders", partition: 0, value: "one" }])
      const options = { ...quick, identify }
      const victim = yield* start({ ...options, handler: () => Effect.never }).pipe(
        Effect.provideService(OffsetStore, stores.offsets),
        Effect.provideService(IdempotencyStore, stores.keys)
      )
      yield* until("at work", () => victim.status().running === 1)
      broker.kill(broker.members("group")[0].memberId)
      stores.kill()
      const heir = yield* start({ ...options, handler: work(ledger, () => 1) })
      yield* until("done by the heir", () => ledger.count === 1 && isDone(heir, 4))
    }))

  test("an id that can't be one stops the consumer, and says of which record it is", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.produce(["good", ""].map((value) => ({ topic: "orders", partition: 3, value })))
      const consumer = yield* start({ ...quick, identify, handler: () => Effect.void })
      const exit = yield* consumer.exit
      const error = Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isFailReason)?.error : undefined
      expect(error).toBeInstanceOf(InvalidInput)
      expect((error as InvalidInput).message).toContain('offset 1 of partition 3 of topic "orders"')
    }))

  test("an identify that throws stops the consumer with its defect", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const thrown = new Error("a bug")
      yield* client.produce([{ topic: "orders", value: "one" }])
      const consumer = yield* start({
        ...quick,
        identify: () => {
          throw thrown
        },
        handler: () => Effect.void
      })
      const exit = yield* consumer.exit
      expect(Exit.isFailure(exit) && exit.cause.reasons.find(Cause.isDieReason)?.defect).toBe(thrown)
    }))

  test("a handler that fails gives its id back", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const keys = yield* IdempotencyStore
      yield* client.produce([{ topic: "orders", value: "one" }])
      const consumer = yield* start({
        ...quick,
        identify,
        handler: () => Effect.fail("no")
      })
      yield* consumer.exit
      expect(yield* keys.lookup("group", ["one"])).toEqual([{ _tag: "Unknown" }])
    }))
})
