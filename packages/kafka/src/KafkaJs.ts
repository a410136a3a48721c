/**
 * `KafkaClient` on kafkajs 2.2.4, which needs no native code.
 *
 * kafkajs has had no maintainer since 2023, and some of its habits lose or repeat records in the hands of those who
 * don't know them. This driver works around those that matter, and nothing above it sees kafkajs; what it relies on
 * was read in its source, so keep the version.
 *
 * Topics compressed with snappy, lz4 or zstd need a codec in kafkajs's own `CompressionCodecs`; gzip is built in.
 */

import type { Socket } from "node:net"
import { createConnection, isIP } from "node:net"
import { connect as createTlsConnection } from "node:tls"
import { type Config, Effect, Layer, type Scope } from "effect"
import kafkajs, { type ISocketFactory, type Kafka, type KafkaConfig } from "kafkajs"
import {
  brokersConfig,
  type ClientOptions,
  type ClusterOptions,
  clientSettings,
  invalidOption,
  validateClusterOptions,
  validateOptions
} from "./internal/clientOptions.ts"
import { makeAdmin } from "./internal/kafkajsAdmin.ts"
import type { Connection, EndableKafka, MemberKafka } from "./internal/kafkajsConnection.ts"
import { toKafkaError } from "./internal/kafkajsErrors.ts"
import { type LogLevel, logLevels, makeLogCreator } from "./internal/kafkajsLog.ts"
import { makeProduce } from "./internal/kafkajsProducer.ts"
import { KafkaJsSession } from "./internal/kafkajsSession.ts"
import { makeTransactionalProducer } from "./internal/kafkajsTransactions.ts"
import { type Driver, join } from "./internal/membership.ts"
import { makePartitionCheck } from "./internal/produceRequests.ts"
import { KafkaClient } from "./KafkaClient.ts"
import type { KafkaError } from "./KafkaErrors.ts"

/** How to reach a cluster. */
export interface Options extends ClusterOptions {
  readonly ssl?: KafkaConfig["ssl"]
  readonly sasl?: KafkaConfig["sasl"]
  /** Makes the connections; for proxies and tests. */
  readonly socketFactory?: ISocketFactory
  /** What of kafkajs's own log goes into Effect's; `warn` by default. What comes back as an error is left out. */
  readonly logLevel?: LogLevel
}

export type { ClientOptions, LogLevel }

const driverNames: ReadonlyArray<keyof Options> = ["ssl", "sasl", "socketFactory", "logLevel"]

const makeClient = Effect.fnUntraced(function* (
  connection: Connection
): Effect.fn.Return<KafkaClient["Service"], never, Scope.Scope> {
  const admin = yield* makeAdmin(connection)
  // kafkajs would try an unknown topic for 10 s, and silently lose a record for a partition that does not exist.
  const partitionCheck = makePartitionCheck(connection.brokers, admin.partitionCounts)
  const produce = yield* makeProduce(connection, partitionCheck)
  const driver: Driver = {
    brokers: connection.brokers,
    retry: connection.retry,
    toKafkaError,
    partitionCounts: admin.partitionCounts,
    openSession: (options, events) =>
      Effect.map(
        connection.makeMemberKafka(options.groupId),
        (memberKafka) => new KafkaJsSession(memberKafka, connection, options, events)
      )
  }
  return {
    brokers: connection.brokers,
    join: (options) => join(driver, options),
    produce,
    transactionalProducer: (options) => makeTransactionalProducer(connection, partitionCheck, options),
    committed: admin.committed,
    logBounds: admin.logBounds,
    createTopics: admin.createTopics,
    partitionCounts: admin.partitionCounts
  }
})

/** As kafkajs makes its connections where no `socketFactory` is given. */
const defaultSocketFactory: ISocketFactory = ({ host, port, ssl, onConnect }) => {
  // An address is no valid server name in TLS.
  const serverName = isIP(host) === 0 ? { servername: host } : {}
  const socket: Socket = ssl
    ? createTlsConnection({ host, port, ...serverName, ...ssl }, onConnect)
    : createConnection({ host, port }, onConnect)
  socket.setKeepAlive(true, 60_000)
  return socket
}

/** A socket factory whose sockets can all be ended at once, after which it makes no more. */
const endableSockets = (factory: ISocketFactory) => {
  const sockets = new Set<Socket>()
  let ended = false
  const refusal = () => new Error("this group member has left")
  const socketFactory: ISocketFactory = (args) => {
    if (ended) throw refusal()
    const socket = factory(args)
    sockets.add(socket)
    socket.once("close", () => sockets.delete(socket))
    return socket
  }
  const destroySockets = () => {
    ended = true
    // With an error, since kafkajs does not look at `close`, and would wait for an answer.
    for (const socket of sockets) socket.destroy(refusal())
  }
  return { socketFactory, destroySockets }
}

/** One pass over the addresses; trying again, and saying so, is `withRetry`'s part. */
const onePass = (brokers: ReadonlyArray<string>): NonNullable<KafkaConfig["retry"]> => ({
  retries: Math.max(1, brokers.length - 1),
  initialRetryTime: 50,
  maxRetryTime: 100,
  factor: 0,
  multiplier: 1
})

/** A member rides out a blink; what lasts longer ends its session, and is seen. */
const aBlink: NonNullable<KafkaConfig["retry"]> = {
  retries: 3,
  initialRetryTime: 100,
  maxRetryTime: 1_000,
  factor: 0.2,
  multiplier: 2
}

/** An earlier transaction is mostly over within milliseconds, and kafkajs would else begin with a pause of 300. */
const aMoment: NonNullable<KafkaConfig["retry"]> = {
  retries: 7,
  initialRetryTime: 5,
  maxRetryTime: 500,
  factor: 0.2,
  multiplier: 2
}

const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<KafkaClient["Service"], KafkaError, Scope.Scope> {
  const { brokers } = options
  const wrong = validateClusterOptions(options, driverNames)
  if (wrong !== undefined) return yield* wrong
  const config: KafkaConfig = {
    brokers: [...brokers],
    clientId: options.clientId ?? "tidemark",
    ...(options.ssl === undefined ? {} : { ssl: options.ssl }),
    ...(options.sasl === undefined ? {} : { sasl: options.sasl }),
    connectionTimeout: options.connectionTimeoutMillis ?? 3_000,
    requestTimeout: options.requestTimeoutMillis ?? 30_000,
    logLevel: logLevels[options.logLevel ?? "warn"],
    logCreator: makeLogCreator(yield* Effect.context<never>())
  }
  const userFactory = options.socketFactory ?? defaultSocketFactory
  const makeEndable = (retry: NonNullable<KafkaConfig["retry"]>): EndableKafka => {
    const { socketFactory, destroySockets } = endableSockets(userFactory)
    return { kafka: new kafkajs.Kafka({ ...config, socketFactory, retry }), destroySockets }
  }
  return yield* makeClient({
    ...clientSettings(options),
    brokers,
    kafka: new kafkajs.Kafka({ ...config, socketFactory: userFactory, retry: onePass(brokers) }),
    makeMemberKafka: () => Effect.sync((): MemberKafka => ({ ...makeEndable(aBlink), release: () => {} })),
    makeProducerKafka: () => makeEndable(aMoment)
  })
})

/**
 * A `KafkaClient` for this cluster. Connects when first used. Fails with a `KafkaError` (`InvalidRequest`) that names
 * the field, the value and what is allowed.
 *
 * @example
 * const Kafka = KafkaJs.layer({ brokers: ["localhost:9092"] })
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

/**
 * A `KafkaClient` on a kafkajs client of your own, with its connections, credentials, retries and logger; `brokers`
 * is only for messages to people. One member a group: kafkajs keeps one table of committed offsets per client and
 * group, and members that share it clear each other's. A second `join` of the same group fails with `InvalidRequest`.
 * For transactions let its retries begin at some 5 ms (`retry.initialRetryTime`): kafkajs pauses 300 by default, each
 * time that the one before is still being ended.
 */
export const layerClient = (
  kafka: Kafka,
  options: ClientOptions & { readonly brokers?: ReadonlyArray<string> } = {}
): Layer.Layer<KafkaClient, KafkaError> => {
  const brokers = options.brokers ?? ["the given kafkajs client's brokers"]
  const groups = new Set<string>()
  const makeMemberKafka = (groupId: string): Effect.Effect<MemberKafka, KafkaError> =>
    Effect.suspend(() => {
      if (groups.has(groupId)) {
        const allowed =
          "a group that no other member of this kafkajs client is in; use another client, or KafkaJs.layer"
        return Effect.fail(invalidOption(brokers, "groupId", groupId, allowed))
      }
      groups.add(groupId)
      return Effect.succeed({ kafka, destroySockets: () => {}, release: () => groups.delete(groupId) })
    })
  return Layer.effect(
    KafkaClient,
    Effect.suspend(() => {
      const wrong = validateOptions(brokers, options, driverNames)
      return wrong === undefined
        ? makeClient({
            ...clientSettings(options),
            brokers,
            kafka,
            makeMemberKafka,
            makeProducerKafka: () => ({ kafka, destroySockets: () => {} })
          })
        : Effect.fail(wrong)
    })
  )
}
