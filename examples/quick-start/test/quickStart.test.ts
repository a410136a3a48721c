import { execFile, spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { promisify } from "node:util"
import { uniqueName } from "@tidemark/test-servers"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Kafka, logLevel } from "kafkajs"
import { describe, expect, it } from "vitest"

const path = (name: string): string => new URL(`../src/${name}.ts`, import.meta.url).pathname
const home = new URL("..", import.meta.url).pathname
const run = (args: ReadonlyArray<string>) => promisify(execFile)(process.execPath, args, { cwd: home })
const flags = ["--conditions=@tidemark/source"]
const printed = "order-4711 Processed\norder-4711 Duplicate\norder-4712 Processed\n"

describe("the quick start", () => {
  it.each(["plain", "effect"])("%s.ts prints what the README says", async (name) => {
    const { stdout } = await run([...flags, path(name)])
    expect(stdout).toBe(printed)
  })

  it.each(["plain", "effect", "kafka"])("the README shows %s.ts as it is", (name) => {
    const readme = readFileSync(new URL("../../../README.md", import.meta.url), "utf8")
    expect(readme).toContain(readFileSync(path(name), "utf8").trim())
  })
})

describe("the packages' READMEs", () => {
  it.each(["core", "store-memory"])("the example of %s runs", async (name) => {
    const readme = readFileSync(new URL(`../../../packages/${name}/README.md`, import.meta.url), "utf8")
    const program = /```ts\n(.*?)```/s.exec(readme)?.[1] as string
    const { stdout } = await run([...flags, "--input-type=module-typescript", "--eval", program])
    expect(stdout).toBe("Processed\n")
  })
})

await describeWithKafka("the quick start with Kafka", ({ brokers }) => {
  it("kafka.ts charges an order once that was sent twice, and ends in good order", async () => {
    // the program's topic and group are fixed: a copy of it with names of our own, beside it
    const topic = uniqueName("orders")
    const client = new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING })
    const admin = client.admin()
    await admin.connect()
    await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] })
    const producer = client.producer()
    await producer.connect()
    const send = (key: string) => producer.send({ topic, messages: [{ key, value: key }] })
    await send("order-1")
    await send("order-1")
    await send("order-2")
    const program = readFileSync(path("kafka"), "utf8")
      .replace('"orders"', JSON.stringify(topic))
      .replace('"billing"', JSON.stringify(topic))
    const child = spawn(process.execPath, [...flags, "--input-type=module-typescript", "--eval", program], {
      cwd: home,
      env: { ...process.env, KAFKA_BROKERS: brokers.join(",") }
    })
    let output = ""
    const sawTheLast = new Promise<void>((resolve) => {
      child.stdout.on("data", (chunk: Buffer) => {
        output += chunk.toString()
        if (output.includes("charging order-2")) resolve()
      })
    })
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve))
    try {
      await sawTheLast
      await expect
        .poll(
          async () => (await admin.fetchOffsets({ groupId: topic, topics: [topic] }))[0].partitions[0].offset,
          {
            timeout: 20_000
          }
        )
        .toBe("3")
      child.kill("SIGTERM")
      await ended
      expect(output.match(/charging order-1/g)).toHaveLength(1)
      expect(output.match(/charging order-2/g)).toHaveLength(1)
      const { members } = await admin.describeGroups([topic]).then(({ groups }) => groups[0])
      expect(members).toEqual([])
    } finally {
      child.kill("SIGKILL")
      await Promise.all([producer.disconnect(), admin.disconnect()])
    }
  })
})
