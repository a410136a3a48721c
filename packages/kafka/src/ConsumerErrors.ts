/** What stops a consumer, besides its handler, its store and its brokers. */
import { Data, Schema } from "effect"
import type { KafkaRecord } from "./KafkaClient.ts"

const isoTime = (millis: number): string =>
  Math.abs(millis) <= 8.64e15 ? new Date(millis).toISOString() : `${millis} ms`

/**
 * We have committed positions of this partition in Kafka, and the durable store knows nothing of it: it was emptied,
 * or another one is configured. Going on would run again what was completed above the commit.
 */
export class StoreLost extends Schema.TaggedError<StoreLost>()("StoreLost", {
  topic: Schema.String,
  partition: Schema.Number,
  groupId: Schema.String,
  /** The position that the group has committed. */
  committed: Schema.Number,
  /** The epoch in the commit that the store does not have. */
  epoch: Schema.Number
}) {
  get retriable(): boolean {
    return false
  }
  override get message(): string {
    return (
      `group "${this.groupId}" has committed ${this.committed} (epoch ${this.epoch}) for partition ${this.partition} of topic ` +
      `"${this.topic}", and the store has lost what it knew. Check that it is the right store and restore it, or set ` +
      'whenStoreLost: "resume" to go on at the commit'
    )
  }
}

/**
 * The log ends before what was completed in it, or has another record there: the topic was created anew, or an unclean
 * election lost its end. Its offsets mean other records now.
 */
export class LogWentBack extends Schema.TaggedError<LogWentBack>()("LogWentBack", {
  topic: Schema.String,
  partition: Schema.Number,
  groupId: Schema.String,
  /** One past the highest offset that was completed, committed or received. */
  highest: Schema.Number,
  /** Where the log ends now. */
  end: Schema.Number,
  /** A record that was completed and is not the same any more; times in milliseconds since the epoch. */
  changed: Schema.optionalKey(
    Schema.Struct({
      offset: Schema.Number,
      timestampMillis: Schema.Number,
      /** The timestamp of what is there now; missing where nothing is. */
      nowMillis: Schema.UndefinedOr(Schema.Number)
    })
  )
}) {
  get retriable(): boolean {
    return false
  }
  /** What was found, without advice. */
  get what(): string {
    const where = `partition ${this.partition} of topic "${this.topic}"`
    if (this.changed === undefined)
      return (
        `${where} ends at ${this.end}, and group "${this.groupId}" had come to ${this.highest}: the topic was created ` +
        "anew, or records were lost"
      )
    const { nowMillis, offset, timestampMillis } = this.changed
    const found = nowMillis === undefined ? "is not there" : `is of ${isoTime(nowMillis)} now`
    return (
      `the commit of group "${this.groupId}" for ${where} is gone, and so is the log that it was about: the record at ` +
      `offset ${offset}, which was of ${isoTime(timestampMillis)}, ${found}. The topic was created anew, or compacted`
    )
  }
  override get message(): string {
    const goOn =
      this.changed === undefined
        ? ""
        : "; if it is the same log all the same, set the group's offset with an admin tool to where it shall go on"
    return (
      `${this.what}. To begin again at its first record set whenLogWentBack: "reset", or forget the stream in the store ` +
      `and the group's commits${goOn}`
    )
  }
}

/**
 * A handler was at work for longer than `stallTimeout`, and was interrupted. It is tried again, and its record set aside,
 * as after any other failure.
 */
export class HandlerStalled extends Schema.TaggedError<HandlerStalled>()("HandlerStalled", {
  topic: Schema.String,
  partition: Schema.Number,
  /** Its record's, or that of a batch's first. */
  offset: Schema.Number,
  /** How many records it had. */
  records: Schema.Number,
  /** How long it was at work, in milliseconds. */
  millis: Schema.Number
}) {
  get retriable(): boolean {
    return true
  }
  override get message(): string {
    const others = this.records > 1 ? ` and the ${this.records - 1} after it in its batch` : ""
    return (
      `the handler of the record at offset ${this.offset} of partition ${this.partition} of topic "${this.topic}"${others} ` +
      `was at work for ${this.millis} ms, as long as stallTimeout allows, and is interrupted`
    )
  }
}

/** A record could not be decoded. */
export class DecodeFailed extends Schema.TaggedError<DecodeFailed>()("DecodeFailed", {
  topic: Schema.String,
  partition: Schema.Number,
  offset: Schema.Number,
  /** What does not fit, in words. */
  detail: Schema.String,
  /** Whether it may be decoded later: the decoder's own failure said so, since a schema registry did not answer, say. */
  retriable: Schema.Boolean,
  /** What the decoder failed with. */
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    return (
      `the record at offset ${this.offset} of partition ${this.partition} of topic "${this.topic}" can't be decoded: ` +
      this.detail
    )
  }
}

/**
 * A record failed, and could not be set aside either: the topic for it does not take it, or the store. The consumer
 * stops; the record is not done, and comes again.
 */
export class SetAsideFailed extends Schema.TaggedError<SetAsideFailed>()("SetAsideFailed", {
  topic: Schema.String,
  partition: Schema.Number,
  offset: Schema.Number,
  /** Where it was to go, in words. */
  target: Schema.String,
  /** Why the record failed, in words. */
  failure: Schema.String,
  retriable: Schema.Boolean,
  /** Why it could not be set aside. */
  cause: Schema.Defect()
}) {
  override get message(): string {
    const why = this.cause instanceof Error ? this.cause.message : String(this.cause)
    return (
      `the record at offset ${this.offset} of partition ${this.partition} of topic "${this.topic}" failed ` +
      `(${this.failure}), and could not be set aside in ${this.target}: ${why}. The record is not done, and comes again ` +
      "when the consumer starts again"
    )
  }
}

/**
 * What a batch handler fails with when some of its records have taken effect: those are completed, the others are not.
 *
 * @example
 * handleBatch: (orders) =>
 *   Effect.flatMap(Effect.partition(orders, charge), ([failures, charged]) =>
 *     failures.length === 0 ? Effect.void : Effect.fail(new PartlyDone({ done: charged, cause: failures[0] }))
 *   )
 */
export class PartlyDone extends Data.TaggedError("PartlyDone")<{
  /** Those of the batch's records that have taken effect. */
  readonly done: ReadonlyArray<KafkaRecord>
  /** Why the others have not. */
  readonly cause: unknown
}> {
  override get message(): string {
    const { cause, done } = this
    const why = cause instanceof Error ? cause.message : String(cause)
    return `${done.length} records of a batch are done and completed, the others are not: ${why}`
  }
}
