import { KafkaConsumer, KafkaJs } from "@tidemark/kafka"
import { MemoryStore } from "@tidemark/store-memory"
import { Console, Effect } from "effect"

const program = KafkaConsumer.run({
  topics: ["orders"],
  groupId: "billing",
  // the same order at another offset, since the producer tried again, is the same order
  identify: (record) => record.key?.toString(),
  handler: (record, claim) => Console.log(`charging ${record.value} under token ${claim.token}`)
})

// KAFKA_BROKERS=localhost:9092
const consumer = Effect.runFork(Effect.provide(program, [KafkaJs.layerConfig(), MemoryStore.layer()]))

// drains, completes, commits, gives its partitions back, leaves the group
process.once("SIGTERM", () => consumer.interruptUnsafe())
