/** Reads a topic from its beginning to its end, in a group of its own that commits nothing. */
import { Cause, Effect, Queue, type Scope } from "effect"
import { KafkaClient, type KafkaRecord, type RecordBatch } from "../KafkaClient.ts"
import type { KafkaError } from "../KafkaErrors.ts"

const sessionTimeoutMillis = 30_000

/** A partition that is being read. */
interface Reading {
  /** Where the next batch begins. */
  position: number
  /** Where to stop. */
  readonly end: number
}

export interface TopicReader {
  /**
   * Reads what is in the topic now, and perhaps some of what comes meanwhile, batch by batch, each of one partition and in
   * the order of its log. May be called again when it has ended.
   */
  readonly readAll: <E, R>(
    each: (records: ReadonlyArray<KafkaRecord>) => Effect.Effect<void, E, R>
  ) => Effect.Effect<void, KafkaError | E, R>
}

/** A reader, which leaves its group when the Scope closes. */
export const makeTopicReader = Effect.fnUntraced(function* (
  topic: string
): Effect.fn.Return<TopicReader, KafkaError, KafkaClient | Scope.Scope> {
  const client = yield* KafkaClient
  const batches = yield* Queue.unbounded<RecordBatch, KafkaError>()
  const readings = new Map<number, Reading>()

  const read = (partition: number, { position }: Reading): void => {
    member.seek({ topic, partition }, position)
    member.resume([{ topic, partition }])
  }
  const onBatch = (batch: RecordBatch): void => {
    const reading = readings.get(batch.partition)
    // one that was under way when the group was joined again comes once more
    if (reading === undefined || batch.fetchedOffset < reading.position) return
    reading.position = batch.nextOffset
    // of each partition one batch at a time is held here
    member.pause([batch])
    Queue.offerUnsafe(batches, batch)
  }
  const member = yield* client.join({
    groupId: `${topic}.redrive.${crypto.randomUUID()}`,
    topics: [topic],
    sessionTimeoutMillis,
    rebalanceTimeoutMillis: sessionTimeoutMillis,
    heartbeatIntervalMillis: sessionTimeoutMillis / 10,
    maxWaitMillis: 250,
    events: {
      onAssignment: () => {
        for (const [partition, reading] of readings) read(partition, reading)
      },
      onBatch,
      onHeartbeat: () => {},
      onEnd: ({ error, rejoins }) => {
        if (rejoins) return
        Queue.failCauseUnsafe(
          batches,
          error === undefined
            ? Cause.die(new Error(`the Kafka member that reads topic "${topic}" has ended`))
            : Cause.fail(error)
        )
      }
    }
  })

  const readAll: TopicReader["readAll"] = Effect.fnUntraced(function* (each) {
    const count = (yield* client.partitionCounts([topic])).get(topic) ?? 0
    const places = Array.from({ length: count }, (_, partition) => ({ topic, partition }))
    for (const { high, low, partition } of yield* client.logBounds(places))
      if (low < high) readings.set(partition, { position: low, end: high })
    for (const [partition, reading] of readings) read(partition, reading)
    while (readings.size > 0) {
      const { partition, records } = yield* Queue.take(batches)
      const reading = readings.get(partition) as Reading
      yield* each(records)
      if (reading.position >= reading.end) readings.delete(partition)
      else member.resume([{ topic, partition }])
    }
  })
  return { readAll }
})
