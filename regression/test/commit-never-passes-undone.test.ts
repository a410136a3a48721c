import { KafkaClient, type KafkaRecord } from "@tidemark/kafka"
import { Cause, Effect, Exit } from "effect"
import { expect } from "vitest"
import { commitsOf, isDone, Ledger, messages, onEveryCluster, start, until } from "./consumers.ts"

await onEveryCluster(
  "a handler that fails stops its consumer: the commit stays before its record",
  (cluster) =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const poison = { partition: -1, offset: -1 }
      yield* client.produce(messages(cluster.topic, 1_000))
      const work = (record: KafkaRecord) =>
        Effect.andThen(
          Effect.sleep(Math.random() * 4),
          Effect.sync(() => ledger.note(record))
        )
      const first = yield* start(cluster, {
        handler: (record) => {
          if (String(record.value) !== "500") return work(record)
          poison.partition = record.partition
          poison.offset = record.offset
          return Effect.andThen(Effect.sleep(20), Effect.fail("poison" as const))
        }
      })
      const exit = yield* first.exit
      expect(Exit.isFailure(exit) && exit.cause.reasons.find(Cause.isFailReason)?.error).toBe("poison")
      const commits = yield* commitsOf(cluster)
      expect(commits[poison.partition].offset ?? 0).toBeLessThanOrEqual(poison.offset)

      const second = yield* start(cluster, { handler: work })
      yield* until(
        "all done",
        () => ledger.times.size === 1_000 && isDone([second]),
        () => second.status()
      )
      expect(ledger.twice).toEqual([])
      ledger.expectInOrder()
    })
)
