/** Asking the store for as long as a lease lasts: what it would answer later is worth nothing. */
import { Patience, StoreError } from "@tidemark/core"
import { Effect } from "effect"
import type { TopicPartition } from "../../KafkaClient.ts"
import type { Environment } from "./environment.ts"

export const nameOf = ({ topic, partition }: TopicPartition): string =>
  `partition ${partition} of topic "${topic}"`

/** What has come of it, where a partition is not had. */
export const notHad = (partition: TopicPartition): string => `${nameOf(partition)} could not be had`

/** A call that does not answer for a lease's time is given up, with an error that says what has come of it. */
export const answered = <A, E, R>(
  { offsets, settings }: Environment,
  verb: string,
  outcome: string,
  call: Effect.Effect<A, E, R>
): Effect.Effect<A, E | StoreError, R> =>
  Effect.timeoutOrElse(call, {
    duration: settings.leaseMillis,
    orElse: () =>
      Effect.fail(
        new StoreError({
          store: offsets.name,
          verb,
          reason: "Timeout",
          detail: `${outcome}, there was no answer for ${settings.leaseMillis} ms, the time of a lease`,
          retriable: true
        })
      )
  })

/**
 * Asks again while the store fails for a while, and does not wait for an answer without bound: for the time of a lease
 * at most, and no new question after `deadline` (on the monotonic clock; asked before each pause).
 *
 * @param outcome - what has come of it if there is no answer, for people: "the claim could not be had".
 */
export const patiently = <A, E extends { readonly retriable: boolean }, R>(
  environment: Environment,
  verb: string,
  outcome: string,
  call: Effect.Effect<A, E, R>,
  deadline: () => number = () => Number.POSITIVE_INFINITY
): Effect.Effect<A, E | StoreError, R> =>
  Effect.suspend(() => {
    const { clock, settings } = environment
    const giveUpAt = Patience.monotonicMillis(clock) + settings.leaseMillis
    const asked = Patience.retryUntil(
      () => call,
      () => Math.min(giveUpAt, deadline())
    )
    return answered(environment, verb, outcome, asked)
  })
