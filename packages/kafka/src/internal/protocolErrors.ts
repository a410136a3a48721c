import { KafkaError, type KafkaErrorReason } from "../KafkaErrors.ts"

/** By the protocol's error names: Kafka's own, and where kafkajs has older ones, those too. */
const reasons: Readonly<Record<string, KafkaErrorReason>> = {
  UNKNOWN_TOPIC_OR_PARTITION: "UnknownTopic",
  INVALID_TOPIC_EXCEPTION: "InvalidRequest",
  UNKNOWN_TOPIC_ID: "UnknownTopic",
  INCONSISTENT_TOPIC_ID: "UnknownTopic",
  ILLEGAL_GENERATION: "StaleMember",
  UNKNOWN_MEMBER_ID: "StaleMember",
  REBALANCE_IN_PROGRESS: "StaleMember",
  FENCED_INSTANCE_ID: "StaleMember",
  COORDINATOR_LOAD_IN_PROGRESS: "CoordinatorNotReady",
  GROUP_LOAD_IN_PROGRESS: "CoordinatorNotReady",
  COORDINATOR_NOT_AVAILABLE: "CoordinatorNotReady",
  GROUP_COORDINATOR_NOT_AVAILABLE: "CoordinatorNotReady",
  NOT_COORDINATOR: "CoordinatorNotReady",
  NOT_COORDINATOR_FOR_GROUP: "CoordinatorNotReady",
  LEADER_NOT_AVAILABLE: "PartitionNotReady",
  NOT_LEADER_OR_FOLLOWER: "PartitionNotReady",
  NOT_LEADER_FOR_PARTITION: "PartitionNotReady",
  REPLICA_NOT_AVAILABLE: "PartitionNotReady",
  NOT_ENOUGH_REPLICAS: "PartitionNotReady",
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: "PartitionNotReady",
  KAFKA_STORAGE_ERROR: "PartitionNotReady",
  FENCED_LEADER_EPOCH: "PartitionNotReady",
  UNKNOWN_LEADER_EPOCH: "PartitionNotReady",
  OFFSET_NOT_AVAILABLE: "PartitionNotReady",
  INVALID_PRODUCER_EPOCH: "Fenced",
  PRODUCER_FENCED: "Fenced",
  INVALID_PRODUCER_ID_MAPPING: "Fenced",
  INVALID_TXN_STATE: "Fenced",
  OUT_OF_ORDER_SEQUENCE_NUMBER: "Fenced",
  UNKNOWN_PRODUCER_ID: "Fenced",
  TRANSACTION_ABORTABLE: "Fenced",
  CONCURRENT_TRANSACTIONS: "TransactionPending",
  UNSTABLE_OFFSET_COMMIT: "TransactionPending",
  TRANSACTION_COORDINATOR_FENCED: "CoordinatorNotReady",
  INVALID_TRANSACTION_TIMEOUT: "InvalidRequest",
  MESSAGE_TOO_LARGE: "RecordTooLarge",
  RECORD_LIST_TOO_LARGE: "RecordTooLarge",
  OFFSET_OUT_OF_RANGE: "OffsetOutOfRange",
  REQUEST_TIMED_OUT: "RequestTimedOut",
  NETWORK_EXCEPTION: "Unreachable",
  BROKER_NOT_AVAILABLE: "Unreachable",
  TOPIC_AUTHORIZATION_FAILED: "Unauthorized",
  GROUP_AUTHORIZATION_FAILED: "Unauthorized",
  CLUSTER_AUTHORIZATION_FAILED: "Unauthorized",
  TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "Unauthorized",
  SASL_AUTHENTICATION_FAILED: "Unauthorized",
  UNSUPPORTED_SASL_MECHANISM: "Unauthorized",
  ILLEGAL_SASL_STATE: "Unauthorized",
  UNSUPPORTED_VERSION: "Unsupported",
  INVALID_GROUP_ID: "InvalidRequest",
  INVALID_SESSION_TIMEOUT: "InvalidRequest",
  INVALID_PARTITIONS: "InvalidRequest",
  INVALID_REPLICATION_FACTOR: "InvalidRequest",
  INVALID_CONFIG: "InvalidRequest",
  OFFSET_METADATA_TOO_LARGE: "InvalidRequest"
}

/** What an error of the protocol means for us; `undefined` where it has no reason of its own. */
export const reasonOf = (protocolError: string | undefined): KafkaErrorReason | undefined =>
  protocolError === undefined ? undefined : reasons[protocolError]

const passing: ReadonlySet<KafkaErrorReason> = new Set([
  "Unreachable",
  "RequestTimedOut",
  "StaleMember",
  "CoordinatorNotReady",
  "PartitionNotReady",
  "TransactionPending"
])

/** What was done, where, and on what, for the sentences in an error. */
export interface ErrorContext {
  readonly operation: string
  readonly brokers: ReadonlyArray<string>
  readonly topics?: ReadonlyArray<string>
}

const named = (topics: ReadonlyArray<string> | undefined): string =>
  topics === undefined || topics.length === 0
    ? "a topic"
    : `${topics.length === 1 ? "topic" : "one of the topics"} ${topics.map((topic) => `"${topic}"`).join(", ")}`

/** An error in our terms, made of what a client library has thrown. */
export const makeKafkaError = (
  reason: KafkaErrorReason,
  text: string,
  context: ErrorContext,
  cause: unknown,
  mayPass = false
): KafkaError =>
  new KafkaError({
    reason,
    operation: context.operation,
    brokers: context.brokers,
    detail: reason === "UnknownTopic" ? `${named(context.topics)} does not exist (${text})` : text,
    retriable: passing.has(reason) || (reason === "Protocol" && mayPass),
    cause
  })
