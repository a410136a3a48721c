import { describe, expect } from "@effect/vitest"
import { IdempotencyStore, OffsetStore } from "@tidemark/core"
import { Effect } from "effect"
import { InProcessBroker } from "../src/InProcessKafka.ts"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import {
  clockTests,
  isDone,
  Ledger,
  mortal,
  owns,
  pass,
  records,
  settled,
  start,
  unhurried,
  work
} from "./consumerHarness.ts"

const test = clockTests({ topics: { orders: 4 } })

describe("KafkaConsumer, under the test clock", () => {
  test("keeps its claims for as long as it is in its group", () =>
    Effect.gen(function* () {
      const store = yield* OffsetStore
      const consumer = yield* start({ ...unhurried, handler: () => Effect.void })
      yield* settled("owned", () => owns(consumer, 4))
      const before = yield* store.progress("kafka/group/orders/0")
      yield* pass(60)
      const after = yield* store.progress("kafka/group/orders/0")
      expect(after?.lastToken).toBe(before?.lastToken)
      expect(after?.claims.length).toBe(1)
      expect(consumer.status().counters.leaseLosses).toBe(0)
    }))

  test("lets a handler take longer than session and lease, with and without an id", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 4, 4))
      const identify = (record: KafkaRecord) =>
        Number(record.value) % 2 === 0 ? String(record.value) : undefined
      const consumer = yield* start({ ...unhurried, identify, handler: work(ledger, () => 45_000) })
      yield* settled("at work", () => consumer.status().running === 4)
      yield* pass(44)
      expect(ledger.count).toBe(0)
      yield* pass(2)
      yield* settled("done", () => isDone(consumer, 4))
      expect(ledger.count).toBe(4)
      expect(consumer.status().counters).toMatchObject({ leaseLosses: 0, keyLeaseLosses: 0, processed: 4 })
    }))

  test("keeps its ids too, when its member was cut off for a while and is back", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 1))
      const identify = (record: KafkaRecord) => String(record.value)
      const consumer = yield* start({
        ...unhurried,
        lease: "6 seconds",
        identify,
        handler: work(ledger, () => 40_000)
      })
      yield* settled("at work", () => consumer.status().running === 1)
      yield* pass(2)
      const [{ memberId }] = broker.members("group")
      broker.isolate(memberId)
      yield* pass(12)
      broker.heal(memberId)
      yield* pass(40)
      yield* settled("done", () => isDone(consumer, 4))
      expect(consumer.status().counters).toMatchObject({ leaseLosses: 0, keyLeaseLosses: 0, processed: 1 })
    }))

  test("takes a dead owner's partitions when its session and lease have ended, and not before", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const stores = yield* mortal
      const ledger = new Ledger()
      const victim = yield* start({ ...unhurried, handler: () => Effect.never }).pipe(
        Effect.provideService(OffsetStore, stores.offsets),
        Effect.provideService(IdempotencyStore, stores.keys)
      )
      const heir = yield* start({ ...unhurried, handler: work(ledger, () => 0) })
      yield* pass(4)
      yield* settled("both own", () => owns(victim, 2) && owns(heir, 2))
      yield* client.produce(records("orders", 40, 40))
      yield* settled("the victim is at work", () => victim.status().running > 0)
      yield* settled("the heir has done its part", () => ledger.count > 0 && isDone(heir, 2))
      const done = ledger.count
      broker.kill(broker.members("group")[0].memberId)
      stores.kill()
      yield* pass(8)
      expect(ledger.count).toBe(done)
      yield* pass(6)
      yield* settled("the heir has done all", () => isDone(heir, 4))
      expect(ledger.count).toBe(40)
      expect(ledger.twice).toEqual([])
      // nothing answers it any more, so that its end takes all the time that it may
      yield* Effect.forkScoped(victim.stop)
      yield* pass(20)
    }))

  test("interrupts handlers that outlast the drain timeout, and gives their records back", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      let interrupted = 0
      yield* client.produce(records("orders", 4, 4))
      const slow = yield* start({
        ...unhurried,
        handler: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => void interrupted++))
      })
      yield* settled("at work", () => slow.status().running === 4)
      const stopping = yield* Effect.forkScoped(slow.stop)
      yield* pass(1)
      expect(interrupted).toBe(0)
      yield* pass(2)
      yield* settled("stopped", () => stopping.pollUnsafe() !== undefined)
      expect(interrupted).toBe(4)
      const next = yield* start({ ...unhurried, handler: work(ledger, () => 0) })
      yield* settled("done by the next", () => ledger.count === 4 && isDone(next, 4))
    }))
})
