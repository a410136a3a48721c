import { Effect } from "effect"
import type { HeaderValue, ProducerRecord } from "../KafkaClient.ts"
import { KafkaError } from "../KafkaErrors.ts"

/** A request stays below the brokers' default limit of 1 MiB for one partition's part of it. */
const maxRequestBytes = 900_000
/** kafkajs copies a partition's list once for each record of a request, so that long lists cost their square. */
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

/** Knows how many partitions topics have, and refuses a record for one that does not exist before it is sent. */
export const makePartitionCheck = (
  brokers: ReadonlyArray<string>,
  partitionCounts: (
    topics: ReadonlyArray<string>,
    operation: string
  ) => Effect.Effect<ReadonlyMap<string, number>, KafkaError>
): PartitionCheck => {
  const operation = "produce"
  const known = new Map<string, number>()

  const outside = ({ partition, topic }: ProducerRecord): boolean => {
    const count = known.get(topic)
    if (count === undefined) return true
    return partition !== undefined && !(Number.isInteger(partition) && partition >= 0 && partition < count)
  }

  const check = Effect.fnUntraced(function* (records: ReadonlyArray<ProducerRecord>) {
    const unknown = new Set<string>()
    for (const record of records) if (outside(record)) unknown.add(record.topic)
    if (unknown.size === 0) return
    for (const [topic, count] of yield* partitionCounts([...unknown], operation)) known.set(topic, count)
    const wrong = records.find(outside)
    if (wrong === undefined) return
    const detail = `topic "${wrong.topic}" has ${known.get(wrong.topic) ?? 0} partitions, none numbered ${wrong.partition}`
    return yield* new KafkaError({ reason: "UnknownTopic", operation, brokers, detail, retriable: false })
  })

  return {
    check,
    countOf: (topic) => known.get(topic) ?? 0,
    forget: (topics) => {
      for (const topic of topics) known.delete(topic)
    }
  }
}

export interface PartitionCheck {
  /** Fails with `UnknownTopic` where a record's topic, or the partition that it names, does not exist. */
  readonly check: (records: ReadonlyArray<ProducerRecord>) => Effect.Effect<void, KafkaError>
  /** How many partitions a checked topic has. */
  readonly countOf: (topic: string) => number
  /** These may not exist any more: they are asked for again. */
  readonly forget: (topics: ReadonlyArray<string>) => void
}
