/** The consumer with nothing to do, on a real broker, beside kafkajs with nothing to do. */
import { KafkaClient, KafkaConsumer, KafkaJs } from "@tidemark/kafka"
import { PlatformaticKafka } from "@tidemark/kafka/platformatic"
import { MemoryStore } from "@tidemark/store-memory"
import { startKafka, uniqueName } from "@tidemark/test-servers"
import { Effect, Fiber, Layer } from "effect"
import { type EachBatchPayload, type EachMessagePayload, Kafka, logLevel } from "kafkajs"
import { type Spread, spread } from "../Contest.ts"
import type { Figure, Suite } from "../Figure.ts"

const partitions = 8
const records = 200_000
const valueBytes = 200
const rounds = 7

/** Reads the whole topic once, as a new group; answers the milliseconds from the first record to the last. */
type Reader = (brokers: ReadonlyArray<string>, topic: string) => Promise<number>

const kafkaJs =
  (
    handlers: (count: (records: number) => void) => {
      readonly eachMessage?: (payload: EachMessagePayload) => Promise<void>
      readonly eachBatch?: (payload: EachBatchPayload) => Promise<void>
    }
  ): Reader =>
  async (brokers, topic) => {
    const client = new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING })
    const consumer = client.consumer({ groupId: uniqueName("bench"), maxWaitTimeInMs: 250 })
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    let seen = 0
    let from = 0
    const millis = await new Promise<number>((resolve, reject) => {
      const count = (read: number): void => {
        if (seen === 0) from = performance.now()
        seen += read
        if (seen >= records) resolve(performance.now() - from)
      }
      consumer.run({ partitionsConsumedConcurrently: partitions, ...handlers(count) }).catch(reject)
    })
    await consumer.disconnect()
    return millis
  }

const eachMessage = kafkaJs((count) => ({
  eachMessage: async () => {
    count(1)
  }
}))

const eachBatch = kafkaJs((count) => ({
  eachBatch: async ({ batch }) => {
    count(batch.messages.length)
  }
}))

/** Ours is done when every watermark is at the end: when all is completed in the store. */
const tidemark =
  (
    order: KafkaConsumer.Order,
    driver: typeof KafkaJs.layer | typeof PlatformaticKafka.layer = KafkaJs.layer
  ): Reader =>
  (brokers, topic) =>
    Effect.gen(function* () {
      let from = 0
      const consumer = yield* KafkaConsumer.make({
        topics: [topic],
        groupId: uniqueName("bench"),
        order,
        handler: () => {
          if (from === 0) from = performance.now()
          return Effect.void
        }
      })
      const fiber = yield* Effect.forkChild(consumer.run)
      const isDone = Effect.map(
        consumer.status,
        (status) =>
          (status?.partitions.reduce((sum, { watermark = 0 }) => sum + watermark, 0) ?? 0) >= records
      )
      while (!(yield* isDone)) yield* Effect.raceFirst(Effect.sleep("1 millis"), Fiber.join(fiber))
      const millis = performance.now() - from
      yield* Fiber.interrupt(fiber)
      return millis
    }).pipe(Effect.provide(Layer.mergeAll(driver({ brokers }), MemoryStore.layer())), Effect.runPromise)

const contestants: ReadonlyArray<readonly [name: string, read: Reader]> = [
  ["kafkajs eachMessage", eachMessage],
  ["kafkajs eachBatch", eachBatch],
  ["tidemark, order key", tidemark("key")],
  ["tidemark, order none", tidemark("none")],
  ["tidemark, order key, @platformatic/kafka", tidemark("key", PlatformaticKafka.layer)]
]

const produce = (brokers: ReadonlyArray<string>, topic: string): Promise<void> =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    yield* client.createTopics([{ topic, partitions }])
    const value = Buffer.alloc(valueBytes, "x")
    for (let from = 0; from < records; from += 10_000) {
      yield* client.produce(
        Array.from({ length: 10_000 }, (_, index) => ({
          topic,
          partition: (from + index) % partitions,
          key: `key-${(from + index) % 1_000}`,
          value
        }))
      )
    }
  }).pipe(Effect.provide(KafkaJs.layer({ brokers })), Effect.runPromise)

export const suite: Suite = {
  name: "consumer",
  about: `${records.toLocaleString("en-US")} records of ${valueBytes} bytes, ${partitions} partitions, a real broker, memory store, nothing to do`,
  run: async (progress) => {
    await using kafka = await startKafka()
    const topic = uniqueName("bench")
    progress("producing")
    await produce(kafka.brokers, topic)
    const times = contestants.map((): Array<number> => [])
    for (let round = -1; round < rounds; round++) {
      for (let turn = 0; turn < contestants.length; turn++) {
        const index = (turn + round + 1) % contestants.length
        progress(`round ${round + 1} of ${rounds}: ${contestants[index][0]}`)
        const millis = await contestants[index][1](kafka.brokers, topic)
        if (round >= 0) times[index].push(millis)
      }
    }
    const against = (index: number, base: number): Spread =>
      spread(times[index].map((time, round) => times[base][round] / time))
    return [
      ...contestants.map(
        ([what], index): Figure => ({
          what,
          unit: "records/s",
          measured: spread(times[index].map((time) => (records / time) * 1_000))
        })
      ),
      ...[2, 3, 4].map(
        (index): Figure => ({
          what: `${contestants[index][0]}: rate against eachMessage's`,
          unit: "x",
          measured: against(index, 0),
          target: { atLeast: 1 }
        })
      ),
      ...[2, 3, 4].map(
        (index): Figure => ({
          what: `${contestants[index][0]}: rate against eachBatch's`,
          unit: "x",
          measured: against(index, 1)
        })
      )
    ]
  }
}
