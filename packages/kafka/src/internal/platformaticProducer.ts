import type { MessageRecord, Producer } from "@platformatic/kafka"
import { Effect } from "effect"
import type { HeaderValue, ProducerRecord } from "../KafkaClient.ts"
import { KafkaError } from "../KafkaErrors.ts"
import { partitionOf } from "./murmur2.ts"
import { type Connecting, metadataOf } from "./platformaticCluster.ts"
import { toKafkaError } from "./platformaticErrors.ts"
import { type PartitionCheck, toRequests } from "./produceRequests.ts"
import { withRetry } from "./retrying.ts"

const bytesOf = (value: Buffer | string): Buffer => (typeof value === "string" ? Buffer.from(value) : value)

const partsOf = (value: HeaderValue): ReadonlyArray<Buffer | string> =>
  typeof value === "string" || Buffer.isBuffer(value) ? [value] : (value as ReadonlyArray<Buffer | string>)

/** The library takes a map; with names as buffers, each one of its own, a name may come more than once. */
const headersOf = (headers: Readonly<Record<string, HeaderValue>>): Map<Buffer, Buffer> => {
  const map = new Map<Buffer, Buffer>()
  for (const [name, value] of Object.entries(headers))
    for (const part of partsOf(value)) map.set(Buffer.from(name), bytesOf(part))
  return map
}

/** Records as the library's messages, each with its partition: the named one, its key's, or the next in turn. */
export const makeToMessage = (check: PartitionCheck): ((record: ProducerRecord) => MessageRecord) => {
  const turns = new Map<string, number>()
  const inTurn = (topic: string, count: number): number => {
    const turn = turns.get(topic) ?? 0
    turns.set(topic, turn + 1)
    return turn % count
  }
  return ({ headers, key, partition, timestampMillis, topic, value }) => {
    const bytes = key === undefined ? undefined : bytesOf(key)
    const count = check.countOf(topic)
    const chosen = partition ?? (bytes === undefined ? inTurn(topic, count) : partitionOf(bytes, count))
    return {
      topic,
      partition: chosen,
      // the library's types know no tombstones, its encoding does
      value: (value === null ? null : bytesOf(value)) as Buffer,
      ...(bytes === undefined ? {} : { key: bytes }),
      ...(headers === undefined ? {} : { headers: headersOf(headers) }),
      ...(timestampMillis === undefined ? {} : { timestamp: BigInt(timestampMillis) })
    }
  }
}

/** Produces with the library's producer. */
export const makeProduce = (
  connecting: Connecting,
  producer: Producer,
  partitionCheck: PartitionCheck
): ((records: ReadonlyArray<ProducerRecord>) => Effect.Effect<void, KafkaError>) => {
  const { brokers } = connecting
  const operation = "produce"
  const toMessage = makeToMessage(partitionCheck)
  /** With how many partitions of a topic the library has its metadata. */
  const known = new Map<string, number>()

  /** The library would write a record for a partition that it does not know yet to another one. */
  const knowPartitions = (topics: ReadonlyArray<string>): Effect.Effect<void, KafkaError> => {
    const grown = topics.filter((topic) => known.get(topic) !== partitionCheck.countOf(topic))
    if (grown.length === 0) return Effect.void
    const asked = Effect.tryPromise({
      try: () => metadataOf(producer, grown),
      catch: (error) => toKafkaError(error, { operation, brokers, topics: grown })
    })
    const learnt = Effect.flatMap(asked, (metadata) => {
      for (const topic of grown) {
        const count = metadata.topics.get(topic)?.partitionsCount ?? 0
        const expected = partitionCheck.countOf(topic)
        if (count < expected)
          return Effect.fail(
            new KafkaError({
              reason: "PartitionNotReady",
              operation,
              brokers,
              detail: `topic "${topic}" has ${expected} partitions, and a broker knows ${count} of them yet`,
              retriable: true
            })
          )
        known.set(topic, expected)
      }
      return Effect.void
    })
    return withRetry(connecting, learnt)
  }

  return Effect.fnUntraced(function* (records) {
    if (records.length === 0) return
    yield* partitionCheck.check(records)
    for (const request of toRequests(records)) {
      const messages = request.map(toMessage)
      const topics = [...new Set(request.map(({ topic }) => topic))]
      yield* knowPartitions(topics)
      yield* withRetry(
        connecting,
        Effect.tryPromise({
          try: () => producer.send({ messages, acks: -1 }),
          catch: (error) => toKafkaError(error, { operation, brokers, topics })
        })
      ).pipe(
        Effect.tapError((error) =>
          Effect.sync(() => {
            if (error.reason === "UnknownTopic") partitionCheck.forget(topics)
          })
        )
      )
    }
  })
}
