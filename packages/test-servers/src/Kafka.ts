import type { BrokerProcess } from "./internal/BrokerProcess.ts"
import { dockerAnswers } from "./internal/docker.ts"
import { dockerBroker } from "./internal/dockerBroker.ts"
import { javaBroker } from "./internal/javaBroker.ts"
import { FetchFailed, javaVersion, kafkaDistribution } from "./internal/kafkaDistribution.ts"
import { answers } from "./internal/kafkaReady.ts"
import { ServerUnavailable } from "./ServerUnavailable.ts"

const neededJavaVersion = 17

/** A Kafka cluster that answers. */
export interface KafkaServer extends AsyncDisposable {
  /** Addresses as `host:port`. */
  readonly brokers: ReadonlyArray<string>
  /** Whose it is: of `KAFKA_BROKERS`, or our own under Java or in Docker. */
  readonly kind: "given" | "java" | "docker"
  /** Ends a broker of our own and removes its data; leaves a given one alone. Idempotent. */
  readonly stop: () => Promise<void>
}

/** A broker of our own, one node, with nothing on it. */
export interface OwnKafkaServer extends KafkaServer {
  readonly kind: "java" | "docker"
  /** Ends the broker as a power cut would. Its data and its address are kept. */
  readonly kill: () => Promise<void>
  /** Starts a killed broker again, at the same address, and resolves when it is ready. */
  readonly restart: () => Promise<void>
}

const own = (kind: "java" | "docker", broker: BrokerProcess): OwnKafkaServer => ({
  ...broker,
  kind,
  [Symbol.asyncDispose]: broker.stop
})

const given = async (variable: string): Promise<KafkaServer> => {
  const brokers = variable.split(",").map((address) => address.trim())
  try {
    await answers(brokers)
  } catch (error) {
    const message = `KAFKA_BROKERS is "${variable}", but no broker answers there: unset it, or start that cluster`
    throw new Error(message, { cause: error })
  }
  const stop = () => Promise.resolve()
  return { brokers, kind: "given", stop, [Symbol.asyncDispose]: stop }
}

/** Finds the way to a broker of our own, without starting one. */
const findOwn = async (
  server: string,
  reasons: ReadonlyArray<string>
): Promise<() => Promise<OwnKafkaServer>> => {
  let noJava = `no Java ${neededJavaVersion}`
  const version = await javaVersion()
  if (version !== undefined && version >= neededJavaVersion) {
    try {
      const distribution = await kafkaDistribution()
      return async () => own("java", await javaBroker(distribution))
    } catch (error) {
      if (!(error instanceof FetchFailed)) throw error
      noJava = error.message
    }
  }
  if (await dockerAnswers()) return async () => own("docker", await dockerBroker())
  throw new ServerUnavailable(server, [noJava, "no Docker engine", ...reasons])
}

/**
 * Finds or starts a Kafka for tests, benchmarks and load tests: the cluster of `KAFKA_BROKERS` (comma-separated) if
 * that is set; else Apache Kafka under Java 17 or later, its jars fetched once with Maven; else its image in Docker.
 * One of our own is ready in about 5 s and ends with this process, however that ends; it keeps no event loop alive.
 *
 * Rejects with `ServerUnavailable` where no way leads to a broker, and with a plain error where one should have
 * started and did not.
 *
 * @example
 * await using kafka = await startKafka()
 * const client = new Kafka({ brokers: [...kafka.brokers] })
 */
export const startKafka = async (): Promise<KafkaServer> => {
  const variable = process.env.KAFKA_BROKERS
  if (variable) return given(variable)
  const start = await findOwn("KAFKA", ["KAFKA_BROKERS not set"])
  return start()
}

/** Rejects with `ServerUnavailable` where `startOwnKafka` would. */
export const findOwnKafka = () => findOwn("KAFKA of a test's own", [])

/**
 * Starts a broker that nobody else uses, for a test that kills or restarts it; `KAFKA_BROKERS` is not looked at.
 * Rejects as `startKafka` does.
 */
export const startOwnKafka = async (): Promise<OwnKafkaServer> => {
  const start = await findOwnKafka()
  return start()
}
