import { mkdtemp } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type BrokerProcess, startTimeoutMillis } from "./BrokerProcess.ts"
import { brokerProperties, kafkaVersion } from "./brokerProperties.ts"
import { createContainer } from "./docker.ts"
import { ready } from "./kafkaReady.ts"
import { freePorts } from "./ports.ts"

/** Apache Kafka's image reads `log.retention.ms` from `KAFKA_LOG_RETENTION_MS`. */
const environment = (properties: Record<string, string>): Array<string> =>
  Object.entries(properties).flatMap(([name, value]) => [
    "--env",
    `KAFKA_${name.toUpperCase().replaceAll(".", "_")}=${value}`
  ])

/** Starts Apache Kafka in a container, which the supervisor removes. */
export const dockerBroker = async (): Promise<BrokerProcess> => {
  const [port] = await freePorts(1)
  const address = `127.0.0.1:${port}`
  const properties = brokerProperties({ listen: "0.0.0.0:9092", controllerPort: 9093, advertise: address })
  const container = await createContainer({
    prefix: "tidemark-kafka",
    folder: await mkdtemp(join(tmpdir(), "tidemark-kafka-")),
    image: `apache/kafka:${kafkaVersion}`,
    options: ["--publish", `${address}:9092`, ...environment(properties)],
    startTimeoutMillis
  })
  const start = async () => {
    const { exited } = await container.start()
    await ready([address], exited, startTimeoutMillis)
  }
  try {
    await start()
  } catch (error) {
    const log = await container.log()
    await container.end()
    throw new Error(`Apache Kafka did not start in Docker: ${String(error)}\n${log}`, { cause: error })
  }
  return { brokers: [address], kill: container.kill, restart: start, stop: container.end }
}
