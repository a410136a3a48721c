/**
 * One partition, from its assignment until it is taken away: its fence, its position, what was fetched of it, and its
 * transactions, one after the other.
 *
 * While one transaction is being committed, the next batch is transformed already; its own transaction begins when the
 * one before has ended. Whatever goes wrong with a transaction is mended in the same way: a new producer with the same
 * id settles what the old one left, and the group's commit then tells where to go on.
 */
import { type InvalidInput, Key, Patience } from "@tidemark/core"
import { Cause, Deferred, Effect, Exit, Fiber, Latch, type Scope } from "effect"
import { LogWentBack } from "../../ConsumerErrors.ts"
import type {
  KafkaClient,
  KafkaRecord,
  RecordBatch,
  TopicPartition,
  TransactionalProducer
} from "../../KafkaClient.ts"
import type { KafkaError } from "../../KafkaErrors.ts"
import type { PartitionStatus, Phase, PipeFailure } from "../../KafkaPipe.ts"
import { bytesOf } from "../recordBytes.ts"
import type { Counters } from "./counters.ts"
import type { Settings } from "./settings.ts"
import type { Batch, Transformation, Transformed } from "./Transformation.ts"

/** How long a position that has passed no record (markers, compaction) waits for records to be committed with. */
const idleCommitMillis = 1_000

/** What the partitions of one running pipe share. */
export interface PipeEnvironment<E, R> {
  readonly settings: Settings
  readonly client: KafkaClient["Service"]
  readonly counters: Counters
  readonly transformation: Transformation<E, R>
  /** Whether the topic had this partition when the pipe started. */
  readonly wasThere: (partition: TopicPartition) => boolean
  readonly pause: (partition: TopicPartition) => void
  /** The next batch begins here. */
  readonly readFrom: (partition: TopicPartition, offset: number, resume: boolean) => void
  readonly resume: (partition: TopicPartition) => void
  readonly warn: (message: string) => void
  /** Until the coordinator has acknowledged that this member is in the group, once more. */
  readonly nextHeartbeat: Effect.Effect<void>
}

/** What no new producer mends: the transform has failed, or the log is another one. */
class Stopping<E> {
  readonly cause: Cause.Cause<E | PipeFailure>

  constructor(cause: Cause.Cause<E | PipeFailure>) {
    this.cause = cause
  }
}

export class PipePartition<E, R> implements TopicPartition {
  readonly topic: string
  readonly partition: number
  private readonly environment: PipeEnvironment<E, R>
  private readonly stopped = Deferred.makeUnsafe<void>()
  /** Where the log itself ends our work on it. */
  private readonly broken = Deferred.makeUnsafe<never, Stopping<E>>()
  private isStopped = false
  private phase: Phase = "taking"
  private queue: Array<KafkaRecord> = []
  private queueBytes = 0
  private paused = false
  /** Open while there may be something to take. */
  private readonly wake = Latch.makeUnsafe(false)
  /** One past the last offset that was received. */
  private received = 0
  /** One past the last offset that was taken to be transformed. */
  private taken = 0
  private committed: number | undefined
  private highWatermark: number | undefined
  /** How many times in a row nothing came of being its owner. */
  private failures = 0

  constructor(environment: PipeEnvironment<E, R>, { partition, topic }: TopicPartition) {
    this.environment = environment
    this.topic = topic
    this.partition = partition
  }

  toString(): string {
    return `partition ${this.partition} of topic "${this.topic}"`
  }

  // --- what the group and the log say

  /** Tells the driver where to go on; after each assignment, since a rejoin makes it forget. */
  read(): void {
    if (this.phase === "owned") this.environment.readFrom(this, this.received, !this.paused)
  }

  /** Nothing is begun from now on; what is at work may end. */
  stop(): void {
    this.isStopped = true
    Deferred.doneUnsafe(this.stopped, Effect.void)
    this.wake.openUnsafe()
  }

  onBatch(batch: RecordBatch): void {
    if (this.phase !== "owned" || this.isStopped) return
    const { counters } = this.environment
    this.highWatermark = batch.highWatermark
    if (batch.fetchedOffset > this.received) {
      this.passLost(this.received, batch.fetchedOffset)
      this.received = batch.fetchedOffset
    }
    if (batch.fetchedOffset < this.received && batch.highWatermark < this.received) {
      Deferred.doneUnsafe(this.broken, Effect.fail(this.wentBack(this.received, batch.highWatermark)))
      return
    }
    for (const record of batch.records) {
      if (record.offset < this.received) {
        counters.redelivered++
        continue
      }
      this.received = record.offset + 1
      this.queueBytes += bytesOf(record)
      this.queue.push(record)
      counters.received++
    }
    this.received = Math.max(this.received, batch.nextOffset)
    this.wake.openUnsafe()
    if (!this.paused && this.isFull(2)) {
      this.paused = true
      this.environment.pause(this)
    }
  }

  private isFull(batches: number): boolean {
    const { maxBytes, maxRecords } = this.environment.settings
    return this.queue.length >= batches * maxRecords || this.queueBytes >= batches * maxBytes
  }

  // --- being its owner

  /** Until it is stopped: owns it, and owns it again when that was lost while the group still counts it as ours. */
  readonly run: Effect.Effect<void, E | PipeFailure, R> = Effect.suspend(() => {
    const own = Effect.raceFirst(Effect.scoped(this.own), this.stoppedWhileTaking)
    return Effect.catch(own, (error) => {
      this.phase = "taking"
      this.environment.pause(this)
      if (error instanceof Stopping) return this.stopWith(error.cause)
      return error.retriable || error.reason === "Fenced"
        ? Effect.andThen(this.untilWorthTaking(error), this.run)
        : Effect.fail(error)
    })
  })

  private stopWith(cause: Cause.Cause<E | PipeFailure>): Effect.Effect<never, E | PipeFailure> {
    if (Cause.hasInterruptsOnly(cause))
      this.environment.warn(
        `tidemark: transform interrupted itself at offset ${this.committed} of ${this}: the pipe stops, and the record ` +
          "comes again. To give a record up, let transform give no records; to stop, let it fail"
      )
    return Effect.failCause(cause)
  }

  /** Stopped before it was ours, there is nothing to wait for. */
  private readonly stoppedWhileTaking: Effect.Effect<void> = Effect.suspend(() =>
    Effect.flatMap(Deferred.await(this.stopped), () => (this.phase === "taking" ? Effect.void : Effect.never))
  )

  private untilWorthTaking(error: KafkaError): Effect.Effect<void> {
    const { counters, nextHeartbeat } = this.environment
    const fenced = error.reason === "Fenced"
    if (fenced) counters.fenced++
    if (this.isStopped) return Effect.void
    const why = fenced
      ? `${this} was fenced: what was under way there has no effect, and its latest owner does it`
      : `${this} can't be worked on, and is taken anew: ${error.message}`
    // who is no longer in the group learns it by a heartbeat, and does not fence the one who is
    const wait = Effect.andThen(
      fenced ? nextHeartbeat : Effect.void,
      Patience.untilWorthAsking(Effect.never, this.failures++, Number.POSITIVE_INFINITY)
    )
    return Effect.andThen(
      Effect.logWarning(`tidemark: ${why}`),
      Effect.raceFirst(wait, Deferred.await(this.stopped))
    )
  }

  private readonly own: Effect.Effect<void, KafkaError | Stopping<E>, R | Scope.Scope> = Effect.suspend(() =>
    Effect.gen({ self: this }, function* () {
      if (this.isStopped) return
      const { client, settings } = this.environment
      const producer = yield* client.transactionalProducer({
        transactionalId: Key.kafkaStream({
          group: settings.groupId,
          topic: this.topic,
          partition: this.partition
        }),
        timeoutMillis: settings.transactionTimeoutMillis
      })
      // only now: what an earlier owner has committed until here counts, and nothing that it may still send does
      const position = yield* this.findPosition
      if (this.isStopped) return
      this.queue = []
      this.queueBytes = 0
      this.received = position
      this.taken = this.committed ?? -1
      this.paused = false
      this.phase = "owned"
      this.read()
      yield* this.work(producer)
    })
  )

  /** Where the group's commit says; without one where the start policy does. */
  private readonly findPosition: Effect.Effect<number, KafkaError | Stopping<E>> = Effect.suspend(() =>
    Effect.gen({ self: this }, function* () {
      const { client, settings, wasThere } = this.environment
      const [commit] = yield* client.committed(settings.groupId, [this], { stable: true })
      const [{ high, low }] = yield* client.logBounds([this])
      this.committed = commit.offset
      this.highWatermark = high
      if (commit.offset === undefined) return settings.start === "earliest" || !wasThere(this) ? low : high
      if (commit.offset > high) return yield* Effect.fail(this.wentBack(commit.offset, high))
      if (commit.offset < low) this.passLost(commit.offset, low)
      return Math.max(commit.offset, low)
    })
  )

  private wentBack(highest: number, end: number): Stopping<never> {
    const { partition, topic } = this
    const { groupId } = this.environment.settings
    return new Stopping<never>(Cause.fail(new LogWentBack({ topic, partition, groupId, highest, end })))
  }

  private passLost(from: number, to: number): void {
    this.environment.counters.lostToRetention += to - from
    this.environment.warn(
      `tidemark: ${to - from} offsets of ${this}, in [${from}, ${to}), were removed by the log's retention before they ` +
        "were read: they are lost"
    )
  }

  // --- batches

  /** Batch by batch: transforms one while the transaction of the one before is being committed. */
  private work(producer: TransactionalProducer): Effect.Effect<void, KafkaError | Stopping<E>, R> {
    const { transformation } = this.environment
    const failed = Deferred.makeUnsafe<never, KafkaError>()
    const batches = Effect.gen({ self: this }, function* () {
      let last: Fiber.Fiber<void, KafkaError> | undefined
      while (true) {
        const batch = yield* this.take
        const next = batch === undefined ? undefined : yield* transformation(batch, () => this.isStopped)
        if (last !== undefined) yield* Fiber.join(last)
        if (batch === undefined || next === undefined) return
        // asked to stop before the first record, or stopped by it
        const isNothing = next.count === 0 && batch.records.length > 0
        const transaction = isNothing ? Effect.void : this.transact(producer, next)
        if (next.failure !== undefined) {
          yield* transaction
          return yield* Effect.fail(new Stopping(next.failure))
        }
        last = yield* Effect.forkChild(
          Effect.onError(transaction, (cause) =>
            Effect.sync(() => Deferred.doneUnsafe(failed, Effect.failCause(cause)))
          )
        )
      }
    })
    return Effect.raceAllFirst([batches, Deferred.await(failed), Deferred.await(this.broken)])
  }

  /** What has come since, up to a batch's bounds, as soon as there is any; `undefined` when nothing is to be begun any more. */
  private readonly take: Effect.Effect<Batch | undefined> = Effect.suspend(() => {
    if (this.isStopped) return Effect.undefined
    if (this.queue.length > 0) return Effect.sync(() => this.cut())
    if (this.received === this.taken) return Effect.andThen(this.next, this.take)
    return Effect.map(Effect.raceFirst(this.untilRecords, Effect.sleep(idleCommitMillis)), () =>
      this.isStopped ? undefined : this.cut()
    )
  })

  private readonly next: Effect.Effect<void> = Effect.suspend(() => {
    this.wake.closeUnsafe()
    return this.wake.await
  })

  private readonly untilRecords: Effect.Effect<void> = Effect.suspend(() =>
    this.queue.length > 0 || this.isStopped ? Effect.void : Effect.andThen(this.next, this.untilRecords)
  )

  private cut(): Batch {
    const { maxBytes, maxRecords } = this.environment.settings
    let bytes = 0
    let count = 0
    while (count < this.queue.length && count < maxRecords && bytes < maxBytes)
      bytes += bytesOf(this.queue[count++])
    const records = this.queue.splice(0, count)
    this.queueBytes -= bytes
    this.taken = this.queue.length > 0 ? this.queue[0].offset : this.received
    if (this.paused && !this.isFull(1)) {
      this.paused = false
      this.environment.resume(this)
    }
    return { records, nextOffset: this.taken }
  }

  private transact(
    producer: TransactionalProducer,
    { count, nextOffset, outputs }: Transformed<E | InvalidInput>
  ): Effect.Effect<void, KafkaError> {
    const { counters, settings } = this.environment
    const { partition, topic } = this
    // offsets first: where the transaction before is still being ended, kafkajs learns it that way at less cost
    return producer.begin.pipe(
      Effect.andThen(
        producer.sendOffsets(settings.groupId, [{ topic, partition, offset: nextOffset, metadata: "" }])
      ),
      Effect.andThen(outputs.length === 0 ? Effect.void : producer.send(outputs)),
      Effect.andThen(producer.commit),
      Effect.onExit((exit) =>
        Effect.sync(() => {
          if (Exit.isFailure(exit)) {
            counters.abandoned++
            return
          }
          this.committed = nextOffset
          this.failures = 0
          counters.transactions++
          counters.processed += count
          counters.produced += outputs.length
        })
      )
    )
  }

  // --- for people

  status(): PartitionStatus {
    const { committed, highWatermark, partition, topic } = this
    const isOwned = this.phase === "owned"
    return {
      topic,
      partition,
      phase: isOwned && this.isStopped ? "leaving" : this.phase,
      position: isOwned ? this.received : undefined,
      committed,
      paused: this.paused,
      lag: isOwned && highWatermark !== undefined ? Math.max(0, highWatermark - (committed ?? 0)) : undefined
    }
  }
}
