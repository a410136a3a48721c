import type { Batch, KafkaMessage } from "kafkajs"
import type { HeaderValue, KafkaRecord } from "../KafkaClient.ts"

const noHeaders: KafkaRecord["headers"] = Object.freeze({})

/**
 * A record around kafkajs's message. This is made for every record that is read, so it copies four fields and
 * computes the rest when asked: parsing the timestamp alone would cost as much as making the object.
 */
class KafkaJsRecord implements KafkaRecord {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly message: KafkaMessage

  constructor(topic: string, partition: number, offset: number, message: KafkaMessage) {
    this.topic = topic
    this.partition = partition
    this.offset = offset
    this.message = message
  }

  get key(): Buffer | undefined {
    return this.message.key ?? undefined
  }

  get value(): Buffer | undefined {
    return this.message.value ?? undefined
  }

  get timestampMillis(): number {
    return Number(this.message.timestamp)
  }

  get headers(): Readonly<Record<string, HeaderValue | undefined>> {
    return this.message.headers ?? noHeaders
  }

  /** For logs and tests; the getters above are on the prototype, where JSON does not look. */
  toJSON(): KafkaRecord {
    const { topic, partition, offset, key, value, timestampMillis, headers } = this
    return { topic, partition, offset, key, value, timestampMillis, headers }
  }
}

/** Wraps a batch's messages. Offsets without a hole between them, which is the rule, are counted and not parsed. */
export const toRecords = (batch: Batch): Array<KafkaRecord> => {
  const { topic, partition, messages } = batch
  const count = messages.length
  const records = new Array<KafkaRecord>(count)
  if (count === 0) return records
  const first = Number(messages[0]!.offset)
  const dense = Number(messages[count - 1]!.offset) - first === count - 1
  for (let index = 0; index < count; index++) {
    const message = messages[index]!
    records[index] = new KafkaJsRecord(
      topic,
      partition,
      dense ? first + index : Number(message.offset),
      message
    )
  }
  return records
}
