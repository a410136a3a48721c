import { Kafka, logLevel } from "kafkajs"
import { expect, test } from "vitest"
import { uniqueName } from "../src/index.ts"
import { describeWithKafka } from "../src/vitest.ts"

await describeWithKafka("the Kafka of a test run", ({ brokers }) => {
  const client = () => new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING })

  test("keeps what is produced and gives it to a group", async () => {
    const topic = uniqueName("orders")
    const admin = client().admin()
    await admin.connect()
    await admin.createTopics({ topics: [{ topic, numPartitions: 3 }] })

    const producer = client().producer()
    await producer.connect()
    const sent = Array.from({ length: 30 }, (_, index) => ({ partition: index % 3, value: `order ${index}` }))
    await producer.send({ topic, messages: sent })
    await producer.disconnect()

    const received = new Set<string>()
    const all = Promise.withResolvers<void>()
    const consumer = client().consumer({ groupId: uniqueName("shipping") })
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    await consumer.run({
      eachMessage: async ({ message }) => {
        received.add(String(message.value))
        if (received.size === sent.length) all.resolve()
      }
    })
    await all.promise
    await consumer.disconnect()
    await admin.deleteTopics({ topics: [topic] })
    await admin.disconnect()
    expect(received).toEqual(new Set(sent.map(({ value }) => value)))
  })

  test("creates no topic for a mistyped name", async () => {
    const topic = uniqueName("mistyped")
    const producer = client().producer({ allowAutoTopicCreation: true, retry: { retries: 1 } })
    await producer.connect()
    await expect(producer.send({ topic, messages: [{ value: "lost?" }] })).rejects.toThrow("topic-partition")
    await producer.disconnect()
  })
})
