/** What stops a consumer, besides its handler, its store and its brokers. */
import { Schema } from "effect"

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
 * The log ends before what was completed in it: the topic was created anew, or an unclean election lost its end. Its
 * offsets mean other records now.
 */
export class LogWentBack extends Schema.TaggedError<LogWentBack>()("LogWentBack", {
  topic: Schema.String,
  partition: Schema.Number,
  groupId: Schema.String,
  /** One past the highest offset that was completed, committed or received. */
  highest: Schema.Number,
  /** Where the log ends now. */
  end: Schema.Number
}) {
  get retriable(): boolean {
    return false
  }
  override get message(): string {
    return (
      `partition ${this.partition} of topic "${this.topic}" ends at ${this.end}, and group "${this.groupId}" had come to ` +
      `${this.highest}: the topic was created anew, or records were lost. Forget the stream in the store and the group's ` +
      "commits to begin again, or use another group id"
    )
  }
}
