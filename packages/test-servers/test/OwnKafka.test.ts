import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Kafka, logLevel } from "kafkajs"
import { afterEach, beforeEach, expect, test, vi } from "vitest"
import { startOwnKafka } from "../src/index.ts"
import { describeWithOwnKafka } from "../src/vitest.ts"
import { accepts, expectNothingLeft, processesOf, startProgram } from "./remains.ts"

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tidemark-test-servers-"))
  vi.stubEnv("TMPDIR", folder)
})

afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true, force: true })
})

await describeWithOwnKafka("a broker of one's own", () => {
  test("keeps its address and its data through a kill, and leaves nothing when it is stopped", async () => {
    const kafka = await startOwnKafka()
    const admin = new Kafka({ brokers: [...kafka.brokers], logLevel: logLevel.NOTHING }).admin()
    await admin.connect()
    await admin.createTopics({ topics: [{ topic: "orders", numPartitions: 6 }] })
    await admin.disconnect()

    await kafka.kill()
    expect(await accepts(kafka.brokers[0] as string)).toBe(false)
    await kafka.restart()

    await admin.connect()
    const { topics } = await admin.fetchTopicMetadata({ topics: ["orders"] })
    await admin.disconnect()
    expect(topics[0]?.partitions).toHaveLength(6)

    await kafka.stop()
    await kafka.stop()
    await expectNothingLeft(folder)
  })

  test("does not outlive a program that is killed", async () => {
    const program = await startProgram("startsKafka.ts", [])
    expect(await processesOf(folder)).not.toEqual([])
    program.kill("SIGKILL")
    await expectNothingLeft(folder)
  })
})
