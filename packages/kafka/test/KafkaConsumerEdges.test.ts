/** What changes or fails between two steps of the consumer. */
import { expect } from "@effect/vitest"
import { IdempotencyStore, OffsetRanges, OffsetStore, StoreError } from "@tidemark/core"
import { Effect } from "effect"
import { InProcessBroker } from "../src/InProcessKafka.ts"
import { KafkaClient, type MemberEvents } from "../src/KafkaClient.ts"
import { KafkaError } from "../src/KafkaErrors.ts"
import { isDone, Ledger, liveTests, logLines, owns, quick, start, streamOf, work } from "./consumerHarness.ts"
import { until } from "./kafkaClientSuite.ts"

const test = liveTests({ topics: { orders: 1 } }, 12_000)
const many = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ topic: "orders", partition: 0, key: `k${i}`, value: `${i}` }))
test("a rewind between progress and claim is followed", () =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const store = yield* OffsetStore
    yield* client.produce(many(10))
    const first = new Ledger()
    const one = yield* start({ ...quick, handler: work(first, () => 0) })
    yield* until("ten", () => first.count === 10 && isDone(one, 1))
    yield* one.stop
    let rewound = false
    const ledger = new Ledger()
    const two = yield* Effect.provideService(
      start({ ...quick, handler: work(ledger, () => 0) }),
      OffsetStore,
      {
        ...store,
        claim: (...args: Parameters<typeof store.claim>) =>
          Effect.suspend(() => {
            if (rewound) return store.claim(...args)
            rewound = true
            return Effect.andThen(store.rewind(streamOf(0), 5), store.claim(...args))
          })
      }
    )
    yield* until("owned", () => owns(two, 1))
    yield* client.produce(many(1))
    yield* until("the new one", () => ledger.byRecord.has("orders/0/10"))
    yield* Effect.sleep(300)
    yield* two.stop
    expect(ledger.count).toBe(6)
  }))

test("a store that forgot an epoch, and a second owner before the first has committed: nothing runs twice", () =>
  Effect.gen(function* () {
    const broker = yield* InProcessBroker
    const client = yield* KafkaClient
    yield* client.produce(many(20))
    broker.setCommitted("group", { topic: "orders", partition: 0 }, 10, "tidemark:1:1")
    const ledger = new Ledger()
    const slow = { ...quick, commitInterval: 60_000 }
    const one = yield* start({ ...slow, handler: work(ledger, () => 0) })
    yield* until("ten", () => ledger.count === 10 && isDone(one, 1))
    broker.kill(broker.members("group")[0]!.memberId)
    const two = yield* start({ ...slow, handler: work(ledger, () => 0) })
    yield* until("owned", () => owns(two, 1) && isDone(two, 1))
    yield* Effect.sleep(200)
    expect(ledger.twice).toEqual([])
  }))

test("a partition that was taken away and given again is not paused by its earlier self", () =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const store = yield* OffsetStore
    const ledger = new Ledger()
    let begun = 0
    let events: MemberEvents | undefined
    const own: KafkaClient["Service"] = {
      ...client,
      join: (options) => {
        events = options.events
        return client.join(options)
      }
    }
    const one = yield* start(
      {
        ...quick,
        sessionTimeout: 4_000,
        drainTimeout: 1_900,
        handler: (record) =>
          record.offset === 0
            ? Effect.andThen(Effect.sleep(begun++ === 0 ? 1_000 : 2_500), work(ledger, () => 0)(record))
            : work(ledger, () => 0)(record)
      },
      own
    )
    yield* until("owned", () => owns(one, 1))
    yield* client.produce(many(1))
    yield* until("begun", () => begun === 1)
    events?.onAssignment({ memberId: "m", generation: 2, partitions: [] })
    events?.onAssignment({ memberId: "m", generation: 3, partitions: [{ topic: "orders", partition: 0 }] })
    yield* Effect.sleep(50)
    yield* store.rewind(streamOf(0), 0)
    yield* until("owned again", () => owns(one, 1))
    yield* Effect.sleep(1_500)
    yield* client.produce(many(1))
    yield* Effect.sleep(1_500)
    expect(ledger.byRecord.has("orders/0/1")).toBe(true)
  }))

test("a broker that fails once when the log's end is read again does not stop the consumer", () =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const store = yield* OffsetStore
    yield* client.produce(many(5))
    yield* store.claim(streamOf(0), OffsetRanges.openEnded(0), {
      claimId: "other",
      owner: "x",
      leaseMillis: 60_000
    })
    let calls = 0
    const own: KafkaClient["Service"] = {
      ...client,
      logBounds: (p) =>
        Effect.suspend(() =>
          ++calls === 2
            ? Effect.fail(
                new KafkaError({
                  operation: "logBounds",
                  reason: "Unreachable",
                  detail: "once",
                  retriable: true,
                  brokers: ["b"]
                })
              )
            : client.logBounds(p)
        )
    }
    let ended = false
    const one = yield* start({ ...quick, handler: () => Effect.void }, own)
    yield* Effect.forkScoped(
      Effect.andThen(
        one.exit,
        Effect.sync(() => {
          ended = true
        })
      )
    )
    yield* until("waiting", () => one.status().partitions[0]?.phase === "waiting")
    yield* Effect.sleep(100)
    yield* client.produce(many(5))
    yield* store.complete({ stream: streamOf(0), claimId: "other" }, OffsetRanges.make(0, 8))
    yield* store.release({ stream: streamOf(0), claimId: "other" })
    yield* until("owned or ended", () => ended || owns(one, 1))
    expect(ended).toBe(false)
  }))

test("an id that can't be one does not hold the others of its batch", () =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const keys = yield* IdempotencyStore
    yield* client.produce(many(3))
    const one = yield* start({
      ...quick,
      identify: (record) => (record.offset === 0 ? "" : `id${record.offset}`),
      handler: () => Effect.void
    })
    yield* one.exit
    const answers = yield* keys.lookup("group", ["id1", "id2"])
    expect(answers.map(({ _tag }) => _tag)).toEqual(["Unknown", "Unknown"])
  }))

test("what could not be completed at the end is told", () =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const store = yield* OffsetStore
    const ledger = new Ledger()
    let bad = false
    const log = logLines()
    yield* Effect.gen(function* () {
      const one = yield* Effect.provideService(
        start({ ...quick, handler: work(ledger, () => 200) }),
        OffsetStore,
        {
          ...store,
          complete: (...args: Parameters<typeof store.complete>) =>
            Effect.suspend(() =>
              bad
                ? Effect.fail(
                    new StoreError({
                      store: "x",
                      verb: "complete",
                      reason: "Refused",
                      detail: "READONLY",
                      retriable: false
                    })
                  )
                : store.complete(...args)
            )
        }
      )
      yield* client.produce(many(1))
      yield* until("begun", () => one.status().running === 1)
      bad = true
      yield* one.stop
    }).pipe(Effect.provide(log.layer))
    expect(log.lines.some((line) => line.includes("READONLY"))).toBe(true)
  }))
