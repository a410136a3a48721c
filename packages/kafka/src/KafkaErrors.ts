/**
 * What can go wrong between a Kafka client and its cluster, as one tagged error: why, in which operation, at which
 * brokers, and what a person can do about it.
 */
import { Schema } from "effect"

/** Why an operation failed. Match on it; `KafkaError.message` is for people. */
export const KafkaErrorReason = Schema.Literals([
  /** No broker could be reached, or the connection broke: what was sent may or may not have taken effect. */
  "Unreachable",
  /** No answer in time: what was sent may or may not have taken effect. */
  "RequestTimedOut",
  /** The topic, or a partition of it, does not exist. */
  "UnknownTopic",
  /** The cluster refuses us: wrong credentials, or no right to the topic or group. */
  "Unauthorized",
  /** The group has moved on: it is rebalancing, or knows this member no longer. Nothing was committed. */
  "StaleMember",
  /** The partition is not assigned to this member now. Nothing was committed. */
  "NotAssigned",
  /** This member has left its group, or was stopped. Nothing was committed. */
  "MemberEnded",
  /** The group's coordinator is loading or moving. */
  "CoordinatorNotReady",
  /** A partition has no leader, or too few replicas are in sync. */
  "PartitionNotReady",
  /**
   * This transactional producer can't go on: a newer one has its id, or the brokers have ended its transaction, of
   * which nothing takes effect.
   */
  "Fenced",
  /** An earlier transaction with this id is still being ended. */
  "TransactionPending",
  /** A record is larger than the topic allows. */
  "RecordTooLarge",
  /** The offset is outside the log. */
  "OffsetOutOfRange",
  /** The request itself is wrong: an empty group id, a reversed timeout. Nothing was sent. */
  "InvalidRequest",
  /** The brokers don't offer this operation. */
  "Unsupported",
  /** Anything else that a broker or the client library answered; see `detail` and `cause`. */
  "Protocol"
])
export type KafkaErrorReason = typeof KafkaErrorReason.Type

const advice: Record<KafkaErrorReason, string | undefined> = {
  Unreachable:
    "Check that the address is right (KAFKA_BROKERS), that a broker runs there, and that the address it advertises can be reached from here",
  RequestTimedOut: "The brokers may be overloaded, or the network slow",
  UnknownTopic: "Create it, or mend the name; topics are not created by reading from them",
  Unauthorized: "Check the credentials, and the rights to this topic and group",
  StaleMember: "The member joins again by itself; the partition's next owner goes on from the last commit",
  NotAssigned: "Another member owns it now",
  MemberEnded: "Join again to go on",
  CoordinatorNotReady: "It usually is ready within seconds; try again",
  PartitionNotReady: "A leader is usually elected within seconds; try again",
  Fenced:
    "If the partition is still assigned to this member, make the producer anew, and go on from the group's commit",
  TransactionPending: "It usually is over within moments; try again",
  RecordTooLarge: "Send less in one record, or raise the topic's max.message.bytes",
  OffsetOutOfRange: undefined,
  InvalidRequest: undefined,
  Unsupported: undefined,
  Protocol: undefined
}

/**
 * A Kafka operation failed.
 *
 * `retriable` says whether the same call may succeed later without a change. `detail` names the value concerned;
 * `message` adds the operation, the brokers that were tried and what to do.
 *
 * @example
 * new KafkaError({
 *   reason: "UnknownTopic", operation: "join", brokers: ["localhost:9092"],
 *   detail: "topic \"orders\" does not exist", retriable: false
 * }).message
 * // join at localhost:9092: UnknownTopic: topic "orders" does not exist. Create it, or mend the name; ...
 */
export class KafkaError extends Schema.TaggedError<KafkaError>()("KafkaError", {
  reason: KafkaErrorReason,
  /** What was being done: "join", "commit", "produce", "fetch", ... */
  operation: Schema.String,
  /** The addresses that were tried. */
  brokers: Schema.Array(Schema.String),
  /** What happened, with the value concerned. */
  detail: Schema.String,
  retriable: Schema.Boolean,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    const what = `${this.operation} at ${this.brokers.join(", ")}: ${this.reason}: ${this.detail}`
    const todo = advice[this.reason]
    return todo === undefined ? what : `${what}. ${todo}`
  }
}
