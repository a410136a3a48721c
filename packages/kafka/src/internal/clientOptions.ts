/** What the drivers let their users set, checked in one way. */
import { Config, ConfigProvider, Effect } from "effect"
import type { KafkaError } from "../KafkaErrors.ts"
import { invalidRequest, unknownOption } from "./memberOptions.ts"
import type { RetryBounds } from "./retrying.ts"

/** What every way of making a client may set. */
export interface ClientOptions {
  /**
   * How often an operation is tried before its error is handed on: an attempt, then pauses that double from
   * `initialDelayMillis` up to `maxDelayMillis`. Each failed attempt is a line in the log. A member that was in its
   * group already joins again without a bound. 5 attempts, 300 ms, 5,000 ms by default.
   */
  readonly retry?: {
    readonly attempts?: number
    readonly initialDelayMillis?: number
    readonly maxDelayMillis?: number
  }
  /** How long it may take to notice new partitions and moved leaders; 60,000 ms by default. */
  readonly metadataMaxAgeMillis?: number
  /** How much one fetch brings of one partition, in bytes; 1 MiB by default. */
  readonly maxBytesPerPartition?: number
  /** How much one fetch brings in all, in bytes; 10 MiB by default. */
  readonly maxBytes?: number
  /** Whether brokers may create a topic because it is read or written; false by default. */
  readonly allowAutoTopicCreation?: boolean
}

/** What every way of reaching a cluster by its addresses may set besides. */
export interface ClusterOptions extends ClientOptions {
  /** Addresses as `host:port`, of some brokers of the cluster; at least one. */
  readonly brokers: ReadonlyArray<string>
  /** How this application is named in the brokers' logs and quotas; `tidemark` by default. */
  readonly clientId?: string
  /** How long connecting to one broker may take; 3,000 ms by default. */
  readonly connectionTimeoutMillis?: number
  /** How long one request may take; 30,000 ms by default. */
  readonly requestTimeoutMillis?: number
}

/** The same with what is absent filled in. */
export interface ClientSettings {
  readonly retry: RetryBounds
  readonly metadataMaxAgeMillis: number
  readonly maxBytesPerPartition: number
  readonly maxBytes: number
  readonly allowAutoTopicCreation: boolean
}

/** The options with their defaults. */
export const clientSettings = (options: ClientOptions): ClientSettings => ({
  retry: {
    attempts: options.retry?.attempts ?? 5,
    initialDelayMillis: options.retry?.initialDelayMillis ?? 300,
    maxDelayMillis: options.retry?.maxDelayMillis ?? 5_000
  },
  metadataMaxAgeMillis: options.metadataMaxAgeMillis ?? 60_000,
  maxBytesPerPartition: options.maxBytesPerPartition ?? 1_048_576,
  maxBytes: options.maxBytes ?? 10_485_760,
  allowAutoTopicCreation: options.allowAutoTopicCreation ?? false
})

/** The error for an option that can't be so. */
export const invalidOption = (
  brokers: ReadonlyArray<string>,
  field: string,
  value: unknown,
  allowed: string
): KafkaError => invalidRequest("connect", brokers, field, value, allowed)

const addressPattern = /^[^\s:,]+:(\d{1,5})$/
const allowedAddresses = "addresses as host:port, with a port from 1 to 65535"

const isAddress = (address: string): boolean => {
  const port = Number(addressPattern.exec(address)?.[1] ?? 0)
  return port >= 1 && port <= 65_535
}

const retryNames = ["attempts", "initialDelayMillis", "maxDelayMillis"]
const optionNames: ReadonlyArray<keyof ClusterOptions> = [
  "brokers",
  "clientId",
  "connectionTimeoutMillis",
  "requestTimeoutMillis",
  "retry",
  "metadataMaxAgeMillis",
  "maxBytesPerPartition",
  "maxBytes",
  "allowAutoTopicCreation"
]

const positiveInteger = "a whole number above 0"

/** What is wrong with the options, if anything. `driverNames`: those that only this driver has. */
export const validateOptions = (
  brokers: ReadonlyArray<string>,
  options: ClientOptions & Partial<ClusterOptions>,
  driverNames: ReadonlyArray<string>
): KafkaError | undefined => {
  const numbers = {
    "retry.attempts": options.retry?.attempts,
    "retry.initialDelayMillis": options.retry?.initialDelayMillis,
    "retry.maxDelayMillis": options.retry?.maxDelayMillis,
    metadataMaxAgeMillis: options.metadataMaxAgeMillis,
    maxBytesPerPartition: options.maxBytesPerPartition,
    maxBytes: options.maxBytes,
    connectionTimeoutMillis: options.connectionTimeoutMillis,
    requestTimeoutMillis: options.requestTimeoutMillis
  }
  const names = [...optionNames, ...driverNames]
  const unknown =
    unknownOption("connect", brokers, "KafkaClient", options, names) ??
    unknownOption("connect", brokers, "retry", options.retry ?? {}, retryNames)
  if (unknown !== undefined) return unknown
  for (const [field, value] of Object.entries(numbers))
    if (value !== undefined && !(Number.isSafeInteger(value) && value > 0))
      return invalidOption(brokers, field, value, positiveInteger)
  return undefined
}

/** The same for options that name the addresses. */
export const validateClusterOptions = (
  options: ClusterOptions,
  driverNames: ReadonlyArray<string>
): KafkaError | undefined => {
  const { brokers } = options
  return brokers.length === 0 || !brokers.every(isAddress)
    ? invalidOption(brokers, "brokers", brokers, `at least one of ${allowedAddresses}`)
    : validateOptions(brokers, options, driverNames)
}

/** The addresses of the variable `KAFKA_BROKERS`. */
export const brokersConfig: Config.Config<ReadonlyArray<string>> = Config.mapEffect(
  Config.withDefault(Config.String("KAFKA_BROKERS"), ""),
  (text) => {
    const brokers = text.split(",").map((address) => address.trim())
    if (brokers.every(isAddress)) return Effect.succeed(brokers)
    const value = text === "" ? "not set" : JSON.stringify(text)
    const message = `KAFKA_BROKERS is ${value}; allowed: ${allowedAddresses}, separated by commas`
    return Effect.fail(new Config.ConfigError(new ConfigProvider.SourceError({ message })))
  }
)
