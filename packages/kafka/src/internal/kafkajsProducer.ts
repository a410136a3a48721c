import { Effect, type Scope, Semaphore } from "effect"
import kafkajs, { type Message, type Producer } from "kafkajs"
import type { ProducerRecord } from "../KafkaClient.ts"
import type { KafkaError } from "../KafkaErrors.ts"
import type { AdminOperations } from "./kafkajsAdmin.ts"
import { type Connection, call } from "./kafkajsConnection.ts"
import { makePartitionCheck, toRequests } from "./produceRequests.ts"
import { withRetry } from "./retrying.ts"

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

/** Produces with one kafkajs producer, connected on first use. */
export const makeProduce = Effect.fnUntraced(function* (
  connection: Connection,
  admin: AdminOperations
): Effect.fn.Return<
  (records: ReadonlyArray<ProducerRecord>) => Effect.Effect<void, KafkaError>,
  never,
  Scope.Scope
> {
  const { brokers } = connection
  const operation = "produce"
  const connecting = yield* Semaphore.make(1)
  // kafkajs would try an unknown topic for 10 s, and silently lose a record for a partition that does not exist.
  const { check, forget } = makePartitionCheck(brokers, admin.partitionCounts)
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
    yield* check(records)
    const producer = yield* connect
    for (const request of toRequests(records)) {
      const topicMessages = toTopicMessages(request)
      const topics = topicMessages.map(({ topic }) => topic)
      yield* call(() => producer.sendBatch({ acks: -1, topicMessages }), { operation, brokers, topics }).pipe(
        Effect.tapError((error) =>
          Effect.sync(() => {
            if (error.reason === "UnknownTopic") forget(topics)
          })
        )
      )
    }
  })
})
