/**
 * From Kafka to Kafka, exactly once for `read_committed` readers: the records that a transform gives and the offsets
 * that it has come to are one transaction of the brokers.
 *
 * There is no store here, since the brokers keep all that there is to keep. Each partition has a transactional id of its
 * own, made of group, topic and partition. Its owner makes a producer with that id first, which fences the owner before
 * and settles what that one left open, then reads the group's commit, and goes on from there: whatever its predecessors
 * still send is refused.
 */
import type { InvalidInput } from "@tidemark/core"
import { Cause, type Duration, Effect, Exit, Layer, type Schedule } from "effect"
import type { LogWentBack } from "./ConsumerErrors.ts"
import { type Counters, makeCounters } from "./internal/pipe/counters.ts"
import { Pipe } from "./internal/pipe/Pipe.ts"
import { readSettings } from "./internal/pipe/settings.ts"
import { KafkaClient, type KafkaRecord, type ProducerRecord } from "./KafkaClient.ts"
import type { KafkaError } from "./KafkaErrors.ts"

export type { Counters }

/** A record to be produced; without a topic it goes to the one of `to`, where that is one. */
export interface OutputRecord extends Omit<ProducerRecord, "topic"> {
  readonly topic?: string
}

/**
 * What can stop a pipe, besides its transform: brokers that refuse, a log that went back, an output to a topic which
 * `to` does not name.
 */
export type PipeFailure = KafkaError | LogWentBack | InvalidInput

export interface PipeOptions<E, R> {
  /** The topics to read. */
  readonly from: string | ReadonlyArray<string>
  /** The topics to write to, others than those that are read. */
  readonly to: string | ReadonlyArray<string>
  /** Whose offsets are committed. One pipe a group: a plain commit by another member would not be fenced. */
  readonly groupId: string
  /**
   * Gives the records to be produced for one record: any number, to any of `to`. They are produced in the order of the
   * records that they are made of. It may run again for the same record, after a crash or a rebalance, and only what it
   * gave the last time takes effect: what else it does is not covered by the transaction.
   */
  readonly transform: (record: KafkaRecord) => Effect.Effect<ReadonlyArray<OutputRecord>, E, R>
  /** When to try a record again whose transform has failed, those behind it waiting. Default: not at all. */
  readonly retry?: Schedule.Schedule<unknown, E, never, R> | undefined
  /** How many records of a partition are transformed at once; 1 by default. The order of what they give is kept. */
  readonly concurrency?: number
  /** Where to begin what the group has never committed; `earliest` by default. */
  readonly start?: "earliest" | "latest"
  /** How many records one transaction takes at most; 5,000 by default. It takes what there is, and waits for no more. */
  readonly maxBatchRecords?: number
  /** How many bytes of records one transaction takes at most, before they are transformed; 4 MiB by default. */
  readonly maxBatchBytes?: number
  /** How long a member may be silent before the group takes its partitions away; 30 s by default. */
  readonly sessionTimeout?: Duration.Input
  /**
   * How long the brokers let a transaction stay open that nobody takes over; it holds readers back until then. A
   * transaction is open while it is sent, not while records are transformed. Default: the session timeout.
   */
  readonly transactionTimeout?: Duration.Input
  /**
   * How long what is at work may go on when a partition is taken away or the pipe stops; then it is interrupted, and its
   * transaction aborted. Default: half a session timeout, at most 10 s.
   */
  readonly drainTimeout?: Duration.Input
}

/** `taking`: it is being fenced, or waited for; `owned`; `leaving`: what is at work ends, nothing new begins. */
export type Phase = "taking" | "owned" | "leaving"

/** Where one partition stands. */
export interface PartitionStatus {
  readonly topic: string
  readonly partition: number
  readonly phase: Phase
  /** The offset at which the next record is expected; `undefined` until the partition is ours. */
  readonly position: number | undefined
  /** Everything below has taken effect; `undefined` where the group has committed nothing. */
  readonly committed: number | undefined
  /** Whether it is paused, since two batches wait. */
  readonly paused: boolean
  /** How far the commit is behind the log's end, as the last fetch told it. */
  readonly lag: number | undefined
}

/** A snapshot of a pipe. */
export interface PipeStatus {
  readonly counters: Readonly<Counters>
  readonly partitions: ReadonlyArray<PartitionStatus>
}

/** A pipe, not yet started. */
export interface KafkaPipe<E, R> {
  /**
   * Works until it is interrupted, or until something fails. Either way it then begins nothing any more, lets what is
   * at work end (for the drain timeout), and leaves the group.
   */
  readonly run: Effect.Effect<never, E | PipeFailure, R | KafkaClient>
  /** How it stands now, or stood when it ended. */
  readonly status: Effect.Effect<PipeStatus>
}

const notStarted = (): PipeStatus => ({ counters: makeCounters(), partitions: [] })

/**
 * A pipe with a handle on what it does.
 *
 * Fails with `InvalidInput`, naming the option, its value and what is allowed, before anything starts.
 *
 * @example
 * const pipe = yield* KafkaPipe.make({ from: "orders", to: "invoices", groupId: "invoicing", transform: toInvoices })
 * yield* Effect.forkScoped(pipe.run)
 * const { counters } = yield* pipe.status
 */
export const make = <E, R>(options: PipeOptions<E, R>): Effect.Effect<KafkaPipe<E, R>, InvalidInput> =>
  Effect.map(
    Effect.try({ try: () => readSettings(options), catch: (error) => error as InvalidInput }),
    (settings): KafkaPipe<E, R> => {
      let latest: Pipe<E, R> | undefined
      return {
        status: Effect.sync(() => latest?.status() ?? notStarted()),
        run: Effect.scoped(
          Effect.gen(function* () {
            latest = new Pipe<E, R>(settings, yield* KafkaClient, yield* Effect.context<R>())
            return yield* latest.run
          })
        )
      }
    }
  )

/**
 * Works until it is interrupted, or until something fails: the transform, the brokers, or a position that only a person
 * can judge. Then it lets what is at work end, and leaves the group.
 *
 * @example
 * const program = KafkaPipe.run({
 *   from: "orders",
 *   to: ["invoices", "refused"],
 *   groupId: "invoicing",
 *   transform: (order) =>
 *     Effect.match(toInvoice(order), {
 *       onSuccess: (invoice) => [{ topic: "invoices", key: order.key, value: invoice }],
 *       onFailure: (why) => [{ topic: "refused", key: order.key, value: order.value, headers: { why } }]
 *     })
 * })
 * program.pipe(Effect.provide(KafkaJs.layer({ brokers: ["localhost:9092"] })))
 */
export const run = <E, R>(
  options: PipeOptions<E, R>
): Effect.Effect<never, E | PipeFailure, R | KafkaClient> => Effect.flatMap(make(options), (pipe) => pipe.run)

/**
 * A pipe that runs for as long as the layer does. Bad options fail the layer. A failure later on ends the pipe and is
 * logged as an error; a program that must end with it uses {@link run}.
 */
export const layer = <E, R>(options: PipeOptions<E, R>): Layer.Layer<never, InvalidInput, R | KafkaClient> =>
  Layer.effectDiscard(
    Effect.flatMap(make(options), (pipe) =>
      Effect.forkScoped(
        Effect.onExit(pipe.run, (exit) =>
          Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)
            ? Effect.logError(`tidemark: the pipe of group "${options.groupId}" has stopped`, exit.cause)
            : Effect.void
        )
      )
    )
  )
