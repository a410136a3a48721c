/** What a consumer of Kafka does first: records, one of them sent twice, each take effect once. Without a broker. */
import { InProcessKafka, KafkaClient, KafkaConsumer } from "@tidemark/kafka"
import { MemoryStore } from "@tidemark/store-memory"
import { Deferred, Effect, Layer } from "effect"

const program = Effect.gen(function* () {
  const client = yield* KafkaClient
  const orders = ["coffee", "tea", "coffee", "cake", "last"]
  yield* client.produce(orders.map((value) => ({ topic: "orders", key: "table-4", value })))

  const served: Array<string> = []
  const allServed = yield* Deferred.make<void>()
  yield* Effect.forkScoped(
    KafkaConsumer.run({
      topics: ["orders"],
      groupId: "kitchen",
      identify: (record) => String(record.value),
      handler: (record) =>
        Effect.suspend(() => {
          served.push(String(record.value))
          return served.at(-1) === "last" ? Deferred.succeed(allServed, undefined) : Effect.void
        })
    })
  )
  yield* Deferred.await(allServed)
  return served
})

const live = Layer.merge(InProcessKafka.layer({ topics: { orders: 1 } }), MemoryStore.layer())
const served = await Effect.runPromise(Effect.scoped(Effect.provide(program, live)))
console.log(served.join(" "))
