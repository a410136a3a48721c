/** The consumer with nothing to do, on a real broker, beside kafkajs with nothing to do. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { startKafka, startOwnRedis } from "@tidemark/test-servers"
import type { Suite } from "../Figure.ts"
import {
  eachBatch,
  eachMessage,
  nothing,
  nothingInBatches,
  produce,
  type Reader,
  race,
  stores,
  tidemark
} from "../KafkaReaders.ts"

const partitions = 8
const records = 200_000
const valueBytes = 200
const rounds = 5

const names = {
  message: "kafkajs eachMessage",
  batch: "kafkajs eachBatch",
  memory: "tidemark, memory",
  memoryNone: 'tidemark, memory, order "none"',
  platformatic: "tidemark, memory, on @platformatic/kafka",
  redis: "tidemark, Redis",
  sqlite: "tidemark, SQLite NORMAL",
  batchMemory: "tidemark handleBatch, memory",
  batchRedis: "tidemark handleBatch, Redis",
  batchKeys: 'tidemark handleBatch, memory, order "key"'
}

export const suite: Suite = {
  name: "consumer",
  about: `${records.toLocaleString("en-US")} records of ${valueBytes} bytes, ${partitions} partitions, a real broker, nothing to do`,
  run: async (progress) => {
    await using kafka = await startKafka()
    await using redis = await startOwnRedis()
    const folder = mkdtempSync(join(tmpdir(), "tidemark-bench-"))
    let files = 0
    const sqlite = stores.sqlite(() => join(folder, `${files++}.db`))
    const onRedis = stores.redis(redis.url)
    const inPartition = { order: "partition" } as const
    const readers: ReadonlyArray<readonly [name: string, read: Reader]> = [
      [names.message, eachMessage],
      [names.batch, eachBatch],
      [names.memory, tidemark(stores.memory, nothing)],
      [names.memoryNone, tidemark(stores.memory, nothing, { order: "none" })],
      [names.platformatic, tidemark(stores.memory, nothing, {}, "platformatic")],
      [names.redis, tidemark(onRedis, nothing)],
      [names.sqlite, tidemark(sqlite, nothing)],
      [names.batchMemory, tidemark(stores.memory, nothingInBatches, inPartition)],
      [names.batchRedis, tidemark(onRedis, nothingInBatches, inPartition)],
      [names.batchKeys, tidemark(stores.memory, nothingInBatches)]
    ]
    progress("producing")
    const topic = await produce(kafka.brokers, { keys: 1_000, partitions, records, valueBytes })
    const { against, rate } = await race(topic, readers, rounds, progress)
    rmSync(folder, { recursive: true })
    return [
      ...readers.map(([name]) => rate(name)),
      ...against(names.memory, names.message, 1),
      ...against(names.memoryNone, names.message, 1),
      ...against(names.platformatic, names.message),
      ...against(names.redis, names.message, 0.9),
      ...against(names.sqlite, names.message, 0.85),
      ...against(names.batchMemory, names.batch, 0.9),
      ...against(names.batchRedis, names.batch, 0.9),
      ...against(names.batchKeys, names.batch)
    ]
  }
}
