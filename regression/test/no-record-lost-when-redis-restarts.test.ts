import { it } from "@effect/vitest"
import { IdempotencyStore, OffsetStore } from "@tidemark/core"
import { InProcessKafka, KafkaClient, type KafkaRecord } from "@tidemark/kafka"
import { RedisStore } from "@tidemark/store-redis"
import { startOwnRedis } from "@tidemark/test-servers"
import { describeWithOwnRedis } from "@tidemark/test-servers/vitest"
import { Context, Effect, Fiber, Layer } from "effect"
import { expect } from "vitest"
import { type Cluster, isDone, Ledger, messages, start, until } from "./consumers.ts"

const topic = "orders"

/** A consumer with a connection to Redis of its own, as in a process of its own. */
const startOn = (url: string, cluster: Cluster, ledger: Ledger) =>
  Effect.gen(function* () {
    const services = yield* Layer.build(RedisStore.layer({ url }))
    const handler = (record: KafkaRecord): Effect.Effect<void> =>
      Effect.andThen(
        Effect.sleep(Math.random() * 6),
        Effect.sync(() => ledger.note(record))
      )
    // the outages are shorter than a lease: whoever owns a partition keeps it through them
    return yield* start(cluster, { handler, sessionTimeout: 30_000 }).pipe(
      Effect.provideService(OffsetStore, Context.get(services, OffsetStore)),
      Effect.provideService(IdempotencyStore, Context.get(services, IdempotencyStore))
    )
  })

await describeWithOwnRedis("consumers whose positions are on Redis", () => {
  it.live(
    "Redis is killed and started again, and again: consumption goes on by itself, nothing lost, nothing twice",
    () =>
      Effect.gen(function* () {
        const redis = yield* Effect.acquireRelease(
          Effect.promise(() => startOwnRedis({ appendonly: true })),
          (server) => Effect.promise(() => server.stop())
        )
        const broker = yield* InProcessKafka.InProcessBroker
        const client = yield* KafkaClient
        let clients = 0
        const connect = Effect.sync(() => ({
          client: broker.makeClient({ clientId: `client ${++clients}` }),
          cut: () => {}
        }))
        const cluster: Cluster = { topic, groupId: "group", connect }
        const ledger = new Ledger()
        const consumers = [
          yield* startOn(redis.url, cluster, ledger),
          yield* startOn(redis.url, cluster, ledger)
        ]
        const tell = () => consumers.map(({ status }) => status())

        let produced = 0
        let isOver = false
        const feeding = yield* Effect.forkScoped(
          Effect.gen(function* () {
            while (!isOver) {
              yield* client.produce(messages(topic, 100, produced))
              produced += 100
              yield* Effect.sleep(20)
            }
          })
        )
        const goesOn = (when: string) =>
          Effect.suspend(() => {
            const before = ledger.times.size
            return until(`500 more, ${when}`, () => ledger.times.size > before + 500, tell)
          })
        yield* goesOn("at first")
        for (let death = 1; death <= 3; death++) {
          yield* Effect.promise(() => redis.kill())
          yield* Effect.promise(() => redis.restart())
          yield* goesOn(`after death ${death}`)
        }
        isOver = true
        yield* Fiber.join(feeding)
        yield* until("all done", () => ledger.times.size === produced && isDone(consumers), tell)
        ledger.expectInOrder()
        expect(ledger.twice).toEqual([])
      }).pipe(Effect.provide(InProcessKafka.layer({ topics: { [topic]: 4 }, maxRecordsPerBatch: 50 }))),
    90_000
  )
})
