import { expect, it } from "@effect/vitest"
import { MemoryStore } from "@tidemark/store-memory"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Effect, Fiber, Layer } from "effect"
import kafkajs from "kafkajs"
import { KafkaClient } from "../src/KafkaClient.ts"
import * as KafkaConsumer from "../src/KafkaConsumer.ts"
import * as KafkaJs from "../src/KafkaJs.ts"
import * as PlatformaticKafka from "../src/PlatformaticKafka.ts"
import { uniqueName, until } from "./kafkaClientSuite.ts"

await describeWithKafka("KafkaConsumer on Kafka", ({ brokers }) => {
  it.live.each([
    ["KafkaJs", KafkaJs.layer({ brokers })],
    ["PlatformaticKafka", PlatformaticKafka.layer({ brokers })]
  ] as const)(
    "%s: reads what transactions have committed, and passes what they have not",
    ([, kafka]) =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const topic = uniqueName("topic")
        const groupId = uniqueName("group")
        yield* client.createTopics([{ topic, partitions: 1 }])
        const producer = new kafkajs.Kafka({
          brokers: [...brokers],
          logLevel: kafkajs.logLevel.NOTHING
        }).producer({
          transactionalId: uniqueName("transaction"),
          idempotent: true,
          maxInFlightRequests: 1
        })
        yield* Effect.acquireRelease(
          Effect.promise(() => producer.connect()),
          () => Effect.promise(() => producer.disconnect())
        )
        const produce = (values: ReadonlyArray<string>, end: "commit" | "abort") =>
          Effect.promise(async () => {
            const transaction = await producer.transaction()
            await transaction.send({ topic, messages: values.map((value) => ({ value })) })
            await transaction[end]()
          })
        yield* produce(["one", "two"], "commit")
        yield* produce(["never", "nor this"], "abort")
        yield* produce(["three"], "commit")
        yield* produce(["not this either"], "abort")

        const values: Array<string> = []
        const consumer = yield* KafkaConsumer.make({
          topics: [topic],
          groupId,
          commitInterval: 50,
          handler: (record) => Effect.sync(() => void values.push(String(record.value)))
        })
        const running = yield* Effect.forkChild(consumer.run)
        // six records and four markers
        yield* until("the end is reached", () => {
          const [at] = Effect.runSync(consumer.status).partitions
          return at?.watermark === 10 && at.lag === 0
        })
        yield* Fiber.interrupt(running)
        expect(values).toEqual(["one", "two", "three"])
        expect(yield* client.committed(groupId, [{ topic, partition: 0 }])).toMatchObject([{ offset: 10 }])
      }).pipe(Effect.scoped, Effect.provide(Layer.mergeAll(kafka, MemoryStore.layer()))),
    60_000
  )
})
