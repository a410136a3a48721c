import type { Effect } from "effect"
import type { CommittedOffset, LogBounds, TopicPartition } from "../KafkaClient.ts"
import { KafkaError } from "../KafkaErrors.ts"

/** A topic to be created, with the brokers' own number of replicas. */
export interface TopicToCreate {
  readonly topic: string
  readonly partitions: number
  readonly config?: Readonly<Record<string, string>>
}

/** What a driver asks of brokers besides records and groups. */
export interface AdminOperations {
  readonly partitionCounts: (
    topics: ReadonlyArray<string>,
    operation?: string
  ) => Effect.Effect<ReadonlyMap<string, number>, KafkaError>
  readonly committed: (
    groupId: string,
    partitions: ReadonlyArray<TopicPartition>
  ) => Effect.Effect<ReadonlyArray<CommittedOffset>, KafkaError>
  readonly logBounds: (
    partitions: ReadonlyArray<TopicPartition>
  ) => Effect.Effect<ReadonlyArray<LogBounds>, KafkaError>
  readonly createTopics: (topics: ReadonlyArray<TopicToCreate>) => Effect.Effect<void, KafkaError>
}

/** The topics of these partitions, each once. */
export const topicsOf = (partitions: ReadonlyArray<TopicPartition>): Array<string> => [
  ...new Set(partitions.map(({ topic }) => topic))
]

/** The error for a partition that does not exist. */
export const unknownPartition = (
  operation: string,
  brokers: ReadonlyArray<string>,
  { topic, partition }: TopicPartition
): KafkaError =>
  new KafkaError({
    reason: "UnknownTopic",
    operation,
    brokers,
    detail: `topic "${topic}" has no partition ${partition}`,
    retriable: false
  })

/** A text for a partition, to be a key by. */
export const placeOf = ({ topic, partition }: TopicPartition): string => `${partition}/${topic}`
