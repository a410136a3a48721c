/**
 * What tidemark needs of a Kafka client, and no more. A driver implements it; the consumer never sees the
 * client library behind it.
 *
 * The shape follows from two facts. Records arrive hundreds of thousands a second, so they are handed over in
 * batches, by plain synchronous callbacks. And after every join the client may fetch from the commit again,
 * so a driver pauses everything the moment it learns of a join, and fetches nothing of a partition until the
 * consumer has said where from (`seek`) and that it may (`resume`).
 */
import { Context, type Effect, type Scope } from "effect"
import type { KafkaError } from "./KafkaErrors.ts"

/** One partition of one topic. */
export interface TopicPartition {
  readonly topic: string
  readonly partition: number
}

/** A header's value, or its values where the same header was sent more than once. */
export type HeaderValue = Buffer | string | ReadonlyArray<Buffer | string>

/** A record as it came from the log: bytes, undecoded. */
export interface KafkaRecord {
  // A driver may compute the rarer properties when they are asked for: read them by name, don't spread a record.
  readonly topic: string
  readonly partition: number
  readonly offset: number
  /** `undefined` for a record without a key. */
  readonly key: Buffer | undefined
  /** `undefined` for a tombstone. */
  readonly value: Buffer | undefined
  /** Milliseconds since the epoch, as the producer or the broker set it. */
  readonly timestampMillis: number
  readonly headers: Readonly<Record<string, HeaderValue | undefined>>
}

/** What one fetch brought of one partition. */
export interface RecordBatch extends TopicPartition {
  /** In ascending order of offset; may be empty (control records, compaction). */
  readonly records: ReadonlyArray<KafkaRecord>
  /**
   * The position that was fetched from. It is the last `seek`, or the `nextOffset` of the batch before, unless the
   * position was outside the log: then the driver begins again at the log's low end, and the group's commit for
   * this partition may be gone.
   */
  readonly fetchedOffset: number
  /** One past the last offset that this batch covers, records or not; always > `fetchedOffset`. */
  readonly nextOffset: number
  /** The offset that the next record produced will get, as the broker told it with this fetch. */
  readonly highWatermark: number
}

/** What the group has assigned to this member, all of it, after a join. */
export interface Assignment {
  readonly memberId: string
  /** The group's generation; `undefined` where the driver's library does not tell. */
  readonly generation: number | undefined
  readonly partitions: ReadonlyArray<TopicPartition>
}

/** Why a member is no longer in its group. */
export interface MemberEnd {
  readonly reason: "stopped" | "crashed" | "disconnected"
  readonly error: KafkaError | undefined
  /** Whether the driver is already joining again by itself. */
  readonly rejoins: boolean
}

/**
 * What a member tells its owner. Each is called synchronously, in the order in which things happened, and must
 * not throw.
 */
export interface MemberEvents {
  /**
   * The group was joined (again). The first call comes before `join` returns, so it can't use the member yet.
   * Every partition, new or retained, is paused when this is called, and nothing
   * of it is delivered until it was `seek`ed and `resume`d; what is not in `assignment` was taken away.
   */
  readonly onAssignment: (assignment: Assignment) => void
  /**
   * To hold more back, `pause` the partition within this call: then nothing more of it is fetched, and a `resume`
   * that follows soon costs no wait.
   */
  readonly onBatch: (batch: RecordBatch) => void
  /** The coordinator has just acknowledged a heartbeat (or a join). */
  readonly onHeartbeat: () => void
  /**
   * The member is out of its group, or can't know that it is still in: nothing is delivered, nothing can be
   * committed. Where `rejoins` is set, an `onAssignment` or another `onEnd` follows; else this is the last call. A
   * crash may be told twice: first that it happened (`disconnected`), and once it is known, why (`crashed`).
   */
  readonly onEnd: (end: MemberEnd) => void
}

/** A commit for one partition. */
export interface OffsetCommit extends TopicPartition {
  /** The offset of the next record to be read. */
  readonly offset: number
  readonly metadata: string
}

/**
 * A member of a consumer group. Leaves the group when its Scope closes.
 *
 * `pause`, `resume` and `seek` ignore partitions that are not assigned now, since an assignment may have been lost
 * a moment ago.
 */
export interface GroupMember {
  /** Takes effect at once; what is fetched already may still be delivered. */
  readonly pause: (partitions: ReadonlyArray<TopicPartition>) => void
  readonly resume: (partitions: ReadonlyArray<TopicPartition>) => void
  /**
   * The next batch of this partition begins here; what was fetched before and not yet delivered is dropped.
   * Throws a `RangeError` unless `offset` is a safe integer >= 0.
   */
  readonly seek: (partition: TopicPartition, offset: number) => void
  /**
   * Only for partitions that are assigned now: else `NotAssigned`, and nothing is committed. Fails with
   * `StaleMember` or `MemberEnded` where the member is out of its group.
   */
  readonly commit: (commits: ReadonlyArray<OffsetCommit>) => Effect.Effect<void, KafkaError>
  /** Leaves the group, so that others take over without waiting for the session timeout. Idempotent. */
  readonly leave: Effect.Effect<void>
}

export interface MemberOptions {
  readonly groupId: string
  readonly topics: ReadonlyArray<string>
  readonly sessionTimeoutMillis: number
  readonly rebalanceTimeoutMillis: number
  readonly heartbeatIntervalMillis: number
  /** How long a fetch waits for data; bounds how late a `resume` takes effect. */
  readonly maxWaitMillis: number
  readonly events: MemberEvents
}

/** What the group has committed for a partition; `offset` is `undefined` where it never did. */
export interface CommittedOffset extends TopicPartition {
  readonly offset: number | undefined
  readonly metadata: string | undefined
}

/** The log's bounds: `[low, high)`. */
export interface LogBounds extends TopicPartition {
  readonly low: number
  readonly high: number
}

/** A record to be produced. */
export interface ProducerRecord {
  readonly topic: string
  /** Where absent, the key decides; without a key, partitions take turns. */
  readonly partition?: number
  readonly key?: Buffer | string
  readonly value: Buffer | string | null
  readonly headers?: Readonly<Record<string, HeaderValue>>
  readonly timestampMillis?: number
}

/** Who produces in transactions, and until when the brokers let one stay open. */
export interface TransactionOptions {
  /**
   * Names the producer across processes and restarts: of two with the same id, the one that was made last works, and
   * the other is fenced. Not empty.
   */
  readonly transactionalId: string
  /**
   * The brokers abort a transaction that stays open for so long, and fence its producer. Until then it holds
   * `read_committed` readers of its topics back. At most the brokers' `transaction.max.timeout.ms` (15 minutes).
   */
  readonly timeoutMillis: number
}

/**
 * A producer whose records, and the offsets that go with them, take effect together or not at all.
 *
 * One transaction at a time: `begin`, any number of `send` and `sendOffsets`, then `commit` or `abort`; another order
 * is an `InvalidRequest`. Calls that overlap are done one after the other. `Fenced` says that a newer producer has
 * this id, or that the brokers have ended the transaction: nothing of it takes effect.
 *
 * After a failure of any kind the producer is of no more use, and after one of `commit` it is not known whether the
 * transaction took effect. Making a producer with the same id anew settles that: what was open is aborted, what was
 * being committed is committed, and `committed` then tells which.
 */
export interface TransactionalProducer {
  readonly begin: Effect.Effect<void, KafkaError>
  /** Readers with `read_committed` see nothing of it before `commit`. Keeps the order of the records within a partition. */
  readonly send: (records: ReadonlyArray<ProducerRecord>) => Effect.Effect<void, KafkaError>
  /**
   * Commits a group's offsets with the transaction. It carries no member and no generation: who owns the partitions is
   * for the caller to know, and for the fence to enforce.
   */
  readonly sendOffsets: (
    groupId: string,
    commits: ReadonlyArray<OffsetCommit>
  ) => Effect.Effect<void, KafkaError>
  readonly commit: Effect.Effect<void, KafkaError>
  readonly abort: Effect.Effect<void, KafkaError>
}

/** Access to one Kafka cluster. */
export class KafkaClient extends Context.Service<
  KafkaClient,
  {
    /** The addresses it was given, for messages to people. */
    readonly brokers: ReadonlyArray<string>
    /**
     * Joins a group, and succeeds once it has its first assignment; the member leaves when the Scope closes.
     * Fails when no broker can be reached after bounded retries, or a topic does not exist. Later on the driver
     * joins again by itself for as long as that may help, and tells of it by `onEnd` and `onAssignment`.
     */
    readonly join: (options: MemberOptions) => Effect.Effect<GroupMember, KafkaError, Scope.Scope>
    /**
     * Produces, and waits for the acknowledgement of all in-sync replicas. Large arrays are sent in several
     * requests, one after the other: after an error a part of them may have been written, and a request whose
     * answer was lost may have been written twice.
     */
    readonly produce: (records: ReadonlyArray<ProducerRecord>) => Effect.Effect<void, KafkaError>
    /**
     * A producer for transactions. When it is there, every earlier one with this id is fenced, and the transaction
     * that it left is settled: what `committed` answers from now on is what counts. Fails with `TransactionPending`
     * where that transaction can't be settled yet. When the Scope closes, an open transaction is aborted.
     */
    readonly transactionalProducer: (
      options: TransactionOptions
    ) => Effect.Effect<TransactionalProducer, KafkaError, Scope.Scope>
    /**
     * What the group has committed.
     *
     * @param options.stable - fails with `TransactionPending`, which passes, while a transaction is about to commit
     * another; where the driver's library can ask for that. Default: false.
     */
    readonly committed: (
      groupId: string,
      partitions: ReadonlyArray<TopicPartition>,
      options?: { readonly stable?: boolean }
    ) => Effect.Effect<ReadonlyArray<CommittedOffset>, KafkaError>
    /** For a `read_committed` reader: `high` is the last stable offset where the driver can tell, else the high watermark. */
    readonly logBounds: (
      partitions: ReadonlyArray<TopicPartition>
    ) => Effect.Effect<ReadonlyArray<LogBounds>, KafkaError>
    /** Creates what does not exist yet; an existing topic is left alone. */
    readonly createTopics: (
      topics: ReadonlyArray<{
        readonly topic: string
        readonly partitions: number
        readonly config?: Readonly<Record<string, string>>
      }>
    ) => Effect.Effect<void, KafkaError>
    /** How many partitions each topic has; fails with `UnknownTopic` where one does not exist. */
    readonly partitionCounts: (
      topics: ReadonlyArray<string>
    ) => Effect.Effect<ReadonlyMap<string, number>, KafkaError>
  }
>()("@tidemark/kafka/KafkaClient") {}
