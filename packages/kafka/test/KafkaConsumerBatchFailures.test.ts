import { describe, expect } from "@effect/vitest"
import { IdempotencyStore } from "@tidemark/core"
import { Cause, Effect, Exit, Schedule, Schema } from "effect"
import { PartlyDone } from "../src/ConsumerErrors.ts"
import * as Decoder from "../src/Decoder.ts"
import { InProcessBroker } from "../src/InProcessKafka.ts"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import * as KafkaConsumer from "../src/KafkaConsumer.ts"
import {
  begin,
  clockTests,
  isDone,
  Ledger,
  pass,
  type Running,
  records,
  settled,
  unhurried
} from "./consumerHarness.ts"

const test = clockTests({ topics: { orders: 1 } })

/** Several records in one batch, and one batch at a time. */
const batched = { ...unhurried, order: "partition" } as const

const startBatches = <E>(options: KafkaConsumer.BatchOptions<E, never>) =>
  Effect.flatMap(KafkaConsumer.make(options), (consumer) => begin(consumer))

const textOf = ({ value }: KafkaRecord): string => String(value)

/** Takes effect as a whole, or fails where one of these is in it; notes each batch that it was given. */
const failing = (ledger: Ledger, batches: Array<string>, bad: ReadonlyArray<string>) => {
  return (given: ReadonlyArray<KafkaRecord>) =>
    Effect.suspend(() => {
      batches.push(given.map(textOf).join(" "))
      const found = given.map(textOf).find((value) => bad.includes(value))
      if (found !== undefined) return Effect.fail(`${found} is bad`)
      for (const record of given) ledger.note(record)
      return Effect.void
    })
}

const recordsIn = (topic: string) => Effect.map(InProcessBroker, (broker) => broker.records(topic, 0))

const hasDone = (consumer: Running<unknown>, count: number, partitions = 1): boolean =>
  consumer.status().counters.received >= count && isDone(consumer, partitions)

const failureOf = (running: Running<unknown>) =>
  Effect.map(running.exit, (exit) => (Exit.isFailure(exit) ? Cause.squash(exit.cause) : "it ended well"))

describe("a batch that fails", () => {
  test("is tried again as a whole, and then one by one in order: only what is bad is set aside", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const batches: Array<string> = []
      yield* client.produce(records("orders", 6, 1))
      const consumer = yield* startBatches({
        ...batched,
        retry: Schedule.recurs(1),
        whenPoison: "dead-letter",
        handleBatch: failing(ledger, batches, ["2", "4"])
      })
      yield* settled("done", () => hasDone(consumer, 6))
      expect(batches).toEqual(["0 1 2 3 4 5", "0 1 2 3 4 5", "0", "1", "2", "3", "4", "5"])
      expect([...ledger.byValue.keys()]).toEqual(["0", "1", "3", "5"])
      const letters = yield* recordsIn("orders.dead-letter")
      expect(letters.map(textOf)).toEqual(["2", "4"])
      expect(letters.map(({ headers }) => String(headers["tidemark.error-message"]))).toEqual([
        "2 is bad",
        "4 is bad"
      ])
      expect(String(letters[0].headers["tidemark.attempts"])).toBe("3")
      expect(consumer.status().counters).toMatchObject({ processed: 4, deadLettered: 2, retries: 1 })
    }))

  test("that was done in part is tried again without what is done", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const batches: Array<string> = []
      yield* client.produce(records("orders", 4, 1))
      const consumer = yield* startBatches({
        ...batched,
        retry: Schedule.recurs(1),
        whenPoison: "dead-letter",
        handleBatch: (given) => {
          batches.push(given.map(textOf).join(" "))
          const done = given.filter((record) => textOf(record) === (batches.length === 1 ? "1" : "0"))
          return Effect.fail(new PartlyDone({ done, cause: new Error("the rest is bad") }))
        }
      })
      yield* settled("done", () => hasDone(consumer, 4))
      expect(batches).toEqual(["0 1 2 3", "0 2 3", "2", "3"])
      const letters = yield* recordsIn("orders.dead-letter")
      expect(letters.map(textOf)).toEqual(["2", "3"])
      expect(String(letters[0].headers["tidemark.error-message"])).toBe("the rest is bad")
      expect(consumer.status().counters).toMatchObject({ processed: 2, deadLettered: 2 })
    }))

  test("that was done in part does not run again what its failure names by copies, nor what it names one by one", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const batches: Array<string> = []
      yield* client.produce(records("orders", 4, 1))
      const consumer = yield* startBatches({
        ...batched,
        retry: Schedule.recurs(1),
        whenPoison: "dead-letter",
        handleBatch: (given) => {
          batches.push(given.map(textOf).join(" "))
          // the last step fails always, after the effect on "1", or on the one record that there is
          const done = given.length > 1 ? given.filter((record) => textOf(record) === "1") : given
          ledger.noteAll(done)
          return Effect.fail(
            new PartlyDone({ done: done.map((record) => ({ ...record })), cause: "the last step" })
          )
        }
      })
      yield* settled("done", () => hasDone(consumer, 4))
      expect(batches).toEqual(["0 1 2 3", "0 2 3", "0", "2", "3"])
      expect(ledger.twice).toEqual([])
      expect(consumer.status().counters).toMatchObject({ processed: 4, deadLettered: 0 })
      expect(yield* recordsIn("orders.dead-letter")).toEqual([])
    }))

  test("stops the consumer without a policy, with what its handler failed with, and what was done is completed", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const batches: Array<string> = []
      yield* client.produce(records("orders", 3, 1))
      const consumer = yield* startBatches({
        ...batched,
        retry: Schedule.recurs(1),
        handleBatch: (given): Effect.Effect<void, "bad" | PartlyDone> => {
          batches.push(given.map(textOf).join(" "))
          if (given.length < 3) return Effect.fail("bad")
          ledger.note(given[1])
          return Effect.fail(new PartlyDone({ done: [given[1]], cause: "bad" }))
        }
      })
      expect(yield* failureOf(consumer)).toBe("bad")
      expect(batches).toEqual(["0 1 2", "0 2"])
      const again = yield* startBatches({ ...batched, handleBatch: failing(ledger, batches, []) })
      yield* settled("done", () => ledger.count === 3 && isDone(again, 1))
      expect(ledger.twice).toEqual([])
    }))

  test("a stop while it waits for its next attempt completes what is done of it, and no more", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce(records("orders", 3, 1))
      const consumer = yield* startBatches({
        ...batched,
        retry: Schedule.spaced("1 hour"),
        handleBatch: ([first]) => {
          ledger.note(first)
          return Effect.fail(new PartlyDone({ done: [first], cause: "later" }))
        }
      })
      yield* settled("waits", () => ledger.count === 1)
      yield* consumer.stop
      const again = yield* startBatches({ ...batched, handleBatch: failing(ledger, [], []) })
      yield* settled("done", () => ledger.count === 3 && isDone(again, 1))
      expect(ledger.twice).toEqual([])
    }))

  test("a stop in the middle of one by one completes what is done, and leaves the rest", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const keys = yield* IdempotencyStore
      const ledger = new Ledger()
      yield* client.produce(records("orders", 5, 1))
      const consumer = yield* startBatches({
        ...batched,
        identify: textOf,
        whenPoison: "dead-letter",
        handleBatch: (given) => {
          if (given.length > 1 || textOf(given[0]) === "1") return Effect.fail("bad")
          if (textOf(given[0]) === "3") return Effect.never
          ledger.note(given[0])
          return Effect.void
        }
      })
      yield* settled("at the third", () => ledger.count === 2)
      const stopping = yield* Effect.forkScoped(consumer.stop)
      yield* pass(4)
      yield* settled("stopped", () => stopping.pollUnsafe() !== undefined)
      const statuses = yield* keys.lookup("group", ["0", "1", "2", "3"])
      expect(statuses.map(({ _tag }) => _tag)).toEqual(["Completed", "Unknown", "Completed", "Unknown"])
      const again = yield* startBatches({ ...batched, handleBatch: failing(ledger, [], []) })
      yield* settled("done", () => ledger.count === 4 && isDone(again, 1))
      expect(ledger.twice).toEqual([])
      expect([...ledger.byValue.keys()].sort()).toEqual(["0", "2", "3", "4"])
      expect((yield* recordsIn("orders.dead-letter")).map(textOf)).toEqual(["1"])
    }))

  test("gives the ids of what is set aside back, and completes the others'; each knows its token", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const keys = yield* IdempotencyStore
      const tokens: Array<number> = []
      yield* client.produce(records("orders", 3, 1))
      const consumer = yield* startBatches({
        ...batched,
        identify: textOf,
        whenPoison: "dead-letter",
        handleBatch: (given, { keyTokens }) => {
          tokens.push(keyTokens.filter((token) => token !== undefined).length)
          return given.some((record) => textOf(record) === "1") ? Effect.fail("bad") : Effect.void
        }
      })
      yield* settled("done", () => hasDone(consumer, 3))
      expect(tokens).toEqual([3, 1, 1, 1])
      const statuses = yield* keys.lookup("group", ["0", "1", "2"])
      expect(statuses.map(({ _tag }) => _tag)).toEqual(["Completed", "Unknown", "Completed"])
    }))

  test("sends what is bad to a retry topic, where it is handled again", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const batches: Array<string> = []
      yield* client.produce(records("orders", 3, 1))
      const bad = ["1"]
      const consumer = yield* startBatches({
        ...batched,
        retryTopics: ["30 seconds"],
        handleBatch: failing(ledger, batches, bad)
      })
      yield* settled("sent to wait", () => consumer.status().counters.retried === 1)
      bad.pop()
      yield* pass(31)
      yield* settled("done", () => hasDone(consumer, 4, 2))
      expect([...ledger.byValue]).toEqual([
        ["0", 1],
        ["2", 1],
        ["1", 1]
      ])
    }))

  test("what can't be decoded is no part of it; values and records go together", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const seen: Array<string> = []
      yield* client.produce(["1", "x", "2", "y", "3"].map((value) => ({ topic: "orders", value })))
      for (const withIds of [false, true]) {
        const consumer = yield* begin(
          yield* KafkaConsumer.make({
            ...batched,
            groupId: `group ${withIds}`,
            decode: Decoder.json(Schema.Number),
            ...(withIds ? { identify: (value: number) => `${value}` } : {}),
            whenPoison: "dead-letter",
            deadLetterTopic: `graves-${withIds}`,
            handleBatch: (values, given, claim) =>
              Effect.sync(() => {
                seen.push(values.map((value, index) => `${value + 1}@${given[index].offset}`).join(" "))
                seen.push(`${claim.token > 0}`)
              })
          })
        )
        yield* settled("done", () => hasDone(consumer, 5))
        expect(seen.splice(0)).toEqual(["2@0 3@2 4@4", "true"])
        expect((yield* recordsIn(`graves-${withIds}`)).map(textOf)).toEqual(["x", "y"])
        expect(consumer.status().counters).toMatchObject({ processed: 3, deadLettered: 2 })
      }
    }))
})
