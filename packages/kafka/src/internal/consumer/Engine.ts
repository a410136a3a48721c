/**
 * One run of a consumer: what it hears from its group, the partitions it has, its commits, and its end.
 */
import {
  type IdempotencyStoreService,
  type InvalidInput,
  type OffsetStoreService,
  type ParkedRecordsService,
  Patience,
  type StoreError
} from "@tidemark/core"
import { Cause, type Clock, type Context, Deferred, Effect, Fiber, type Scheduler, type Scope } from "effect"
import type {
  Assignment,
  GroupMember,
  KafkaClient,
  MemberEnd,
  RecordBatch,
  TopicPartition
} from "../../KafkaClient.ts"
import type { ConsumerStatus } from "../../KafkaConsumer.ts"
import type { KafkaError } from "../../KafkaErrors.ts"
import { metadata } from "../../PositionRules.ts"
import { spansFor } from "../tracing.ts"
import { readKafka } from "./acquire.ts"
import { BatchProcessing } from "./BatchProcessing.ts"
import { Claims } from "./Claims.ts"
import { type Counters, makeCounters } from "./counters.ts"
import type { ConsumerFailure, Environment } from "./environment.ts"
import { perBatch, perRecord } from "./Handling.ts"
import { Partition } from "./Partition.ts"
import { type KeyRing, makeKeyRing } from "./PartitionKeys.ts"
import type { Pauses } from "./Pauses.ts"
import { Processing } from "./Processing.ts"
import type { Settings, SettingsAndHandler } from "./settings.ts"
import { boundHandlers } from "./stallTimeout.ts"
import { Workers } from "./Workers.ts"

/** How long a fetch waits for data: how late a `resume` takes effect at worst. */
const maxWaitMillis = 250

/** How long a rebalance waits for its members. */
const rebalanceTimeoutMillis = 60_000

/** How long the last commit may take: it is advisory, and others wait for the partitions. */
const lastCommitMillis = 5_000

const keyOf = ({ partition, topic }: TopicPartition): string => `${partition}/${topic}`

/** Whether the group has moved on, so that another may be the owner. */
const isRebalanced = (error: KafkaError | StoreError | InvalidInput): boolean =>
  error._tag === "KafkaError" &&
  (error.reason === "StaleMember" || error.reason === "NotAssigned" || error.reason === "MemberEnded")

/** How long the handlers of a partition's earlier claim may take to end before it is said that they are waited for. */
const quietMillis = 1_000

/** Waits until nothing of the partition's earlier claim is at work. */
const awaitEarlier = (earlier: Fiber.Fiber<void>, partition: Partition): Effect.Effect<void> => {
  const ended = Effect.asVoid(Fiber.await(earlier))
  return Effect.timeoutOrElse(ended, {
    duration: quietMillis,
    orElse: () =>
      Effect.andThen(
        Effect.logWarning(
          `tidemark: ${partition} is ours again, and handlers of its earlier claim have not ended: it goes on when they have`
        ),
        ended
      )
  })
}

/** Waits until these have ended, however that may be. */
const ended = (fibers: Iterable<Fiber.Fiber<unknown, unknown>>): Effect.Effect<void> =>
  Effect.forEach(
    [...fibers],
    (fiber) => Effect.callback<void>((resume) => void fiber.addObserver(() => resume(Effect.void))),
    { concurrency: "unbounded", discard: true }
  )

export interface EngineServices<R> {
  readonly client: KafkaClient["Service"]
  readonly offsets: OffsetStoreService
  readonly keys: IdempotencyStoreService
  /** `undefined`: the store can't park records. */
  readonly parked: ParkedRecordsService | undefined
  readonly context: Context.Context<R>
  readonly clock: Clock.Clock
  readonly scheduler: Scheduler.Scheduler
}

export class Engine<E, R> {
  readonly counters: Counters = makeCounters()
  private readonly settings: Settings
  private readonly services: EngineServices<R>
  private readonly pauses: Pauses
  private readonly environment: Environment
  private readonly ring: KeyRing | undefined
  private readonly processing: Processing<E | ConsumerFailure, R>
  private readonly workers: Workers<E | ConsumerFailure, R>
  private readonly failure = Deferred.makeUnsafe<never, E | ConsumerFailure>()
  private readonly fork: <A, E2>(effect: Effect.Effect<A, E2>) => Fiber.Fiber<A, E2>
  /** The partitions of the latest assignment that we have or are getting. */
  private readonly partitions = new Map<string, Partition>()
  /** Partitions that were taken away, until they are released. */
  private readonly leaving = new Set<Fiber.Fiber<unknown, unknown>>()
  /** Partitions that were lost or taken away, until nothing of them is at work any more. */
  private readonly earlier = new Map<string, Fiber.Fiber<void>>()
  private assigned = new Map<string, TopicPartition>()
  private initialCounts: ReadonlyMap<string, number> = new Map()
  private member: GroupMember | undefined
  private lastHeartbeat = Number.NEGATIVE_INFINITY
  private ended = false
  /** Whether the last commit failed, and it was said. */
  private commitsFail = false
  private stopping = false

  constructor(settings: SettingsAndHandler<E, R>, services: EngineServices<R>, pauses: Pauses) {
    this.settings = settings
    this.pauses = pauses
    this.services = services
    const { client, clock, context, keys, offsets, parked, scheduler } = services
    const dispatcher = scheduler.makeDispatcher()
    this.fork = Effect.runForkWith(context)
    const { counters } = this
    const claims = new Claims()
    const bound = boundHandlers(settings, counters, this.fork)
    const { batches } = bound
    this.processing = new Processing<E | ConsumerFailure, R>(bound, {
      client,
      parked,
      counters,
      claims,
      context
    })
    const { identify, prepare } = this.processing
    this.ring = identify === undefined ? undefined : makeKeyRing(keys, settings.groupId)
    const fail = (cause: Cause.Cause<E | ConsumerFailure>): void => this.fail(cause)
    const spans = spansFor(context, settings.groupId)
    this.workers = new Workers({
      concurrency: settings.concurrency,
      maxUnmarked: settings.maxUnmarked,
      handling:
        batches === undefined
          ? perRecord(spans.record(this.processing.handler))
          : perBatch(new BatchProcessing(this.processing, batches), spans),
      context,
      dispatcher,
      onFailure: (cause, partition, tile) => this.onHandlerFailed(cause, partition, tile)
    })
    this.environment = {
      settings,
      client,
      offsets,
      keys,
      clock,
      dispatcher,
      fail,
      processing: { identify, prepare },
      claims,
      counters,
      fork: this.fork,
      // a record may be sent to a retry topic before anybody reads there
      initialPartitions: (topic) =>
        settings.sources.includes(topic) ? (this.initialCounts.get(topic) ?? 0) : 0,
      isOurs: (partition) => this.isOurs(partition),
      isHeld: (partition) => pauses.has(partition),
      activate: (partition, spread) => this.workers.activate(partition, spread),
      addUnmarked: (records) => this.workers.addUnmarked(records),
      revoke: (partition, tile) => this.workers.revoke(partition, tile),
      // a partition that was taken away and given back has an owner of its own by now
      pause: (partition) => {
        if (this.partitions.get(keyOf(partition)) === partition) this.member?.pause([partition])
      },
      resume: (partition) => this.member?.resume([partition]),
      seek: (partition, offset) => this.member?.seek(partition, offset),
      commit: (partition, offset, epoch) => this.commitOne(partition, offset, epoch),
      onLost: (partition) => this.onLost(partition)
    }
  }

  /** Runs until it is interrupted or something fails; then lets go of everything, in order. */
  readonly run: Effect.Effect<never, E | ConsumerFailure, Scope.Scope> = Effect.suspend(() =>
    Effect.gen({ self: this }, function* () {
      const { client } = this.services
      const { groupId, sessionTimeoutMillis, topics } = this.settings
      yield* this.processing.ready
      this.initialCounts = yield* client.partitionCounts(topics)
      // Leaving the group comes after the shutdown, since scopes close in reverse.
      this.member = yield* client.join({
        groupId,
        topics,
        sessionTimeoutMillis,
        rebalanceTimeoutMillis: Math.max(rebalanceTimeoutMillis, sessionTimeoutMillis),
        heartbeatIntervalMillis: Math.max(1, Math.floor(sessionTimeoutMillis / 10)),
        maxWaitMillis: Math.min(maxWaitMillis, sessionTimeoutMillis),
        events: {
          onAssignment: (assignment) => this.onAssignment(assignment),
          onBatch: (batch) => this.onBatch(batch),
          onHeartbeat: () => this.onHeartbeat(),
          onEnd: (end) => this.onEnd(end)
        }
      })
      yield* Effect.addFinalizer(() => this.shutdown)
      for (const partition of this.partitions.values()) partition.read()
      return yield* Effect.raceFirst(Deferred.await(this.failure), this.commitAtIntervals)
    }).pipe(Effect.onExit(() => this.shutdown))
  )

  private onHandlerFailed(
    cause: Cause.Cause<E | ConsumerFailure>,
    partition: Partition | undefined,
    tile: number
  ): void {
    if (partition !== undefined && Cause.hasInterruptsOnly(cause)) {
      // whoever runs us takes an interruption for a wish to stop, and says nothing
      const offset = partition.state.recordAt(tile)?.offset
      this.fork(
        Effect.logError(
          `tidemark: the handler interrupted itself at offset ${offset} of ${partition}: the consumer stops, and the ` +
            "record comes again. To give a record up, let the handler succeed; to stop, let it fail"
        )
      )
    }
    this.fail(cause)
  }

  private fail(cause: Cause.Cause<E | ConsumerFailure>): void {
    this.workers.stop()
    // nobody waits for a failure any more while we stop: what was done may not be marked, and runs again
    if (this.stopping) this.fork(Effect.logError("tidemark: a failure while the consumer stopped", cause))
    Deferred.doneUnsafe(this.failure, Effect.failCause(cause))
  }

  // --- what the group says

  private onAssignment({ partitions }: Assignment): void {
    this.ended = false
    if (this.stopping) return
    this.counters.rebalances++
    this.assigned = new Map(partitions.map((partition) => [keyOf(partition), partition]))
    for (const [key, partition] of this.partitions) {
      if (this.assigned.has(key)) {
        partition.remindKeeper()
        partition.read()
      } else {
        this.partitions.delete(key)
        this.letGo(partition)
      }
    }
    this.getMissing()
  }

  private onBatch(batch: RecordBatch): void {
    this.partitions.get(keyOf(batch))?.onBatch(batch)
  }

  private onHeartbeat(): void {
    const now = Patience.monotonicMillis(this.services.clock)
    const wasStale = now - this.lastHeartbeat >= this.settings.sessionTimeoutMillis
    this.lastHeartbeat = now
    if (!wasStale || this.stopping) return
    for (const partition of this.partitions.values()) partition.remindKeeper()
    this.getMissing()
  }

  private onEnd({ error, reason, rejoins }: MemberEnd): void {
    this.ended = true
    if (rejoins || this.stopping) return
    this.fail(
      error === undefined
        ? Cause.die(new Error(`the Kafka member of group "${this.settings.groupId}" has ended: ${reason}`))
        : Cause.fail(error)
    )
  }

  private isOurs(partition: Partition): boolean {
    return (
      !this.ended &&
      this.partitions.get(keyOf(partition)) === partition &&
      Patience.monotonicMillis(this.services.clock) - this.lastHeartbeat < this.settings.sessionTimeoutMillis
    )
  }

  // --- partitions

  /** Begins to claim what is assigned and not had. */
  private getMissing(): void {
    const { clock } = this.services
    const isStale = Patience.monotonicMillis(clock) - this.lastHeartbeat >= this.settings.sessionTimeoutMillis
    if (this.stopping || this.ended || isStale) return
    const missing: Array<Partition> = []
    for (const [key, place] of this.assigned) {
      if (this.partitions.has(key)) continue
      const partition = new Partition(this.environment, this.ring, place)
      this.partitions.set(key, partition)
      missing.push(partition)
    }
    const free: Array<Partition> = []
    for (const partition of missing) {
      const earlier = this.earlier.get(keyOf(partition))
      if (earlier === undefined) free.push(partition)
      else this.fork(Effect.flatMap(awaitEarlier(earlier, partition), () => this.obtain([partition])))
    }
    if (free.length > 0) this.fork(this.obtain(free))
  }

  /** Reads how they stand in Kafka, and lets them claim what they are. */
  private obtain(partitions: ReadonlyArray<Partition>): Effect.Effect<void> {
    if (this.stopping) return Effect.void
    const begin = Effect.map(readKafka(this.environment, partitions), (readings) => {
      for (let index = 0; index < partitions.length; index++) partitions[index].begin(readings[index])
    })
    return Effect.catchCause(begin, (cause) => Effect.sync(() => this.fail(cause)))
  }

  private letGo(partition: Partition): void {
    partition.stopStarting()
    this.remember(partition)
    const fiber = this.fork(Effect.andThen(partition.drain, partition.release))
    this.leaving.add(fiber)
    fiber.addObserver(() => this.leaving.delete(fiber))
  }

  /** Whoever has it next in this process begins when nothing of it is at work: a handler never runs beside itself. */
  private remember(partition: Partition): void {
    const key = keyOf(partition)
    // one that is still waiting for its predecessor has nothing at work
    if (this.earlier.has(key)) return
    const fiber = this.fork(partition.gone)
    if (fiber.pollUnsafe() !== undefined) return
    this.earlier.set(key, fiber)
    fiber.addObserver(() => this.earlier.delete(key))
  }

  /** Its claim was lost while the group still counts it as ours: it is claimed anew. */
  private onLost(partition: Partition): void {
    const key = keyOf(partition)
    if (this.partitions.get(key) !== partition) return
    this.partitions.delete(key)
    this.remember(partition)
    this.getMissing()
  }

  // --- pauses

  /** The pauses have changed. */
  hold(): void {
    for (const partition of this.partitions.values()) partition.hold(this.pauses.has(partition))
  }

  /**
   * With everything paused: waits until nothing is at work, also of what is being taken away or was lost, all that is
   * done is in the store, and committed.
   */
  readonly settled: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach([...this.partitions.values()], (partition) => partition.atRest, {
      concurrency: "unbounded",
      discard: true
    }).pipe(
      Effect.andThen(this.awaitLeaving),
      Effect.andThen(this.awaitGone),
      Effect.andThen(Effect.suspend(() => (this.stopping ? Effect.void : this.commit)))
    )
  )

  // --- commits

  private readonly commitAtIntervals: Effect.Effect<never> = Effect.suspend(() =>
    Effect.forever(
      Effect.andThen(
        Effect.sleep(this.settings.commitIntervalMillis),
        Effect.suspend(() => this.commit)
      )
    )
  )

  /** Tells Kafka how far each partition has come. Advisory: a failure costs nothing but lag figures for a while. */
  private readonly commit: Effect.Effect<void> = Effect.suspend(() => {
    const due = [...this.partitions.values()].flatMap((partition) => {
      const { toCommit } = partition
      return toCommit === undefined ? [] : [{ partition, ...toCommit }]
    })
    const { member } = this
    if (due.length === 0 || member === undefined || this.ended) return Effect.void
    // noted first, so that our own commit is never taken for nobody's
    const committed = Effect.flatMap(this.services.offsets.annotate(due.map(({ note }) => note)), (noted) => {
      const ready = due.filter(
        ({ partition }, index) => noted[index] && this.partitions.get(keyOf(partition)) === partition
      )
      if (ready.length === 0 || this.ended) return Effect.void
      const commits = ready.map(({ metadata, offset, partition }) => ({
        topic: partition.topic,
        partition: partition.partition,
        offset,
        metadata
      }))
      return Effect.flatMap(member.commit(commits), () => {
        this.counters.commits++
        this.commitsFail = false
        return ready.filter(({ done }) => done()).length > 0 ? this.commit : Effect.void
      })
    })
    return Effect.catch(committed, (error) => this.onCommitFailure(error))
  })

  /** Commits where a partition shall begin, before it is ours; `false`: the group does not take it from us now. */
  private commitOne(
    { partition, topic }: TopicPartition,
    offset: number,
    epoch: number
  ): Effect.Effect<boolean, KafkaError> {
    const { member } = this
    if (member === undefined || this.ended) return Effect.succeed(false)
    return Effect.catchIf(
      Effect.as(member.commit([{ topic, partition, offset, metadata: metadata(epoch) }]), true),
      isRebalanced,
      () => Effect.succeed(false)
    )
  }

  private onCommitFailure(error: KafkaError | StoreError | InvalidInput): Effect.Effect<void> {
    this.counters.commitFailures++
    if (isRebalanced(error) || this.commitsFail) return Effect.void
    this.commitsFail = true
    return Effect.logWarning(
      `tidemark: a commit failed, and is tried again at each interval: ${error.message}`
    )
  }

  // --- the end

  /** Pause, drain, complete, commit, release. Leaving the group follows. */
  private readonly shutdown: Effect.Effect<void> = Effect.suspend(() => {
    if (this.stopping) return Effect.void
    this.stopping = true
    const partitions = [...this.partitions.values()]
    this.member?.pause(partitions)
    this.workers.stop()
    for (const partition of partitions) partition.stopStarting()
    const inAll = (act: (partition: Partition) => Effect.Effect<void>) =>
      Effect.forEach(partitions, act, { concurrency: "unbounded", discard: true })
    return inAll((partition) => partition.drain).pipe(
      Effect.andThen(
        Effect.timeoutOrElse(this.commit, { duration: lastCommitMillis, orElse: () => Effect.void })
      ),
      Effect.andThen(inAll((partition) => partition.release)),
      Effect.andThen(this.awaitLeaving),
      Effect.andThen(Effect.sync(() => this.workers.end()))
    )
  })

  private readonly awaitLeaving: Effect.Effect<void> = Effect.suspend(() => ended(this.leaving))

  private readonly awaitGone: Effect.Effect<void> = Effect.suspend(() => ended(this.earlier.values()))

  // --- for people

  get isStopping(): boolean {
    return this.stopping
  }

  status(): Omit<ConsumerStatus, "phase" | "failure"> {
    return {
      counters: { ...this.counters },
      partitions: [...this.partitions.values()].map((partition) => partition.status()),
      running: this.workers.running,
      unmarked: this.workers.unmarked
    }
  }
}
