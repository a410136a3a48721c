/** One run of a pipe: what it hears from its group, the partitions it has, and its end. */
import { Cause, type Context, Deferred, Effect, Exit, Fiber, type Scope } from "effect"
import type { Assignment, GroupMember, KafkaClient, MemberEnd, TopicPartition } from "../../KafkaClient.ts"
import type { PipeFailure, PipeStatus } from "../../KafkaPipe.ts"
import { isTraced } from "../tracing.ts"
import { type Counters, makeCounters } from "./counters.ts"
import { type PipeEnvironment, PipePartition } from "./PipePartition.ts"
import type { SettingsAndTransform } from "./settings.ts"
import { makeTransformation } from "./Transformation.ts"

/** How long a fetch waits for data: how late a `resume` takes effect at worst. */
const maxWaitMillis = 250

/** How long transforms that were interrupted may take to end, before nobody waits for them any more. */
const interruptPatienceMillis = 1_000

/** How long a rebalance waits for its members. */
const rebalanceTimeoutMillis = 60_000

const keyOf = ({ partition, topic }: TopicPartition): string => `${partition}/${topic}`

interface Running<E, R> {
  readonly partition: PipePartition<E, R>
  readonly fiber: Fiber.Fiber<void, E | PipeFailure>
}

export class Pipe<E, R> {
  readonly counters: Counters = makeCounters()
  private readonly settings: SettingsAndTransform<E, R>
  private readonly client: KafkaClient["Service"]
  private readonly environment: PipeEnvironment<E, R>
  private readonly fork: <A, E2>(effect: Effect.Effect<A, E2, R>) => Fiber.Fiber<A, E2>
  private readonly failure = Deferred.makeUnsafe<never, E | PipeFailure>()
  private readonly partitions = new Map<string, Running<E, R>>()
  /** Partitions that are being let go, for a bounded time. */
  private readonly leaving = new Set<Fiber.Fiber<void>>()
  /** Partitions that were taken away, until nothing of them is at work any more. */
  private readonly earlier = new Map<string, Fiber.Fiber<void, E | PipeFailure>>()
  private initialCounts: ReadonlyMap<string, number> = new Map()
  private member: GroupMember | undefined
  private heartbeat = Deferred.makeUnsafe<void>()
  private stopping = false

  constructor(
    settings: SettingsAndTransform<E, R>,
    client: KafkaClient["Service"],
    context: Context.Context<R>
  ) {
    this.settings = settings
    this.client = client
    this.fork = Effect.runForkWith(context)
    this.environment = {
      settings,
      client,
      counters: this.counters,
      transformation: makeTransformation(settings, isTraced(context)),
      wasThere: ({ partition, topic }) => partition < (this.initialCounts.get(topic) ?? 0),
      pause: (partition) => this.member?.pause([partition]),
      resume: (partition) => this.member?.resume([partition]),
      readFrom: (partition, offset, resume) => {
        this.member?.seek(partition, offset)
        if (resume) this.member?.resume([partition])
      },
      warn: (message) => void this.fork(Effect.logWarning(message)),
      nextHeartbeat: Effect.suspend(() => Deferred.await(this.heartbeat))
    }
  }

  /** Runs until it is interrupted or something fails; then lets go of everything, in order. */
  readonly run: Effect.Effect<never, E | PipeFailure, Scope.Scope> = Effect.suspend(() =>
    Effect.gen({ self: this }, function* () {
      const { from, groupId, sessionTimeoutMillis, to } = this.settings
      this.initialCounts = yield* this.client.partitionCounts(from)
      yield* this.client.partitionCounts([...to])
      // Leaving the group comes after the shutdown, since scopes close in reverse.
      this.member = yield* this.client.join({
        groupId,
        topics: from,
        sessionTimeoutMillis,
        rebalanceTimeoutMillis: Math.max(rebalanceTimeoutMillis, sessionTimeoutMillis),
        heartbeatIntervalMillis: Math.max(1, Math.floor(sessionTimeoutMillis / 10)),
        maxWaitMillis: Math.min(maxWaitMillis, sessionTimeoutMillis),
        events: {
          onAssignment: (assignment) => this.onAssignment(assignment),
          onBatch: (batch) => this.partitions.get(keyOf(batch))?.partition.onBatch(batch),
          onHeartbeat: () => this.onHeartbeat(),
          onEnd: (end) => this.onEnd(end)
        }
      })
      yield* Effect.addFinalizer(() => this.shutdown)
      // the first assignment came before there was a member to be told where to read
      for (const { partition } of this.partitions.values()) partition.read()
      return yield* Deferred.await(this.failure)
    }).pipe(Effect.onExit(() => this.shutdown))
  )

  private fail(cause: Cause.Cause<E | PipeFailure>): void {
    if (this.stopping) this.fork(Effect.logError("tidemark: a failure while the pipe stopped", cause))
    Deferred.doneUnsafe(this.failure, Effect.failCause(cause))
  }

  // --- what the group says

  private onAssignment({ partitions }: Assignment): void {
    if (this.stopping) return
    this.counters.rebalances++
    const assigned = new Map(partitions.map((partition) => [keyOf(partition), partition]))
    for (const [key, running] of this.partitions)
      if (assigned.has(key)) running.partition.read()
      else this.letGo(key, running)
    for (const [key, place] of assigned) if (!this.partitions.has(key)) this.begin(key, place)
  }

  private onHeartbeat(): void {
    const { heartbeat } = this
    this.heartbeat = Deferred.makeUnsafe()
    Deferred.doneUnsafe(heartbeat, Effect.void)
  }

  private onEnd({ error, reason, rejoins }: MemberEnd): void {
    if (rejoins || this.stopping) return
    this.fail(
      error === undefined
        ? Cause.die(new Error(`the Kafka member of group "${this.settings.groupId}" has ended: ${reason}`))
        : Cause.fail(error)
    )
  }

  // --- partitions

  private begin(key: string, place: TopicPartition): void {
    const partition = new PipePartition(this.environment, place)
    // a transform never runs beside itself: what was at work here when the partition was taken away ends first
    const earlier = this.earlier.get(key)
    const run = earlier === undefined ? partition.run : Effect.andThen(Fiber.await(earlier), partition.run)
    const fiber = this.fork(run)
    this.partitions.set(key, { partition, fiber })
    fiber.addObserver((exit) => {
      if (Exit.isSuccess(exit)) return
      if (this.partitions.get(key)?.partition === partition) this.fail(exit.cause)
      else if (!Cause.hasInterruptsOnly(exit.cause))
        this.fork(
          Effect.logWarning(`tidemark: ${partition} failed when it was taken away already`, exit.cause)
        )
    })
  }

  /** What is at work may end; after the drain timeout it is interrupted. One that can't be is left alone, with a word. */
  private letGo(key: string, { fiber, partition }: Running<E, R>): void {
    this.partitions.delete(key)
    partition.stop()
    const within = (millis: number, orElse: () => Effect.Effect<void>) =>
      Effect.timeoutOrElse(Effect.asVoid(Fiber.await(fiber)), { duration: millis, orElse })
    const ended = within(this.settings.drainTimeoutMillis, () => {
      fiber.interruptUnsafe()
      return within(interruptPatienceMillis, () =>
        Effect.logWarning(
          `tidemark: a transform of ${partition} can't be interrupted and has not ended: what it gives is dropped, and ` +
            "its records are read again"
        )
      )
    })
    const leaving = this.fork(ended)
    this.leaving.add(leaving)
    leaving.addObserver(() => this.leaving.delete(leaving))
    if (fiber.pollUnsafe() !== undefined) return
    this.earlier.set(key, fiber)
    fiber.addObserver(() => {
      if (this.earlier.get(key) === fiber) this.earlier.delete(key)
    })
  }

  private readonly shutdown: Effect.Effect<void> = Effect.suspend(() => {
    if (!this.stopping) {
      this.stopping = true
      this.member?.pause([...this.partitions.values()].map(({ partition }) => partition))
      for (const [key, running] of this.partitions) this.letGo(key, running)
    }
    return Effect.forEach([...this.leaving], (fiber) => Fiber.await(fiber), {
      concurrency: "unbounded",
      discard: true
    })
  })

  // --- for people

  status(): PipeStatus {
    return {
      counters: { ...this.counters },
      partitions: [...this.partitions.values()].map(({ partition }) => partition.status())
    }
  }
}
