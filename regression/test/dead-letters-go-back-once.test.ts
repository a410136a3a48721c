import { DeadLetters, KafkaClient } from "@tidemark/kafka"
import { Effect, Exit } from "effect"
import { expect } from "vitest"
import { collect, messages, onEveryCluster, start, until } from "./consumers.ts"

const count = 300

await onEveryCluster("dead letters are sent back by runs that are killed: each goes back once", (cluster) =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const topic = `${cluster.topic}.dead-letter`
    yield* client.produce(messages(cluster.topic, count))
    const consumer = yield* start(cluster, {
      whenPoison: "dead-letter",
      handler: () => Effect.fail("the bank does not answer")
    })
    yield* until(
      "dead-lettered",
      () => consumer.status().counters.deadLettered === count,
      () => consumer.status()
    )
    yield* consumer.stop

    /** One run, whose connections are cut at its second transaction: before it is committed, or after. */
    const killedRun = (when: "before" | "after") =>
      Effect.gen(function* () {
        const { client: doomed, cut } = yield* cluster.connect
        let commits = 0
        const dying: typeof doomed = {
          ...doomed,
          transactionalProducer: (options) =>
            Effect.map(doomed.transactionalProducer(options), (producer) => {
              const die = Effect.suspend(() => {
                cut()
                return Effect.die("killed")
              })
              return {
                ...producer,
                commit: Effect.suspend(() => {
                  if (++commits < 2) return producer.commit
                  return when === "before" ? die : Effect.andThen(producer.commit, die)
                })
              }
            })
        }
        const exit = yield* Effect.exit(
          Effect.provideService(DeadLetters.redrive({ topic }), KafkaClient, dying)
        )
        expect(Exit.isFailure(exit)).toBe(true)
      })
    yield* killedRun("before")
    yield* killedRun("after")
    const last = yield* DeadLetters.redrive({ topic })
    expect(last.sent + last.alreadySent).toBe(count)
    expect(yield* DeadLetters.redrive({ topic })).toMatchObject({ sent: 0, alreadySent: count })

    // as a consumer reads it: what was sent at first, and each once more
    const records = yield* collect(cluster, cluster.topic)
    yield* until("read", () => records.length >= 2 * count)
    const times = new Map<string, number>()
    for (const { value } of records) times.set(String(value), (times.get(String(value)) ?? 0) + 1)
    expect([...times].filter(([, sent]) => sent !== 2)).toEqual([])
    expect(records.length).toBe(2 * count)
  })
)
