import { KafkaClient, type KafkaRecord } from "@tidemark/kafka"
import { Effect } from "effect"
import { expect } from "vitest"
import { Ledger, messages, onEveryCluster, type Running, start, until } from "./consumers.ts"

const count = 2_000

/** How often a message fails before it can be processed: most never, some as often as there are attempts. */
const failuresOf = (value: number): number => (value % 40 === 3 ? 1 : value % 100 === 11 ? 2 : 0)

const isIdle = ({ status }: Running): boolean =>
  status().partitions.every(
    ({ lag, phase, unfinished }) => phase === "owned" && unfinished === 0 && (lag ?? 0) === 0
  )

await onEveryCluster(
  "what fails waits in retry topics, is sent there twice, and takes effect once while members come and go",
  (cluster) =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const attempts = new Map<string, number>()
      const connect = Effect.map(cluster.connect, ({ client: own }) => ({
        ...own,
        // as where the answer was lost, and it was sent once more
        produce: (letters: Parameters<typeof own.produce>[0]) =>
          own.produce(letters.flatMap((letter) => [letter, letter]))
      }))
      const options = {
        retryTopics: [300, 700],
        identify: (record: KafkaRecord) => `message ${record.value}`,
        whenPoison: "dead-letter",
        handler: (record: KafkaRecord) =>
          Effect.suspend(() => {
            const value = String(record.value)
            const attempt = (attempts.get(value) ?? 0) + 1
            attempts.set(value, attempt)
            if (attempt <= failuresOf(Number(value))) return Effect.fail("not yet")
            ledger.note(record)
            return Effect.void
          })
      } as const
      yield* client.produce(messages(cluster.topic, count))
      const first = yield* start(cluster, options, yield* connect)
      yield* until("under way", () => ledger.count > 200)
      const second = yield* start(cluster, options, yield* connect)
      yield* until("shared", () => second.status().partitions.length > 0 && ledger.count > 500)
      yield* first.stop
      const third = yield* start(cluster, options, yield* connect)
      yield* until(
        "all done",
        () => ledger.times.size === count && isIdle(second) && isIdle(third),
        () => [ledger.times.size, second.status(), third.status()]
      )
      expect(ledger.twice).toEqual([])
      expect(ledger.count).toBe(count)
      const total = (counter: "retried" | "deadLettered") =>
        [first, second, third].reduce((sum, { status }) => sum + status().counters[counter], 0)
      expect(total("retried")).toBeGreaterThan(0)
      expect(total("deadLettered")).toBe(0)
    })
)
