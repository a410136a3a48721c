/** From Kafka to Kafka in transactions, on a real broker, beside what one writes by hand with kafkajs. */
import { KafkaPipe } from "@tidemark/kafka"
import { startKafka, uniqueName } from "@tidemark/test-servers"
import { Effect, Fiber } from "effect"
import { type EachBatchPayload, Kafka, type KafkaMessage, logLevel, type Producer } from "kafkajs"
import { type Spread, spread } from "../Contest.ts"
import type { Figure, Suite } from "../Figure.ts"
import { drivers, produce } from "../KafkaReaders.ts"

const partitions = 8
const records = 100_000
const valueBytes = 200
const rounds = 5
const batchSizes = [500, 5_000] as const

interface Course {
  readonly brokers: ReadonlyArray<string>
  readonly from: string
  readonly to: string
  /** How many records a transaction takes at most. */
  readonly batchSize: number
}

/** How fast records took effect. */
interface Speed {
  /** Records a second. */
  readonly rate: number
  /** Microseconds of this process's processors a record: not the broker's, and not those of the machine's other work. */
  readonly micros: number
}

/** Copies from one topic to the other, as a new group. */
type Copier = (course: Course) => Promise<Speed>

/** Counts what took effect, once all are connected and a tenth is done, until there was enough of it. */
const stopwatch = (enough: number) => {
  const done = Promise.withResolvers<Speed>()
  let count = 0
  let from: { readonly count: number; readonly at: number; readonly cpu: NodeJS.CpuUsage } | undefined
  const add = (records: number): void => {
    count += records
    if (from === undefined) {
      if (count >= enough / 10) from = { count, at: performance.now(), cpu: process.cpuUsage() }
    } else if (count >= enough) {
      const { system, user } = process.cpuUsage(from.cpu)
      const records = count - from.count
      done.resolve({
        rate: (records / (performance.now() - from.at)) * 1_000,
        micros: (user + system) / records
      })
    }
  }
  return { add, fail: done.reject, speed: done.promise }
}

/** A transaction for each so many messages of a batch, as one writes it with kafkajs. */
const transactionally = async (
  producer: Producer,
  { batch: { messages, partition, topic } }: EachBatchPayload,
  { batchSize, to }: Course,
  groupId: string,
  onCommitted: (records: number) => void
): Promise<void> => {
  for (let at = 0; at < messages.length; at += batchSize) {
    const part = messages.slice(at, at + batchSize)
    const transaction = await producer.transaction()
    await transaction.send({ topic: to, messages: part.map(({ key, value }) => ({ key, value })) })
    const offset = String(Number((part.at(-1) as KafkaMessage).offset) + 1)
    await transaction.sendOffsets({
      consumerGroupId: groupId,
      topics: [{ topic, partitions: [{ partition, offset }] }]
    })
    await transaction.commit()
    onCommitted(part.length)
  }
}

interface ByHand {
  /** Where kafkajs begins to wait when the transaction before is still being ended; it says 300 ms. */
  readonly initialRetryTime: number
  /** A producer for each partition, which may then have transactions at once. */
  readonly perPartition: boolean
  readonly enough: number
}

const byHand =
  ({ enough, initialRetryTime, perPartition }: ByHand): Copier =>
  async (course) => {
    const groupId = uniqueName("bench")
    const client = new Kafka({ brokers: [...course.brokers], logLevel: logLevel.NOTHING })
    const producers = await Promise.all(
      Array.from({ length: perPartition ? partitions : 1 }, async (_, partition) => {
        const producer = client.producer({
          transactionalId: `${groupId}-${partition}`,
          maxInFlightRequests: 1,
          idempotent: true,
          retry: { initialRetryTime, retries: 15 }
        })
        await producer.connect()
        return producer
      })
    )
    const consumer = client.consumer({ groupId, maxWaitTimeInMs: 250 })
    await consumer.connect()
    await consumer.subscribe({ topic: course.from, fromBeginning: true })
    const watch = stopwatch(enough)
    consumer
      .run({
        autoCommit: false,
        partitionsConsumedConcurrently: producers.length,
        eachBatch: async (payload) => {
          const producer = producers[payload.batch.partition % producers.length] as Producer
          await transactionally(producer, payload, course, groupId, watch.add)
        }
      })
      .catch(watch.fail)
    const speed = await watch.speed
    await consumer.disconnect()
    await Promise.all(producers.map((producer) => producer.disconnect()))
    return speed
  }

const tidemark =
  (driver: keyof typeof drivers): Copier =>
  ({ batchSize, brokers, from, to }) =>
    Effect.gen(function* () {
      const watch = stopwatch(records)
      const pipe = yield* KafkaPipe.make({
        from,
        to,
        groupId: uniqueName("bench"),
        maxBatchRecords: batchSize,
        maxBatchBytes: 8 * 1_048_576,
        transform: ({ key, value }) => Effect.succeed([{ key: key as Buffer, value: value as Buffer }])
      })
      const fiber = yield* Effect.forkChild(pipe.run)
      let seen = 0
      const look = Effect.map(pipe.status, ({ counters }) => {
        watch.add(counters.processed - seen)
        seen = counters.processed
        return seen >= records
      })
      while (!(yield* look)) yield* Effect.raceFirst(Effect.sleep("20 millis"), Fiber.join(fiber))
      yield* Fiber.interrupt(fiber)
      return yield* Effect.promise(() => watch.speed)
    }).pipe(Effect.provide(drivers[driver]({ brokers })), Effect.runPromise)

const contestants: ReadonlyArray<readonly [name: string, copy: Copier]> = [
  [
    "by hand, kafkajs as it comes",
    byHand({ initialRetryTime: 300, perPartition: false, enough: records / 10 })
  ],
  ["by hand, retries from 5 ms", byHand({ initialRetryTime: 5, perPartition: false, enough: records / 2 })],
  [
    "by hand, retries from 5 ms, a producer a partition",
    byHand({ initialRetryTime: 5, perPartition: true, enough: records })
  ],
  ["tidemark", tidemark("kafkajs")],
  ["tidemark, on @platformatic/kafka", tidemark("platformatic")]
]
const ours = 3

const figuresOf = (batchSize: number, speeds: ReadonlyArray<ReadonlyArray<Speed>>): ReadonlyArray<Figure> => {
  const against = (base: number): Spread =>
    spread(speeds[ours].map(({ rate }, round) => rate / speeds[base][round].rate))
  const size = `${batchSize.toLocaleString("en-US")} a transaction`
  return [
    ...contestants.flatMap(
      ([name], index): ReadonlyArray<Figure> => [
        {
          what: `${size}: ${name}`,
          unit: "records/s",
          measured: spread(speeds[index].map(({ rate }) => rate))
        },
        {
          what: `${size}: ${name}, processor time`,
          unit: "us/record",
          measured: spread(speeds[index].map(({ micros }) => micros))
        }
      ]
    ),
    ...[0, 1, 2].map(
      (base): Figure => ({
        what: `${size}: rate against ${contestants[base][0]}`,
        unit: "x",
        measured: against(base),
        // what is asked for is twice a transaction per batch at batches of 500, and as much at others
        ...(base === 2 ? {} : { target: { atLeast: batchSize === 500 ? 2 : 1 } })
      })
    )
  ]
}

export const suite: Suite = {
  name: "pipe",
  about: `${records.toLocaleString("en-US")} records of ${valueBytes} bytes from ${partitions} partitions to ${partitions}, in transactions, a real broker`,
  run: async (progress) => {
    await using kafka = await startKafka()
    progress("producing")
    const shape = { keys: 1_000, partitions, valueBytes }
    const { topic: from } = await produce(kafka.brokers, { ...shape, records })
    const { topic: to } = await produce(kafka.brokers, { ...shape, records: 0 })
    const figures: Array<Figure> = []
    for (const batchSize of batchSizes) {
      const speeds = contestants.map((): Array<Speed> => [])
      for (let round = -1; round < rounds; round++) {
        for (let turn = 0; turn < contestants.length; turn++) {
          const index = (turn + round + 1) % contestants.length
          const [name, copy] = contestants[index]
          progress(`${batchSize} a transaction, round ${round + 1} of ${rounds}: ${name}`)
          const speed = await copy({ brokers: kafka.brokers, from, to, batchSize })
          if (round >= 0) speeds[index].push(speed)
        }
      }
      figures.push(...figuresOf(batchSize, speeds))
    }
    return figures
  }
}
