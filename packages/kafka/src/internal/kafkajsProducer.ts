import { Effect, type Scope, Semaphore } from "effect"
import kafkajs, { type Message, type Producer } from "kafkajs"
import type { HeaderValue, ProducerRecord } from "../KafkaClient.ts"
import { KafkaError } from "../KafkaErrors.ts"
import type { AdminOperations } from "./kafkajsAdmin.ts"
import { type Connection, call, withRetry } from "./kafkajsConnection.ts"

/** A request stays below the brokers' default limit of 1 MiB for one partition's part of it. */
const maxRequestBytes = 900_000
/** kafkajs copies a partition's list once for each record of a request, so long lists cost their square. */
const maxRequestRecords = 1_000
const recordOverheadBytes = 64

const sizeOf = (value: HeaderValue | null | undefined): number => {
  if (value === null || value === undefined) return 0
  if (typeof value === "string") return Buffer.byteLength(value)
  if (Buffer.isBuffer(value)) return value.length
  return (value as ReadonlyArray<Buffer | string>).reduce((bytes, part) => bytes + sizeOf(part), 0)
}

const recordBytes = (record: ProducerRecord): number => {
  let bytes = recordOverheadBytes + sizeOf(record.key) + sizeOf(record.value)
  for (const name in record.headers) bytes += name.length + sizeOf(record.headers[name])
  return bytes
}

/** Cuts the records, in order, into what one request may hold. */
export const toRequests = (records: ReadonlyArray<ProducerRecord>): Array<ReadonlyArray<ProducerRecord>> => {
  const requests: Array<ReadonlyArray<ProducerRecord>> = []
  let from = 0
  let bytes = 0
  for (let index = 0; index < records.length; index++) {
    const size = recordBytes(records[index]!)
    if (index > from && (bytes + size > maxRequestBytes || index - from >= maxRequestRecords)) {
      requests.push(records.slice(from, index))
      from = index
      bytes = 0
    }
    bytes += size
  }
  if (from < records.length) requests.push(records.slice(from))
  return requests
}

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
  const known = new Map<string, number>()
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

  /** kafkajs would try an unknown topic for 10 s, and silently lose a record for a partition that does not exist. */
  const check = Effect.fnUntraced(function* (records: ReadonlyArray<ProducerRecord>) {
    const outside = (record: ProducerRecord) => {
      const count = known.get(record.topic)
      if (count === undefined) return true
      const { partition } = record
      return partition !== undefined && !(Number.isInteger(partition) && partition >= 0 && partition < count)
    }
    const unknown = new Set<string>()
    for (const record of records) if (outside(record)) unknown.add(record.topic)
    if (unknown.size === 0) return
    for (const [topic, count] of yield* admin.partitionCounts([...unknown], operation))
      known.set(topic, count)
    const wrong = records.find(outside)
    if (wrong === undefined) return
    const detail = `topic "${wrong.topic}" has ${known.get(wrong.topic) ?? 0} partitions, none numbered ${wrong.partition}`
    return yield* new KafkaError({ reason: "UnknownTopic", operation, brokers, detail, retriable: false })
  })

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
            if (error.reason === "UnknownTopic") for (const topic of topics) known.delete(topic)
          })
        )
      )
    }
  })
})
