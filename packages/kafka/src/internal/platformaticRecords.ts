/** From the record batches of a fetch to records: what was aborted, what is only a marker, where the next fetch begins. */
import type { fetchV17, KafkaRecord as RawRecord, RecordsBatch } from "@platformatic/kafka"
import type { HeaderValue, KafkaRecord } from "../KafkaClient.ts"

const noHeaders: KafkaRecord["headers"] = Object.freeze({})

/** Bits of a batch's attributes. */
const logAppendTime = 1 << 3
const transactional = 1 << 4
const control = 1 << 5

/** A record around the library's: made for every record that is read, so it computes when asked what few ask for. */
class PlatformaticRecord implements KafkaRecord {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly raw: RawRecord
  readonly batch: RecordsBatch

  constructor(topic: string, partition: number, offset: number, raw: RawRecord, batch: RecordsBatch) {
    this.topic = topic
    this.partition = partition
    this.offset = offset
    this.raw = raw
    this.batch = batch
  }

  get key(): Buffer | undefined {
    return this.raw.key ?? undefined
  }

  get value(): Buffer | undefined {
    return this.raw.value ?? undefined
  }

  get timestampMillis(): number {
    const { attributes, firstTimestamp, maxTimestamp } = this.batch
    return Number(
      (attributes & logAppendTime) !== 0 ? maxTimestamp : firstTimestamp + this.raw.timestampDelta
    )
  }

  get headers(): Readonly<Record<string, HeaderValue | undefined>> {
    const { headers } = this.raw
    if (headers.length === 0) return noHeaders
    const byName: Record<string, HeaderValue | undefined> = {}
    for (const [name, value] of headers) {
      const key = String(name ?? "")
      const before = byName[key]
      const now = value ?? Buffer.alloc(0)
      if (before === undefined) byName[key] = now
      else byName[key] = Array.isArray(before) ? [...before, now] : [before as Buffer, now]
    }
    return byName
  }

  /** For logs and tests; the getters above are on the prototype, where JSON does not look. */
  toJSON(): KafkaRecord {
    const { topic, partition, offset, key, value, timestampMillis, headers } = this
    return { topic, partition, offset, key, value, timestampMillis, headers }
  }
}

/** Of a control batch: whether it ends a transaction by aborting it. */
const isAbort = (batch: RecordsBatch): boolean => batch.records[0]?.key?.readInt16BE(2) === 0

/**
 * The batches whose records a `read_committed` reader may see. As Kafka's own client does it: the broker names the
 * aborted transactions, each by its producer and first offset; each ends at the producer's next abort marker. A
 * producer may have had several of them in one fetch.
 */
export const committedBatches = (
  batches: ReadonlyArray<RecordsBatch>,
  aborted: ReadonlyArray<fetchV17.FetchResponsePartitionAbortedTransaction>
): Array<RecordsBatch> => {
  const pending = [...aborted].sort((left, right) => Number(left.firstOffset - right.firstOffset))
  const aborting = new Set<bigint>()
  const committed: Array<RecordsBatch> = []
  for (const batch of batches) {
    const last = batch.firstOffset + BigInt(batch.lastOffsetDelta)
    while (pending.length > 0 && pending[0]!.firstOffset <= last) aborting.add(pending.shift()!.producerId)
    if ((batch.attributes & control) !== 0) {
      if (isAbort(batch)) aborting.delete(batch.producerId)
    } else if ((batch.attributes & transactional) === 0 || !aborting.has(batch.producerId))
      committed.push(batch)
  }
  return committed
}

/** What a fetch from `fetchedOffset` brought of one partition; `undefined` where it brought nothing at all. */
export const readPartition = (
  topic: string,
  partition: number,
  fetchedOffset: number,
  response: fetchV17.FetchResponsePartition
): { readonly records: ReadonlyArray<KafkaRecord>; readonly nextOffset: number } | undefined => {
  const batches = response.records ?? []
  const last = batches.at(-1)
  if (last === undefined) return undefined
  const nextOffset = Number(last.firstOffset) + last.lastOffsetDelta + 1
  if (nextOffset <= fetchedOffset) return undefined
  const records: Array<KafkaRecord> = []
  for (const batch of committedBatches(batches, response.abortedTransactions ?? [])) {
    const first = Number(batch.firstOffset)
    for (const raw of batch.records) {
      const offset = first + raw.offsetDelta
      // a batch is sent whole, also where the fetch began within it
      if (offset >= fetchedOffset) records.push(new PlatformaticRecord(topic, partition, offset, raw, batch))
    }
  }
  return { records, nextOffset }
}
