import { Effect } from "effect"
import type { KafkaError, KafkaErrorReason } from "../KafkaErrors.ts"

/** How often and how fast an operation is tried again, before its error is handed on. */
export interface RetryBounds {
  readonly attempts: number
  readonly initialDelayMillis: number
  readonly maxDelayMillis: number
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
  "TransactionPending",
  "UnknownTopic"
])

/** Tries again what may succeed later, within the bounds, and says so each time. */
export const withRetry = <A, R>(
  { retry }: { readonly retry: RetryBounds },
  effect: Effect.Effect<A, KafkaError, R>,
  shouldRetry: (error: KafkaError) => boolean = (error) => error.retriable
): Effect.Effect<A, KafkaError, R> => {
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
