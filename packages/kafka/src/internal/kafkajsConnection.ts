import { Effect } from "effect"
import type { Kafka } from "kafkajs"
import type { KafkaError, KafkaErrorReason } from "../KafkaErrors.ts"
import { type ErrorContext, toKafkaError } from "./kafkajsErrors.ts"

/** How often and how fast an operation is tried again, before its error is handed on. */
export interface RetryBounds {
  readonly attempts: number
  readonly initialDelayMillis: number
  readonly maxDelayMillis: number
}

/** What the parts of the kafkajs driver share. */
export interface Connection {
  readonly brokers: ReadonlyArray<string>
  readonly retry: RetryBounds
  readonly metadataMaxAgeMillis: number
  readonly maxBytesPerPartition: number
  readonly maxBytes: number
  readonly allowAutoTopicCreation: boolean
  /** One for `admin` and `producer`. */
  readonly kafka: Kafka
  /**
   * A kafkajs client for one group member: kafkajs keeps one table of committed offsets per client and group, so
   * members that shared a client would clear each other's. `destroySockets` ends its connections at once, and
   * refuses new ones.
   */
  readonly makeMemberKafka: (groupId: string) => Effect.Effect<MemberKafka, KafkaError>
}

export interface MemberKafka {
  readonly kafka: Kafka
  readonly destroySockets: () => void
  /** The member is gone. */
  readonly release: () => void
}

/** The pause after the given attempt (from 1): doubling, less up to a third, so that members don't march in step. */
export const delayMillisAfter = (retry: RetryBounds, attempt: number): number => {
  const delay = Math.min(retry.initialDelayMillis * 2 ** (attempt - 1), retry.maxDelayMillis)
  return Math.round(delay * (1 - Math.random() / 3))
}

/** A cluster that has just started, or elects a leader: worth a line, but no alarm. */
export const settling: ReadonlySet<KafkaErrorReason> = new Set([
  "CoordinatorNotReady",
  "PartitionNotReady",
  "UnknownTopic"
])

/** Tries again what may succeed later, within the bounds, and says so each time. */
export const withRetry = <A, R>(
  connection: Connection,
  effect: Effect.Effect<A, KafkaError, R>,
  shouldRetry: (error: KafkaError) => boolean = (error) => error.retriable
): Effect.Effect<A, KafkaError, R> => {
  const { retry } = connection
  const attempt = (count: number): Effect.Effect<A, KafkaError, R> =>
    Effect.catch(effect, (error) => {
      if (count >= retry.attempts || !shouldRetry(error)) return Effect.fail(error)
      const delayMillis = delayMillisAfter(retry, count)
      const write = settling.has(error.reason) ? Effect.logInfo : Effect.logWarning
      return write(
        `Kafka: ${error.operation} at ${error.brokers.join(", ")} failed (attempt ${count} of ${retry.attempts}): ` +
          `${error.reason}: ${error.detail}; trying again in ${delayMillis} ms`
      ).pipe(Effect.andThen(Effect.sleep(delayMillis)), Effect.andThen(attempt(count + 1)))
    })
  return attempt(1)
}

/** A kafkajs promise as an Effect whose error is ours. */
export const call = <A>(promise: () => Promise<A>, context: ErrorContext): Effect.Effect<A, KafkaError> =>
  Effect.tryPromise({ try: promise, catch: (error) => toKafkaError(error, context) })
