import { KafkaClient, type KafkaRecord } from "@tidemark/kafka"
import { Effect, Fiber } from "effect"
import { expect } from "vitest"
import {
  commitsOf,
  endsOf,
  isDone,
  isShared,
  Ledger,
  messages,
  onEveryCluster,
  start,
  until
} from "./consumers.ts"

await onEveryCluster("members come and go: no record lost, none twice, each key in order", (cluster) =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const ledger = new Ledger()
    let produced = 0
    let enough = false
    // Records keep coming while members come and go, so that each has its part of them.
    const feed = Effect.gen(function* () {
      while (!enough) {
        yield* client.produce(messages(cluster.topic, 200, produced))
        produced += 200
        yield* Effect.sleep(50)
      }
    })
    const options = {
      handler: (record: KafkaRecord) =>
        Effect.andThen(
          Effect.sleep(Math.random() * 6),
          Effect.sync(() => ledger.note(record))
        )
    }
    const feeding = yield* Effect.forkScoped(feed)
    const first = yield* start(cluster, options)
    yield* until("under way", () => ledger.count > 300)
    const second = yield* start(cluster, options)
    yield* until("the second at work", () => second.status().counters.processed > 200)
    const third = yield* start(cluster, options)
    yield* until("the third at work", () => third.status().counters.processed > 200)
    yield* first.stop
    yield* until("the others share all", () => isShared([second, third]))
    enough = true
    yield* Fiber.join(feeding)
    yield* until(
      "the others have done all",
      () => ledger.times.size === produced && isDone([second, third]),
      () => [produced, ledger.times.size, second.status(), third.status()]
    )
    yield* second.stop
    yield* third.stop

    expect(ledger.times.size).toBe(produced)
    expect(ledger.twice).toEqual([])
    ledger.expectInOrder()
    const commits = yield* commitsOf(cluster)
    expect(commits.map(({ offset }) => offset)).toEqual(yield* endsOf(cluster))
    expect(commits.map(({ metadata }) => metadata)).toEqual(commits.map(() => "tidemark:1:0"))
  })
)
