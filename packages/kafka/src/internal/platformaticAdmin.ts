import { type Base, type ClusterMetadata, findErrorBy, type listOffsetsV9 } from "@platformatic/kafka"
import { Effect, Schedule } from "effect"
import type { CommittedOffset, LogBounds, TopicPartition } from "../KafkaClient.ts"
import type { KafkaError } from "../KafkaErrors.ts"
import {
  type AdminOperations,
  placeOf,
  type TopicToCreate,
  topicsOf,
  unknownPartition
} from "./adminOperations.ts"
import {
  ask,
  type Connecting,
  connect,
  earliest,
  findCoordinator,
  latest,
  metadataOf,
  readCommitted
} from "./platformaticCluster.ts"
import { toKafkaError } from "./platformaticErrors.ts"
import { settling, withRetry } from "./retrying.ts"

/** The questions to brokers that need no group member, asked on a client's connections. */
export const makeAdmin = (connecting: Connecting, client: Base): AdminOperations => {
  const { brokers } = connecting

  const question = <A>(
    operation: string,
    topics: ReadonlyArray<string>,
    ask: () => Promise<A>,
    shouldRetry?: (error: KafkaError) => boolean
  ): Effect.Effect<A, KafkaError> =>
    withRetry(
      connecting,
      Effect.tryPromise({ try: ask, catch: (error) => toKafkaError(error, { operation, brokers, topics }) }),
      shouldRetry
    )

  // A topic that brokers create when they are asked for it is unknown until a moment after.
  const mayAppear = (error: KafkaError): boolean =>
    error.retriable || (connecting.allowAutoTopicCreation && error.reason === "UnknownTopic")

  const partitionCounts = (
    topics: ReadonlyArray<string>,
    operation = "partitionCounts"
  ): Effect.Effect<ReadonlyMap<string, number>, KafkaError> =>
    topics.length === 0
      ? Effect.succeed(new Map())
      : Effect.map(
          // one by one, so that an error names the topic that it is about
          Effect.forEach(topics, (topic) =>
            question(operation, [topic], () => metadataOf(client, [topic]), mayAppear)
          ),
          (found) => new Map(topics.map((topic, index) => [topic, countOf(found[index]!, topic)]))
        )

  const committed = Effect.fnUntraced(function* (
    groupId: string,
    partitions: ReadonlyArray<TopicPartition>,
    { stable = false }: { readonly stable?: boolean } = {}
  ): Effect.fn.Return<ReadonlyArray<CommittedOffset>, KafkaError> {
    if (partitions.length === 0) return []
    const topics = topicsOf(partitions)
    const found = yield* question("committed", topics, async () => {
      const connection = await connect(client, await findCoordinator(client, "group", groupId))
      const names = topics.map((name) => ({
        name,
        partitionIndexes: partitions.filter(({ topic }) => topic === name).map(({ partition }) => partition)
      }))
      const { answer, version } = await ask(
        client,
        connection,
        "OffsetFetch",
        [{ groupId, memberId: null, memberEpoch: -1, topics: names }],
        stable
      )
      return version >= 8
        ? (answer.groups[0]?.topics ?? [])
        : (answer as unknown as (typeof answer.groups)[number]).topics
    })
    return partitions.map(({ topic, partition }): CommittedOffset => {
      const answer = found
        .find(({ name }) => name === topic)
        ?.partitions.find(({ partitionIndex }) => partitionIndex === partition)
      // -1 is "never committed"; kafkajs, which others may use in this group, commits -2 or -1 when out of range.
      const offset = Number(answer?.committedOffset ?? -1)
      if (offset < 0) return { topic, partition, offset: undefined, metadata: undefined }
      return { topic, partition, offset, metadata: answer?.metadata ?? "" }
    })
  })

  const logBounds = (
    partitions: ReadonlyArray<TopicPartition>
  ): Effect.Effect<ReadonlyArray<LogBounds>, KafkaError> => {
    const topics = topicsOf(partitions)
    const wanted = new Set(partitions.map(placeOf))
    const operation = "logBounds"
    return Effect.flatMap(
      question(operation, topics, async () => {
        const metadata = await metadataOf(client, topics)
        const [low, high] = await Promise.all([
          listOffsets(client, metadata, topics, wanted, earliest),
          listOffsets(client, metadata, topics, wanted, latest)
        ])
        return { low, high }
      }),
      ({ low, high }) =>
        Effect.forEach(partitions, ({ topic, partition }) => {
          const place = placeOf({ topic, partition })
          const from = low.get(place)
          const to = high.get(place)
          return from === undefined || to === undefined
            ? Effect.fail(unknownPartition(operation, brokers, { topic, partition }))
            : Effect.succeed({ topic, partition, low: from, high: to })
        })
    )
  }

  const createTopic = Effect.fnUntraced(function* (topic: TopicToCreate): Effect.fn.Return<void, KafkaError> {
    const operation = "createTopics"
    const topics = [topic.topic]
    yield* question(operation, topics, async () => {
      const metadata = await metadataOf(client, [])
      const connection = await connect(client, metadata.brokers.get(metadata.controllerId))
      const configs = Object.entries(topic.config ?? {}).map(([name, value]) => ({ name, value }))
      const wanted = { name: topic.topic, numPartitions: topic.partitions, replicationFactor: -1 }
      try {
        const terms = [{ ...wanted, assignments: [], configs }]
        await ask(client, connection, "CreateTopics", terms, connecting.requestTimeoutMillis, false)
      } catch (error) {
        if (!(error instanceof Error) || findErrorBy(error, "apiId", "TOPIC_ALREADY_EXISTS") === null)
          throw error
      }
    })
    // A created topic is known to the controller first, and to the leaders of its partitions a moment later.
    const known = Effect.tryPromise({
      try: async () => {
        const metadata = await metadataOf(client, topics)
        await listOffsets(client, metadata, topics, undefined, latest)
      },
      catch: (error) => toKafkaError(error, { operation, brokers, topics })
    })
    const isSettling = ({ reason }: KafkaError): boolean => settling.has(reason)
    yield* withRetry(
      connecting,
      Effect.retry(known, { schedule: Schedule.spaced(50), times: 40, while: isSettling }),
      (error) => error.retriable || isSettling(error)
    )
  })

  return {
    partitionCounts,
    committed,
    logBounds,
    createTopics: (topics) => Effect.forEach(topics, createTopic, { discard: true })
  }
}

const countOf = (metadata: ClusterMetadata, topic: string): number =>
  metadata.topics.get(topic)?.partitionsCount ?? 0

/**
 * The offsets of this time, by place, of the partitions that exist: of those wanted, or of all of the topics. One
 * request for each leader.
 */
export const listOffsets = async (
  client: Base,
  metadata: ClusterMetadata,
  topics: ReadonlyArray<string>,
  wanted: ReadonlySet<string> | undefined,
  timestamp: bigint
): Promise<ReadonlyMap<string, number>> => {
  const byLeader = new Map<number, Array<listOffsetsV9.ListOffsetsRequestTopic>>()
  for (const topic of topics) {
    metadata.topics.get(topic)?.partitions.forEach(({ leader }, partition) => {
      if (wanted?.has(placeOf({ topic, partition })) === false) return
      const requested = {
        name: topic,
        partitions: [{ partitionIndex: partition, currentLeaderEpoch: -1, timestamp }]
      }
      const before = byLeader.get(leader)
      if (before === undefined) byLeader.set(leader, [requested])
      else
        before.find(({ name }) => name === topic)?.partitions.push(...requested.partitions) ??
          before.push(requested)
    })
  }
  const offsets = new Map<string, number>()
  await Promise.all(
    [...byLeader].map(async ([leader, requests]) => {
      const connection = await connect(client, metadata.brokers.get(leader))
      const { answer } = await ask(client, connection, "ListOffsets", -1, readCommitted, requests)
      for (const { name, partitions } of answer.topics)
        for (const { partitionIndex, offset } of partitions)
          offsets.set(placeOf({ topic: name, partition: partitionIndex }), Number(offset))
    })
  )
  return offsets
}
