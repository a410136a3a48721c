import { type ChildProcess, spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { uniqueName } from "@tidemark/test-servers"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Kafka, logLevel, Partitioners } from "kafkajs"
import { afterEach, expect, it, vi } from "vitest"

const home = new URL("..", import.meta.url).pathname
const topics = ["orders", "invoices", "reminders", "refused"] as const

await describeWithKafka("the example from Kafka to Kafka", ({ brokers }) => {
  const children: Array<ChildProcess> = []
  afterEach(() => {
    for (const child of children.splice(0)) child.kill("SIGKILL")
  })

  it("makes an invoice of each order, once, also where one of two processes is killed", async () => {
    const suffix = uniqueName("")
    const client = new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING })
    const admin = client.admin()
    await admin.connect()
    await admin.createTopics({
      topics: topics.map((topic) => ({ topic: topic + suffix, numPartitions: topic === "orders" ? 2 : 1 }))
    })

    /** The program with topics and a group of the test's own. */
    const start = (): ChildProcess => {
      const program = [...topics, "invoicing"].reduce(
        (text, name) => text.replaceAll(`"${name}"`, JSON.stringify(name + suffix)),
        readFileSync(join(home, "src/invoicing.ts"), "utf8").replace("from:", "sessionTimeout: 6_000, from:")
      )
      const child = spawn(
        process.execPath,
        ["--conditions=@tidemark/source", "--input-type=module-typescript", "--eval", program],
        { cwd: home, env: { ...process.env, KAFKA_BROKERS: brokers.join(",") }, stdio: "inherit" }
      )
      children.push(child)
      return child
    }

    const seen = new Map<string, Array<string>>(topics.map((topic) => [topic + suffix, []]))
    const reader = client.consumer({ groupId: uniqueName("readers"), maxWaitTimeInMs: 100 })
    await reader.connect()
    await reader.subscribe({
      topics: ["invoices", "reminders", "refused"].map((topic) => topic + suffix),
      fromBeginning: true
    })
    await reader.run({
      eachMessage: async ({ message, topic }) => void seen.get(topic)?.push(String(message.value))
    })
    const producer = client.producer({ createPartitioner: Partitioners.DefaultPartitioner })
    await producer.connect()
    const send = (from: number, to: number) =>
      producer.send({
        topic: `orders${suffix}`,
        messages: Array.from({ length: to - from }, (_, index) => ({
          key: `customer ${index % 10}`,
          partition: index % 2,
          value: JSON.stringify({ item: `item ${from + index}`, cents: (from + index) * 100 })
        }))
      })
    const items = (topic: string): Array<number> =>
      (seen.get(topic + suffix) ?? []).map((value) => Number(JSON.parse(value).item.slice(5)))
    try {
      await send(0, 100)
      await producer.send({ topic: `orders${suffix}`, messages: [{ partition: 0, value: "no order" }] })
      const victim = start()
      await vi.waitUntil(() => items("invoices").length === 100, { timeout: 30_000 })
      const heir = start()
      await send(100, 200)
      victim.kill("SIGKILL")
      await send(200, 300)
      await vi.waitUntil(() => new Set(items("invoices")).size === 300, { timeout: 40_000 })
      heir.kill("SIGTERM")
      await new Promise((resolve) => heir.once("exit", resolve))
      expect(items("invoices").sort((one, other) => one - other)).toEqual(
        Array.from({ length: 300 }, (_, index) => index)
      )
      expect(items("reminders").sort((one, other) => one - other)).toEqual(
        Array.from({ length: 200 }, (_, index) => index + 100)
      )
      expect(seen.get(`refused${suffix}`)).toEqual(["no order"])
    } finally {
      await Promise.all([producer.disconnect(), admin.disconnect(), reader.disconnect()])
    }
  }, 100_000)
})
