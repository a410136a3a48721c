import { expect, it } from "@effect/vitest"
import { Producer } from "@platformatic/kafka"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Context, Effect, Layer, type Scope } from "effect"
import { KafkaClient } from "../src/KafkaClient.ts"
import * as KafkaJs from "../src/KafkaJs.ts"
import * as PlatformaticKafka from "../src/PlatformaticKafka.ts"
import { brokerSuite, newTopic, noBrokerSuite, plainKafka } from "./brokerSuite.ts"
import { enter, memberOptions, Probe, range, startAll, until } from "./kafkaClientSuite.ts"

const driver = {
  name: "PlatformaticKafka",
  layer: PlatformaticKafka.layer,
  layerConfig: PlatformaticKafka.layerConfig
}

await describeWithKafka("PlatformaticKafka on a real broker", ({ brokers }) => {
  brokerSuite(driver, brokers)

  const test = (
    title: string,
    effect: () => Effect.Effect<void, unknown, KafkaClient | Scope.Scope>,
    options: Partial<PlatformaticKafka.Options> = {}
  ) =>
    it.live(title, () => Effect.provide(effect(), PlatformaticKafka.layer({ brokers, ...options })), 60_000)

  test("members of both drivers share a group, whoever leads it", () =>
    Effect.gen(function* () {
      const { client, topic, groupId } = yield* newTopic(4)
      const other = Context.get(yield* Layer.build(KafkaJs.layer({ brokers })), KafkaClient)
      const first = yield* enter(client, groupId, [topic])
      const second = yield* enter(other, groupId, [topic])
      const share = () => [first, second].map(({ probe }) => probe.assigned.length)
      yield* until("both have their share", () => share().join() === "2,2")
      yield* first.close
      yield* until("kafkajs has all", () => share()[1] === 4)
      const third = yield* enter(client, groupId, [topic])
      yield* until("and shares again", () => second.probe.assigned.length === 2)
      expect(third.probe.assigned.length).toBe(2)
      for (const { member, probe } of [second, third]) startAll(member, probe.assigned)
      yield* client.produce(range(0, 40).map((index) => ({ topic, partition: index % 4, value: "one" })))
      yield* until("all records", () => second.probe.count + third.probe.count === 40)
    }))

  test("each assignment tells the group's generation, which rises", () =>
    Effect.gen(function* () {
      const { client, topic, groupId } = yield* newTopic(2)
      const first = yield* enter(client, groupId, [topic])
      yield* enter(client, groupId, [topic])
      yield* until("a new assignment", () => first.probe.assignments.length > 1)
      const generations = first.probe.assignments.map(({ generation }) => generation ?? 0)
      expect(generations[0]).toBeGreaterThan(0)
      expect(generations.at(-1)).toBeGreaterThan(generations[0]!)
    }))

  test("a position outside the log leaves the group's commit alone", () =>
    Effect.gen(function* () {
      const { client, topic, groupId, at } = yield* newTopic()
      yield* client.produce(range(0, 3).map(() => ({ ...at, value: "one" })))
      const { member, probe } = yield* enter(client, groupId, [topic])
      yield* member.commit([{ ...at, offset: 2, metadata: "tidemark:1:1" }])
      startAll(member, [at], 1_000)
      yield* until("the records, from the low end", () => probe.count === 3)
      expect(probe.batches[0]?.fetchedOffset).toBe(0)
      expect((yield* client.committed(groupId, [at]))[0]).toMatchObject({
        offset: 2,
        metadata: "tidemark:1:1"
      })
    }))

  test(
    "partitions that are added are joined for",
    () =>
      Effect.gen(function* () {
        const { client, topic, groupId } = yield* newTopic(1)
        const first = yield* enter(client, groupId, [topic])
        const second = yield* enter(client, groupId, [topic])
        yield* until("a new assignment", () => first.probe.assignments.length > 1)
        const admin = plainKafka(brokers).admin()
        yield* Effect.promise(async () => {
          await admin.connect()
          await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
          await admin.disconnect()
        })
        const share = () => [first, second].map(({ probe }) => probe.assigned.length).join()
        yield* until("both have two", () => share() === "2,2")
        for (const { member, probe } of [first, second]) startAll(member, probe.assigned)
        yield* client.produce([{ topic, partition: 3, value: "one" }])
        yield* until("a record of a new one", () => first.probe.count + second.probe.count === 1)
      }),
    { metadataMaxAgeMillis: 200 }
  )

  test("every compression is read", () =>
    Effect.gen(function* () {
      const { client, topic, groupId, at } = yield* newTopic()
      const producer = yield* Effect.acquireRelease(
        Effect.sync(() => new Producer({ clientId: "test", bootstrapBrokers: [...brokers] })),
        (made) => Effect.promise(() => made.close())
      )
      const compressions = ["none", "gzip", "snappy", "lz4", "zstd"] as const
      for (const compression of compressions) {
        const messages = range(0, 10).map((index) => ({
          ...at,
          value: Buffer.from(`${compression} ${index}`)
        }))
        yield* Effect.promise(() => producer.send({ messages, compression, acks: -1 }))
      }
      const { member, probe } = yield* enter(client, groupId, [topic])
      startAll(member, [at], 5)
      yield* until("all from the fifth on", () => probe.count === 45)
      expect(probe.records(0).map(({ value }) => String(value))).toEqual(
        compressions.flatMap((name) => range(0, 10).map((index) => `${name} ${index}`)).slice(5)
      )
    }))

  test("a group id with white space is refused, since the library takes none", () =>
    Effect.gen(function* () {
      const { client, topic } = yield* newTopic()
      const error = yield* Effect.flip(
        Effect.scoped(client.join(memberOptions("my group", [topic], new Probe())))
      )
      expect(error.reason).toBe("InvalidRequest")
      expect(error.message).toContain("groupId")
    }))
})

noBrokerSuite(driver)
