/**
 * A Kafka consumer whose records take effect once: it owns each of its partitions by an open-ended claim, skips what
 * is completed, runs handlers beside each other and in order within one key, completes what they have done, and
 * commits how far that reaches without a gap, never beyond.
 *
 * The store's progress decides where a partition goes on; Kafka's commits are for lag tools and for migration (see
 * `PositionRules`). A partition that the group takes away is drained and given back at once; after a crash its next
 * owner begins when the lease ends.
 */
import { IdempotencyStore, type InvalidInput, OffsetStore, ParkedRecords } from "@tidemark/core"
import {
  Cause,
  Clock,
  Context,
  type Duration,
  Effect,
  Exit,
  Layer,
  Option,
  type Schedule,
  Scheduler
} from "effect"
import type { Decoder } from "./Decoder.ts"
import type { Holder } from "./internal/consumer/acquire.ts"
import { type Counters, makeCounters } from "./internal/consumer/counters.ts"
import { Engine } from "./internal/consumer/Engine.ts"
import type { ConsumerFailure } from "./internal/consumer/environment.ts"
import type { Order } from "./internal/consumer/Lanes.ts"
import type { Phase } from "./internal/consumer/Partition.ts"
import { checkPlaces, Pauses, type Place } from "./internal/consumer/Pauses.ts"
import { type Bounds, readSettings } from "./internal/consumer/settings.ts"
import { KafkaClient, type KafkaRecord } from "./KafkaClient.ts"

export type { Bounds, ConsumerFailure, Counters, Holder, Order, Phase, Place }

/** What a handler may know of the claim under which it runs. */
export interface RecordClaim {
  /** The stream of the record's partition, as the store calls it. */
  readonly stream: string
  readonly claimId: string
  /**
   * The fencing token of the partition's owner: greater than that of every earlier owner. A database that keeps the
   * greatest token it has seen for a stream, and refuses smaller ones, turns away what an owner writes that has lost
   * its claim without noticing.
   */
  readonly token: number
  /**
   * How often operators have moved the stream (rewound it, or skipped some of it) when the record was received: where it
   * has grown, what comes again is meant to.
   */
  readonly epoch: number
  /** The fencing token of the claim on the record's id; `undefined` for a record without one. */
  readonly keyToken: number | undefined
}

/**
 * What to do with a record that fails although it was retried, or can't be decoded:
 * - `stop` (default): the consumer stops with the failure; the record is not done, and comes again;
 * - `dead-letter`: it goes to the dead-letter topic as it was, and why is in its headers; `DeadLetters` reads it;
 * - `park`: the same, into the store, which must have `ParkedRecords`; a `ConfigError` at the start otherwise.
 *
 * Stored first, the record counts as done then, but its id does not count as processed. Where it can't be stored, the
 * consumer stops with `SetAsideFailed`.
 */
export type WhenPoison = "stop" | "dead-letter" | "park"

/** What a batch handler may know of the claim under which it runs. */
export interface BatchClaim extends Omit<RecordClaim, "keyToken"> {
  /** The fencing tokens of the claims on the records' ids, in their order; empty where there is no `identify`. */
  readonly keyTokens: ReadonlyArray<number | undefined>
}

/** The options that don't depend on how records are handed over. */
export interface BaseOptions {
  /** At least one. */
  readonly topics: ReadonlyArray<string>
  readonly groupId: string
  /** Which records of a partition keep their order: those with the same `key` (default), all, or none. */
  readonly order?: Order
  /** How many records (or batches) are at work at once, over all partitions; 16 by default. */
  readonly concurrency?: number
  /**
   * How many records may have taken effect, or be taking it, that the store does not have as completed: as many run
   * again at most when this process is killed. At this bound nothing starts until the store has answered; one that is
   * less than `concurrency` bounds that, too. Default: `concurrency` + 4,000, with batches `concurrency` x `maxBatchRecords`
   * + 4,000. A few hundred cost rate only where handlers take less than a millisecond.
   */
  readonly maxUnmarked?: number
  /** Names the cluster in the streams' names; needed only where one store serves equal groups on several clusters. */
  readonly cluster?: string
  /** A label for people, in listings of claims. Default: host and process id. */
  readonly owner?: string
  /** Where to begin what the group has never read; `earliest` by default. */
  readonly start?: "earliest" | "latest"
  /**
   * What to do with a record whose id another owner has at work: `wait` until it has settled, while the others go on
   * (default), or `dead-letter` it, with the error `InFlightElsewhere`.
   */
  readonly whenInFlight?: "wait" | "dead-letter"
  /** When the group has committed and a durable store knows nothing: `stop` (default), or `resume` at the commit. */
  readonly whenStoreLost?: "stop" | "resume"
  /**
   * When a log ends before what was completed in it, or has other records there (the topic was deleted and created
   * again, or lost its end): `stop` (default), or `reset`: begin anew at its first record.
   */
  readonly whenLogWentBack?: "stop" | "reset"
  /** At one of these a partition pauses, until it is at half of it. */
  readonly bounds?: Partial<Bounds>
  /** How long a member may be silent before the group takes its partitions away; 30 s by default. */
  readonly sessionTimeout?: Duration.Input
  /** How long a claim lasts unless renewed. Default, and at most: the session timeout. */
  readonly lease?: Duration.Input
  /**
   * How long records at work may go on when their partition is taken away or the consumer stops; then they are
   * interrupted. What has taken effect is then brought to the store, which only takes long where the store does not
   * answer: a lease at most. Default: half a lease, at most 10 s.
   */
  readonly drainTimeout?: Duration.Input
  /** How often watermarks are committed; 1 s by default. */
  readonly commitInterval?: Duration.Input
  /**
   * How long a handler may be at work on a record or a batch, each attempt by itself; then it is interrupted, and fails
   * with `HandlerStalled`. One that can't be interrupted goes on, and if it ends well all is well. Default: as long as
   * it takes; heartbeats and renewals don't wait for handlers.
   */
  readonly stallTimeout?: Duration.Input
  /** How long a completed id is remembered. Default: the store's. */
  readonly retention?: Duration.Input
}

/** What becomes of a record whose handler fails. `E`: what it can fail with. */
export interface FailureOptions<E> {
  /**
   * When to try a record again whose handler has failed, at once and in its place: the records behind it in its order
   * wait, and it goes on counting as one at work. A defect or an interruption is not tried again. When the partition is
   * let go, so is the record, undone. Default: never.
   *
   * @example
   * retry: Schedule.exponential("100 millis").pipe(Schedule.upTo({ times: 5 }))
   */
  readonly retry?: Schedule.Schedule<unknown, E> | undefined
  /**
   * Where a record waits that has failed in spite of `retry`: in a topic for each of these delays, one after the other,
   * named `orders.retry.30s`, which the consumer reads too. The records behind it go on, so that **their order is given
   * up**. Whole milliseconds, at most 31 days; default: none.
   *
   * @example
   * retryTopics: ["30 seconds", "10 minutes"]
   */
  readonly retryTopics?: ReadonlyArray<Duration.Input> | undefined
  /** For a record that fails although it was retried, or can't be decoded. */
  readonly whenPoison?: WhenPoison | undefined
  /** Where dead letters go, by the topic that they come from. Default: `<topic>.dead-letter`. */
  readonly deadLetterTopic?: string | ((topic: string) => string) | undefined
  /**
   * Whether retry and dead-letter topics that don't exist are created at the start, each with as many partitions as the
   * topic it is for; `true` by default. `false`: it fails with `UnknownTopic`.
   */
  readonly createTopics?: boolean | undefined
}

/** The options for records that are handled one by one, whatever their handler gets. */
export interface CommonOptions<E> extends BaseOptions, FailureOptions<E> {
  readonly handleBatch?: undefined
  readonly maxBatchRecords?: undefined
}

/** A consumer of records as they are: bytes. */
export interface ConsumerOptions<E, R> extends CommonOptions<NoInfer<E>> {
  readonly decode?: undefined
  /**
   * Processes one record. Its success completes the record. Its failure is retried, and the record set aside, where
   * `retry`, `retryTopics` and `whenPoison` say so; else it stops the consumer with that failure, and the record stays
   * undone: nothing is passed over. It is interrupted when its partition is lost.
   */
  readonly handler: (record: KafkaRecord, claim: RecordClaim) => Effect.Effect<unknown, E, R>
  /**
   * The record's idempotency key, where the same message may come at several offsets (a producer that retries, a
   * topic written by several): 1 to 1,024 bytes, remembered in the namespace of the group for the retention time.
   * `undefined`: the position alone counts.
   */
  readonly identify?: ((record: KafkaRecord) => string | undefined) | undefined
}

/** A consumer of what a decoder makes of records. */
export interface DecodingOptions<A, E, R, DR = never> extends CommonOptions<NoInfer<E>> {
  /** What to make of a record: see `Decoder`. One that can't be decoded goes the way of `whenPoison`, without retries. */
  readonly decode: Decoder<A, DR>
  /** As for records that are not decoded. */
  readonly handler: (value: A, record: KafkaRecord, claim: RecordClaim) => Effect.Effect<unknown, E, R>
  /** As for records that are not decoded; a batch is decoded before its ids are claimed. */
  readonly identify?: ((value: A, record: KafkaRecord) => string | undefined) | undefined
}

/** The options for records that are handled in batches, whatever their handler gets. */
export interface CommonBatchOptions<E> extends BaseOptions, FailureOptions<E> {
  readonly handler?: undefined
  readonly whenInFlight?: "wait"
  /** How many records a batch has at most; 500 by default. */
  readonly maxBatchRecords?: number
}

/** A consumer of batches. */
export interface BatchOptions<E, R> extends CommonBatchOptions<NoInfer<E>> {
  readonly decode?: undefined
  /** As for records one by one. */
  readonly identify?: ((record: KafkaRecord) => string | undefined) | undefined
  /**
   * Processes records that keep their order, in that order: those of one key (`order: "key"`, together with no others;
   * those without a key may come together), or of one partition. With `order: "none"` they are any of one partition. As
   * many come as are there, `maxBatchRecords` at most: it never waits for more. `concurrency` counts batches.
   *
   * Its success completes them all. When it fails, none is completed, unless it fails with `PartlyDone`, which says which
   * were done. The others are tried again together (`retry`), and then, where `retryTopics` or `whenPoison` say what to
   * do, one by one in their order: those that fail by themselves are sent on or set aside. Else the consumer stops with
   * the failure. It is interrupted when its partition is lost.
   */
  readonly handleBatch: (
    records: ReadonlyArray<KafkaRecord>,
    claim: BatchClaim
  ) => Effect.Effect<unknown, E, R>
}

/** A consumer of batches of what a decoder makes of records. */
export interface DecodingBatchOptions<A, E, R, DR = never> extends CommonBatchOptions<NoInfer<E>> {
  /** As for records one by one: what can't be decoded is no part of the batch. */
  readonly decode: Decoder<A, DR>
  readonly identify?: ((value: A, record: KafkaRecord) => string | undefined) | undefined
  /** As for records that are not decoded; `records` are what the `values` come from, in the same order. */
  readonly handleBatch: (
    values: ReadonlyArray<A>,
    records: ReadonlyArray<KafkaRecord>,
    claim: BatchClaim
  ) => Effect.Effect<unknown, E, R>
}

/** Any of them. */
export type AnyOptions<E, R> =
  | ConsumerOptions<E, R>
  | DecodingOptions<unknown, E, R, R>
  | BatchOptions<E, R>
  | DecodingBatchOptions<unknown, E, R, R>

/** Where one partition stands. */
export interface PartitionStatus {
  readonly topic: string
  readonly partition: number
  readonly phase: Phase
  /** The offset at which the next record is expected; `undefined` until the partition is ours. */
  readonly position: number | undefined
  /** Everything below is completed; `undefined` until the partition is ours. */
  readonly watermark: number | undefined
  /** How many offsets between the watermark and the highest completed one are not completed. */
  readonly gaps: number
  /** Records received, or known to be absent, that are not completed in the store. */
  readonly unfinished: number
  /** Records received whose handlers have not ended. */
  readonly inFlight: number
  /** Records whose handlers are at work. */
  readonly running: number
  /** The lowest offset received that is not completed in the store, and for how long it has been here. */
  readonly oldest: { readonly offset: number; readonly ageMillis: number } | undefined
  /** Whether somebody has paused it, and the bound at which it has paused itself. */
  readonly pausedBy: { readonly user: boolean; readonly bound: keyof Bounds | undefined }
  /** While it is paused at a bound: the offset that it waits for, its oldest. */
  readonly stalledAt: number | undefined
  /** While it waits for its claim: whose it is, and until when, in milliseconds since the epoch. */
  readonly heldBy: Holder | undefined
  /** In a retry topic: until when the next record waits, in milliseconds since the epoch, where one does. */
  readonly heldUntil: number | undefined
  /** How far the watermark is behind the log's end, as the last fetch told it. */
  readonly lag: number | undefined
}

/** A snapshot of a consumer. */
export interface ConsumerStatus {
  /** `new`: not started; `stopping`: what is at work ends, nothing starts; `ended`: as `failure` tells. */
  readonly phase: "new" | "running" | "stopping" | "ended"
  /** Why it has ended; `undefined` while it has not, and where it was asked to. */
  readonly failure: Cause.Cause<unknown> | undefined
  readonly counters: Readonly<Counters>
  readonly partitions: ReadonlyArray<PartitionStatus>
  /** Records at work, over all partitions. */
  readonly running: number
  /** Records whose handlers have ended well, and that are not completed in the store yet. */
  readonly unmarked: number
}

/** What can be done with a consumer while it runs. */
export interface ConsumerHandle {
  /** How it stands now, or stood when it ended. */
  readonly status: Effect.Effect<ConsumerStatus>
  /**
   * Nothing more of these partitions is read or started; what is at work ends and is completed. They stay ours, with
   * their claims, and paused, whatever rebalances come and go, until `resume`.
   *
   * @param places - partitions, or topics with all theirs. Default: everything, also what is assigned later. Fails with
   * `InvalidInput` for a topic that is not consumed, or a partition that can't be.
   */
  readonly pause: (places?: ReadonlyArray<Place>) => Effect.Effect<void, InvalidInput>
  /** Undoes `pause`, for these or for everything. Of words for all, a topic and a partition the narrower counts. */
  readonly resume: (places?: ReadonlyArray<Place>) => Effect.Effect<void, InvalidInput>
  /**
   * Pauses everything, and waits until nothing is at work, all that is done is completed in the store, and the
   * watermarks are committed. The partitions and their claims stay ours: `resume` goes on, and interrupting `run`
   * leaves the group. It waits for as long as handlers take; `Effect.timeout` bounds it, and leaves all paused.
   */
  readonly drain: Effect.Effect<void>
}

/** A consumer, not yet started. */
export interface KafkaConsumer<E, R> extends ConsumerHandle {
  /**
   * Consumes until it is interrupted, or until something fails. Either way it then starts no record any more, lets
   * those at work end (for the drain timeout), completes and commits what is done, gives its partitions back and
   * leaves the group.
   */
  readonly run: Effect.Effect<never, E | ConsumerFailure, R | KafkaClient | OffsetStore | IdempotencyStore>
}

/** The handle of the consumer that {@link layer} runs. */
export class Handle extends Context.Service<Handle, ConsumerHandle>()(
  "@tidemark/kafka/KafkaConsumer/Handle"
) {}

const nothingYet = (): ReturnType<Engine<unknown, unknown>["status"]> => ({
  counters: makeCounters(),
  partitions: [],
  running: 0,
  unmarked: 0
})

const phaseOf = (
  engine: { readonly isStopping: boolean } | undefined,
  end: unknown
): ConsumerStatus["phase"] => {
  if (end !== undefined) return "ended"
  if (engine === undefined) return "new"
  return engine.isStopping ? "stopping" : "running"
}

/**
 * A consumer with a handle on what it does.
 *
 * Fails with `InvalidInput`, naming the option, its value and what is allowed, before anything starts.
 *
 * @example
 * const consumer = yield* KafkaConsumer.make({ topics: ["orders"], groupId: "billing", handler: charge })
 * yield* Effect.forkScoped(consumer.run)
 * const status = yield* consumer.status
 */
export function make<A, E, R, DR = never>(
  options: DecodingOptions<A, E, R, DR> | DecodingBatchOptions<A, E, R, DR>
): Effect.Effect<KafkaConsumer<E, R | DR>, InvalidInput>
export function make<E, R>(
  options: ConsumerOptions<E, R> | BatchOptions<E, R>
): Effect.Effect<KafkaConsumer<E, R>, InvalidInput>
export function make<E, R>(options: AnyOptions<E, R>): Effect.Effect<KafkaConsumer<E, R>, InvalidInput> {
  return Effect.map(
    Effect.try({ try: () => readSettings<E, R>(options), catch: (error) => error as InvalidInput }),
    (settings): KafkaConsumer<E, R> => {
      let latest: Engine<E, R> | undefined
      let end: Exit.Exit<never, E | ConsumerFailure> | undefined
      const pauses = new Pauses()
      const hold = (places: ReadonlyArray<Place> | undefined, paused: boolean): void => {
        pauses.set(places, paused)
        latest?.hold()
      }
      const set = (paused: boolean) => (places?: ReadonlyArray<Place>) =>
        Effect.try({
          try: () => {
            checkPlaces(settings.topics, places)
            hold(places, paused)
          },
          catch: (error) => error as InvalidInput
        })
      return {
        status: Effect.sync(() => ({
          phase: phaseOf(latest, end),
          failure:
            end !== undefined && Exit.isFailure(end) && !Cause.hasInterruptsOnly(end.cause)
              ? end.cause
              : undefined,
          ...(latest?.status() ?? nothingYet())
        })),
        pause: set(true),
        resume: set(false),
        drain: Effect.suspend(() => {
          hold(undefined, true)
          return latest?.settled ?? Effect.void
        }),
        run: Effect.scoped(
          Effect.gen(function* () {
            const services = {
              client: yield* KafkaClient,
              offsets: yield* OffsetStore,
              keys: yield* IdempotencyStore,
              parked: Option.getOrUndefined(yield* Effect.serviceOption(ParkedRecords)),
              context: yield* Effect.context<R>(),
              clock: yield* Clock.Clock,
              scheduler: yield* Scheduler.Scheduler
            }
            const engine = new Engine<E, R>(settings, services, pauses)
            latest = engine
            end = undefined
            return yield* engine.run
          })
        ).pipe(
          Effect.onExit((exit) =>
            Effect.sync(() => {
              end = exit
            })
          )
        )
      }
    }
  )
}

/**
 * Consumes until it is interrupted, or until something fails: the handler, the store, the brokers, or a position that
 * only a person can judge. Then it drains, completes, commits, releases and leaves.
 *
 * @example
 * const program = KafkaConsumer.run({
 *   topics: ["orders"],
 *   groupId: "billing",
 *   concurrency: 64,
 *   identify: (record) => record.headers["order-id"]?.toString(),
 *   handler: (record, claim) => charge(JSON.parse(String(record.value)), claim.token)
 * })
 * program.pipe(Effect.provide([KafkaJs.layer({ brokers: ["localhost:9092"] }), MemoryStore.layer()]))
 */
export function run<A, E, R, DR = never>(
  options: DecodingOptions<A, E, R, DR> | DecodingBatchOptions<A, E, R, DR>
): Effect.Effect<
  never,
  E | ConsumerFailure | InvalidInput,
  R | DR | KafkaClient | OffsetStore | IdempotencyStore
>
export function run<E, R>(
  options: ConsumerOptions<E, R> | BatchOptions<E, R>
): Effect.Effect<never, E | ConsumerFailure | InvalidInput, R | KafkaClient | OffsetStore | IdempotencyStore>
export function run<E, R>(
  options: AnyOptions<E, R>
): Effect.Effect<
  never,
  E | ConsumerFailure | InvalidInput,
  R | KafkaClient | OffsetStore | IdempotencyStore
> {
  return Effect.flatMap(make(options as ConsumerOptions<E, R>), (consumer) => consumer.run)
}

/**
 * A consumer that runs for as long as the layer does, and its handle. Bad options fail the layer. A failure later on
 * ends the consumer and is logged as an error; a program that must end with it uses {@link run}, and one with several
 * consumers {@link make}.
 *
 * @example
 * const program = Effect.gen(function* () {
 *   const consumer = yield* KafkaConsumer.Handle
 *   yield* consumer.drain
 *   yield* deploySomething
 *   yield* consumer.resume()
 * })
 * program.pipe(Effect.provide(KafkaConsumer.layer({ topics: ["orders"], groupId: "billing", handler: charge })))
 */
export function layer<A, E, R, DR = never>(
  options: DecodingOptions<A, E, R, DR> | DecodingBatchOptions<A, E, R, DR>
): Layer.Layer<Handle, InvalidInput, R | DR | KafkaClient | OffsetStore | IdempotencyStore>
export function layer<E, R>(
  options: ConsumerOptions<E, R> | BatchOptions<E, R>
): Layer.Layer<Handle, InvalidInput, R | KafkaClient | OffsetStore | IdempotencyStore>
export function layer<E, R>(
  options: AnyOptions<E, R>
): Layer.Layer<Handle, InvalidInput, R | KafkaClient | OffsetStore | IdempotencyStore> {
  return Layer.effect(
    Handle,
    Effect.tap(make(options as ConsumerOptions<E, R>), (consumer) =>
      Effect.forkScoped(
        Effect.onExit(consumer.run, (exit) =>
          Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)
            ? Effect.logError(`tidemark: the consumer of group "${options.groupId}" has stopped`, exit.cause)
            : Effect.void
        )
      )
    )
  )
}
