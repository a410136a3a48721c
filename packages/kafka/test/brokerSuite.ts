/** What every driver for real brokers must do, besides `kafkaClientSuite`: with a broker, and without one. */
import type { AddressInfo } from "node:net"
import { createServer } from "node:net"
import { describe, expect, it } from "@effect/vitest"
import { type Config, ConfigProvider, Effect, Fiber, Layer, Logger, Schedule, type Scope } from "effect"
import kafkajs, { type Kafka } from "kafkajs"
import type { ClientOptions } from "../src/internal/clientOptions.ts"
import { KafkaClient } from "../src/KafkaClient.ts"
import { KafkaError } from "../src/KafkaErrors.ts"
import {
  enter,
  kafkaClientSuite,
  memberOptions,
  Probe,
  range,
  startAll,
  uniqueName,
  until
} from "./kafkaClientSuite.ts"
import { kafkaTransactionsSuite } from "./kafkaTransactionsSuite.ts"

/** A driver, by its name and layers. */
export interface TestedDriver {
  readonly name: string
  readonly layer: (
    options: ClientOptions & {
      readonly brokers: ReadonlyArray<string>
      readonly requestTimeoutMillis?: number
    }
  ) => Layer.Layer<KafkaClient, KafkaError>
  readonly layerConfig: () => Layer.Layer<KafkaClient, Config.ConfigError | KafkaError>
}

interface LogLine {
  readonly level: string
  readonly text: string
}

/** A layer that keeps what is logged, at every level, instead of showing it. */
const recordLog = (lines: Array<LogLine>) =>
  Logger.layer([
    Logger.make(({ logLevel, message }) => {
      lines.push({ level: logLevel, text: String(Array.isArray(message) ? message[0] : message) })
    })
  ])

const portThatNobodyListensTo = Effect.promise(
  () =>
    new Promise<number>((resolve) => {
      const server = createServer().listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        server.close(() => resolve(port))
      })
    })
)

/** kafkajs as anyone has it. */
export const plainKafka = (brokers: ReadonlyArray<string>): Kafka =>
  new kafkajs.Kafka({ brokers: [...brokers], logLevel: kafkajs.logLevel.NOTHING })

/** A topic that nobody has used, made by the client in the context. */
export const newTopic = Effect.fnUntraced(function* (partitions = 1) {
  const client = yield* KafkaClient
  const topic = uniqueName("topic")
  yield* client.createTopics([{ topic, partitions }])
  return { client, topic, at: { topic, partition: 0 }, groupId: uniqueName("group") }
})

/** With a broker. */
export const brokerSuite = (driver: TestedDriver, brokers: ReadonlyArray<string>): void => {
  kafkaClientSuite(driver.name, driver.layer({ brokers }))
  kafkaTransactionsSuite(driver.name, driver.layer({ brokers }))

  const plain = () => plainKafka(brokers)
  const test = (title: string, effect: () => Effect.Effect<void, unknown, KafkaClient | Scope.Scope>) =>
    it.live(title, () => Effect.provide(effect(), driver.layer({ brokers })), 60_000)

  const transactions = (topic: string, plan: ReadonlyArray<"commit" | "abort">) =>
    Effect.promise(async () => {
      const producer = plain().producer({ transactionalId: uniqueName("transaction"), idempotent: true })
      await producer.connect()
      for (const end of plan) {
        const transaction = await producer.transaction()
        await transaction.send({
          topic,
          messages: [
            { partition: 0, value: `${end} 1` },
            { partition: 0, value: `${end} 2` }
          ]
        })
        await transaction[end]()
      }
      await producer.disconnect()
    })

  test("aborted transactions and markers are passed over, and move the position even where nothing else comes", () =>
    Effect.gen(function* () {
      const { client, topic, at, groupId } = yield* newTopic()
      // Two records and a marker each: 0-2 aborted, 3-5 committed, 6-8 and 9-11 aborted.
      yield* transactions(topic, ["abort", "commit", "abort", "abort"])
      const high = 12
      // The broker acknowledges an end of a transaction before its markers are in the log.
      yield* Effect.repeat(client.logBounds([at]), { until: (bounds) => bounds[0]?.high === high })
      const { member, probe } = yield* enter(client, groupId, [topic])
      startAll(member, [at])
      yield* until("the end of the log", () => probe.batches.at(-1)?.nextOffset === high)
      expect(probe.offsets(0)).toEqual([3, 4])
      expect(probe.records(0).map((record) => String(record.value))).toEqual(["commit 1", "commit 2"])
      expect(probe.batches[0]?.fetchedOffset).toBe(0)

      const before = probe.batches.length
      yield* transactions(topic, ["abort"])
      yield* until("the new end", () => probe.batches.at(-1)?.nextOffset === 15)
      const idle = probe.batches.slice(before)
      expect(idle.length).toBeGreaterThan(0)
      expect(idle.flatMap((batch) => batch.records)).toEqual([])
      expect(idle[0]?.fetchedOffset).toBe(12)

      const beforeSeek = probe.batches.length
      member.seek(at, 7)
      yield* until("the end again", () => probe.batches.length > beforeSeek)
      expect(probe.batches.at(-1)).toMatchObject({ records: [], fetchedOffset: 7, nextOffset: 15 })
    }))

  test("an offset below the log's low end is a jump, and the driver goes on there", () =>
    Effect.gen(function* () {
      const { client, topic, at, groupId } = yield* newTopic()
      yield* client.produce(range(0, 10).map((index) => ({ ...at, value: String(index) })))
      yield* Effect.promise(async () => {
        const admin = plain().admin()
        await admin.connect()
        // kafkajs deletes only where it knows the leader already.
        await admin.fetchTopicOffsets(topic)
        await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: "7" }] })
        await admin.disconnect()
      })
      expect(yield* client.logBounds([at])).toEqual([{ ...at, low: 7, high: 10 }])
      const { member, probe } = yield* enter(client, groupId, [topic])
      startAll(member, [at], 2)
      yield* until("the rest", () => probe.count === 3)
      expect(probe.offsets(0)).toEqual([7, 8, 9])
      expect(probe.batches[0]?.fetchedOffset).toBe(7)
      expect(probe.ends).toEqual([])
      // What kafkajs committed instead (-2) reads as no commit, and a commit of ours replaces it.
      expect((yield* client.committed(groupId, [at]))[0]?.offset).toBeUndefined()
      yield* member.commit([{ ...at, offset: 10, metadata: "tidemark:1:1" }])
      expect((yield* client.committed(groupId, [at]))[0]).toMatchObject({
        offset: 10,
        metadata: "tidemark:1:1"
      })
    }))

  test("one call may produce more than a request holds; a record that is too large is named so", () =>
    Effect.gen(function* () {
      const { client, topic, at, groupId } = yield* newTopic()
      yield* client.produce(range(0, 3_000).map(() => ({ ...at, value: Buffer.alloc(1_000, 7) })))
      expect((yield* client.logBounds([at]))[0]?.high).toBe(3_000)
      const { member, probe } = yield* enter(client, groupId, [topic])
      startAll(member, [at])
      yield* until("all of it", () => probe.count === 3_000)
      const error = yield* Effect.flip(client.produce([{ ...at, value: Buffer.alloc(2_000_000) }]))
      expect(error.reason).toBe("RecordTooLarge")
      expect(error.retriable).toBe(false)
      expect(error.message).toContain("max.message.bytes")
    }))

  test("a member that gives up while it joins is out of the group at once", () =>
    Effect.gen(function* () {
      const { client, topic, groupId } = yield* newTopic(2)
      const first = yield* enter(client, groupId, [topic])
      // Its join can't end before the first member's next heartbeat.
      const impatient = yield* Effect.forkChild(
        Effect.scoped(client.join(memberOptions(groupId, [topic], new Probe())))
      )
      yield* Effect.sleep(30)
      yield* Fiber.interrupt(impatient)
      const third = yield* enter(client, groupId, [topic])
      yield* until(
        "both have their share",
        () => first.probe.assigned.length === 1 && third.probe.assigned.length === 1
      )
    }))

  test("a topic that was just created takes a produce to all its partitions once", () =>
    Effect.gen(function* () {
      const partitions = Array.from({ length: 12 }, (_, partition) => partition)
      for (let round = 0; round < 10; round++) {
        const { client, topic } = yield* newTopic(partitions.length)
        yield* client.produce(
          partitions.map((partition) => ({ topic, partition, key: "key", value: "value" }))
        )
        const bounds = yield* client.logBounds(partitions.map((partition) => ({ topic, partition })))
        expect(bounds.map(({ high }) => high)).toEqual(partitions.map(() => 1))
      }
    }))

  test("questions about several topics at once get whole answers, also from a client that is new", () =>
    Effect.gen(function* () {
      const { client, topic, groupId } = yield* newTopic(8)
      const { topic: other } = yield* newTopic(8)
      const places = range(0, 8).map((partition) => ({ topic, partition }))
      const producer = yield* client.transactionalProducer({
        transactionalId: groupId,
        timeoutMillis: 60_000
      })
      yield* producer.begin
      yield* producer.sendOffsets(
        groupId,
        places.map((place) => ({ ...place, offset: 5, metadata: "" }))
      )
      yield* producer.commit
      const ask = Effect.gen(function* () {
        const fresh = yield* KafkaClient
        const about = (place: (typeof places)[number]) =>
          Effect.all(
            [
              fresh.committed(groupId, [place]),
              fresh.logBounds([place]),
              fresh.partitionCounts([other]),
              fresh.logBounds([{ ...place, topic: other }])
            ],
            { concurrency: "unbounded" }
          )
        return yield* Effect.forEach(places, about, { concurrency: "unbounded" })
      }).pipe(Effect.provide(Layer.fresh(driver.layer({ brokers, retry: { initialDelayMillis: 10 } }))))
      yield* Effect.repeat(client.committed(groupId, places), {
        until: (all) => all.every(({ offset }) => offset === 5)
      })
      for (let round = 0; round < 10; round++) {
        const answers = yield* ask
        expect(answers.map(([[committed]]) => committed?.offset)).toEqual(places.map(() => 5))
        expect(answers.map(([, [bounds]]) => bounds?.high)).toEqual(places.map(() => 0))
      }
    }))

  test("a partition that was added a moment ago takes what is produced to it", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const topic = uniqueName("topic")
      yield* client.createTopics([{ topic, partitions: 1 }])
      yield* client.produce([{ topic, partition: 0, value: "before" }])
      const admin = plainKafka(brokers).admin()
      yield* Effect.promise(() => admin.connect())
      yield* Effect.promise(() => admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] }))
      yield* Effect.promise(() => admin.disconnect())
      const logs = client.logBounds(range(0, 3).map((partition) => ({ topic, partition })))
      // the brokers may not know them for a moment
      yield* Effect.retry(logs, { times: 50, schedule: Schedule.spaced(100) })
      yield* client.produce(range(0, 3).map((partition) => ({ topic, partition, value: `to ${partition}` })))
      const bounds = yield* logs
      expect(bounds.map(({ high }) => high)).toEqual([2, 1, 1])
    }))

  it.live("joins, rebalances and leaving are no warnings", () => {
    const lines: Array<LogLine> = []
    return Effect.gen(function* () {
      const { client, topic, groupId } = yield* newTopic(2)
      const first = yield* enter(client, groupId, [topic])
      const second = yield* enter(client, groupId, [topic])
      yield* until("both share", () => first.probe.assigned.length === 1)
      yield* second.close
      yield* until("the first has both", () => first.probe.assigned.length === 2)
      yield* first.close
      expect(lines.filter(({ level }) => level === "Warn" || level === "Error")).toEqual([])
    }).pipe(Effect.provide(driver.layer({ brokers })), Effect.provide(recordLog(lines)))
  })

  it.live("layerConfig reads KAFKA_BROKERS", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      expect(client.brokers).toEqual(brokers)
      yield* newTopic()
    }).pipe(
      Effect.provide(driver.layerConfig()),
      Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ KAFKA_BROKERS: brokers.join(" , ") })))
    )
  )
}

/** Without one. */
export const noBrokerSuite = (driver: TestedDriver): void => {
  describe(`${driver.name} without a broker`, () => {
    it.live(
      "an unreachable broker is an error after bounded attempts, each a line that names the brokers",
      () => {
        const lines: Array<LogLine> = []
        return Effect.gen(function* () {
          const port = yield* portThatNobodyListensTo
          const brokers = [`127.0.0.1:${port}`, `localhost:${port}`]
          const layer = driver.layer({
            brokers,
            retry: { attempts: 3, initialDelayMillis: 20, maxDelayMillis: 30 }
          })
          yield* Effect.gen(function* () {
            const client = yield* KafkaClient
            const options = memberOptions("group", ["orders"], new Probe())
            const attempts = [client.join(options), client.produce([{ topic: "orders", value: "lost?" }])]
            for (const attempt of attempts) {
              lines.length = 0
              const error = yield* Effect.flip(Effect.scoped(attempt))
              expect(error).toBeInstanceOf(KafkaError)
              expect(error.reason).toBe("Unreachable")
              expect(error.retriable).toBe(true)
              for (const broker of brokers) expect(error.message).toContain(broker)
              const warnings = lines.filter(({ level }) => level !== "Debug")
              expect(warnings.map(({ level }) => level)).toEqual(["Warn", "Warn"])
              expect(warnings[0]?.text).toContain(brokers.join(", "))
              expect(warnings[0]?.text).toContain("attempt 1 of 3")
              expect(warnings[1]?.text).toContain("attempt 2 of 3")
            }
          }).pipe(Effect.provide(layer))
        }).pipe(Effect.provide(recordLog(lines)))
      }
    )

    const build = (layer: Layer.Layer<KafkaClient, unknown>, variables: Record<string, string> = {}) =>
      Effect.scoped(Layer.build(layer)).pipe(
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(variables))),
        Effect.flip,
        Effect.map(String)
      )

    it.live("a bad KAFKA_BROKERS names the variable, the value and what is allowed", () =>
      Effect.gen(function* () {
        for (const value of ["localhost", "localhost:0", "localhost:65536", "a:1,,b:2", "a b:9092", ""]) {
          const error = yield* build(driver.layerConfig(), { KAFKA_BROKERS: value })
          expect(error).toContain("KAFKA_BROKERS")
          expect(error).toContain(value === "" ? "not set" : JSON.stringify(value))
          expect(error).toContain("host:port")
        }
        expect(yield* build(driver.layerConfig())).toContain("KAFKA_BROKERS is not set; allowed: ")
      })
    )

    it.live("bad options name the field, the value and what is allowed", () =>
      Effect.gen(function* () {
        const brokers = ["localhost:9092"]
        const cases: ReadonlyArray<readonly [Layer.Layer<KafkaClient, unknown>, string]> = [
          [driver.layer({ brokers: [] }), "brokers is []"],
          [driver.layer({ brokers: ["localhost"] }), 'brokers is ["localhost"]'],
          [driver.layer({ brokers, retry: { attempts: 0 } }), "retry.attempts is 0"],
          [driver.layer({ brokers, requestTimeoutMillis: Number.NaN }), "requestTimeoutMillis is NaN"],
          [driver.layer({ brokers, maxBytes: 1.5 }), "maxBytes is 1.5"],
          [
            driver.layer(Object.assign({ brokers }, { clientID: "x" })),
            'option of KafkaClient is "clientID"'
          ],
          [
            driver.layer({ brokers, retry: Object.assign({ attempts: 3 }, { retries: 3 }) }),
            'option of retry is "retries"'
          ]
        ]
        for (const [layer, text] of cases) {
          const error = yield* build(layer)
          expect(error).toContain(text)
          expect(error).toContain("allowed: ")
        }
      })
    )
  })
}
