/** A consumer's options, checked, with their defaults, in plain numbers. */
import { hostname } from "node:os"
import { Key } from "@tidemark/core"
import type { Effect } from "effect"
import type { KafkaRecord } from "../../KafkaClient.ts"
import type { ConsumerOptions, RecordClaim } from "../../KafkaConsumer.ts"
import { checkFunction, checkKnown, checkTopics, count, fail, millis, text, word } from "../optionChecks.ts"
import type { Order } from "./Lanes.ts"

export interface Bounds {
  readonly maxInFlight: number
  readonly maxBytes: number
  readonly maxUnfinishedOffsets: number
  readonly maxSpan: number
}

/** What the consumer works with, whatever its handler can fail with or needs. */
export interface Settings {
  readonly topics: ReadonlyArray<string>
  readonly groupId: string
  readonly identify: ((record: KafkaRecord) => string | undefined) | undefined
  readonly order: Order
  readonly concurrency: number
  readonly maxUnmarked: number
  readonly cluster: string | undefined
  readonly owner: string
  readonly start: "earliest" | "latest"
  readonly whenStoreLost: "stop" | "resume"
  readonly bounds: Bounds
  readonly sessionTimeoutMillis: number
  readonly leaseMillis: number
  readonly drainTimeoutMillis: number
  readonly commitIntervalMillis: number
  /** How long a completed id is remembered; `undefined`: the store's default. */
  readonly retentionMillis: number | undefined
}

export type Handler<E, R> = (record: KafkaRecord, claim: RecordClaim) => Effect.Effect<unknown, E, R>

export interface SettingsAndHandler<E, R> extends Settings {
  readonly handler: Handler<E, R>
}

const defaultBounds: Bounds = {
  maxInFlight: 10_000,
  maxBytes: 16 * 1_048_576,
  maxUnfinishedOffsets: 100_000,
  maxSpan: 1_000_000
}

/** How many records may be processed and not completed, beside those at work, unless it is said. */
const unmarkedBeside = 1_000

const knownOptions: Readonly<Record<keyof ConsumerOptions<unknown, unknown>, true>> = {
  topics: true,
  groupId: true,
  handler: true,
  identify: true,
  order: true,
  concurrency: true,
  maxUnmarked: true,
  cluster: true,
  owner: true,
  start: true,
  whenInFlight: true,
  whenStoreLost: true,
  bounds: true,
  sessionTimeout: true,
  lease: true,
  drainTimeout: true,
  commitInterval: true,
  retention: true
}

const checkBounds = (given: Partial<Bounds>): Bounds => {
  if (typeof given !== "object" || given === null) return fail("bounds", given, "an object")
  checkKnown("option of bounds", given, { ...defaultBounds })
  const bound = (name: keyof Bounds) =>
    count(`bounds.${name}`, given[name], defaultBounds[name], Number.MAX_SAFE_INTEGER)
  return {
    maxInFlight: bound("maxInFlight"),
    maxBytes: bound("maxBytes"),
    maxUnfinishedOffsets: bound("maxUnfinishedOffsets"),
    maxSpan: bound("maxSpan")
  }
}

/** @throws InvalidInput naming the option, its value and what is allowed. */
export const readSettings = <E, R>(options: ConsumerOptions<E, R>): SettingsAndHandler<E, R> => {
  checkKnown("option of KafkaConsumer", options, knownOptions)
  const topics = checkTopics("topics", options.topics)
  const groupId = text("groupId", options.groupId)
  const cluster = options.cluster === undefined ? undefined : text("cluster", options.cluster)
  // Encoded, a name may be three times as long: found out now, not at the first assignment.
  for (const topic of topics)
    Key.kafkaStream({
      group: groupId,
      topic,
      partition: 999_999,
      ...(cluster === undefined ? {} : { cluster })
    })
  const sessionTimeoutMillis = millis("sessionTimeout", options.sessionTimeout, 30_000)
  if (!Number.isInteger(sessionTimeoutMillis))
    fail("sessionTimeout", sessionTimeoutMillis, "a whole number of milliseconds")
  const leaseMillis = millis("lease", options.lease, sessionTimeoutMillis)
  if (leaseMillis > sessionTimeoutMillis)
    fail(
      "lease",
      leaseMillis,
      `more than 0 and at most the session timeout, ${sessionTimeoutMillis}, in milliseconds`
    )
  word("whenInFlight", options.whenInFlight, ["wait"])
  const concurrency = count("concurrency", options.concurrency, 16, 100_000)
  return {
    topics,
    groupId,
    cluster,
    handler: checkFunction("handler", options.handler),
    identify: options.identify === undefined ? undefined : checkFunction("identify", options.identify),
    order: word("order", options.order, ["key", "partition", "none"]),
    concurrency,
    maxUnmarked: count(
      "maxUnmarked",
      options.maxUnmarked,
      concurrency + unmarkedBeside,
      Number.MAX_SAFE_INTEGER
    ),
    owner: options.owner === undefined ? `${hostname()}:${process.pid}` : text("owner", options.owner),
    start: word("start", options.start, ["earliest", "latest"]),
    whenStoreLost: word("whenStoreLost", options.whenStoreLost, ["stop", "resume"]),
    bounds: checkBounds(options.bounds ?? {}),
    sessionTimeoutMillis,
    leaseMillis,
    drainTimeoutMillis: millis("drainTimeout", options.drainTimeout, Math.min(10_000, leaseMillis / 2)),
    commitIntervalMillis: millis("commitInterval", options.commitInterval, 1_000),
    retentionMillis:
      options.retention === undefined
        ? undefined
        : millis("retention", options.retention, 0, Number.POSITIVE_INFINITY)
  }
}
