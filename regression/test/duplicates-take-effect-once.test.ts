import { KafkaClient, type KafkaRecord } from "@tidemark/kafka"
import { Effect } from "effect"
import { expect } from "vitest"
import { isDone, Ledger, messages, onEveryCluster, start, until } from "./consumers.ts"

await onEveryCluster("a producer sends some messages again: each takes effect once", (cluster) =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const ledger = new Ledger()
    const once = messages(cluster.topic, 3_000)
    // some at once, some later, some to another partition
    const sent = once.flatMap((message, index) => {
      if (index % 20 === 0) return [message, message]
      if (index % 33 === 0 && index > 500) return [message, { ...once[index - 500], key: `another ${index}` }]
      return [message]
    })
    yield* client.produce(sent)
    const options = {
      identify: (record: KafkaRecord) => String(record.value),
      handler: (record: KafkaRecord) =>
        Effect.andThen(
          Effect.sleep(Math.random() * 4),
          Effect.sync(() => ledger.note(record))
        )
    }
    const first = yield* start(cluster, options)
    yield* until("under way", () => ledger.count > 300)
    const second = yield* start(cluster, options)
    yield* until(
      "all done",
      () => ledger.times.size === 3_000 && isDone([first, second]),
      () => [first.status(), second.status()]
    )
    expect(ledger.twice).toEqual([])
    expect(ledger.count).toBe(3_000)
  })
)
