/** A consumer's options, checked, with their defaults, in plain numbers. */
import { hostname } from "node:os"
import { InvalidInput, Key, Policies } from "@tidemark/core"
import type { Duration, Effect } from "effect"
import type { KafkaRecord } from "../../KafkaClient.ts"
import type { ConsumerOptions, RecordClaim } from "../../KafkaConsumer.ts"
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

const describe = (value: unknown): string => {
  if (typeof value === "string") return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}...` : value)
  if (Array.isArray(value)) return value.length === 0 ? "[]" : `[${value.map(describe).join(", ")}]`
  return typeof value === "object" && value !== null ? "an object" : String(value)
}

const fail = (field: string, value: unknown, allowed: string): never => {
  throw new InvalidInput({ field, value: describe(value), allowed })
}

const checkKnown = (what: string, given: object, known: Readonly<Record<string, unknown>>): void => {
  for (const option of Object.keys(given))
    if (!Object.hasOwn(known, option)) fail(what, option, Object.keys(known).join(", "))
}

const text = (field: string, value: unknown): string => {
  if (typeof value !== "string" || value === "" || !value.isWellFormed() || Buffer.byteLength(value) > 1_024)
    return fail(field, value, "1 to 1,024 bytes of UTF-8 without lone surrogates")
  return value
}

const count = (field: string, value: number | undefined, fallback: number, max: number): number => {
  if (value === undefined) return fallback
  return Number.isSafeInteger(value) && value >= 1 && value <= max
    ? value
    : fail(field, value, `an integer from 1 to ${max}`)
}

const word = <Word extends string>(
  field: string,
  value: Word | undefined,
  words: readonly [Word, ...ReadonlyArray<Word>]
): Word => {
  if (value === undefined) return words[0]
  return words.includes(value) ? value : fail(field, value, words.join(", "))
}

const millis = (
  field: string,
  value: Duration.Input | undefined,
  fallback: number,
  max = 86_400_000
): number => {
  if (value === undefined) return fallback
  const duration = Policies.duration(field, value)
  if (typeof duration !== "number") throw duration
  return duration <= max ? duration : fail(field, duration, `more than 0 and at most ${max}, in milliseconds`)
}

const topicPattern = /^[A-Za-z0-9._-]{1,249}$/

const checkTopics = (topics: ReadonlyArray<string>): ReadonlyArray<string> => {
  if (!Array.isArray(topics) || topics.length === 0) return fail("topics", topics, "at least one topic")
  for (const topic of topics) {
    if (typeof topic !== "string" || !topicPattern.test(topic) || topic === "." || topic === "..")
      return fail("topics", topic, "names of 1 to 249 letters, digits, dots, underscores and hyphens")
  }
  if (new Set(topics).size !== topics.length) return fail("topics", topics, "each topic once")
  return [...topics]
}

const checkFunction = <F>(field: string, value: F): F =>
  typeof value === "function" ? value : fail(field, value, "a function")

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
  const topics = checkTopics(options.topics)
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
