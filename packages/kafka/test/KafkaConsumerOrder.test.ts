/** One record that takes long, or fails again and again: whom it holds up, and whom not. */
import { describe, expect } from "@effect/vitest"
import { Deferred, Effect, Schedule } from "effect"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import type { Order } from "../src/KafkaConsumer.ts"
import { clockTests, commits, isDone, Ledger, pass, settled, start, unhurried } from "./consumerHarness.ts"

const test = clockTests({ topics: { orders: 2 } })

const keys = 20
const perPartition = 200

/** On partition 0 the first record is the one in question; its key has others behind it. */
const history = [0, 1].flatMap((partition) =>
  Array.from({ length: perPartition }, (_, index) => ({
    topic: "orders",
    partition,
    key: `key ${index % keys}`,
    value: `${partition} ${index}`
  }))
)

const isFirst = ({ offset, partition }: KafkaRecord): boolean => partition === 0 && offset === 0

/** How many of the records wait for the one in question. */
const heldUp: Record<Order, number> = { key: perPartition / keys, partition: perPartition, none: 1 }

const identify = ({ value }: KafkaRecord): string => String(value)

const ways = [
  { how: "one by one", inBatches: false, options: {} },
  { how: "one by one, with ids", inBatches: false, options: { identify } },
  { how: "in batches", inBatches: true, options: {} },
  { how: "in batches, with ids", inBatches: true, options: { identify } }
]

for (const order of ["key", "partition", "none"] as const)
  describe(`KafkaConsumer, order ${order}`, () => {
    for (const { how, inBatches, options } of ways)
      test(`a record that takes long holds up only what keeps its order behind it, ${how}`, () =>
        Effect.gen(function* () {
          const client = yield* KafkaClient
          const ledger = new Ledger()
          const gate = yield* Deferred.make<void>()
          yield* client.produce(history)
          const common = { ...unhurried, ...options, order, concurrency: 4 }
          const wait = (records: ReadonlyArray<KafkaRecord>) =>
            Effect.map(records.some(isFirst) ? Deferred.await(gate) : Effect.void, () =>
              ledger.noteAll(records)
            )
          const consumer = inBatches
            ? yield* start({ ...common, maxBatchRecords: 5, handleBatch: wait })
            : yield* start({ ...common, handler: (record) => wait([record]) })
          // a batch of records that keep no order may have some with it
          const atMost = heldUp[order] + (inBatches && order === "none" ? 4 : 0)
          yield* settled("the others are done", () => ledger.count >= 2 * perPartition - atMost)
          yield* pass(2)
          expect(ledger.count).toBe(2 * perPartition - (inBatches && order === "none" ? 5 : heldUp[order]))
          expect(consumer.status().running).toBe(inBatches ? 5 : 1)
          expect((yield* commits("group", "orders", 2)).map(({ offset = 0 }) => offset)).toEqual([
            0,
            perPartition
          ])
          yield* Deferred.succeed(gate, undefined)
          yield* settled("done", () => isDone(consumer, 2) && ledger.count === 2 * perPartition)
          expect(ledger.twice).toEqual([])
          if (order !== "none") expect(ledger.disordered).toEqual([])
        }))

    test("a record that is tried again and again holds up only what keeps its order behind it", () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const ledger = new Ledger()
        let failures = 0
        yield* client.produce(history)
        const consumer = yield* start({
          ...unhurried,
          order,
          concurrency: 4,
          retry: Schedule.spaced("1 second").pipe(Schedule.upTo({ times: 10 })),
          handler: (record) =>
            Effect.suspend(() => {
              if (isFirst(record) && failures++ < 5) return Effect.fail("not yet")
              return Effect.sync(() => ledger.note(record))
            })
        })
        yield* settled("the others are done", () => ledger.count >= 2 * perPartition - heldUp[order])
        expect(ledger.count).toBe(2 * perPartition - heldUp[order])
        yield* pass(6)
        yield* settled("done", () => isDone(consumer, 2) && ledger.count === 2 * perPartition)
        expect(consumer.status().counters.retries).toBe(5)
        expect(ledger.twice).toEqual([])
        if (order !== "none") expect(ledger.disordered).toEqual([])
      }))
  })
