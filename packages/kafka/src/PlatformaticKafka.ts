/**
 * `KafkaClient` on @platformatic/kafka 2.12, which is maintained, and needs no native code.
 *
 * Import it from `@tidemark/kafka/platformatic`; who does not needs no @platformatic/kafka. It needs Node 22.22 or
 * later, or 24.6 or later. Members of this driver and of kafkajs's can be in one group, so that a deployment can go from
 * one to the other step by step. What differs is listed in docs/kafka.md.
 */
import {
  type BaseOptions,
  Base as Client,
  type ConnectionOptions,
  Producer,
  type SASLOptions
} from "@platformatic/kafka"
import { type Config, Effect, Layer, type Scope } from "effect"
import {
  brokersConfig,
  type ClusterOptions,
  clientSettings,
  validateClusterOptions
} from "./internal/clientOptions.ts"
import { type Driver, join } from "./internal/membership.ts"
import { makeAdmin } from "./internal/platformaticAdmin.ts"
import type { Connecting } from "./internal/platformaticCluster.ts"
import { toKafkaError } from "./internal/platformaticErrors.ts"
import { makeProduce } from "./internal/platformaticProducer.ts"
import { type Identity, PlatformaticSession } from "./internal/platformaticSession.ts"
import { makeTransactionalProducer } from "./internal/platformaticTransactions.ts"
import { makePartitionCheck } from "./internal/produceRequests.ts"
import { settling } from "./internal/retrying.ts"
import { KafkaClient } from "./KafkaClient.ts"
import type { KafkaError } from "./KafkaErrors.ts"

/** How to reach a cluster. */
export interface Options extends ClusterOptions {
  readonly ssl?: ConnectionOptions["tls"]
  /** As @platformatic/kafka takes it: the mechanism in capitals, "PLAIN" or "SCRAM-SHA-512" say. */
  readonly sasl?: SASLOptions
}

const driverNames: ReadonlyArray<keyof Options> = ["ssl", "sasl"]

const clientOptions = (options: Options): BaseOptions => ({
  clientId: options.clientId ?? "tidemark",
  bootstrapBrokers: [...options.brokers],
  connectTimeout: options.connectionTimeoutMillis ?? 3_000,
  requestTimeout: options.requestTimeoutMillis ?? 30_000,
  timeout: options.requestTimeoutMillis ?? 30_000,
  metadataMaxAge: options.metadataMaxAgeMillis ?? 60_000,
  autocreateTopics: options.allowAutoTopicCreation ?? false,
  // Trying again, and saying so, is the part of `withRetry`.
  retries: 0,
  ...(options.ssl === undefined ? {} : { tls: options.ssl, tlsServerName: true }),
  ...(options.sasl === undefined ? {} : { sasl: options.sasl })
})

const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<KafkaClient["Service"], KafkaError, Scope.Scope> {
  const { brokers } = options
  const wrong = validateClusterOptions(options, driverNames)
  if (wrong !== undefined) return yield* wrong
  const connecting: Connecting = {
    ...clientSettings(options),
    brokers,
    requestTimeoutMillis: options.requestTimeoutMillis ?? 30_000,
    client: clientOptions(options)
  }
  const closing = (client: Client) => Effect.ignore(Effect.tryPromise(() => client.close()))
  const client = yield* Effect.acquireRelease(
    Effect.sync(() => new Client(connecting.client)),
    closing
  )
  const producer = yield* Effect.acquireRelease(
    Effect.sync(() => new Producer(connecting.client)),
    closing
  )
  const admin = makeAdmin(connecting, client)
  const partitionCheck = makePartitionCheck(brokers, admin.partitionCounts)
  const run = Effect.runForkWith(yield* Effect.context<never>())

  const driver = (identity: Identity): Driver => ({
    brokers,
    retry: connecting.retry,
    toKafkaError,
    partitionCounts: admin.partitionCounts,
    openSession: (member, events) =>
      Effect.try({
        try: () =>
          new PlatformaticSession(connecting, member, events, identity, (error, attempt, delayMillis) => {
            const write = settling.has(error.reason) ? Effect.logInfo : Effect.logWarning
            run(write(`Kafka: ${error.message} (failure ${attempt}); trying again in ${delayMillis} ms`))
          }),
        catch: (error) => toKafkaError(error, { operation: "join", brokers, topics: member.topics })
      })
  })
  return {
    brokers,
    join: (member) => join(driver({ memberId: null }), member),
    produce: makeProduce(connecting, producer, partitionCheck),
    transactionalProducer: (transaction) =>
      makeTransactionalProducer(connecting, partitionCheck, transaction),
    committed: admin.committed,
    logBounds: admin.logBounds,
    createTopics: admin.createTopics,
    partitionCounts: admin.partitionCounts
  }
})

/**
 * A `KafkaClient` for this cluster. Connects when first used. Fails with a `KafkaError` (`InvalidRequest`) that names
 * the field, the value and what is allowed.
 *
 * @example
 * const Kafka = PlatformaticKafka.layer({ brokers: ["localhost:9092"] })
 */
export const layer = (options: Options): Layer.Layer<KafkaClient, KafkaError> =>
  Layer.effect(KafkaClient, make(options))

/**
 * As `layer`, with the addresses from the variable `KAFKA_BROKERS`: `host:port`, several separated by commas. A bad or
 * missing value is a `ConfigError` that names the variable, the value and what is allowed.
 */
export const layerConfig = (
  options: Omit<Options, "brokers"> = {}
): Layer.Layer<KafkaClient, Config.ConfigError | KafkaError> =>
  Layer.effect(
    KafkaClient,
    Effect.flatMap(brokersConfig, (brokers) => make({ ...options, brokers }))
  )
