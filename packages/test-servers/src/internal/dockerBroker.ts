import { randomUUID } from "node:crypto"
import { mkdtemp } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type BrokerProcess, startTimeoutMillis } from "./BrokerProcess.ts"
import { brokerProperties, kafkaVersion } from "./brokerProperties.ts"
import { exec, tail } from "./exec.ts"
import { ready } from "./kafkaReady.ts"
import { freePorts } from "./ports.ts"
import { supervise } from "./Supervisor.ts"

/** The command may be there without an engine behind it, so the engine itself is asked. */
export const dockerAnswers = async (): Promise<boolean> =>
  (await exec("docker", ["version", "--format", "{{.Server.Version}}"], 10_000)).succeeded

const docker = async (args: ReadonlyArray<string>, timeoutMillis: number): Promise<void> => {
  const { succeeded, output } = await exec("docker", args, timeoutMillis)
  if (!succeeded) throw new Error(`docker ${args[0]} failed: ${tail(output, 5)}`)
}

/** Apache Kafka's image reads `log.retention.ms` from `KAFKA_LOG_RETENTION_MS`. */
const environment = (properties: Record<string, string>): Array<string> =>
  Object.entries(properties).flatMap(([name, value]) => [
    "--env",
    `KAFKA_${name.toUpperCase().replaceAll(".", "_")}=${value}`
  ])

/** Starts Apache Kafka in a container, which the supervisor removes. */
export const dockerBroker = async (): Promise<BrokerProcess> => {
  const name = `tidemark-kafka-${randomUUID()}`
  const folder = await mkdtemp(join(tmpdir(), "tidemark-kafka-"))
  const supervisor = await supervise({
    folder,
    farewell: { command: "docker", args: ["rm", "--force", "--volumes", name] }
  })
  try {
    const [port] = await freePorts(1)
    const address = `127.0.0.1:${port}`
    const properties = brokerProperties({ listen: "0.0.0.0:9092", controllerPort: 9093, advertise: address })
    const image = `apache/kafka:${kafkaVersion}`
    process.stderr.write(`Starting ${image} in Docker ...\n`)
    await docker(
      ["create", "--name", name, "--publish", `${address}:9092`, ...environment(properties), image],
      10 * 60_000
    )
    const start = async () => {
      await docker(["start", name], 60_000)
      const exited = exec("docker", ["wait", name], 2 * startTimeoutMillis).then(
        ({ output }) => `exit code ${output.trim()}`
      )
      await ready([address], exited, startTimeoutMillis)
    }
    await start()
    return {
      brokers: [address],
      kill: () => docker(["kill", name], 60_000),
      restart: start,
      stop: supervisor.end
    }
  } catch (error) {
    const { output } = await exec("docker", ["logs", "--tail", "10", name], 20_000)
    await supervisor.end()
    throw new Error(`Apache Kafka did not start in Docker: ${String(error)}\n${output}`, { cause: error })
  }
}
