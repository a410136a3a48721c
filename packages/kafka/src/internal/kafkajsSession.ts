/**
 * One kafkajs consumer, from its connection to its end. kafkajs never joins again by itself under a session: its own
 * restart can't be stopped while it joins, and would leave a member behind that nobody can reach.
 *
 * The rules that this file follows were read in the source of kafkajs 2.2.4; each is named where it matters.
 */
import type { Batch, Consumer, ConsumerCrashEvent, EachBatchPayload } from "kafkajs"
import type { MemberEvents, MemberOptions, OffsetCommit, TopicPartition } from "../KafkaClient.ts"
import type { Connection, MemberKafka } from "./kafkajsConnection.ts"
import { toRecords } from "./kafkajsRecords.ts"
import type { Session, SessionEvents } from "./membership.ts"

/** What kafkajs's types leave out. */
interface FetchedBatch extends Batch {
  readonly fetchedOffset: string
}

interface PartitionState extends TopicPartition {
  sought: boolean
  resumed: boolean
  /** Whether it was resumed at all since the last join. */
  started: boolean
  /** Where the next batch should begin. */
  expectedOffset: number
  /** Whether nothing has come since the last `seek`, so that a batch elsewhere may be left over from before. */
  fresh: boolean
  /** Lets the fetch loop go on, which waits while this partition's last batch is paused. */
  letGo: (() => void) | undefined
}

const keyOf = (topic: string, partition: number): string => `${partition}/${topic}`

/** Enough that no partition's batch waits for another's; workers without a batch cost nothing. */
const partitionsConsumedConcurrently = 64

/** The session's handle on kafkajs. All methods but `run` and `leave` are synchronous, as the fetch loop needs. */
export class KafkaJsSession implements Session {
  readonly consumer: Consumer
  readonly #options: MemberOptions
  readonly #events: MemberEvents
  readonly #session: SessionEvents
  readonly #memberKafka: MemberKafka
  #partitions = new Map<string, PartitionState>()
  #epoch = 0
  #joined = false
  /** Whether it has ever fetched. Until then `stop` does nothing: kafkajs would go on joining, and never leave. */
  #fetching = false
  /** Resolved at the first fetch, or at the end if there is none. */
  readonly #firstFetch: Promise<void>
  readonly #resolveFirstFetch: () => void
  /** Whether kafkajs has stopped by itself: a crash, of which it tells later. Its methods throw from then on. */
  #lost = false
  #leaving = false
  #ended = false
  /** kafkajs's own commit, without the retries which could carry an old commit over into a new generation. */
  #commitOnce: EachBatchPayload["commitOffsetsIfNecessary"] | undefined
  #disconnecting: Promise<void> | undefined

  constructor(
    memberKafka: MemberKafka,
    connection: Connection,
    options: MemberOptions,
    session: SessionEvents
  ) {
    this.#options = options
    this.#events = options.events
    this.#session = session
    this.#memberKafka = memberKafka
    const firstFetch = Promise.withResolvers<void>()
    this.#firstFetch = firstFetch.promise
    this.#resolveFirstFetch = firstFetch.resolve
    this.consumer = memberKafka.kafka.consumer({
      groupId: options.groupId,
      sessionTimeout: options.sessionTimeoutMillis,
      rebalanceTimeout: options.rebalanceTimeoutMillis,
      heartbeatInterval: options.heartbeatIntervalMillis,
      maxWaitTimeInMs: options.maxWaitMillis,
      minBytes: 1,
      maxBytesPerPartition: connection.maxBytesPerPartition,
      maxBytes: connection.maxBytes,
      metadataMaxAge: connection.metadataMaxAgeMillis,
      allowAutoTopicCreation: connection.allowAutoTopicCreation,
      readUncommitted: false,
      retry: {
        retries: 5,
        initialRetryTime: 200,
        maxRetryTime: 5_000,
        factor: 0.2,
        multiplier: 2,
        restartOnFailure: () => Promise.resolve(false)
      }
    })
    const { events } = this.consumer
    this.consumer.on(events.GROUP_JOIN, ({ payload }) =>
      this.#onGroupJoin(payload.memberId, payload.memberAssignment)
    )
    this.consumer.on(events.HEARTBEAT, () => {
      if (this.isIn()) this.#events.onHeartbeat()
    })
    this.consumer.on(events.FETCH_START, () => {
      this.#fetching = true
      this.#resolveFirstFetch()
    })
    this.consumer.on(events.END_BATCH_PROCESS, ({ payload }) => {
      if (payload.batchSize === 0) this.#onEmptyBatch(payload)
    })
    // A crash shows as STOP, DISCONNECT and then CRASH, with the time between them that disconnecting takes.
    this.consumer.on(events.STOP, () => this.#lose())
    this.consumer.on(events.DISCONNECT, () => this.#lose())
    this.consumer.on(events.CRASH, (event: ConsumerCrashEvent) => this.end(event.payload.error))
  }

  /** Connects, subscribes and begins to join. Resolves before the group was joined if kafkajs gave up: see `onEnd`. */
  async run(): Promise<void> {
    await this.consumer.connect()
    // With `fromBeginning: false`, kafkajs commits the log's end when a position is out of range.
    await this.consumer.subscribe({ topics: [...this.#options.topics], fromBeginning: true })
    await this.consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently,
      eachBatch: (payload) => this.#onBatch(payload)
    })
  }

  /** Whether this session is a member of the group, as far as it knows. */
  isIn(): boolean {
    return this.#joined && !this.#lost && !this.#leaving && !this.#ended
  }

  isAssigned({ topic, partition }: TopicPartition): boolean {
    return this.#partitions.has(keyOf(topic, partition))
  }

  pause(partitions: ReadonlyArray<TopicPartition>): void {
    if (!this.isIn()) return
    for (const { topic, partition } of partitions) {
      const state = this.#partitions.get(keyOf(topic, partition))
      if (state === undefined || !state.resumed) continue
      state.resumed = false
      this.consumer.pause([{ topic, partitions: [partition] }])
    }
  }

  resume(partitions: ReadonlyArray<TopicPartition>): void {
    if (!this.isIn()) return
    for (const { topic, partition } of partitions) {
      const state = this.#partitions.get(keyOf(topic, partition))
      if (state === undefined || state.resumed) continue
      state.resumed = true
      this.#start(state)
    }
  }

  seek({ topic, partition }: TopicPartition, offset: number): void {
    if (!this.isIn()) return
    const state = this.#partitions.get(keyOf(topic, partition))
    if (state === undefined) return
    state.sought = true
    state.fresh = true
    state.expectedOffset = offset
    this.consumer.seek({ topic, partition, offset: String(offset) })
    this.#start(state)
  }

  #start(state: PartitionState): void {
    if (!state.sought || !state.resumed) return
    state.started = true
    this.consumer.resume([{ topic: state.topic, partitions: [state.partition] }])
    state.letGo?.()
  }

  /**
   * Sends one commit, under the generation of this moment. Answers whether the session was still the same member
   * afterwards: kafkajs resolves a commit without having sent it before its first fetch, and when it is stopped.
   */
  async commit(commits: ReadonlyArray<OffsetCommit>): Promise<boolean> {
    const epoch = this.#epoch
    if (!this.#fetching) await this.#firstFetch
    if (!this.isIn() || this.#epoch !== epoch) return false
    const offsets = commits.map(({ topic, partition, offset, metadata }) => ({
      topic,
      partition,
      offset: String(offset),
      metadata
    }))
    if (this.#commitOnce === undefined) await this.consumer.commitOffsets(offsets)
    else {
      const topics = [...new Set(offsets.map(({ topic }) => topic))].map((topic) => ({
        topic,
        partitions: offsets.filter((entry) => entry.topic === topic)
      }))
      await this.#commitOnce({ topics })
    }
    return this.isIn() && this.#epoch === epoch
  }

  /**
   * Leaves the group and disconnects. During its first join kafkajs can't be stopped, so this waits for its first
   * fetch, or for the join to fail.
   */
  async leave(): Promise<void> {
    this.#leaving = true
    this.#letAllGo()
    if (this.#ended) return
    if (!this.#fetching) await this.#firstFetch
    if (!this.#ended) await this.#disconnect()
  }

  /** The session is over. */
  end(error: Error | undefined): void {
    if (this.#ended) return
    this.#ended = true
    this.#letAllGo()
    this.#resolveFirstFetch()
    this.#session.onEnd({ error: this.#leaving ? undefined : error, joined: this.#joined })
  }

  cut(): void {
    this.#memberKafka.destroySockets()
  }

  release(): void {
    this.#memberKafka.release()
  }

  #disconnect(): Promise<void> {
    this.#disconnecting ??= this.consumer.disconnect().then(
      () => this.end(undefined),
      () => this.end(undefined)
    )
    return this.#disconnecting
  }

  #lose(): void {
    this.#letAllGo()
    if (!this.isIn()) return
    this.#lost = true
    this.#session.onLost()
  }

  #letAllGo(): void {
    for (const state of this.#partitions.values()) state.letGo?.()
  }

  /**
   * The only sign of a join that always comes. kafkajs fetches from the group's commit after it, so everything is
   * paused before this returns. Pauses are kept through joins, and must name partitions: one for the whole topic
   * would be undone by the next one for a partition.
   */
  #onGroupJoin(memberId: string, assignment: { readonly [topic: string]: ReadonlyArray<number> }): void {
    this.#letAllGo()
    this.#epoch++
    this.#partitions = new Map()
    const assigned: Array<TopicPartition> = []
    for (const [topic, partitions] of Object.entries(assignment)) {
      this.consumer.pause([{ topic, partitions: [...partitions] }])
      for (const partition of [...partitions].sort((left, right) => left - right)) {
        assigned.push({ topic, partition })
        this.#partitions.set(keyOf(topic, partition), {
          topic,
          partition,
          sought: false,
          resumed: false,
          started: false,
          expectedOffset: 0,
          fresh: true,
          letGo: undefined
        })
      }
    }
    this.#joined = true
    if (!this.isIn()) return
    this.#events.onHeartbeat()
    this.#events.onAssignment({ memberId, generation: undefined, partitions: assigned })
  }

  /** Hands a batch on. Never throws: kafkajs would take it for a crash. */
  #onBatch({ batch, resolveOffset, isStale, commitOffsetsIfNecessary }: EachBatchPayload): Promise<void> {
    this.#commitOnce = commitOffsetsIfNecessary
    const state = this.#partitions.get(keyOf(batch.topic, batch.partition))
    // Unresolved, it is fetched again from where the pending `seek` says.
    if (state === undefined || !state.started || !this.isIn() || isStale()) return Promise.resolve()
    const fetchedOffset = Number((batch as FetchedBatch).fetchedOffset)
    if (state.fresh && fetchedOffset !== state.expectedOffset) {
      this.#fetchAgain(state)
      return Promise.resolve()
    }
    // What was resolved is where the next fetch begins, so this can't wait until the records are processed.
    const lastOffset = batch.lastOffset()
    try {
      resolveOffset(lastOffset)
    } catch {
      // A join has just taken the topic away, and its GROUP_JOIN follows: the partition's next owner reads this.
      return Promise.resolve()
    }
    const nextOffset = Number(lastOffset) + 1
    state.fresh = false
    state.expectedOffset = nextOffset
    this.#events.onBatch({
      topic: batch.topic,
      partition: batch.partition,
      records: toRecords(batch),
      fetchedOffset,
      nextOffset,
      highWatermark: Number(batch.highWatermark)
    })
    return state.resumed ? Promise.resolve() : this.#holdBack(state)
  }

  /**
   * A batch at another offset than the one that was just sought is either left over from before (its partition's
   * leader moved, and two fetch loops overlapped), or tells that the offset is outside the log. Seeking once more
   * tells which: left over, it does not come again.
   */
  #fetchAgain(state: PartitionState): void {
    const { topic, partition, expectedOffset } = state
    this.consumer.seek({ topic, partition, offset: String(expectedOffset) })
    state.fresh = false
  }

  /**
   * kafkajs fetches all partitions together: with this one paused, its next fetch would wait for the others' data,
   * or sleep, for `maxWaitMillis`, however soon this one is resumed. So the loop waits for the resume instead, for
   * that long at most.
   */
  #holdBack(state: PartitionState): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => state.letGo?.(), this.#options.maxWaitMillis)
      state.letGo = () => {
        clearTimeout(timer)
        state.letGo = undefined
        resolve()
      }
    })
  }

  /** Control records, aborted records and compacted ones never reach `eachBatch`, and move the position all the same. */
  #onEmptyBatch(payload: {
    readonly topic: string
    readonly partition: number
    readonly firstOffset: string | null
    readonly lastOffset: string
    readonly highWatermark: string
  }): void {
    const { topic, partition } = payload
    const state = this.#partitions.get(keyOf(topic, partition))
    if (state === undefined || !state.started || !this.isIn()) return
    if (state.fresh) {
      this.#fetchAgain(state)
      return
    }
    const nextOffset = Number(payload.lastOffset) + 1
    if (nextOffset <= state.expectedOffset) return
    // kafkajs does not tell here where it fetched from; what lies between was not there to be read.
    const fetchedOffset = state.expectedOffset
    state.expectedOffset = nextOffset
    this.#events.onBatch({
      topic,
      partition,
      records: [],
      fetchedOffset,
      nextOffset,
      highWatermark: Number(payload.highWatermark)
    })
  }
}
