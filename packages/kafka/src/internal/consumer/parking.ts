import { Key, type RecordToPark } from "@tidemark/core"
import type { HeaderValue, KafkaRecord } from "../../KafkaClient.ts"
import { type Failure, type Origin, ownHeaders } from "../letters.ts"
import type { Settings } from "./settings.ts"

const asBuffer = (value: Buffer | string): Buffer => (typeof value === "string" ? Buffer.from(value) : value)

const valuesOf = (value: HeaderValue): ReadonlyArray<Buffer | string> =>
  typeof value === "string" || Buffer.isBuffer(value) ? [value] : value

/** The record as the store keeps it: under the place where it came from first, so that copies of it are one. */
export const toParked = (
  record: KafkaRecord,
  { offset, partition, timestampMillis, topic }: Origin,
  { message, tag }: Failure,
  attempts: number,
  { cluster, groupId }: Pick<Settings, "cluster" | "groupId">
): RecordToPark => {
  const place = { group: groupId, topic, partition }
  return {
    stream: Key.kafkaStream(cluster === undefined ? place : { ...place, cluster }),
    topic,
    partition,
    offset,
    timestampMillis,
    key: record.key,
    value: record.value,
    headers: Object.entries(ownHeaders(record)).flatMap(([name, value]) =>
      valuesOf(value).map((one) => ({ name, value: asBuffer(one) }))
    ),
    errorTag: tag,
    errorMessage: message,
    attempts: Math.max(1, attempts)
  }
}
