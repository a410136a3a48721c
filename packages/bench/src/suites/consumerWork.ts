/** The consumer with work that waits, in the order of keys, beside a window that keeps neither order nor track. */
import { startKafka, startOwnRedis } from "@tidemark/test-servers"
import { Effect } from "effect"
import type { Figure, Suite } from "../Figure.ts"
import { type How, produce, race, stores, tidemark, untrackedWindow } from "../KafkaReaders.ts"

const partitions = 4
const keys = 1_000
const valueBytes = 200
const atOnce = 100
const rounds = 5

/** How long a record takes, and how many there are: some seconds' work. */
const loads = [
  { workMillis: 1, records: 80_000 },
  { workMillis: 10, records: 30_000 }
] as const

const waiting =
  (millis: number): How =>
  (begin) => ({
    handler: () => {
      begin()
      return Effect.sleep(millis)
    }
  })

export const suite: Suite = {
  name: "consumer-work",
  about: `work of 1 and of 10 ms, ${atOnce} records at once, ${keys.toLocaleString("en-US")} keys, ${partitions} partitions, a real broker, Redis`,
  run: async (progress) => {
    await using kafka = await startKafka()
    await using redis = await startOwnRedis()
    const figures: Array<Figure> = []
    for (const { records, workMillis } of loads) {
      const window = `kafkajs, a window without order or track, ${workMillis} ms`
      const ours = `tidemark, in the order of keys, ${workMillis} ms`
      progress("producing")
      const topic = await produce(kafka.brokers, { keys, partitions, records, valueBytes })
      const { against, rate } = await race(
        topic,
        [
          [window, untrackedWindow(atOnce, workMillis)],
          [ours, tidemark(stores.redis(redis.url), waiting(workMillis), { concurrency: atOnce })]
        ],
        rounds,
        progress
      )
      figures.push(rate(window), rate(ours), ...against(ours, window, 1))
    }
    return figures
  }
}
