import { IdempotencyStore, OffsetStore } from "@tidemark/core"
import { KafkaClient, type KafkaRecord } from "@tidemark/kafka"
import { Effect, Fiber } from "effect"
import { expect } from "vitest"
import { isDone, Ledger, messages, mortalStore, onEveryCluster, start, until } from "./consumers.ts"

await onEveryCluster(
  "a consumer dies without a word: nothing lost, twice only what it had at work",
  (cluster) =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const atWork = new Set<string>()
      const mortal = yield* mortalStore
      const { client: doomed, cut } = yield* cluster.connect
      let produced = 0
      const produce = (count: number) =>
        Effect.suspend(() => {
          const batch = messages(cluster.topic, count, produced)
          produced += count
          return client.produce(batch)
        })
      yield* produce(1_000)
      const handler =
        (isDead: () => boolean) =>
        (record: KafkaRecord): Effect.Effect<void> =>
          Effect.suspend(() => {
            if (isDead()) return Effect.never
            const take = Effect.suspend(() => {
              if (isDead()) return Effect.never
              ledger.note(record)
              return Effect.void
            })
            return Effect.andThen(Effect.sleep(Math.random() * 6), take)
          })
      const survivor = yield* start(cluster, { handler: handler(() => false) })
      const victim = yield* Effect.provideService(
        start(cluster, { handler: handler(mortal.isDead), drainTimeout: 100 }, doomed),
        OffsetStore,
        mortal.service
      )
      // Whoever joins first may have done all that there was before the other has joined: so more keeps coming.
      let enough = false
      const feed = Effect.gen(function* () {
        while (!enough) {
          yield* produce(200)
          yield* Effect.sleep(50)
        }
      })
      const feeding = yield* Effect.forkScoped(feed)
      yield* until(
        "both at work",
        () => victim.status().counters.processed > 200 && survivor.status().running > 0,
        () => [victim.status(), survivor.status()]
      )
      const unsettled = victim.status()
      mortal.kill()
      cut()
      for (const value of ledger.times.keys()) atWork.add(value)
      enough = true
      yield* Fiber.join(feeding)
      yield* until(
        "all done",
        () => ledger.times.size === produced && isDone([survivor]),
        () => [produced, ledger.times.size, survivor.status()]
      )

      expect(ledger.times.size).toBe(produced)
      ledger.expectInOrder()
      // the crash fell between the effect and the mark
      const most = unsettled.partitions.reduce((sum, { unfinished }) => sum + unfinished, 0)
      expect(ledger.twice.length).toBeLessThanOrEqual(most)
      for (const value of ledger.twice) expect(atWork.has(value)).toBe(true)
      expect(yield* Effect.map(IdempotencyStore, ({ name }) => name)).toBe("memory")
    })
)
