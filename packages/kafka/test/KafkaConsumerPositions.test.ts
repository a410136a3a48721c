/** Positions that somebody else has changed: the group's commit, or the log. */
import { describe, expect } from "@effect/vitest"
import { OffsetStore } from "@tidemark/core"
import { Effect } from "effect"
import { InProcessBroker } from "../src/InProcessKafka.ts"
import { KafkaClient } from "../src/KafkaClient.ts"
import type { ConsumerOptions } from "../src/KafkaConsumer.ts"
import { KafkaError } from "../src/KafkaErrors.ts"
import { metadata } from "../src/PositionRules.ts"
import {
  commits,
  failureOf,
  Ledger,
  liveTests,
  logLines,
  quick,
  records,
  start,
  streamOf,
  work
} from "./consumerHarness.ts"
import { until } from "./kafkaClientSuite.ts"

const test = liveTests({ topics: { orders: 1 } }, 15_000)
const place = { topic: "orders", partition: 0 }
const commitOf = Effect.map(commits("group", "orders", 1), ([commit]) => commit)

/** Runs a consumer until all is done, and stops it. */
const runThrough = Effect.fnUntraced(function* (
  ledger: Ledger,
  options: Partial<ConsumerOptions<never, never>> = {},
  client?: KafkaClient["Service"]
) {
  const consumer = yield* start({ ...quick, handler: work(ledger, () => 0), ...options }, client)
  const [{ high }] = yield* Effect.flatMap(KafkaClient, ({ logBounds }) => logBounds([place]))
  yield* until("all done", () => consumer.status().partitions[0]?.watermark === high)
  yield* consumer.stop
  return consumer.status().counters
})

const offsetsOf = (ledger: Ledger): ReadonlyArray<number> =>
  [...ledger.byRecord.keys()].map((name) => Number(name.split("/")[2])).sort((a, b) => a - b)

const span = (from: number, to: number): ReadonlyArray<number> =>
  Array.from({ length: to - from }, (_, index) => from + index)

describe("KafkaConsumer, when an operator resets its group", () => {
  test("goes back with it, having committed before anything runs", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      yield* client.produce(records("orders", 20))
      yield* runThrough(new Ledger())
      expect((yield* store.progress(streamOf(0)))?.note).toMatch(/^tidemark:1 commits landmark=19@\d+$/)
      broker.setCommitted("group", place, 5)
      const ledger = new Ledger()
      const atFirst: Array<string | undefined> = []
      const log = logLines()
      const counters = yield* Effect.provide(
        runThrough(ledger, {
          handler: (record) =>
            Effect.gen(function* () {
              atFirst.push((yield* Effect.orDie(client.committed("group", [place])))[0].metadata)
              ledger.note(record)
            })
        }),
        log.layer
      )
      expect(offsetsOf(ledger)).toEqual(span(5, 20))
      expect(atFirst[0]).toBe(metadata(1))
      expect(counters).toMatchObject({ resets: 1, adoptedEpochs: 0 })
      expect(log.lines.join("\n")).toContain("was set to 5 by another client")
      expect(yield* commitOf).toMatchObject({ offset: 20, metadata: metadata(1) })
      expect((yield* store.progress(streamOf(0)))?.epoch).toBe(1)
    }))

  test("goes forward with it", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      yield* client.produce(records("orders", 10))
      yield* runThrough(new Ledger())
      yield* client.produce(records("orders", 10, 50, 10))
      broker.setCommitted("group", place, 15)
      const ledger = new Ledger()
      const counters = yield* runThrough(ledger)
      expect(offsetsOf(ledger)).toEqual(span(15, 20))
      expect(counters).toMatchObject({ resets: 1, passedByForeignCommit: 0, adoptedEpochs: 0 })
      expect(yield* commitOf).toMatchObject({ offset: 20, metadata: metadata(1) })
    }))

  test("goes back with it to where it was migrated from", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      yield* client.produce(records("orders", 10))
      broker.setCommitted("group", place, 5)
      const first = new Ledger()
      yield* runThrough(first)
      expect(offsetsOf(first)).toEqual(span(5, 10))
      broker.setCommitted("group", place, 5)
      const ledger = new Ledger()
      const counters = yield* runThrough(ledger)
      expect(offsetsOf(ledger)).toEqual(span(5, 10))
      expect(counters.resets).toBe(1)
    }))

  test("stays where it is, and makes the commit its own again", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      yield* client.produce(records("orders", 10))
      yield* runThrough(new Ledger())
      broker.setCommitted("group", place, 10)
      const ledger = new Ledger()
      yield* runThrough(ledger)
      expect(ledger.count).toBe(0)
      expect(yield* commitOf).toMatchObject({ offset: 10, metadata: metadata(0) })
    }))

  test("tries again where the group does not take the commit", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      yield* client.produce(records("orders", 10))
      yield* runThrough(new Ledger())
      broker.setCommitted("group", place, 4)
      broker.failNext(
        "commit",
        new KafkaError({
          reason: "StaleMember",
          operation: "commit",
          brokers: ["b"],
          detail: "the group is rebalancing",
          retriable: true
        })
      )
      const ledger = new Ledger()
      const counters = yield* runThrough(ledger)
      expect(offsetsOf(ledger)).toEqual(span(4, 10))
      expect(counters.resets).toBe(1)
    }))

  test("takes a commit that its own was to replace for no reset", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      const store = yield* OffsetStore
      yield* client.produce(records("orders", 20))
      broker.setCommitted("group", place, 10)
      const own = broker.makeClient()
      const failing: KafkaClient["Service"] = {
        ...own,
        join: (options) =>
          Effect.map(own.join(options), (member) => ({
            ...member,
            commit: () =>
              Effect.fail(
                new KafkaError({
                  reason: "Unreachable",
                  operation: "commit",
                  brokers: ["b"],
                  detail: "as told",
                  retriable: true
                })
              )
          }))
      }
      const first = new Ledger()
      yield* runThrough(first, {}, failing)
      expect(offsetsOf(first)).toEqual(span(10, 20))
      expect((yield* store.progress(streamOf(0)))?.note).toContain("replaces=10")
      const second = new Ledger()
      const counters = yield* runThrough(second)
      expect(second.count).toBe(0)
      expect(counters.resets).toBe(0)
      expect(yield* commitOf).toMatchObject({ offset: 20, metadata: metadata(0) })
    }))
})

describe("KafkaConsumer, when its commit is gone", () => {
  test("goes on where the log is the same", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      yield* client.produce(records("orders", 10))
      yield* runThrough(new Ledger())
      broker.setCommitted("group", place, undefined)
      yield* client.produce(records("orders", 5, 50, 10))
      const ledger = new Ledger()
      yield* runThrough(ledger)
      expect(offsetsOf(ledger)).toEqual(span(10, 15))
      expect(yield* commitOf).toMatchObject({ offset: 15, metadata: metadata(0) })
    }))

  const replaced = (count: number) =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const client = yield* KafkaClient
      yield* client.produce(
        records("orders", 10).map((record) => ({ ...record, timestampMillis: 1_700_000_000_000 }))
      )
      yield* runThrough(new Ledger())
      broker.deleteTopic("orders")
      broker.createTopic("orders", 1)
      broker.setCommitted("group", place, undefined)
      yield* client.produce(
        records("orders", count, 50, 100).map((record) => ({ ...record, timestampMillis: 1_800_000_000_000 }))
      )
    })

  test("stops where a topic was created anew, shorter or longer, and says what has changed", () =>
    Effect.gen(function* () {
      yield* replaced(30)
      const consumer = yield* start({ ...quick, handler: () => Effect.void })
      const failure = failureOf(yield* consumer.exit)
      expect(failure).toMatchObject({ _tag: "LogWentBack", highest: 10, end: 30 })
      expect((failure as Error).message).toContain(
        "the record at offset 9, which was of 2023-11-14T22:13:20.000Z, is of 2027-01-15T08:00:00.000Z now"
      )
    }))

  for (const [what, count] of [
    ["longer", 30],
    ["shorter", 5],
    ["empty", 0]
  ] as const) {
    test(`begins anew in a topic that was created anew, ${what}, if told to`, () =>
      Effect.gen(function* () {
        const store = yield* OffsetStore
        yield* replaced(count)
        const ledger = new Ledger()
        const counters = yield* runThrough(ledger, { whenLogWentBack: "reset" })
        expect(offsetsOf(ledger)).toEqual(span(0, count))
        expect(counters).toMatchObject({ logsBegunAnew: 1, resets: 0, adoptedEpochs: 0 })
        expect(yield* store.progress(streamOf(0))).toMatchObject({
          epoch: 1,
          watermark: count,
          highest: count
        })
        expect(yield* commitOf).toMatchObject({ offset: count, metadata: metadata(1) })
        const again = new Ledger()
        yield* runThrough(again)
        expect(again.count).toBe(0)
      }))
  }
})
