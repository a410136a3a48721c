import { guard } from "@tidemark/kafka"
import { SqliteStore } from "@tidemark/store-sqlite"
import { Kafka, logLevel } from "kafkajs"

const brokers = (process.env.KAFKA_BROKERS ?? "localhost:9092").split(",")
const kafka = new Kafka({ brokers, logLevel: logLevel.ERROR })
const consumer = kafka.consumer({ groupId: "billing" })

const charge = async (order: string) => console.log(`charging ${order}`)

// 1. new
const guarded = await guard({
  store: SqliteStore.layer({ filename: process.env.STORE ?? "billing.db" }),
  groupId: "billing",
  // the same order at another offset, since the producer tried again, is the same order
  identify: (message) => message.key?.toString(),
  shadow: process.env.SHADOW !== undefined
})

await consumer.connect()
await consumer.subscribe({ topics: ["orders"], fromBeginning: true })
await consumer.run({
  // 2. wrapped
  eachMessage: guarded.eachMessage(async ({ message }) => {
    await charge(String(message.value))
  })
})

process.once("SIGTERM", async () => {
  await consumer.disconnect()
  await guarded.close()
  const { duplicatesByPosition, duplicatesById, seen } = guarded.counts()
  console.log(`${seen} delivered, ${duplicatesByPosition} of them again, ${duplicatesById} sent twice`)
})
