import { mkdtemp, readFile, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type BrokerProcess, startTimeoutMillis } from "./BrokerProcess.ts"
import { brokerProperties, propertiesFile } from "./brokerProperties.ts"
import { tail } from "./exec.ts"
import { copyEmptyData, javaCommand, type KafkaDistribution } from "./kafkaDistribution.ts"
import { ready } from "./kafkaReady.ts"
import { freePorts } from "./ports.ts"
import { supervise } from "./Supervisor.ts"

const portsTaken = /BindException|Address already in use/

/** Starts Apache Kafka under the machine's Java. Another process may take a port first: then with other ports. */
export const javaBroker = async (
  distribution: KafkaDistribution,
  attemptsLeft = 3
): Promise<BrokerProcess> => {
  const folder = await mkdtemp(join(tmpdir(), "tidemark-kafka-"))
  const supervisor = await supervise({ folder })
  const logFile = join(folder, "broker.log")
  try {
    const [port, controllerPort] = await freePorts(2)
    const address = `127.0.0.1:${port}`
    const properties = join(folder, "server.properties")
    const data = join(folder, "data")
    await copyEmptyData(distribution, data)
    await writeFile(
      properties,
      propertiesFile({
        ...brokerProperties({ listen: address, controllerPort, advertise: address }),
        "log.dirs": data
      })
    )
    const start = async () => {
      const { exited } = await supervisor.run(javaCommand(distribution, "kafka.Kafka", [properties]), logFile)
      await ready([address], exited, startTimeoutMillis)
    }
    await start()
    return { brokers: [address], kill: supervisor.kill, restart: start, stop: supervisor.end }
  } catch (error) {
    const log = await readFile(logFile, "utf8").catch(() => "it wrote no log")
    await supervisor.end()
    if (portsTaken.test(log) && attemptsLeft > 1) return javaBroker(distribution, attemptsLeft - 1)
    throw new Error(`Apache Kafka did not start: ${String(error)}\n${tail(log, 10)}`, { cause: error })
  }
}
