import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { uniqueName } from "@tidemark/test-servers"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Kafka, logLevel, Partitioners } from "kafkajs"
import { afterEach, expect, it, vi } from "vitest"

const home = new URL("..", import.meta.url).pathname
const flags = ["--conditions=@tidemark/source", "--disable-warning=ExperimentalWarning"]

await describeWithKafka("the guard's example", ({ brokers }) => {
  const folder = mkdtempSync(join(tmpdir(), "tidemark-guard-"))
  const children: Array<ChildProcess> = []
  afterEach(() => {
    for (const child of children.splice(0)) child.kill("SIGKILL")
    rmSync(folder, { recursive: true, force: true })
  })

  /** The program with a topic and a group of the test's own. */
  const start = (name: string, env: Readonly<Record<string, string>> = {}) => {
    const program = readFileSync(join(home, "src/consumer.ts"), "utf8")
      .replaceAll('"orders"', JSON.stringify(name))
      .replaceAll('"billing"', JSON.stringify(name))
      .replace("groupId: ", "sessionTimeout: 6000, rebalanceTimeout: 6000, heartbeatInterval: 500, groupId: ")
    const child = spawn(process.execPath, [...flags, "--input-type=module-typescript", "--eval", program], {
      cwd: home,
      env: { ...process.env, ...env, KAFKA_BROKERS: brokers.join(","), STORE: join(folder, "billing.db") },
      stdio: ["ignore", "pipe", "inherit"]
    })
    children.push(child)
    let output = ""
    child.stdout?.on("data", (chunk: Buffer) => {
      output += String(chunk)
    })
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve))
    return { child, ended, lines: () => output.split("\n").filter((line) => line !== "") }
  }

  it("charges once what is delivered again, and what was sent twice; the shadow tells of it", async () => {
    const name = uniqueName("orders")
    const client = new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING })
    const admin = client.admin()
    await admin.connect()
    await admin.createTopics({ topics: [{ topic: name, numPartitions: 1 }], waitForLeaders: false })
    await vi.waitFor(() => admin.fetchTopicOffsets(name), { timeout: 10_000 })
    const producer = client.producer({ createPartitioner: Partitioners.DefaultPartitioner })
    await producer.connect()
    const send = (order: string) => producer.send({ topic: name, messages: [{ key: order, value: order }] })
    try {
      for (const order of ["order-1", "order-1", "order-2"]) await send(order)
      const first = start(name)
      await vi.waitUntil(() => first.lines().length === 2, { timeout: 20_000 })
      first.child.kill("SIGTERM")
      expect(await first.ended).toBe(0)
      expect(first.lines()).toEqual([
        "charging order-1",
        "charging order-2",
        "3 delivered, 0 of them again, 1 sent twice"
      ])
      // as if it had died before it committed
      const goBack = () => admin.resetOffsets({ groupId: name, topic: name, earliest: true })
      await vi.waitFor(goBack, { timeout: 20_000, interval: 250 })
      await send("order-3")
      const second = start(name)
      await vi.waitUntil(() => second.lines().length > 0, { timeout: 25_000 })
      second.child.kill("SIGTERM")
      expect(await second.ended).toBe(0)
      expect(second.lines()).toEqual(["charging order-3", "4 delivered, 3 of them again, 0 sent twice"])

      await send("order-3")
      const shadow = start(name, { SHADOW: "1" })
      await vi.waitUntil(() => shadow.lines().length > 0, { timeout: 20_000 })
      shadow.child.kill("SIGTERM")
      expect(await shadow.ended).toBe(0)
      expect(shadow.lines()).toEqual(["charging order-3", "1 delivered, 0 of them again, 1 sent twice"])
    } finally {
      await Promise.all([producer.disconnect(), admin.disconnect()])
    }
  }, 90_000)
})
