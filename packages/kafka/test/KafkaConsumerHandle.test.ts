/** What can be done with a consumer that runs, and what it tells of itself. */
import { describe, expect } from "@effect/vitest"
import { ClaimId, OffsetRanges, OffsetStore } from "@tidemark/core"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { InProcessBroker } from "../src/InProcessKafka.ts"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import * as KafkaConsumer from "../src/KafkaConsumer.ts"
import {
  clockTests,
  commits,
  expectOnce,
  isDone,
  Ledger,
  owns,
  pass,
  type Running,
  records,
  settled,
  start,
  streamOf,
  unhurried,
  work
} from "./consumerHarness.ts"

const test = clockTests({ topics: { orders: 4 } })

const statusOf = ({ status }: Running<unknown>, partition: number): KafkaConsumer.PartitionStatus => {
  const found = status().partitions.find((other) => other.partition === partition)
  if (found === undefined) throw new Error(`partition ${partition} is not there`)
  return found
}

const to = (partition: number, ...values: ReadonlyArray<string>) =>
  values.map((value) => ({ topic: "orders", partition, key: `key ${value}`, value }))

const instantly = (ledger: Ledger) => work(ledger, () => 0)

/** Handlers that end when the test says so, by value. */
const byHand = (ledger: Ledger) => {
  const gates = new Map<string, Deferred.Deferred<void>>()
  return {
    isAtWork: (value: string) => gates.has(value),
    atWork: () => gates.size,
    end: (value: string) => {
      const gate = gates.get(value)
      if (gate !== undefined) Deferred.doneUnsafe(gate, Effect.void)
    },
    handler: (record: KafkaRecord): Effect.Effect<void> =>
      Effect.suspend(() => {
        const gate = Deferred.makeUnsafe<void>()
        const value = String(record.value)
        gates.set(value, gate)
        return Effect.map(Deferred.await(gate), () => {
          gates.delete(value)
          ledger.note(record)
        })
      })
  }
}

describe("KafkaConsumer, paused", () => {
  test("starts nothing, keeps its claims, and goes on with resume", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const consumer = yield* start({ ...unhurried, handler: instantly(ledger) })
      yield* settled("owned", () => owns(consumer, 4))
      yield* consumer.handle.pause()
      yield* client.produce(records("orders", 40))
      // leases last 10 s
      yield* pass(35)
      expect(ledger.count).toBe(0)
      expect(owns(consumer, 4)).toBe(true)
      expect(consumer.status().counters.leaseLosses).toBe(0)
      expect(statusOf(consumer, 0).pausedBy).toEqual({ user: true, bound: undefined })
      yield* consumer.handle.resume()
      yield* pass(1)
      yield* settled("done", () => isDone(consumer, 4))
      expectOnce(ledger, 40)
    }))

  test("lets what is at work end, and starts nothing of what was fetched before", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const { end, handler, isAtWork, atWork } = byHand(ledger)
      yield* client.produce(to(0, "a", "b", "c"))
      const consumer = yield* start({ ...unhurried, concurrency: 1, handler })
      yield* settled("at work", () => isAtWork("a"))
      yield* consumer.handle.pause([{ topic: "orders", partition: 0 }])
      end("a")
      yield* settled("completed", () => statusOf(consumer, 0).watermark === 1)
      expect({ atWork: atWork(), inFlight: statusOf(consumer, 0).inFlight }).toEqual({
        atWork: 0,
        inFlight: 2
      })
      yield* consumer.handle.resume([{ topic: "orders", partition: 0 }])
      for (const value of ["b", "c"]) {
        yield* settled("at work", () => isAtWork(value))
        end(value)
      }
      yield* settled("done", () => isDone(consumer, 4))
      expectOnce(ledger, 3)
    }))

  test("one partition stays so through rebalances, and the others go on", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const consumer = yield* start({ ...unhurried, handler: instantly(ledger) })
      yield* settled("owned", () => owns(consumer, 4))
      yield* consumer.handle.pause([{ topic: "orders", partition: 3 }])
      yield* client.produce([0, 1, 2, 3].flatMap((partition) => to(partition, `${partition} first`)))
      yield* pass(1)
      expect([...ledger.byValue.keys()].toSorted()).toEqual(["0 first", "1 first", "2 first"])
      // another takes two partitions, and gives them back; it has paused nothing itself
      const other = yield* start({ ...unhurried, handler: instantly(ledger) })
      yield* settled("shared", () => owns(consumer, 2) && owns(other, 2))
      yield* other.stop
      yield* pass(1)
      yield* settled("owned again", () => owns(consumer, 4))
      const before = ledger.byValue.get("3 first") ?? 0
      yield* client.produce([0, 1, 2, 3].flatMap((partition) => to(partition, `${partition} second`)))
      yield* pass(2)
      expect(ledger.byValue.has("0 second")).toBe(true)
      expect([ledger.byValue.get("3 first") ?? 0, ledger.byValue.has("3 second")]).toEqual([before, false])
      yield* consumer.handle.resume()
      yield* pass(1)
      yield* settled("done", () => isDone(consumer, 4))
      expectOnce(ledger, 8)
    }))

  test("the narrower word counts, and a wider one undoes it", () =>
    Effect.gen(function* () {
      const consumer = yield* start({ ...unhurried, handler: () => Effect.void })
      yield* settled("owned", () => owns(consumer, 4))
      const { pause, resume } = consumer.handle
      const paused = () => [0, 1, 2, 3].filter((partition) => statusOf(consumer, partition).pausedBy.user)
      yield* pause()
      yield* resume([{ topic: "orders", partition: 2 }])
      expect(paused()).toEqual([0, 1, 3])
      yield* pause([{ topic: "orders" }])
      expect(paused()).toEqual([0, 1, 2, 3])
      yield* resume([{ topic: "orders", partition: 1 }])
      yield* resume([{ topic: "orders" }])
      expect(paused()).toEqual([])
      yield* pause([{ topic: "orders", partition: 0 }])
      yield* resume()
      expect(paused()).toEqual([])
    }))

  test("refuses what it does not consume, with its name", () =>
    Effect.gen(function* () {
      const consumer = yield* KafkaConsumer.make({ ...unhurried, handler: () => Effect.void })
      const messages = yield* Effect.forEach(
        [{ topic: "order" }, { topic: "orders", partition: -1 }, { topic: "orders", partition: 0.5 }],
        (place) => Effect.map(Effect.flip(consumer.pause([place])), ({ message }) => message)
      )
      expect(messages[0]).toContain('topic is "order"; allowed: a topic of this consumer')
      expect(messages[1]).toContain('partition of topic "orders" is -1')
      expect(messages[2]).toContain('partition of topic "orders" is 0.5')
    }))

  test("before it starts, begins paused", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 8))
      const consumer = yield* KafkaConsumer.make({ ...unhurried, handler: instantly(ledger) })
      yield* consumer.pause()
      expect((yield* consumer.status).phase).toBe("new")
      const fiber = yield* Effect.forkScoped(consumer.run)
      yield* pass(3)
      expect({ phase: (yield* consumer.status).phase, count: ledger.count }).toEqual({
        phase: "running",
        count: 0
      })
      yield* consumer.resume()
      yield* pass(1)
      expect(ledger.count).toBe(8)
      yield* Fiber.interrupt(fiber)
      expect(yield* consumer.status).toMatchObject({ phase: "ended", failure: undefined })
    }))
})

describe("KafkaConsumer.drain", () => {
  test("ends when all that was at work is completed and committed, and leaves the partitions ours", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const { end, handler, isAtWork } = byHand(ledger)
      yield* client.produce(to(0, "a", "b", "c"))
      const consumer = yield* start({ ...unhurried, commitInterval: "1 hour", concurrency: 2, handler })
      yield* settled("at work", () => isAtWork("a") && isAtWork("b"))
      const drained = yield* Effect.forkScoped(consumer.handle.drain)
      yield* pass(1)
      expect(drained.pollUnsafe()).toBeUndefined()
      end("a")
      yield* pass(1)
      expect(drained.pollUnsafe()).toBeUndefined()
      end("b")
      yield* Fiber.join(drained)
      expect((yield* commits("group", "orders", 1))[0].offset).toBe(2)
      expect([isAtWork("c"), owns(consumer, 4), ledger.count]).toEqual([false, true, 2])
      yield* consumer.handle.resume()
      yield* settled("at work", () => isAtWork("c"))
      end("c")
      yield* settled("done", () => isDone(consumer, 4))
      expectOnce(ledger, 3)
    }))

  test("waits for what a rebalance is taking away, too", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const { end, handler, isAtWork } = byHand(ledger)
      const values = [0, 1, 2, 3].map((partition) => `of ${partition}`)
      yield* client.produce(values.flatMap((value, partition) => to(partition, value)))
      const consumer = yield* start({
        ...unhurried,
        handler: (record) => Effect.uninterruptible(handler(record))
      })
      yield* settled("at work", () => values.every(isAtWork))
      yield* start({ ...unhurried, handler: instantly(ledger) })
      yield* pass(2)
      yield* settled("two were taken away", () => broker.members("group").length === 2)
      const kept = consumer.status().partitions.map(({ partition }) => partition)
      expect(kept.length).toBe(2)
      const drained = yield* Effect.forkScoped(consumer.handle.drain)
      for (const partition of kept) end(values[partition])
      yield* pass(3)
      expect(drained.pollUnsafe()).toBeUndefined()
      for (const value of values) end(value)
      yield* pass(1)
      yield* Fiber.join(drained)
      expect(ledger.count).toBe(4)
    }))

  test("of a consumer that has not started or has ended is no wait", () =>
    Effect.gen(function* () {
      const consumer = yield* KafkaConsumer.make({ ...unhurried, handler: () => Effect.void })
      yield* consumer.drain
      const fiber = yield* Effect.forkScoped(consumer.run)
      yield* pass(1)
      yield* Fiber.interrupt(fiber)
      yield* consumer.drain
    }))
})

describe("KafkaConsumer.status", () => {
  test("tells of gaps, of the oldest unfinished record and its age, and at a bound on what it waits", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const { end, handler, isAtWork } = byHand(ledger)
      const stuck = (record: KafkaRecord) =>
        String(record.value) === "3" ? handler(record) : instantly(ledger)(record)
      const consumer = yield* start({ ...unhurried, bounds: { maxSpan: 20 }, handler: stuck })
      yield* settled("owned", () => owns(consumer, 4))
      yield* client.produce(to(1, ...Array.from({ length: 12 }, (_, index) => `${index}`)))
      yield* settled("at work", () => isAtWork("3"))
      yield* TestClock.adjust(5_000)
      yield* settled("completed", () => statusOf(consumer, 1).unfinished === 1)
      expect(statusOf(consumer, 1)).toMatchObject({
        position: 12,
        watermark: 3,
        gaps: 1,
        inFlight: 1,
        oldest: { offset: 3, ageMillis: 5_000 },
        lag: 9,
        pausedBy: { user: false, bound: undefined },
        stalledAt: undefined
      })
      yield* client.produce(to(1, ...Array.from({ length: 30 }, (_, index) => `more ${index}`)))
      yield* pass(1)
      yield* settled("completed", () => statusOf(consumer, 1).unfinished === 1)
      expect(statusOf(consumer, 1)).toMatchObject({
        watermark: 3,
        pausedBy: { user: false, bound: "maxSpan" },
        stalledAt: 3,
        oldest: { offset: 3 }
      })
      end("3")
      yield* pass(1)
      yield* settled("done", () => isDone(consumer, 4))
      expect(statusOf(consumer, 1)).toMatchObject({
        watermark: 42,
        gaps: 0,
        oldest: undefined,
        stalledAt: undefined
      })
      expectOnce(ledger, 42)
    }))

  test("counts the gaps that an earlier owner has left", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      yield* client.produce(to(0, ...Array.from({ length: 10 }, (_, index) => `${index}`)))
      const ref = { stream: streamOf(0), claimId: ClaimId.make() }
      yield* store.claim(ref.stream, OffsetRanges.openEnded(0), {
        claimId: ref.claimId,
        owner: "before",
        leaseMillis: 10_000
      })
      // 2, 3 and 7 are left
      yield* store.complete(ref, OffsetRanges.make(0, 2))
      yield* store.complete(ref, OffsetRanges.make(4, 7))
      yield* store.complete(ref, OffsetRanges.make(8, 10))
      yield* store.release(ref)
      const ledger = new Ledger()
      const { end, handler, isAtWork } = byHand(ledger)
      const consumer = yield* start({ ...unhurried, handler })
      yield* settled("at work", () => isAtWork("2") && isAtWork("3") && isAtWork("7"))
      yield* settled("passed", () => statusOf(consumer, 0).unfinished === 3)
      expect(statusOf(consumer, 0)).toMatchObject({ watermark: 2, gaps: 3 })
      end("3")
      yield* settled("completed", () => statusOf(consumer, 0).unfinished === 2)
      expect(statusOf(consumer, 0)).toMatchObject({ watermark: 2, gaps: 2 })
      for (const value of ["2", "7"]) end(value)
      yield* settled("done", () => isDone(consumer, 4))
      expect(statusOf(consumer, 0)).toMatchObject({ watermark: 10, gaps: 0 })
    }))

  test("says who has a partition that it waits for", () =>
    Effect.gen(function* () {
      const store = yield* OffsetStore
      const ref = { stream: streamOf(2), claimId: ClaimId.make() }
      yield* store.claim(ref.stream, OffsetRanges.openEnded(0), {
        claimId: ref.claimId,
        owner: "host 7",
        leaseMillis: 60_000
      })
      const consumer = yield* start({ ...unhurried, handler: () => Effect.void })
      yield* settled("waits", () => consumer.status().partitions.some(({ heldBy }) => heldBy !== undefined))
      expect(statusOf(consumer, 2)).toMatchObject({
        phase: "waiting",
        heldBy: { owner: "host 7", until: 60_000 }
      })
      expect(statusOf(consumer, 1).heldBy).toBeUndefined()
      yield* store.release(ref)
      yield* pass(1)
      yield* settled("owned", () => owns(consumer, 4))
      expect(statusOf(consumer, 2).heldBy).toBeUndefined()
    }))

  test("tells why it has ended", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.produce(to(0, "bad"))
      const consumer = yield* start({ ...unhurried, handler: () => Effect.fail("refused") })
      yield* consumer.exit
      const { failure, phase } = consumer.status()
      expect(phase).toBe("ended")
      expect(failure?.reasons).toMatchObject([{ error: "refused" }])
    }))
})

describe("KafkaConsumer.layer", () => {
  test("gives the handle", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 20))
      const program = Effect.gen(function* () {
        const consumer = yield* KafkaConsumer.Handle
        yield* pass(1)
        expect(ledger.count).toBe(20)
        yield* consumer.drain
        const { partitions } = yield* consumer.status
        expect(partitions.map(({ pausedBy }) => pausedBy.user)).toEqual([true, true, true, true])
      })
      const layer = KafkaConsumer.layer({ ...unhurried, handler: instantly(ledger) })
      yield* Effect.provide(program, Layer.fresh(layer))
    }))
})
