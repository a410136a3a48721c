/** The Kafka that a demo runs on: given, brought along, or within the process. */
import { InProcessKafka, KafkaClient, type KafkaError, KafkaJs } from "@tidemark/kafka"
import { Effect, Layer, type Scope } from "effect"
import type { ISocketFactory } from "kafkajs"
import { embeddedSockets, startEmbeddedBroker } from "./EmbeddedBroker.ts"
import type { Life } from "./Life.ts"
import { connectPlainly, makeMortalSockets } from "./MortalSockets.ts"

/** Where brokers are, and how to talk to them: all that another process needs. */
export interface BrokerAddress {
  readonly brokers: ReadonlyArray<string>
  /** Whether it is the broker that the demo brings along. */
  readonly isEmbedded: boolean
}

export interface Cluster {
  /** For people: which broker it is, and why. */
  readonly description: string
  /** How long the group takes to notice a death, in sessions; the embedded broker is slower than Kafka. */
  readonly sessionsToNotice: number
  /** `undefined` where other processes can't reach it. */
  readonly address: BrokerAddress | undefined
  /** A client of its own, as another process would have; it dies with its owner. */
  readonly connect: (life: Life) => Effect.Effect<KafkaClient["Service"], KafkaError, Scope.Scope>
  /** Makes a topic ready to be read. */
  readonly makeTopic: (
    client: KafkaClient["Service"],
    topic: string,
    partitions: number
  ) => Effect.Effect<void, KafkaError>
}

/** How connections to these brokers are made; group members of the embedded one need more than a socket. */
const socketsFor = ({ isEmbedded }: BrokerAddress): ISocketFactory =>
  isEmbedded ? embeddedSockets : connectPlainly

/** A client of these brokers. */
export const clientLayer = (
  address: BrokerAddress,
  clientId: string,
  socketFactory = socketsFor(address)
): Layer.Layer<KafkaClient, KafkaError> =>
  KafkaJs.layer({
    brokers: address.brokers,
    clientId,
    socketFactory,
    allowAutoTopicCreation: address.isEmbedded,
    // the demo kills a member, and what kafkajs says of that is no news
    logLevel: "nothing"
  })

const connectTo = (address: BrokerAddress): Cluster["connect"] =>
  Effect.fnUntraced(function* (life) {
    const sockets = makeMortalSockets(socketsFor(address))
    life.atEnd(sockets.kill)
    const services = yield* Layer.build(clientLayer(address, life.name, sockets.socketFactory))
    return yield* Effect.provide(KafkaClient, services)
  })

/** A cluster of the user's own. */
export const given = (brokers: ReadonlyArray<string>): Cluster => {
  const address = { brokers, isEmbedded: false }
  return {
    description: `the brokers ${brokers.join(", ")}`,
    sessionsToNotice: 1,
    address,
    connect: connectTo(address),
    makeTopic: (client, topic, partitions) => client.createTopics([{ topic, partitions }])
  }
}

/** Kafka in this process: no network, no other program. */
export const inProcess = (why: string): Effect.Effect<Cluster, never, Scope.Scope> =>
  Effect.gen(function* () {
    const broker = yield* InProcessKafka.make({ maxRecordsPerBatch: 500 })
    return {
      description: `an in-process stand-in for Kafka (${why})`,
      sessionsToNotice: 1,
      address: undefined,
      connect: (life) =>
        Effect.sync(() => {
          life.atEnd(() => {
            for (const group of life.groups)
              for (const { clientId, memberId } of broker.members(group))
                if (clientId === life.name) broker.kill(memberId)
          })
          return broker.makeClient({ clientId: life.name })
        }),
      makeTopic: (_, topic, partitions) => Effect.sync(() => broker.createTopic(topic, partitions))
    }
  })

/** The broker that the demo brings along; where it does not load, the stand-in. */
export const embedded: Effect.Effect<Cluster, never, Scope.Scope> = Effect.gen(function* () {
  const broker = yield* Effect.acquireRelease(Effect.promise(startEmbeddedBroker), (started) =>
    "stop" in started ? Effect.promise(started.stop) : Effect.void
  )
  if ("unavailable" in broker)
    return yield* inProcess(`the embedded broker is not available here: ${broker.unavailable}`)
  const address = { brokers: broker.brokers, isEmbedded: true }
  return {
    description: "an embedded broker that speaks Kafka's own protocol (librdkafka's mock cluster)",
    sessionsToNotice: 2,
    address,
    connect: connectTo(address),
    makeTopic: (client, topic) => Effect.asVoid(client.partitionCounts([topic]))
  }
})
