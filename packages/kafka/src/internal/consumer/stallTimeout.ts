/** Handlers that are at work for longer than `stallTimeout`. */
import { Effect } from "effect"
import { HandlerStalled } from "../../ConsumerErrors.ts"
import type { KafkaRecord } from "../../KafkaClient.ts"
import type { Counters } from "./counters.ts"
import { within } from "./deadline.ts"
import type { SettingsAndHandler } from "./settings.ts"

/** The same settings, with handlers that fail with `HandlerStalled` when their time is over. */
export const boundHandlers = <E, R>(
  settings: SettingsAndHandler<E, R>,
  counters: Counters,
  fork: (effect: Effect.Effect<void>) => unknown
): SettingsAndHandler<E | HandlerStalled, R> => {
  const { batches, decoding, handler, stallTimeoutMillis: millis } = settings
  if (millis === undefined) return settings
  const bound = <A>(
    { offset, partition, topic }: KafkaRecord,
    records: number,
    work: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | HandlerStalled, R> =>
    within(work, millis, () => {
      const error = new HandlerStalled({ topic, partition, offset, records, millis })
      counters.stalled++
      fork(Effect.logWarning(`tidemark: ${error.message}`))
      return error
    })
  return {
    ...settings,
    handler: (record, claim) => bound(record, 1, handler(record, claim)),
    decoding: decoding && {
      ...decoding,
      handler: (value, record, claim) => bound(record, 1, decoding.handler(value, record, claim))
    },
    batches: batches && {
      ...batches,
      handleBatch: (values, records, claim) =>
        bound(records[0], records.length, batches.handleBatch(values, records, claim))
    }
  }
}
