/** A consumer's options, checked, with their defaults, in plain numbers. */
import { hostname } from "node:os"
import { Key } from "@tidemark/core"
import { type Duration, Effect, Schedule } from "effect"
import type { Decoder } from "../../Decoder.ts"
import type { KafkaRecord } from "../../KafkaClient.ts"
import type { AnyOptions, BatchClaim, RecordClaim, WhenPoison } from "../../KafkaConsumer.ts"
import { letterId } from "../letters.ts"
import {
  checkFunction,
  checkKnown,
  checkTopics,
  count,
  fail,
  millis,
  text,
  topicName,
  word
} from "../optionChecks.ts"
import type { Order } from "./Lanes.ts"
import { makeRoutes, type Routes } from "./routes.ts"

export interface Bounds {
  readonly maxInFlight: number
  readonly maxBytes: number
  readonly maxUnfinishedOffsets: number
  readonly maxSpan: number
}

/** What the consumer works with, whatever its handler can fail with or needs. */
export interface Settings {
  /** Those that are consumed: the sources and their retry topics. */
  readonly topics: ReadonlyArray<string>
  /** Those that were asked for. */
  readonly sources: ReadonlyArray<string>
  readonly groupId: string
  readonly identify: ((record: KafkaRecord) => string | undefined) | undefined
  readonly routes: Routes
  readonly createTopics: boolean
  readonly whenPoison: WhenPoison
  readonly whenInFlight: "wait" | "dead-letter"
  readonly order: Order
  readonly concurrency: number
  readonly maxUnmarked: number
  readonly cluster: string | undefined
  readonly owner: string
  readonly start: "earliest" | "latest"
  readonly whenStoreLost: "stop" | "resume"
  readonly whenLogWentBack: "stop" | "reset"
  readonly bounds: Bounds
  readonly sessionTimeoutMillis: number
  readonly leaseMillis: number
  readonly drainTimeoutMillis: number
  readonly commitIntervalMillis: number
  /** `undefined`: handlers take as long as they take. */
  readonly stallTimeoutMillis: number | undefined
  /** How long a completed id is remembered; `undefined`: the store's default. */
  readonly retentionMillis: number | undefined
}

export type Handler<E, R> = (record: KafkaRecord, claim: RecordClaim) => Effect.Effect<unknown, E, R>

export interface SettingsAndHandler<E, R> extends Settings {
  /** For records as they are; not used where there is a `decoding`, or `batches`. */
  readonly handler: Handler<E, R>
  readonly decoding: Decoding<E, R> | undefined
  readonly batches: Batches<E, R> | undefined
  readonly retry: Schedule.Schedule<unknown, unknown> | undefined
}

export type BatchHandler<E, R> = (
  records: ReadonlyArray<KafkaRecord>,
  claim: BatchClaim
) => Effect.Effect<unknown, E, R>

/** What works on several records at a time. */
export interface Batches<E, R> {
  /** `values`: what the records were decoded to; the records themselves where there is no decoder. */
  readonly handleBatch: (
    values: ReadonlyArray<unknown>,
    records: ReadonlyArray<KafkaRecord>,
    claim: BatchClaim
  ) => Effect.Effect<unknown, E, R>
  readonly maxRecords: number
}

/** A decoder, and what works on what it gives. */
export interface Decoding<E, R> {
  readonly decode: Decoder<unknown, R>
  /** Not used where there are `batches`. */
  readonly handler: (value: unknown, record: KafkaRecord, claim: RecordClaim) => Effect.Effect<unknown, E, R>
  readonly identify: ((value: unknown, record: KafkaRecord) => string | undefined) | undefined
}

const defaultBounds: Bounds = {
  maxInFlight: 10_000,
  maxBytes: 16 * 1_048_576,
  maxUnfinishedOffsets: 100_000,
  maxSpan: 1_000_000
}

/** How many records may be processed and not completed, beside those at work, unless it is said. */
const unmarkedBeside = 4_000

const knownOptions: Readonly<Record<keyof AnyOptions<unknown, unknown>, true>> = {
  topics: true,
  groupId: true,
  decode: true,
  handler: true,
  handleBatch: true,
  maxBatchRecords: true,
  identify: true,
  retry: true,
  retryTopics: true,
  whenPoison: true,
  deadLetterTopic: true,
  createTopics: true,
  order: true,
  concurrency: true,
  maxUnmarked: true,
  cluster: true,
  owner: true,
  start: true,
  whenInFlight: true,
  whenStoreLost: true,
  whenLogWentBack: true,
  bounds: true,
  sessionTimeout: true,
  lease: true,
  drainTimeout: true,
  commitInterval: true,
  stallTimeout: true,
  retention: true
}

const checkBounds = (given: Partial<Bounds>): Bounds => {
  if (typeof given !== "object" || given === null) return fail("bounds", given, "an object")
  checkKnown("bounds", given, { ...defaultBounds })
  const bound = (name: keyof Bounds) =>
    count(`bounds.${name}`, given[name], defaultBounds[name], Number.MAX_SAFE_INTEGER)
  return {
    maxInFlight: bound("maxInFlight"),
    maxBytes: bound("maxBytes"),
    maxUnfinishedOffsets: bound("maxUnfinishedOffsets"),
    maxSpan: bound("maxSpan")
  }
}

const checkSchedule = (value: unknown): Schedule.Schedule<unknown, unknown> | undefined => {
  if (value === undefined || Schedule.isSchedule(value))
    return value as Schedule.Schedule<unknown, unknown> | undefined
  return fail(
    "retry",
    value,
    'a Schedule, as Schedule.exponential("100 millis").pipe(Schedule.upTo({ times: 5 }))'
  )
}

const checkDelays = (given: unknown): ReadonlyArray<number> => {
  if (!Array.isArray(given)) return fail("retryTopics", given, "an array of durations")
  const delays = given.map((delay: Duration.Input) => millis("retryTopics", delay, 0, 31 * 86_400_000))
  for (const delay of delays)
    if (!Number.isInteger(delay)) fail("retryTopics", delay, "a whole number of milliseconds")
  return new Set(delays).size === delays.length ? delays : fail("retryTopics", delays, "each duration once")
}

const checkFlag = (field: string, value: boolean | undefined, fallback: boolean): boolean => {
  if (value === undefined) return fallback
  return typeof value === "boolean" ? value : fail(field, value, "true, false")
}

/** Where the topics' records go from where, checked: nothing that is sent on comes back. */
const readRoutes = (
  sources: ReadonlyArray<string>,
  { deadLetterTopic, retryTopics }: Pick<AnyOptions<unknown, unknown>, "deadLetterTopic" | "retryTopics">,
  needsDeadLetters: boolean
): Routes => {
  const nameOf =
    typeof deadLetterTopic === "string" || deadLetterTopic === undefined
      ? (topic: string) => deadLetterTopic ?? `${topic}.dead-letter`
      : checkFunction("deadLetterTopic", deadLetterTopic)
  const delays = checkDelays(retryTopics ?? [])
  const routes = makeRoutes(sources, delays, (topic) =>
    needsDeadLetters ? topicName("deadLetterTopic", nameOf(topic)) : undefined
  )
  if (routes.size !== sources.length * (delays.length + 1))
    fail("topics", sources, "no topic that is a retry topic of another")
  for (const [topic, { deadLetterTopic }] of routes) {
    topicName("retryTopics", topic)
    if (deadLetterTopic !== undefined && routes.has(deadLetterTopic))
      fail("deadLetterTopic", deadLetterTopic, "a topic that the consumer does not read")
  }
  return routes
}

const readDecoding = <E, R>(options: AnyOptions<E, R>): Decoding<E, R> | undefined => {
  if (options.decode === undefined) return undefined
  const { decode, handler, identify } = options as unknown as Decoding<E, R>
  return {
    decode: typeof decode?.decode === "function" ? decode : fail("decode", decode, "a Decoder"),
    handler,
    identify: identify === undefined ? undefined : checkFunction("identify", identify)
  }
}

const neverHandles = (): Effect.Effect<never> => Effect.die(new Error("records come in batches"))

const readBatches = <E, R>(options: AnyOptions<E, R>): Batches<E, R> | undefined => {
  const { handleBatch, maxBatchRecords } = options
  if (handleBatch === undefined) {
    if (maxBatchRecords !== undefined)
      fail("maxBatchRecords", maxBatchRecords, "to be absent where there is no handleBatch")
    return undefined
  }
  const { decode, handler } = options
  if (handler !== undefined) fail("handler", handler, "to be absent where there is a handleBatch")
  word("whenInFlight", options.whenInFlight, ["wait"])
  checkFunction<unknown>("handleBatch", handleBatch)
  return {
    handleBatch:
      decode === undefined
        ? (_, records, claim) => (handleBatch as BatchHandler<E, R>)(records, claim)
        : (handleBatch as Batches<E, R>["handleBatch"]),
    maxRecords: count("maxBatchRecords", maxBatchRecords, 500, 100_000)
  }
}

/** @throws InvalidInput naming the option, its value and what is allowed. */
export const readSettings = <E, R>(options: AnyOptions<E, R>): SettingsAndHandler<E, R> => {
  checkKnown("KafkaConsumer", options, knownOptions)
  const sources = checkTopics("topics", options.topics)
  const groupId = text("groupId", options.groupId)
  const cluster = options.cluster === undefined ? undefined : text("cluster", options.cluster)
  // Encoded, a name may be three times as long: found out now, not at the first assignment.
  const whenPoison = word("whenPoison", options.whenPoison, ["stop", "dead-letter", "park"])
  const whenInFlight = word("whenInFlight", options.whenInFlight, ["wait", "dead-letter"])
  const needsDeadLetters = whenPoison === "dead-letter" || whenInFlight === "dead-letter"
  const routes = readRoutes(sources, options, needsDeadLetters)
  const topics = [...routes.keys()]
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
  if (needsDeadLetters || whenPoison === "park" || topics.length > sources.length)
    for (const topic of sources)
      letterId(groupId, cluster, {
        topic,
        partition: 999_999,
        offset: Number.MAX_SAFE_INTEGER,
        epoch: Number.MAX_SAFE_INTEGER,
        timestampMillis: Date.UTC(9_999)
      })
  const concurrency = count("concurrency", options.concurrency, 16, 100_000)
  const batches = readBatches(options)
  return {
    topics,
    sources,
    routes,
    groupId,
    cluster,
    whenPoison,
    whenInFlight,
    createTopics: checkFlag("createTopics", options.createTopics, true),
    retry: checkSchedule(options.retry),
    decoding: readDecoding<E, R>(options),
    batches,
    handler:
      batches === undefined ? checkFunction("handler", options.handler as Handler<E, R>) : neverHandles,
    identify:
      options.identify === undefined || options.decode !== undefined
        ? undefined
        : checkFunction("identify", options.identify as (record: KafkaRecord) => string | undefined),
    order: word("order", options.order, ["key", "partition", "none"]),
    concurrency,
    maxUnmarked: count(
      "maxUnmarked",
      options.maxUnmarked,
      concurrency * (batches?.maxRecords ?? 1) + unmarkedBeside,
      Number.MAX_SAFE_INTEGER
    ),
    owner: options.owner === undefined ? `${hostname()}:${process.pid}` : text("owner", options.owner),
    start: word("start", options.start, ["earliest", "latest"]),
    whenStoreLost: word("whenStoreLost", options.whenStoreLost, ["stop", "resume"]),
    whenLogWentBack: word("whenLogWentBack", options.whenLogWentBack, ["stop", "reset"]),
    bounds: checkBounds(options.bounds ?? {}),
    sessionTimeoutMillis,
    leaseMillis,
    drainTimeoutMillis: millis("drainTimeout", options.drainTimeout, Math.min(10_000, leaseMillis / 2)),
    commitIntervalMillis: millis("commitInterval", options.commitInterval, 1_000),
    stallTimeoutMillis:
      options.stallTimeout === undefined ? undefined : millis("stallTimeout", options.stallTimeout, 0),
    retentionMillis:
      options.retention === undefined
        ? undefined
        : millis("retention", options.retention, 0, Number.POSITIVE_INFINITY)
  }
}
