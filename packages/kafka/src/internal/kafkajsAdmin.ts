import { Effect, type Scope, Semaphore } from "effect"
import type { Admin } from "kafkajs"
import type { CommittedOffset, LogBounds, TopicPartition } from "../KafkaClient.ts"
import { KafkaError } from "../KafkaErrors.ts"
import { type AdminOperations, type TopicToCreate, topicsOf, unknownPartition } from "./adminOperations.ts"
import { type Connection, call } from "./kafkajsConnection.ts"
import { withRetry } from "./retrying.ts"

/**
 * The questions that kafkajs's admin client answers. The client is connected on first use, and replaced after a
 * failure: it would otherwise keep asking for a topic that was deleted, and fail with it for ever.
 */
export const makeAdmin = Effect.fnUntraced(function* (
  connection: Connection
): Effect.fn.Return<AdminOperations, never, Scope.Scope> {
  const { brokers } = connection
  const connecting = yield* Semaphore.make(1)
  let connected: Admin | undefined

  const disconnect = Effect.suspend(() => {
    const admin = connected
    connected = undefined
    if (admin === undefined) return Effect.void
    return Effect.ignore(Effect.tryPromise(() => admin.disconnect()))
  })
  yield* Effect.addFinalizer(() => disconnect)

  const connect = Effect.fnUntraced(function* (operation: string) {
    if (connected !== undefined) return connected
    const admin = connection.kafka.admin()
    yield* call(() => admin.connect(), { operation, brokers })
    connected = admin
    return admin
  })

  const askOnce = <A>(
    operation: string,
    topics: ReadonlyArray<string>,
    question: (admin: Admin) => Promise<A>
  ): Effect.Effect<A, KafkaError> =>
    connecting
      .withPermits(1)(connect(operation))
      .pipe(
        Effect.flatMap((admin) => call(() => question(admin), { operation, brokers, topics })),
        Effect.tapError(() => disconnect)
      )

  const ask: typeof askOnce = (operation, topics, question) =>
    withRetry(connection, askOnce(operation, topics, question))

  /**
   * kafkajs's picture of the cluster lacks a partition, for a moment: where several ask at once, one that was asked for
   * fewer topics may be the last to arrive. The next client gets a new one.
   */
  const notKnownYet = (operation: string, { partition, topic }: TopicPartition): KafkaError =>
    new KafkaError({
      reason: "PartitionNotReady",
      operation,
      brokers,
      detail: `the client does not know partition ${partition} of topic "${topic}" yet`,
      retriable: true
    })

  /** Makes the brokers create topics by asking for them as a reader would, which `admin` never does. */
  const touch = (operation: string, topics: ReadonlyArray<string>): Effect.Effect<void, KafkaError> =>
    withRetry(
      connection,
      Effect.suspend(() => {
        const reader = connection.kafka.consumer({ groupId: "tidemark-topics", allowAutoTopicCreation: true })
        return call(
          async () => {
            await reader.connect()
            await reader.subscribe({ topics: [...topics] })
          },
          { operation, brokers, topics }
        ).pipe(Effect.ensuring(Effect.ignore(Effect.tryPromise(() => reader.disconnect()))))
      }),
      // The topic is unknown until a moment after it was asked for.
      (error) => error.retriable || error.reason === "UnknownTopic"
    )

  const partitionCounts = Effect.fnUntraced(function* (
    topics: ReadonlyArray<string>,
    operation = "partitionCounts"
  ): Effect.fn.Return<ReadonlyMap<string, number>, KafkaError> {
    if (topics.length === 0) return new Map()
    const found = yield* ask(operation, topics, (admin) =>
      admin.fetchTopicMetadata({ topics: [...topics] })
    ).pipe(
      Effect.catchIf(
        (error) => connection.allowAutoTopicCreation && error.reason === "UnknownTopic",
        () =>
          Effect.andThen(
            touch(operation, topics),
            ask(operation, topics, (admin) => admin.fetchTopicMetadata({ topics: [...topics] }))
          )
      )
    )
    return new Map(found.topics.map(({ name, partitions }) => [name, partitions.length]))
  })

  const committed = Effect.fnUntraced(function* (
    groupId: string,
    partitions: ReadonlyArray<TopicPartition>
  ): Effect.fn.Return<ReadonlyArray<CommittedOffset>, KafkaError> {
    if (partitions.length === 0) return []
    const topics = topicsOf(partitions)
    return yield* ask("committed", topics, async (admin) => {
      const answers = await admin.fetchOffsets({ groupId, topics })
      return partitions.map(({ topic, partition }): CommittedOffset => {
        const answer = answers
          .find((candidate) => candidate.topic === topic)
          ?.partitions.find((candidate) => candidate.partition === partition)
        // it asks for the partitions that it knows, which says nothing about the others
        if (answer === undefined) throw notKnownYet("committed", { topic, partition })
        // -1 is "never committed"; kafkajs itself commits -2 or -1 when a position was out of range.
        const offset = Number(answer.offset)
        if (offset < 0) return { topic, partition, offset: undefined, metadata: undefined }
        return { topic, partition, offset, metadata: answer.metadata ?? "" }
      })
    })
  })

  const logBounds = Effect.fnUntraced(function* (
    partitions: ReadonlyArray<TopicPartition>
  ): Effect.fn.Return<ReadonlyArray<LogBounds>, KafkaError> {
    const topics = topicsOf(partitions)
    const bounds = yield* Effect.forEach(topics, (topic) =>
      ask("logBounds", [topic], (admin) =>
        admin.fetchTopicOffsets(topic).catch((error: unknown) => {
          // what kafkajs makes of a topic without partitions
          throw error instanceof TypeError ? notKnownYet("logBounds", { topic, partition: 0 }) : error
        })
      )
    )
    const byTopic = new Map(topics.map((topic, index) => [topic, bounds[index]!]))
    return yield* Effect.forEach(partitions, ({ topic, partition }) => {
      const found = byTopic.get(topic)?.find((candidate) => candidate.partition === partition)
      if (found === undefined)
        return Effect.fail(unknownPartition("logBounds", brokers, { topic, partition }))
      return Effect.succeed({ topic, partition, low: Number(found.low), high: Number(found.high) })
    })
  })

  const createTopic = Effect.fnUntraced(function* (topic: TopicToCreate): Effect.fn.Return<void, KafkaError> {
    const operation = "createTopics"
    const topics = [topic.topic]
    const configEntries = Object.entries(topic.config ?? {}).map(([name, value]) => ({ name, value }))
    const create = (admin: Admin) =>
      admin.createTopics({
        topics: [{ topic: topic.topic, numPartitions: topic.partitions, configEntries }],
        // kafkajs's own waiting gives up where the brokers don't know the topic yet
        waitForLeaders: false
      })
    // Brokers that only create topics by being asked for them (librdkafka's mock cluster) have no controller.
    yield* connection.allowAutoTopicCreation
      ? Effect.catch(askOnce(operation, topics, create), () => touch(operation, topics))
      : // a client that knows the topic from before it was deleted misses it first
        withRetry(
          connection,
          askOnce(operation, topics, create),
          (error) => error.retriable || error.reason === "UnknownTopic"
        )
    // A created topic is known to the controller first, and to the leaders of its partitions a moment later. Until all
    // of them answer, a produce to several would be sent again as a whole: those that took it would have it twice.
    yield* withRetry(
      connection,
      ask(operation, topics, (admin) => admin.fetchTopicOffsets(topic.topic)),
      (error) => error.reason === "UnknownTopic"
    )
  })

  return {
    partitionCounts,
    committed,
    logBounds,
    createTopics: (topics) => Effect.forEach(topics, createTopic, { discard: true })
  }
})
