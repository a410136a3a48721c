/**
 * Who reads a topic of a real broker: kafkajs by itself, what people write around it, and our consumer on its stores.
 * Each reads the whole topic once, as a new group.
 */
import type { IdempotencyStore, OffsetStore } from "@tidemark/core"
import { KafkaClient, KafkaConsumer, KafkaJs } from "@tidemark/kafka"
import { PlatformaticKafka } from "@tidemark/kafka/platformatic"
import { MemoryStore } from "@tidemark/store-memory"
import { RedisStore } from "@tidemark/store-redis"
import { SqliteStore } from "@tidemark/store-sqlite"
import { uniqueName } from "@tidemark/test-servers"
import { Effect, Fiber, Layer } from "effect"
import { Redis } from "ioredis"
import { type EachBatchPayload, type EachMessagePayload, Kafka, logLevel } from "kafkajs"
import { type Spread, spread } from "./Contest.ts"
import type { Figure } from "./Figure.ts"

/** A topic to read. */
export interface Topic {
  readonly brokers: ReadonlyArray<string>
  readonly topic: string
  readonly partitions: number
  readonly records: number
}

/** Milliseconds from the first record to the last, by the clock, and of this process's processor time. */
interface Taken {
  readonly millis: number
  readonly processorMillis: number
}

export type Reader = (topic: Topic) => Promise<Taken>

const processorMillis = (): number => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1_000
}

/** Begins with the first record. */
class Watch {
  private from: { readonly at: number; readonly processor: number } | undefined

  start(): void {
    this.from ??= { at: performance.now(), processor: processorMillis() }
  }

  stop(): Taken {
    const { at, processor } = this.from ?? { at: 0, processor: 0 }
    return { millis: performance.now() - at, processorMillis: processorMillis() - processor }
  }
}

interface KafkaJsHandlers {
  readonly eachMessage?: (payload: EachMessagePayload) => Promise<void>
  readonly eachBatch?: (payload: EachBatchPayload) => Promise<void>
}

/** kafkajs, done when so many records have been counted. */
const kafkaJs =
  (handlers: (begin: () => void, count: (records: number) => void) => KafkaJsHandlers): Reader =>
  async ({ brokers, partitions, records, topic }) => {
    const client = new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING })
    const consumer = client.consumer({ groupId: uniqueName("bench"), maxWaitTimeInMs: 250 })
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    const watch = new Watch()
    let seen = 0
    const taken = await new Promise<Taken>((resolve, reject) => {
      const count = (read: number): void => {
        seen += read
        if (seen >= records) resolve(watch.stop())
      }
      consumer
        .run({ partitionsConsumedConcurrently: partitions, ...handlers(() => watch.start(), count) })
        .catch(reject)
    })
    await consumer.disconnect()
    return taken
  }

export const eachMessage = kafkaJs((begin, count) => ({
  eachMessage: async () => {
    begin()
    count(1)
  }
}))

export const eachBatch = kafkaJs((begin, count) => ({
  eachBatch: async ({ batch }) => {
    begin()
    count(batch.messages.length)
  }
}))

/** The check that people write by hand: one pipeline of `SET NX` a batch. It marks before it processes. */
export const setNxPipeline =
  (url: string): Reader =>
  async (topic) => {
    const redis = new Redis(url)
    const prefix = uniqueName("bench")
    const read = kafkaJs((begin, count) => ({
      eachBatch: async ({ batch }) => {
        begin()
        const pipeline = redis.pipeline()
        for (const { offset } of batch.messages)
          pipeline.set(`${prefix}:${batch.partition}:${offset}`, "1", "EX", 86_400, "NX")
        await pipeline.exec()
        count(batch.messages.length)
      }
    }))
    const taken = await read(topic)
    await redis.quit()
    return taken
  }

/** So many records at work at once, whatever their keys, and nothing kept of what was done. */
export const untrackedWindow = (atOnce: number, workMillis: number): Reader =>
  kafkaJs((begin, count) => {
    let atWork = 0
    let wake: (() => void) | undefined
    const work = (): void => {
      atWork++
      setTimeout(() => {
        atWork--
        wake?.()
        count(1)
      }, workMillis)
    }
    const waiting: Array<() => void> = []
    wake = () => waiting.shift()?.()
    return {
      eachBatch: async ({ batch, heartbeat }) => {
        begin()
        for (let index = 0; index < batch.messages.length; index++) {
          while (atWork >= atOnce) await new Promise<void>((resolve) => waiting.push(resolve))
          work()
        }
        await heartbeat()
      }
    }
  })

type Stores = Layer.Layer<OffsetStore | IdempotencyStore, unknown>

/** The stores, each anew. */
export const stores = {
  memory: (): Stores => MemoryStore.layer({ maxTrackedOffsets: 1_000_000 }),
  redis: (url: string) => (): Stores => RedisStore.layer({ url, prefix: uniqueName("bench") }),
  sqlite: (file: () => string) => (): Stores => SqliteStore.layer({ filename: file(), synchronous: "normal" })
}

type Options = Omit<KafkaConsumer.BaseOptions, "topics" | "groupId">

/** What is done with records: `begin` is told before the first. */
export type How = (
  begin: () => void
) =>
  | Pick<KafkaConsumer.ConsumerOptions<never, never>, "handler" | "identify">
  | Pick<KafkaConsumer.BatchOptions<never, never>, "handleBatch" | "maxBatchRecords">

export const nothing: How = (begin) => ({
  handler: () => {
    begin()
    return Effect.void
  }
})

export const nothingInBatches: How = (begin) => ({
  handleBatch: () => {
    begin()
    return Effect.void
  }
})

export const drivers = { kafkajs: KafkaJs.layer, platformatic: PlatformaticKafka.layer }

/** Ours is done when every watermark is at the end: when all is completed in the store. */
export const tidemark =
  (store: () => Stores, how: How, options: Options = {}, driver: keyof typeof drivers = "kafkajs"): Reader =>
  ({ brokers, records, topic }) =>
    Effect.gen(function* () {
      const watch = new Watch()
      const consumer = yield* KafkaConsumer.make({
        topics: [topic],
        groupId: uniqueName("bench"),
        ...options,
        ...how(() => watch.start())
      } as KafkaConsumer.ConsumerOptions<never, never>)
      const fiber = yield* Effect.forkChild(consumer.run)
      const isDone = Effect.map(
        consumer.status,
        ({ partitions }) => partitions.reduce((sum, { watermark = 0 }) => sum + watermark, 0) >= records
      )
      while (!(yield* isDone)) yield* Effect.raceFirst(Effect.sleep("5 millis"), Fiber.join(fiber))
      const taken = watch.stop()
      yield* Fiber.interrupt(fiber)
      return taken
    }).pipe(Effect.provide(Layer.mergeAll(drivers[driver]({ brokers }), store())), Effect.runPromise)

/** Makes the topic: records of so many keys in turns, on the partitions in turns. */
export const produce = (
  brokers: ReadonlyArray<string>,
  {
    keys,
    partitions,
    records,
    valueBytes
  }: {
    readonly keys: number
    readonly partitions: number
    readonly records: number
    readonly valueBytes: number
  }
): Promise<Topic> =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const topic = uniqueName("bench")
    yield* client.createTopics([{ topic, partitions }])
    const value = Buffer.alloc(valueBytes, "x")
    for (let from = 0; from < records; from += 10_000) {
      yield* client.produce(
        Array.from({ length: Math.min(10_000, records - from) }, (_, index) => ({
          topic,
          partition: (from + index) % partitions,
          key: `key-${(from + index) % keys}`,
          value
        }))
      )
    }
    return { brokers, topic, partitions, records }
  }).pipe(Effect.provide(KafkaJs.layer({ brokers })), Effect.runPromise)

/** The times of readers that took turns. */
export interface Race {
  readonly rate: (name: string) => Figure
  /** How many times the rate of `base`, and how many times its processor time. */
  readonly against: (name: string, base: string, atLeast?: number) => ReadonlyArray<Figure>
}

/** Lets them read in turns, in an order that rotates; the first round does not count. */
export const race = async (
  topic: Topic,
  readers: ReadonlyArray<readonly [name: string, read: Reader]>,
  rounds: number,
  progress: (line: string) => void
): Promise<Race> => {
  const times = new Map<string, Array<Taken>>(readers.map(([name]) => [name, []]))
  for (let round = -1; round < rounds; round++) {
    for (let turn = 0; turn < readers.length; turn++) {
      const [name, read] = readers[(turn + round + 1) % readers.length]
      progress(`round ${round + 1} of ${rounds}: ${name}`)
      const taken = await read(topic)
      if (round >= 0) times.get(name)?.push(taken)
    }
  }
  const timesOf = (name: string): ReadonlyArray<Taken> => times.get(name) ?? []
  const ratio = (name: string, base: string, of: (taken: Taken) => number): Spread =>
    spread(timesOf(name).map((taken, round) => of(timesOf(base)[round]) / of(taken)))
  return {
    rate: (what) => ({
      what,
      unit: "records/s",
      measured: spread(timesOf(what).map(({ millis }) => (topic.records / millis) * 1_000))
    }),
    against: (name, base, atLeast) => [
      {
        what: `${name}: rate against ${base}'s`,
        unit: "x",
        measured: ratio(name, base, ({ millis }) => millis),
        ...(atLeast === undefined ? {} : { target: { atLeast } })
      },
      {
        what: `${name}: records a second of processor time, against ${base}'s`,
        unit: "x",
        measured: ratio(name, base, ({ processorMillis }) => processorMillis)
      }
    ]
  }
}
