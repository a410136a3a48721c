import { fork } from "node:child_process"
import { once } from "node:events"
import { connect } from "node:net"
import { fileURLToPath } from "node:url"
import { Kafka, logLevel } from "kafkajs"
import { expect, test } from "vitest"
import { embeddedPartitions, embeddedSockets, startEmbeddedBroker } from "../src/EmbeddedBroker.ts"
import { describeWhereEmbedded } from "./runDemo.ts"
import { expectTakeOver } from "./takeOver.ts"

const accepts = (address: string): Promise<boolean> => {
  const [host, port] = address.split(":") as [string, string]
  const socket = connect({ host, port: Number(port) })
  return new Promise<boolean>((resolve) => {
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false))
  }).finally(() => socket.destroy())
}

const started = await startEmbeddedBroker()

/** A machine without a build of the library runs the demo without the broker, and has nothing to test here. */
await describeWhereEmbedded(started)("the embedded broker", () => {
  const broker = () => {
    if ("unavailable" in started) throw new Error(started.unavailable)
    return started
  }

  /** Creates the topic by writing to it, which is the only way here, and answers how many partitions it has. */
  const createTopic = async (topic: string): Promise<number> => {
    const client = new Kafka({ brokers: [...broker().brokers], logLevel: logLevel.NOTHING })
    const producer = client.producer({ allowAutoTopicCreation: true })
    const admin = client.admin()
    await producer.connect()
    await producer.send({ topic, messages: [{ value: "the first" }] })
    await producer.disconnect()
    await admin.connect()
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    await admin.disconnect()
    return topics[0]?.partitions.length ?? 0
  }

  test("gives every topic the same number of partitions", async () => {
    expect(await createTopic("orders")).toBe(embeddedPartitions)
  })

  test("gives a killed member's partitions to another when its session is over", { timeout: 60_000 }, () =>
    expectTakeOver({
      brokers: broker().brokers,
      socketFactory: embeddedSockets,
      partitions: embeddedPartitions,
      createTopic: async (topic) => {
        await createTopic(topic)
      }
    })
  )

  test("ends when it is stopped", async () => {
    const another = await startEmbeddedBroker()
    if ("unavailable" in another) throw new Error(another.unavailable)
    const [address] = another.brokers as [string]
    expect(await accepts(address)).toBe(true)
    await another.stop()
    await another.stop()
    expect(await accepts(address)).toBe(false)
  })

  test("ends with a program that is killed", async () => {
    const file = fileURLToPath(new URL("programs/startsEmbeddedBroker.ts", import.meta.url))
    const program = fork(file, { execArgv: [], stdio: ["ignore", "ignore", "ignore", "ipc"] })
    const [address] = (await once(program, "message")) as [string]
    expect(await accepts(address)).toBe(true)
    program.kill("SIGKILL")
    await expect.poll(() => accepts(address), { timeout: 10_000 }).toBe(false)
  })
})
