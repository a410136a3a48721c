import { KafkaError, type KafkaErrorReason } from "../KafkaErrors.ts"

/** kafkajs wraps an error once for each layer that gave up on it; the innermost one says what happened. */
const rootOf = (error: unknown): unknown => {
  let root = error
  for (let depth = 0; depth < 10; depth++) {
    if (!(root instanceof Error)) return root
    const first = "errors" in root && Array.isArray(root.errors) ? root.errors[0] : undefined
    const inner = first ?? root.cause
    if (!(inner instanceof Error) || inner === root) return root
    root = inner
  }
  return root
}

/** By the protocol's error names, which kafkajs keeps in `type`. */
const byType: Readonly<Record<string, KafkaErrorReason>> = {
  UNKNOWN_TOPIC_OR_PARTITION: "UnknownTopic",
  INVALID_TOPIC_EXCEPTION: "InvalidRequest",
  UNKNOWN_TOPIC_ID: "UnknownTopic",
  ILLEGAL_GENERATION: "StaleMember",
  UNKNOWN_MEMBER_ID: "StaleMember",
  REBALANCE_IN_PROGRESS: "StaleMember",
  FENCED_INSTANCE_ID: "StaleMember",
  GROUP_LOAD_IN_PROGRESS: "CoordinatorNotReady",
  GROUP_COORDINATOR_NOT_AVAILABLE: "CoordinatorNotReady",
  NOT_COORDINATOR_FOR_GROUP: "CoordinatorNotReady",
  LEADER_NOT_AVAILABLE: "PartitionNotReady",
  NOT_LEADER_FOR_PARTITION: "PartitionNotReady",
  REPLICA_NOT_AVAILABLE: "PartitionNotReady",
  NOT_ENOUGH_REPLICAS: "PartitionNotReady",
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: "PartitionNotReady",
  KAFKA_STORAGE_ERROR: "PartitionNotReady",
  FENCED_LEADER_EPOCH: "PartitionNotReady",
  UNKNOWN_LEADER_EPOCH: "PartitionNotReady",
  OFFSET_NOT_AVAILABLE: "PartitionNotReady",
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

/** By the names of kafkajs's own error classes. */
const byName: Readonly<Record<string, KafkaErrorReason>> = {
  KafkaJSConnectionError: "Unreachable",
  KafkaJSConnectionClosedError: "Unreachable",
  KafkaJSBrokerNotFound: "Unreachable",
  KafkaJSNoBrokerAvailableError: "Unreachable",
  KafkaJSMetadataNotLoaded: "Unreachable",
  KafkaJSLockTimeout: "RequestTimedOut",
  KafkaJSTimeout: "RequestTimedOut",
  KafkaJSRequestTimeoutError: "RequestTimedOut",
  KafkaJSGroupCoordinatorNotFound: "CoordinatorNotReady",
  KafkaJSSASLAuthenticationError: "Unauthorized",
  KafkaJSServerDoesNotSupportApiKey: "Unsupported",
  KafkaJSNotImplemented: "Unsupported"
}

const passing: ReadonlySet<KafkaErrorReason> = new Set([
  "Unreachable",
  "RequestTimedOut",
  "StaleMember",
  "CoordinatorNotReady",
  "PartitionNotReady"
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

/** Says in our terms what a kafkajs error means. */
export const toKafkaError = (error: unknown, context: ErrorContext): KafkaError => {
  if (error instanceof KafkaError) return error
  const root = rootOf(error)
  const { type, name, message, retriable } = root as {
    readonly type?: string
    readonly name?: string
    readonly message?: string
    readonly retriable?: boolean
  }
  const reason = byType[type ?? ""] ?? byName[name ?? ""] ?? "Protocol"
  const text = message ?? String(root)
  return new KafkaError({
    reason,
    operation: context.operation,
    brokers: context.brokers,
    detail: reason === "UnknownTopic" ? `${named(context.topics)} does not exist (${text})` : text,
    retriable: passing.has(reason) || (reason === "Protocol" && retriable === true),
    cause: error
  })
}
