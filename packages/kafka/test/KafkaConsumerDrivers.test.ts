/** One group, members of both drivers, which come and go while records arrive. */
import { expect, it } from "@effect/vitest"
import { MemoryStore } from "@tidemark/store-memory"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Context, Effect, Fiber, Layer } from "effect"
import { KafkaClient } from "../src/KafkaClient.ts"
import * as KafkaConsumer from "../src/KafkaConsumer.ts"
import * as KafkaJs from "../src/KafkaJs.ts"
import * as PlatformaticKafka from "../src/PlatformaticKafka.ts"
import { Ledger, random, records, work } from "./consumerHarness.ts"
import { range, uniqueName, until } from "./kafkaClientSuite.ts"

const partitions = 6
const perRound = 600

await describeWithKafka("KafkaConsumer with both drivers", ({ brokers }) => {
  it.live(
    "each record takes effect once and in order, through rebalances among members of both",
    () =>
      Effect.gen(function* () {
        const clientOf = (layer: Layer.Layer<KafkaClient, unknown>) =>
          Effect.map(Layer.build(layer), Context.get(KafkaClient))
        const drivers = [
          yield* clientOf(PlatformaticKafka.layer({ brokers })),
          yield* clientOf(KafkaJs.layer({ brokers }))
        ]
        const client = drivers[0]!
        const topic = uniqueName("orders")
        const groupId = uniqueName("group")
        yield* client.createTopics([{ topic, partitions }])
        const ledger = new Ledger()
        const join = Effect.fnUntraced(function* (driver: KafkaClient["Service"]) {
          const consumer = yield* KafkaConsumer.make({
            topics: [topic],
            groupId,
            sessionTimeout: 6_000,
            commitInterval: 50,
            drainTimeout: 1_000,
            handler: work(ledger, random(4))
          })
          const running = yield* Effect.forkScoped(Effect.provideService(consumer.run, KafkaClient, driver))
          const owned = () =>
            Effect.runSync(consumer.status).partitions.filter(({ phase }) => phase === "owned").length
          return { owned, stop: Fiber.interrupt(running) }
        })
        const members = [yield* join(drivers[0]!), yield* join(drivers[1]!)]
        const all = () => members.reduce((count, { owned }) => count + owned(), 0)
        for (const round of range(0, 4)) {
          yield* client.produce(records(topic, perRound, 40, round * perRound))
          yield* until("someone works", () => ledger.count > round * perRound)
          // the oldest goes in the middle of its work, and one of the other driver comes
          yield* members.shift()!.stop
          members.push(yield* join(drivers[round % 2]!))
        }
        yield* until(
          "all is owned, and all is done",
          () => all() === partitions && ledger.byRecord.size === 4 * perRound
        )
        yield* Effect.forEach(members, ({ stop }) => stop, { concurrency: 2 })
        expect(ledger.twice).toEqual([])
        expect(ledger.disordered).toEqual([])
        expect(ledger.overlaps).toBe(0)
        const bounds = yield* client.logBounds(
          range(0, partitions).map((partition) => ({ topic, partition }))
        )
        const committed = yield* client.committed(groupId, bounds)
        expect(committed.map(({ offset }) => offset ?? 0)).toEqual(bounds.map(({ high }) => high))
      }).pipe(Effect.scoped, Effect.provide(MemoryStore.layer())),
    90_000
  )
})
