import { Effect, type Scope, Semaphore } from "effect"
import kafkajs, { type Message, type Producer, type ProducerBatch, type RecordMetadata } from "kafkajs"
import type { ProducerRecord } from "../KafkaClient.ts"
import { KafkaError } from "../KafkaErrors.ts"
import { type Connection, call } from "./kafkajsConnection.ts"
import { type PartitionCheck, toRequests } from "./produceRequests.ts"
import { withRetry } from "./retrying.ts"

const operation = "produce"

/** Made for every record that is produced: without the copies that spreads are. */
const toMessage = (record: ProducerRecord): Message => {
  const message: Message = { key: record.key ?? null, value: record.value }
  if (record.partition !== undefined) message.partition = record.partition
  if (record.headers !== undefined) message.headers = record.headers as NonNullable<Message["headers"]>
  if (record.timestampMillis !== undefined) message.timestamp = String(record.timestampMillis)
  return message
}

const toTopicMessages = (records: ReadonlyArray<ProducerRecord>) => {
  const byTopic = new Map<string, Array<Message>>()
  for (const record of records) {
    const messages = byTopic.get(record.topic)
    if (messages === undefined) byTopic.set(record.topic, [toMessage(record)])
    else messages.push(toMessage(record))
  }
  return [...byTopic].map(([topic, messages]) => ({ topic, messages }))
}

/** The records for partitions that no answer tells of. */
const unsentOf = (
  records: ReadonlyArray<ProducerRecord>,
  answers: ReadonlyArray<RecordMetadata>
): ReadonlyArray<ProducerRecord> => {
  const sent = new Set(answers.map(({ partition, topicName }) => `${partition}/${topicName}`))
  return records.filter(
    ({ partition, topic }) => partition !== undefined && !sent.has(`${partition}/${topic}`)
  )
}

/**
 * Sends the records in as many requests as they need, one after the other. Answers those that were not sent: kafkajs
 * leaves out what is for a partition that it does not know yet, and says nothing.
 */
export const sendAll = Effect.fnUntraced(function* (
  { brokers }: Connection,
  { forget }: PartitionCheck,
  records: ReadonlyArray<ProducerRecord>,
  send: (batch: ProducerBatch) => Promise<ReadonlyArray<RecordMetadata>>
) {
  const unsent: Array<ProducerRecord> = []
  for (const request of toRequests(records)) {
    const topicMessages = toTopicMessages(request)
    const topics = topicMessages.map(({ topic }) => topic)
    const answers = yield* call(() => send({ acks: -1, topicMessages }), { operation, brokers, topics }).pipe(
      Effect.tapError((error) =>
        Effect.sync(() => {
          if (error.reason === "UnknownTopic") forget(topics)
        })
      )
    )
    unsent.push(...unsentOf(request, answers))
  }
  return unsent
})

/** Fails where something was not sent. */
export const orUnsent = (
  { brokers }: Connection,
  [first]: ReadonlyArray<ProducerRecord>
): Effect.Effect<void, KafkaError> =>
  first === undefined
    ? Effect.void
    : Effect.fail(
        new KafkaError({
          reason: "PartitionNotReady",
          operation,
          brokers,
          detail: `partition ${first.partition} of topic "${first.topic}" is new, and the client does not know its leader yet`,
          retriable: true
        })
      )

/** A producer, and how many calls it is at work for. */
interface Sender {
  readonly producer: Producer
  busy: number
}

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
  let connected: Sender | undefined
  /** Those that were replaced, until they have nothing at work. */
  const replaced = new Set<Sender>()

  const disconnect = ({ producer }: Sender) => Effect.ignore(Effect.tryPromise(() => producer.disconnect()))
  yield* Effect.addFinalizer(() =>
    Effect.forEach(connected === undefined ? replaced : [...replaced, connected], disconnect, {
      discard: true
    })
  )

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
          connected = { producer, busy: 0 }
          return connected
        }
      )
    })
  )

  const sendBy = (sender: Sender, records: ReadonlyArray<ProducerRecord>) =>
    Effect.acquireUseRelease(
      Effect.sync(() => sender.busy++),
      () => sendAll(connection, partitionCheck, records, (batch) => sender.producer.sendBatch(batch)),
      () =>
        Effect.suspend(() => {
          sender.busy--
          return sender.busy === 0 && replaced.delete(sender) ? disconnect(sender) : Effect.void
        })
    )

  /** A producer asks for the partitions of a topic when it first sends to it, and then not for a while. */
  const replace = (sender: Sender): void => {
    if (connected !== sender) return
    connected = undefined
    replaced.add(sender)
  }

  return Effect.fnUntraced(function* (records) {
    if (records.length === 0) return
    yield* partitionCheck.check(records)
    const sender = yield* connect
    const unsent = yield* Effect.tap(sendBy(sender, records), (left) =>
      Effect.sync(() => {
        if (left.length > 0) replace(sender)
      })
    )
    if (unsent.length > 0) yield* orUnsent(connection, yield* sendBy(yield* connect, unsent))
  })
})
