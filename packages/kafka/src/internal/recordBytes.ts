import type { KafkaRecord } from "../KafkaClient.ts"

/** A record's bytes beside its key and value: headers, and what objects cost. A rough figure is enough for a bound. */
const overheadBytes = 100

/** What a record takes, as bounds count it. */
export const bytesOf = (record: KafkaRecord): number =>
  (record.key?.length ?? 0) + (record.value?.length ?? 0) + overheadBytes
