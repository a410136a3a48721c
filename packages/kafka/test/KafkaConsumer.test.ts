import { describe, expect } from "@effect/vitest"
import { OffsetStore, StoreError } from "@tidemark/core"
import { Cause, Effect, Exit, Layer } from "effect"
import { InProcessBroker } from "../src/InProcessKafka.ts"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import * as KafkaConsumer from "../src/KafkaConsumer.ts"
import { metadata } from "../src/PositionRules.ts"
import {
  commits,
  expectOnce,
  failureOf,
  isDone,
  Ledger,
  liveTests,
  mortal,
  owns,
  quick,
  random,
  records,
  start,
  streamOf,
  work
} from "./consumerHarness.ts"
import { until } from "./kafkaClientSuite.ts"

const test = liveTests({ topics: { orders: 4 } })

describe("KafkaConsumer, one at work", () => {
  test("runs each record once, completes it, and commits how far that reaches", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const ledger = new Ledger()
      yield* client.produce(records("orders", 2_000))
      const consumer = yield* start({ ...quick, handler: work(ledger, random(3)) })
      yield* until("all done", () => ledger.count === 2_000 && isDone(consumer, 4))
      expectOnce(ledger, 2_000)
      expect(ledger.overlaps).toBe(0)
      expect(ledger.disordered).toEqual([])
      yield* consumer.stop
      const logs = yield* client.logBounds([0, 1, 2, 3].map((partition) => ({ topic: "orders", partition })))
      for (const { high, partition } of logs) {
        const progress = yield* store.progress(streamOf(partition))
        expect(progress).toMatchObject({ origin: 0, watermark: high, highest: high, gapCount: 0, claims: [] })
      }
      expect(yield* commits("group", "orders", 4)).toEqual(
        logs.map(({ high, partition, topic }) => ({ topic, partition, offset: high, metadata: metadata(0) }))
      )
    }))

  test("gives the handler its claim's token, which is the stream's last", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const claims: Array<{ readonly stream: string; readonly token: number }> = []
      yield* client.produce([{ topic: "orders", partition: 2, value: "one" }])
      yield* start({
        ...quick,
        handler: (_record, claim) => Effect.sync(() => void claims.push(claim))
      })
      yield* until("handled", () => claims.length === 1)
      const progress = yield* store.progress(streamOf(2))
      expect(claims[0]).toMatchObject({
        stream: streamOf(2),
        token: progress?.lastToken,
        epoch: 0,
        keyToken: undefined
      })
    }))

  test("as a layer, runs for as long as its scope", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 20))
      const layer = KafkaConsumer.layer({ ...quick, handler: work(ledger, random(1)) })
      const bad = yield* Effect.flip(
        Effect.scoped(Layer.build(KafkaConsumer.layer({ ...quick, topics: [], handler: () => Effect.void })))
      )
      expect(bad.field).toBe("topics")
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* Layer.build(layer)
          yield* until("done", () => ledger.count === 20)
          expect(broker.members("group").length).toBe(1)
        })
      )
      expect(broker.members("group")).toEqual([])
      expectOnce(ledger, 20)
    }))

  test("keeps the order of a whole partition where it is asked to", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 200, 200).map((record) => ({ ...record, key: "same" })))
      const consumer = yield* start({
        ...quick,
        order: "partition",
        handler: work(ledger, random(2))
      })
      yield* until("all done", () => ledger.count === 200)
      expect(ledger.overlaps).toBe(0)
      expect(ledger.disordered).toEqual([])
      yield* consumer.stop
    }))

  test("passes what the log skips: compaction, transaction markers, an empty end", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const produce = (count: number) =>
        client.produce(records("orders", count).map((record) => ({ ...record, partition: 0 })))
      broker.appendControl("orders", 0, 3)
      yield* produce(20)
      broker.compact("orders", 0, [5, 6, 7, 22])
      broker.appendControl("orders", 0, 5)
      yield* produce(5)
      broker.appendControl("orders", 0, 2)
      const consumer = yield* start({ ...quick, handler: work(ledger, random(2)) })
      const at = () => consumer.status().partitions.find(({ partition }) => partition === 0)
      yield* until("the watermark is at the end", () => at()?.watermark === 35 && at()?.lag === 0)
      expectOnce(ledger, 21)
      yield* consumer.stop
      expect((yield* commits("group", "orders", 1))[0].offset).toBe(35)
    }))

  test("begins at another client's commit, and where it is told to begin what is new", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const ledger = new Ledger()
      for (const partition of [0, 1])
        yield* client.produce(records("orders", 10).map((record) => ({ ...record, partition })))
      broker.setCommitted("group", { topic: "orders", partition: 0 }, 7)
      const consumer = yield* start({
        ...quick,
        start: "latest",
        handler: work(ledger, random(1))
      })
      yield* until("all owned", () => owns(consumer, 4))
      yield* client.produce([{ topic: "orders", partition: 1, value: "new" }])
      yield* until("four done", () => ledger.count === 4)
      expect([...ledger.byRecord.keys()].sort()).toEqual([
        "orders/0/7",
        "orders/0/8",
        "orders/0/9",
        "orders/1/10"
      ])
    }))

  test("begins at the beginning of partitions that are added later, also with start latest", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const consumer = yield* start({
        ...quick,
        start: "latest",
        handler: work(ledger, random(1))
      })
      yield* until("all owned", () => owns(consumer, 4))
      broker.createTopic("orders", 5)
      yield* client.produce([{ topic: "orders", partition: 4, value: "early" }])
      yield* until("it took effect", () => ledger.byRecord.has("orders/4/0"))
    }))

  test("repeats nothing after a restart, with islands completed above the watermark", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const ledger = new Ledger()
      let open = false
      yield* client.produce(records("orders", 100).map((record) => ({ ...record, partition: 0 })))
      const options = { ...quick, order: "none" as const, concurrency: 8 }
      const quickWork = work(ledger, random(1))
      const stuck = [10, 50]
      const first = yield* start({
        ...options,
        drainTimeout: 50,
        handler: (record: KafkaRecord) =>
          stuck.includes(record.offset) && !open ? Effect.never : quickWork(record)
      })
      yield* until("all but two done", () => ledger.count === 98)
      yield* first.stop
      expect(yield* store.progress(streamOf(0))).toMatchObject({ watermark: 10, highest: 100, gapCount: 2 })
      expect((yield* commits("group", "orders", 1))[0].offset).toBe(10)
      open = true
      const second = yield* start({ ...options, handler: quickWork })
      yield* until("the rest done", () =>
        second.status().partitions.some(({ watermark }) => watermark === 100)
      )
      expectOnce(ledger, 100)
      expect(second.status().counters).toMatchObject({ processed: 2, duplicatesByPosition: 88 })
    }))

  test(
    "pauses at a bound, and goes on below it",
    () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const ledger = new Ledger()
        let open = false
        yield* client.produce(records("orders", 500).map((record) => ({ ...record, partition: 0 })))
        const consumer = yield* start({
          ...quick,
          bounds: { maxInFlight: 30 },
          handler: (record) =>
            Effect.andThen(
              until("open", () => open),
              Effect.sync(() => ledger.note(record))
            )
        })
        const at = () => consumer.status().partitions.find(({ partition }) => partition === 0)
        yield* until("paused", () => at()?.pausedBy.bound !== undefined)
        yield* Effect.sleep(50)
        expect(at()?.inFlight).toBeLessThanOrEqual(40)
        open = true
        yield* until("all done", () => ledger.count === 500)
        expectOnce(ledger, 500)
      }),
    { maxRecordsPerBatch: 10 }
  )

  for (const bounds of [{ maxBytes: 1 }, { maxUnfinishedOffsets: 1 }, { maxSpan: 1 }]) {
    test(
      `gets everything done with the smallest bound: ${Object.keys(bounds)[0]}`,
      () =>
        Effect.gen(function* () {
          const client = yield* KafkaClient
          const ledger = new Ledger()
          yield* client.produce(records("orders", 60))
          yield* start({ ...quick, bounds, handler: work(ledger, random(2)) })
          yield* until("all done", () => ledger.count === 60)
          expectOnce(ledger, 60)
        }),
      { maxRecordsPerBatch: 3 }
    )
  }
})

describe("KafkaConsumer, when its handler fails", () => {
  test("stops with its error, passes nothing over, and ends what else is at work", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const ledger = new Ledger()
      yield* client.produce(records("orders", 100).map((record) => ({ ...record, partition: 0 })))
      const quickWork = work(ledger, () => 30)
      const first = yield* start({
        ...quick,
        order: "none",
        handler: (record): Effect.Effect<void, string> =>
          record.offset === 5 ? Effect.andThen(Effect.sleep(10), Effect.fail("poison")) : quickWork(record)
      })
      expect(failureOf(yield* first.exit)).toBe("poison")
      expect(ledger.byRecord.has("orders/0/5")).toBe(false)
      // the sixteen that had begun, but for the one that failed
      expect(ledger.count).toBe(15)
      expect(yield* store.progress(streamOf(0))).toMatchObject({ watermark: 5, highest: 16, claims: [] })
      expect((yield* commits("group", "orders", 1))[0].offset).toBe(5)
      yield* start({ ...quick, handler: work(ledger, () => 1) })
      yield* until("all done", () => ledger.count === 100)
      expectOnce(ledger, 100)
    }))

  test("stops with its defect, or with its own interruption", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.produce(records("orders", 1))
      const thrown = new Error("a bug")
      const throwing = yield* start({
        ...quick,
        handler: () => {
          throw thrown
        }
      })
      const exit = yield* throwing.exit
      expect(Exit.isFailure(exit) && exit.cause.reasons.find(Cause.isDieReason)?.defect).toBe(thrown)
      const interrupting = yield* start({ ...quick, handler: () => Effect.interrupt })
      const second = yield* interrupting.exit
      expect(Exit.isFailure(second) && Cause.hasInterrupts(second.cause)).toBe(true)
    }))
})

describe("KafkaConsumer, among others", () => {
  test("members join and leave: each record once, and in its key's order", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const options = { ...quick, handler: work(ledger, random(6)) }
      yield* client.produce(records("orders", 3_000, 200))
      const first = yield* start(options)
      yield* until("under way", () => ledger.count > 200)
      const second = yield* start(options)
      yield* until("further", () => ledger.count > 900)
      const third = yield* start(options)
      yield* client.produce(records("orders", 1_000, 200, 3_000))
      yield* until("further", () => ledger.count > 1_600)
      yield* first.stop
      yield* until("further", () => ledger.count > 2_200)
      const fourth = yield* start(options)
      yield* second.stop
      yield* until("all done", () => ledger.byRecord.size === 4_000)
      yield* third.stop
      yield* fourth.stop
      expectOnce(ledger, 4_000)
      expect(ledger.overlaps).toBe(0)
      expect(ledger.disordered).toEqual([])
      const logs = yield* client.logBounds([0, 1, 2, 3].map((partition) => ({ topic: "orders", partition })))
      expect((yield* commits("group", "orders", 4)).map(({ offset }) => offset)).toEqual(
        logs.map(({ high }) => high)
      )
    }))

  test("one dies without a word: nothing is lost, and twice only what it had at work", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const stores = yield* mortal
      yield* client.produce(records("orders", 1_500, 100))
      const victim = yield* Effect.provideService(
        start({ ...quick, handler: work(ledger, random(8), stores.isDead) }),
        OffsetStore,
        stores.offsets
      )
      const survivor = yield* start({ ...quick, handler: work(ledger, random(8)) })
      yield* until("both at work", () => victim.status().running > 0 && survivor.status().running > 0)
      yield* until("under way", () => ledger.count > 300)
      const [dead] = broker.members("group")
      broker.kill(dead.memberId)
      const done = new Set(ledger.byRecord.keys())
      stores.kill()
      yield* until("all done", () => ledger.byRecord.size === 1_500)
      yield* until("no lag", () => survivor.status().partitions.length === 4)
      // what took effect and was not completed yet when it died
      expect(ledger.twice.length).toBeLessThanOrEqual(victim.status().running + 64)
      for (const place of ledger.twice) expect(done.has(place)).toBe(true)
      yield* survivor.stop
    }))

  test("a partition that is handed over goes on at once, not when a lease or session ends", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const first = yield* start({
        ...quick,
        sessionTimeout: 20_000,
        handler: work(ledger, () => 1)
      })
      yield* until("owned", () => owns(first, 4))
      yield* first.stop
      const startedAt = Date.now()
      yield* client.produce(records("orders", 8))
      yield* start({ ...quick, sessionTimeout: 20_000, handler: work(ledger, () => 1) })
      yield* until("done", () => ledger.count === 8)
      expect(Date.now() - startedAt).toBeLessThan(2_000)
    }))

  test("a member that is cut off from its group stops its handlers when its lease ends", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      let interrupted = 0
      yield* client.produce(records("orders", 8, 8))
      const zombie = yield* start({
        ...quick,
        handler: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => void interrupted++))
      })
      yield* until("at work", () => zombie.status().running === 8)
      const ledger = new Ledger()
      const [{ memberId }] = broker.members("group")
      broker.isolate(memberId)
      const heir = yield* start({ ...quick, handler: work(ledger, () => 1) })
      yield* until("the zombie has let go", () => interrupted === 8)
      yield* until("the heir has done it", () => ledger.count === 8)
      expectOnce(ledger, 8)
      expect(zombie.status().counters.leaseLosses).toBe(4)
      broker.heal(memberId)
      yield* until("back again", () => owns(zombie, 2))
      yield* heir.stop
    }))

  test("a client that crashes and joins again loses and repeats nothing", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 1_000, 100))
      yield* start({ ...quick, handler: work(ledger, random(4)) })
      for (const count of [100, 300, 500]) {
        yield* until("under way", () => ledger.count > count)
        broker.crash(broker.members("group")[0].memberId, { rejoins: true })
      }
      yield* until("all done", () => ledger.count === 1_000)
      expectOnce(ledger, 1_000)
    }))

  test("a client that crashes for good stops the consumer with its error", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const store = yield* OffsetStore
      const consumer = yield* start({ ...quick, handler: () => Effect.void })
      yield* until("owned", () => owns(consumer, 4))
      broker.crash(broker.members("group")[0].memberId)
      expect(failureOf(yield* consumer.exit)).toMatchObject({ _tag: "KafkaError", reason: "Unreachable" })
      expect((yield* store.progress(streamOf(0)))?.claims).toEqual([])
    }))
})

describe("KafkaConsumer, when a log or a store misbehaves", () => {
  test(
    "says what retention removed before it was read, and goes on",
    () =>
      Effect.gen(function* () {
        const broker = yield* InProcessBroker
        const client = yield* KafkaClient
        const ledger = new Ledger()
        let open = false
        const produce = (from: number) =>
          client.produce(records("orders", 50, 50, from).map((record) => ({ ...record, partition: 0 })))
        yield* produce(0)
        const consumer = yield* start({
          ...quick,
          order: "none",
          bounds: { maxInFlight: 10 },
          handler: (record) =>
            Effect.andThen(
              until("open", () => open),
              Effect.sync(() => ledger.note(record))
            )
        })
        const at = () => consumer.status().partitions.find(({ partition }) => partition === 0)
        yield* until("paused", () => at()?.pausedBy.bound !== undefined)
        const position = at()?.position ?? 0
        broker.deleteRecords("orders", 0, 40)
        open = true
        yield* until("at the end", () => at()?.watermark === 50)
        expect(consumer.status().counters.lostToRetention).toBe(40 - position)
        expectOnce(ledger, 50 - (40 - position))
      }),
    { maxRecordsPerBatch: 10 }
  )

  test("stops where a topic was created anew", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const options = { ...quick, handler: work(ledger, () => 0) }
      yield* client.produce(records("orders", 100, 1))
      const first = yield* start(options)
      yield* until("done", () => ledger.count === 100)
      yield* first.stop
      broker.deleteTopic("orders")
      broker.createTopic("orders", 4)
      const second = yield* start(options)
      expect(failureOf(yield* second.exit)).toMatchObject({ _tag: "LogWentBack", highest: 100, end: 0 })
    }))

  test("stops where a durable store has lost what it knew, or resumes at the commit if told to", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const ledger = new Ledger()
      yield* client.produce(records("orders", 20).map((record) => ({ ...record, partition: 0 })))
      broker.setCommitted("group", { topic: "orders", partition: 0 }, 15, metadata(0))
      const options = { ...quick, handler: work(ledger, () => 0) }
      const durable = { ...store, durable: true }
      const begin = (more: object) =>
        Effect.provideService(start({ ...options, ...more }), OffsetStore, durable)
      const first = yield* begin({})
      const failure = failureOf(yield* first.exit)
      expect(failure).toMatchObject({ _tag: "StoreLost", committed: 15, partition: 0 })
      expect((failure as Error).message).toContain("whenStoreLost")
      yield* begin({ whenStoreLost: "resume" })
      yield* until("the rest done", () => ledger.count === 5)
    }))

  test("does again the operator's act that the store lost", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const ledger = new Ledger()
      const options = { ...quick, handler: work(ledger, () => 0) }
      yield* client.produce(records("orders", 20).map((record) => ({ ...record, partition: 0 })))
      const first = yield* start(options)
      yield* until("done", () => ledger.count === 20)
      yield* first.stop
      broker.setCommitted("group", { topic: "orders", partition: 0 }, 15, metadata(2))
      const second = yield* start(options)
      yield* until("five again", () => ledger.count === 25)
      yield* second.stop
      expect(yield* store.progress(streamOf(0))).toMatchObject({ epoch: 2, watermark: 20 })
      expect((yield* commits("group", "orders", 1))[0]).toMatchObject({ offset: 20, metadata: metadata(2) })
      expect(second.status().counters.adoptedEpochs).toBe(1)
    }))

  test("follows an operator who rewinds while it runs", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const ledger = new Ledger()
      yield* client.produce(records("orders", 20).map((record) => ({ ...record, partition: 0 })))
      const consumer = yield* start({ ...quick, handler: work(ledger, () => 0) })
      yield* until("done", () => ledger.count === 20)
      yield* store.rewind(streamOf(0), 10)
      yield* until("ten again", () => ledger.count === 30)
      yield* until("committed", () => isDone(consumer, 4))
      expect(ledger.twice.length).toBe(10)
      yield* consumer.stop
      expect((yield* commits("group", "orders", 1))[0]).toMatchObject({ offset: 20, metadata: metadata(1) })
    }))

  const failing = (error: StoreError, times: number) =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const ledger = new Ledger()
      let left = times
      yield* client.produce(records("orders", 20))
      const consumer = yield* Effect.provideService(
        start({ ...quick, handler: work(ledger, () => 0) }),
        OffsetStore,
        {
          ...store,
          complete: (ref, ranges) =>
            Effect.suspend(() => (left-- > 0 ? Effect.fail(error) : store.complete(ref, ranges)))
        }
      )
      return { consumer, ledger }
    })
  const storeError = (retriable: boolean) =>
    new StoreError({ store: "test", verb: "complete", reason: "Unavailable", detail: "as told", retriable })

  test("asks a store that fails for a while again", () =>
    Effect.gen(function* () {
      const { consumer, ledger } = yield* failing(storeError(true), 3)
      yield* until("completed", () => consumer.status().counters.completes >= 4)
      yield* until("no lag", () => isDone(consumer, 4))
      expectOnce(ledger, 20)
    }))

  test("waits for a store that is slower than the drain timeout, since what took effect must be told", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      const ledger = new Ledger()
      yield* client.produce(records("orders", 200))
      const slow: typeof store.complete = (ref, ranges) =>
        Effect.andThen(Effect.sleep(300), store.complete(ref, ranges))
      const options = { ...quick, handler: work(ledger, random(3)) }
      const first = yield* Effect.provideService(start({ ...options, drainTimeout: 20 }), OffsetStore, {
        ...store,
        complete: slow
      })
      yield* until("under way", () => ledger.count > 50)
      yield* first.stop
      yield* start(options)
      yield* until("all done", () => ledger.byRecord.size === 200)
      expectOnce(ledger, 200)
    }))

  test("stops with the error of a store that fails for good, or for as long as its lease lasts", () =>
    Effect.gen(function* () {
      const { consumer } = yield* failing(storeError(false), 1)
      expect(failureOf(yield* consumer.exit)).toMatchObject({ _tag: "StoreError", retriable: false })
      const again = yield* failing(storeError(true), Number.POSITIVE_INFINITY)
      expect(failureOf(yield* again.consumer.exit)).toMatchObject({ _tag: "StoreError", retriable: true })
    }))
})
