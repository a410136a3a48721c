import { Effect, type Scope, Semaphore } from "effect"
import kafkajs, { type Message, type Producer, type ProducerBatch } from "kafkajs"
import type { ProducerRecord } from "../KafkaClient.ts"
import type { KafkaError } from "../KafkaErrors.ts"
import { type Connection, call } from "./kafkajsConnection.ts"
import { type PartitionCheck, toRequests } from "./produceRequests.ts"
import { withRetry } from "./retrying.ts"

const operation = "produce"

const toMessage = (record: ProducerRecord): Message => ({
  key: record.key ?? null,
  value: record.value,
  ...(record.partition === undefined ? {} : { partition: record.partition }),
  ...(record.headers === undefined ? {} : { headers: record.headers as NonNullable<Message["headers"]> }),
  ...(record.timestampMillis === undefined ? {} : { timestamp: String(record.timestampMillis) })
})

const toTopicMessages = (records: ReadonlyArray<ProducerRecord>) => {
  const byTopic = new Map<string, Array<Message>>()
  for (const record of records) {
    const messages = byTopic.get(record.topic)
    if (messages === undefined) byTopic.set(record.topic, [toMessage(record)])
    else messages.push(toMessage(record))
  }
  return [...byTopic].map(([topic, messages]) => ({ topic, messages }))
}

/** Sends the records in as many requests as they need, one after the other. */
export const sendAll = Effect.fnUntraced(function* (
  { brokers }: Connection,
  { forget }: PartitionCheck,
  records: ReadonlyArray<ProducerRecord>,
  send: (batch: ProducerBatch) => Promise<unknown>
) {
  for (const request of toRequests(records)) {
    const topicMessages = toTopicMessages(request)
    const topics = topicMessages.map(({ topic }) => topic)
    yield* call(() => send({ acks: -1, topicMessages }), { operation, brokers, topics }).pipe(
      Effect.tapError((error) =>
        Effect.sync(() => {
          if (error.reason === "UnknownTopic") forget(topics)
        })
      )
    )
  }
})

/** Produces with one kafkajs producer, connected on first use. */
export const makeProduce = Effect.fnUntraced(function* (
  connection: Connection,
  partitionCheck: PartitionCheck
): Effect.fn.Return<
  (records: ReadonlyArray<ProducerRecord>) => Effect.Effect<void, KafkaError>,
  never,
  Scope.Scope
> {
  const { brokers } = connection
  const connecting = yield* Semaphore.make(1)
  let connected: Producer | undefined

  yield* Effect.addFinalizer(() => {
    const producer = connected
    if (producer === undefined) return Effect.void
    return Effect.ignore(Effect.tryPromise(() => producer.disconnect()))
  })

  const connect = connecting.withPermits(1)(
    Effect.suspend(() => {
      if (connected !== undefined) return Effect.succeed(connected)
      const producer = connection.kafka.producer({
        allowAutoTopicCreation: connection.allowAutoTopicCreation,
        metadataMaxAge: connection.metadataMaxAgeMillis,
        createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
        retry: { retries: 5, initialRetryTime: 200, maxRetryTime: 5_000, factor: 0.2, multiplier: 2 }
      })
      return Effect.map(
        withRetry(
          connection,
          call(() => producer.connect(), { operation, brokers })
        ),
        () => {
          connected = producer
          return producer
        }
      )
    })
  )

  return Effect.fnUntraced(function* (records) {
    if (records.length === 0) return
    yield* partitionCheck.check(records)
    const producer = yield* connect
    yield* sendAll(connection, partitionCheck, records, (batch) => producer.sendBatch(batch))
  })
})
