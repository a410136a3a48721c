import { DeadLetters, Decoder, KafkaClient, KafkaConsumer } from "@tidemark/kafka"
import { Effect, Fiber, Schedule, Schema } from "effect"
import { expect } from "vitest"
import { collect, Ledger, messages, onEveryCluster, start, until } from "./consumers.ts"

await onEveryCluster(
  "one record of 10,000 can't be processed: the others are, and it is set aside whole",
  (cluster) =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const value = Buffer.from([0, 255, 254, 10])
      const bad = { topic: cluster.topic, key: "key 7", value, headers: { tenant: Buffer.from([200]) } }
      const all = messages(cluster.topic, 9_999)
      yield* client.produce([...all.slice(0, 4_000), { ...bad, timestampMillis: 1_700_000_000_000 }])
      yield* client.produce(all.slice(4_000))
      const consumer = yield* start(cluster, {
        whenPoison: "dead-letter",
        retry: Schedule.spaced(20).pipe(Schedule.upTo({ times: 2 })),
        handler: (record) =>
          record.value?.equals(value)
            ? Effect.fail(new Error("can't be charged"))
            : Effect.sync(() => ledger.note(record))
      })
      yield* until(
        "all done",
        () => ledger.count >= 9_999 && consumer.status().counters.deadLettered === 1,
        () => [ledger.count, consumer.status()]
      )
      expect(ledger.twice).toEqual([])
      ledger.expectInOrder()
      expect(consumer.status().counters).toMatchObject({ processed: 9_999, deadLettered: 1, retries: 2 })
      const letters = yield* collect(cluster, `${cluster.topic}.dead-letter`)
      yield* until("read", () => letters.length > 0)
      const letter = DeadLetters.read(letters[0])
      expect(letter).toMatchObject({
        groupId: cluster.groupId,
        topic: cluster.topic,
        timestampMillis: 1_700_000_000_000,
        attempts: 3,
        errorTag: "Error",
        errorMessage: "can't be charged",
        key: Buffer.from("key 7"),
        value
      })
      expect([letter?.headers["tenant"]].flat()[0]).toEqual(Buffer.from([200]))
      yield* consumer.stop
      expect(letters.length).toBe(1)
    })
)

const Order = Schema.Struct({ id: Schema.Number, amount: Schema.NumberFromString })

await onEveryCluster("records that can't be decoded are set aside, and the others processed", (cluster) =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const taken = new Map<number, number>()
    const value = (id: number): Buffer | string | null => {
      if (id % 100 === 1) return "{"
      if (id % 100 === 2) return JSON.stringify({ id, amount: 7 })
      if (id % 100 === 3) return null
      return id % 100 === 4 ? Buffer.from([255]) : JSON.stringify({ id, amount: `${id}` })
    }
    const ids = Array.from({ length: 1_000 }, (_, id) => id)
    const bad = ids.filter((id) => [1, 2, 3, 4].includes(id % 100))
    yield* client.produce(ids.map((id) => ({ topic: cluster.topic, key: `${id}`, value: value(id) })))
    const consumer = yield* KafkaConsumer.make({
      topics: [cluster.topic],
      groupId: cluster.groupId,
      sessionTimeout: 6_000,
      decode: Decoder.json(Order),
      identify: (order) => `order ${order.id}`,
      whenPoison: "dead-letter",
      handler: ({ amount, id }) => Effect.sync(() => void taken.set(id, (taken.get(id) ?? 0) + amount))
    })
    const { client: own } = yield* cluster.connect
    const running = yield* Effect.forkScoped(Effect.provideService(consumer.run, KafkaClient, own))
    const status = () => Effect.runSync(consumer.status)
    yield* until(
      "all done",
      () => taken.size === 960 && status().counters.deadLettered === 40,
      () => [taken.size, status()]
    )
    expect([...taken].filter(([id, amount]) => id !== amount)).toEqual([])
    const letters = yield* collect(cluster, `${cluster.topic}.dead-letter`)
    yield* until("read", () => letters.length >= 40)
    yield* Fiber.interrupt(running)
    expect(letters.map(({ key }) => Number(String(key))).sort((one, other) => one - other)).toEqual(bad)
    for (const record of letters) {
      expect(DeadLetters.read(record)?.errorTag).toBe("DecodeFailed")
      const sent = value(Number(String(record.key)))
      expect(record.value).toEqual(sent === null ? undefined : Buffer.from(sent))
    }
  })
)
