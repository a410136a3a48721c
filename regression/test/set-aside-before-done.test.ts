import { OffsetStore } from "@tidemark/core"
import { DeadLetters, KafkaClient, type KafkaRecord } from "@tidemark/kafka"
import { Effect, Fiber } from "effect"
import { expect } from "vitest"
import { collect, Ledger, messages, mortalStore, onEveryCluster, start, until } from "./consumers.ts"

await onEveryCluster(
  "a consumer dies between a dead letter and its mark: nothing is lost, and the letter goes back once",
  (cluster) =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const mortal = yield* mortalStore
      const { client: doomed, cut } = yield* cluster.connect
      yield* client.produce(messages(cluster.topic, 200))
      const isBad = (record: KafkaRecord) => Number(String(record.value)) % 50 === 7
      const options = {
        whenPoison: "dead-letter",
        handler: (record: KafkaRecord) =>
          isBad(record) ? Effect.fail("bad") : Effect.sync(() => ledger.note(record))
      } as const
      // its letter is written and acknowledged, and then it is gone
      const dying: typeof doomed = {
        ...doomed,
        produce: (letters) =>
          Effect.andThen(
            doomed.produce(letters),
            Effect.suspend(() => {
              mortal.kill()
              cut()
              return Effect.never
            })
          )
      }
      const first = yield* Effect.forkScoped(
        Effect.provideService(start(cluster, options, dying), OffsetStore, mortal.service)
      )
      yield* until("the first has died", () => mortal.isDead())
      yield* Fiber.join(first)
      const second = yield* start(cluster, options)
      yield* until(
        "all done",
        () => ledger.times.size === 196 && second.status().counters.deadLettered === 4,
        () => [ledger.times.size, second.status()]
      )
      const topic = `${cluster.topic}.dead-letter`
      const letters = yield* collect(cluster, topic)
      yield* until("read", () => letters.length >= 5)
      const ids = letters.map((record) => DeadLetters.read(record)?.id)
      expect(new Set(ids).size).toBe(4)
      yield* second.stop
      // the reader goes on, and will see the notes of what was sent back
      const { sent } = yield* DeadLetters.redrive({ topic })
      expect(sent).toBe(4)
      const again = yield* DeadLetters.redrive({ topic })
      expect(again).toMatchObject({ sent: 0, alreadySent: ids.length })
      const healed = yield* start(cluster, {
        handler: (record) => Effect.sync(() => ledger.note(record))
      })
      yield* until(
        "the letters done",
        () => ledger.times.size === 200,
        () => healed.status()
      )
      expect([7, 57, 107, 157].map((number) => ledger.times.get(`${number}`))).toEqual([1, 1, 1, 1])
    })
)
