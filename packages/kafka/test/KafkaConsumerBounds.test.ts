/** How much is read ahead, what need not be read, and what is there to read that was not before. */
import { describe, expect, it } from "@effect/vitest"
import { ClaimId, Key, OffsetRanges, OffsetStore } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Deferred, Effect, Layer, type Scope } from "effect"
import kafkajs from "kafkajs"
import { KafkaClient } from "../src/KafkaClient.ts"
import * as KafkaConsumer from "../src/KafkaConsumer.ts"
import * as KafkaJs from "../src/KafkaJs.ts"
import * as PlatformaticKafka from "../src/PlatformaticKafka.ts"
import {
  clockTests,
  isDone,
  Ledger,
  pass,
  records,
  type Services,
  settled,
  start,
  streamOf,
  unhurried,
  work
} from "./consumerHarness.ts"
import { range, uniqueName, until } from "./kafkaClientSuite.ts"

/** What an earlier owner has completed before it went. */
const completeBefore = (stream: string, ranges: ReadonlyArray<readonly [from: number, to: number]>) =>
  Effect.gen(function* () {
    const store = yield* OffsetStore
    const ref = { stream, claimId: ClaimId.make() }
    const terms = { claimId: ref.claimId, owner: "before", leaseMillis: 10_000 }
    yield* store.claim(stream, OffsetRanges.openEnded(0), terms)
    yield* store.complete(ref, OffsetRanges.fromRanges(ranges))
    yield* store.release(ref)
  })

const test = clockTests({ topics: { orders: 1 }, maxRecordsPerBatch: 50 })

describe("KafkaConsumer, where much is completed already", () => {
  test("reads over what is longer than a fetch, and skips the rest record by record", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 3_000))
      yield* completeBefore(streamOf(0), [
        [20, 40],
        [60, 1_500],
        [1_510, 2_900]
      ])
      const consumer = yield* start({ ...unhurried, handler: work(ledger, () => 0) })
      yield* pass(1)
      yield* settled("done", () => isDone(consumer, 1) && ledger.count > 0)
      const expected = [...range(0, 20), ...range(40, 60), ...range(1_500, 1_510), ...range(2_900, 3_000)]
      expect([...ledger.byValue.keys()].map(Number).toSorted((a, b) => a - b)).toEqual(expected)
      const [{ gaps, watermark }] = consumer.status().partitions
      expect({ gaps, watermark }).toEqual({ gaps: 0, watermark: 3_000 })
      expect(consumer.status().counters.received).toBeLessThan(500)
    }))

  test("and it is completed up to the log's end, waits there for what comes", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 1_000))
      yield* completeBefore(streamOf(0), [[1, 1_000]])
      const consumer = yield* start({ ...unhurried, handler: work(ledger, () => 0) })
      yield* pass(1)
      yield* settled("done", () => isDone(consumer, 1) && ledger.count === 1)
      expect(consumer.status().partitions[0]).toMatchObject({ position: 1_000, watermark: 1_000 })
      yield* client.produce(records("orders", 5, 50, 1_000))
      yield* pass(1)
      yield* settled("done", () => isDone(consumer, 1) && ledger.count === 6)
      expect(ledger.twice).toEqual([])
    }))
})

await describeWithKafka("KafkaConsumer on Kafka", ({ brokers }) => {
  const drivers = [
    ["KafkaJs", KafkaJs.layer({ brokers, metadataMaxAgeMillis: 300 })],
    ["PlatformaticKafka", PlatformaticKafka.layer({ brokers, metadataMaxAgeMillis: 300 })]
  ] as const

  const run = Effect.fnUntraced(function* (options: KafkaConsumer.ConsumerOptions<never, never>) {
    const consumer = yield* KafkaConsumer.make(options)
    yield* Effect.forkScoped(consumer.run)
    return () => Effect.runSync(consumer.status)
  })

  const each = (title: string, test: () => Effect.Effect<void, unknown, Services | Scope.Scope>) =>
    it.live.each(drivers)(
      `%s: ${title}`,
      ([, kafka]) => Effect.scoped(test()).pipe(Effect.provide(Layer.merge(kafka, MemoryStore.layer()))),
      30_000
    )

  each("records of 1 MB pause the partition at the byte bound, and all are done", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const topic = uniqueName("topic")
      yield* client.createTopics([{ topic, partitions: 1 }])
      const value = Buffer.alloc(1_000_000, "x")
      for (const from of range(0, 6))
        yield* client.produce(range(0, 4).map((index) => ({ topic, key: `${from * 4 + index}`, value })))
      const ledger = new Ledger()
      const gate = yield* Deferred.make<void>()
      const status = yield* run({
        topics: [topic],
        groupId: uniqueName("group"),
        concurrency: 2,
        bounds: { maxBytes: 4_000_000 },
        handler: (record) => Effect.andThen(Deferred.await(gate), work(ledger, () => 1)(record))
      })
      yield* until("paused", () => status().partitions[0]?.pausedBy.bound === "maxBytes")
      const [{ inFlight, stalledAt }] = status().partitions
      expect(inFlight).toBeGreaterThanOrEqual(4)
      // what one fetch brings beyond the bound
      expect(inFlight).toBeLessThan(12)
      expect(stalledAt).toBe(0)
      yield* Deferred.succeed(gate, undefined)
      yield* until("done", () => ledger.count === 24 && status().partitions[0]?.watermark === 24)
      expect(ledger.twice).toEqual([])
    })
  )

  each("what is completed and longer than a fetch is not fetched", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const topic = uniqueName("topic")
      const groupId = uniqueName("group")
      yield* client.createTopics([{ topic, partitions: 1 }])
      // a fetch brings 1 MB at most
      const value = Buffer.alloc(10_000, "x")
      for (const from of range(0, 10))
        yield* client.produce(range(0, 100).map((index) => ({ topic, key: `${from * 100 + index}`, value })))
      yield* completeBefore(Key.kafkaStream({ group: groupId, topic, partition: 0 }), [[10, 900]])
      const ledger = new Ledger()
      const status = yield* run({ topics: [topic], groupId, handler: work(ledger, () => 0) })
      yield* until("done", () => status().partitions[0]?.watermark === 1_000)
      expect(ledger.count).toBe(110)
      expect(status().counters.received).toBeLessThan(600)
    })
  )

  each("partitions that are added while it runs are read from their beginning", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const topic = uniqueName("topic")
      yield* client.createTopics([{ topic, partitions: 1 }])
      yield* client.produce([{ topic, partition: 0, value: "before" }])
      const ledger = new Ledger()
      const status = yield* run({
        topics: [topic],
        groupId: uniqueName("group"),
        start: "latest",
        handler: work(ledger, () => 0)
      })
      yield* until("owned", () => status().partitions[0]?.phase === "owned")
      const admin = new kafkajs.Kafka({ brokers: [...brokers], logLevel: kafkajs.logLevel.NOTHING }).admin()
      yield* Effect.promise(async () => {
        await admin.connect()
        await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] })
      })
      yield* Effect.addFinalizer(() => Effect.promise(() => admin.disconnect()))
      // there before the consumer has noticed
      const another = KafkaJs.layer({ brokers })
      yield* Effect.provide(
        Effect.flatMap(KafkaClient, ({ produce }) =>
          produce([0, 1, 2].map((partition) => ({ topic, partition, value: `after ${partition}` })))
        ),
        another
      )
      // a partition that is not ready yet has the producer try again, and may have its record twice
      yield* until("read", () => ledger.byValue.size === 3)
      expect([...ledger.byValue.keys()].toSorted()).toEqual(["after 0", "after 1", "after 2"])
      yield* until("owned", () => status().partitions.filter(({ lag }) => lag === 0).length === 3)
    })
  )
})
