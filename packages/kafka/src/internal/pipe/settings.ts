/** A pipe's options, checked, with their defaults, in plain numbers. */
import { Key } from "@tidemark/core"
import type { Effect, Schedule } from "effect"
import type { KafkaRecord } from "../../KafkaClient.ts"
import type { OutputRecord, PipeOptions } from "../../KafkaPipe.ts"
import { checkFunction, checkKnown, checkTopics, count, fail, millis, text, word } from "../optionChecks.ts"

/** What a pipe works with, whatever its transform can fail with or needs. */
export interface Settings {
  readonly from: ReadonlyArray<string>
  readonly to: ReadonlySet<string>
  /** Where a record goes that names no topic; `undefined` where there are several. */
  readonly defaultTopic: string | undefined
  readonly groupId: string
  readonly concurrency: number
  readonly start: "earliest" | "latest"
  readonly maxRecords: number
  readonly maxBytes: number
  readonly sessionTimeoutMillis: number
  readonly transactionTimeoutMillis: number
  readonly drainTimeoutMillis: number
}

export interface SettingsAndTransform<E, R> extends Settings {
  readonly transform: (record: KafkaRecord) => Effect.Effect<ReadonlyArray<OutputRecord>, E, R>
  readonly retry: Schedule.Schedule<unknown, E, never, R> | undefined
}

const knownOptions: Readonly<Record<keyof PipeOptions<unknown, unknown>, true>> = {
  from: true,
  to: true,
  groupId: true,
  transform: true,
  retry: true,
  concurrency: true,
  start: true,
  maxBatchRecords: true,
  maxBatchBytes: true,
  sessionTimeout: true,
  transactionTimeout: true,
  drainTimeout: true
}

const topics = (field: string, value: string | ReadonlyArray<string>): ReadonlyArray<string> =>
  checkTopics(field, typeof value === "string" ? [value] : value)

/** @throws InvalidInput naming the option, its value and what is allowed. */
export const readSettings = <E, R>(options: PipeOptions<E, R>): SettingsAndTransform<E, R> => {
  checkKnown("KafkaPipe", options, knownOptions)
  const from = topics("from", options.from)
  const to = topics("to", options.to)
  const loop = to.find((topic) => from.includes(topic))
  if (loop !== undefined)
    fail("to", loop, "other topics than those in from: a pipe must not read what it writes")
  const groupId = text("groupId", options.groupId)
  // Encoded, a name may be three times as long: found out now, not at the first assignment.
  for (const topic of from) Key.kafkaStream({ group: groupId, topic, partition: 999_999 })
  const sessionTimeoutMillis = millis("sessionTimeout", options.sessionTimeout, 30_000)
  const transactionTimeoutMillis = millis(
    "transactionTimeout",
    options.transactionTimeout,
    sessionTimeoutMillis
  )
  for (const [field, value] of Object.entries({ sessionTimeoutMillis, transactionTimeoutMillis }))
    if (!Number.isInteger(value)) fail(field.replace("Millis", ""), value, "a whole number of milliseconds")
  return {
    from,
    to: new Set(to),
    defaultTopic: to.length === 1 ? to[0] : undefined,
    groupId,
    transform: checkFunction("transform", options.transform),
    retry: options.retry,
    concurrency: count("concurrency", options.concurrency, 1, 100_000),
    start: word("start", options.start, ["earliest", "latest"]),
    maxRecords: count("maxBatchRecords", options.maxBatchRecords, 5_000, 1_000_000),
    maxBytes: count("maxBatchBytes", options.maxBatchBytes, 4 * 1_048_576, 1_073_741_824),
    sessionTimeoutMillis,
    transactionTimeoutMillis,
    drainTimeoutMillis: millis(
      "drainTimeout",
      options.drainTimeout,
      Math.min(10_000, sessionTimeoutMillis / 2)
    )
  }
}
