/** The consumer with an idempotency key on every record, beside the check that people write by hand. */
import { startKafka, startOwnRedis } from "@tidemark/test-servers"
import type { Suite } from "../Figure.ts"
import {
  type How,
  nothing,
  nothingInBatches,
  produce,
  race,
  setNxPipeline,
  stores,
  tidemark
} from "../KafkaReaders.ts"

const partitions = 8
const records = 50_000
const valueBytes = 200
const rounds = 5

const names = {
  pipeline: "eachBatch + one pipeline of SET NX",
  ours: "tidemark with identify",
  batches: "tidemark handleBatch with identify"
}

/** With an id that no other record has. */
const identified =
  (how: How): How =>
  (begin) => ({ ...how(begin), identify: ({ offset, partition }) => `${partition}:${offset}` })

export const suite: Suite = {
  name: "consumer-keys",
  about: `${records.toLocaleString("en-US")} records of ${valueBytes} bytes, each with an id of its own in Redis, ${partitions} partitions, a real broker, nothing to do`,
  run: async (progress) => {
    await using kafka = await startKafka()
    await using redis = await startOwnRedis()
    const onRedis = stores.redis(redis.url)
    progress("producing")
    const topic = await produce(kafka.brokers, { keys: 1_000, partitions, records, valueBytes })
    const { against, rate } = await race(
      topic,
      [
        [names.pipeline, setNxPipeline(redis.url)],
        [names.ours, tidemark(onRedis, identified(nothing))],
        [names.batches, tidemark(onRedis, identified(nothingInBatches), { order: "partition" })]
      ],
      rounds,
      progress
    )
    return [
      rate(names.pipeline),
      rate(names.ours),
      rate(names.batches),
      ...against(names.ours, names.pipeline, 1.5),
      ...against(names.batches, names.pipeline)
    ]
  }
}
