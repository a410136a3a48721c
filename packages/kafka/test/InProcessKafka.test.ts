import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import kafkajs from "kafkajs"
import * as InProcessKafka from "../src/InProcessKafka.ts"
import { partitionOf } from "../src/internal/murmur2.ts"
import { KafkaClient } from "../src/KafkaClient.ts"
import { KafkaError } from "../src/KafkaErrors.ts"
import { enter, kafkaClientSuite, memberOptions, Probe, range, startAll } from "./kafkaClientSuite.ts"
import { kafkaTransactionsSuite } from "./kafkaTransactionsSuite.ts"

kafkaClientSuite("InProcessKafka", InProcessKafka.layer())
kafkaTransactionsSuite("InProcessKafka", InProcessKafka.layer())

const at = { topic: "orders", partition: 0 }

/** Lets other fibers run until `condition` holds, with the test clock standing still. */
const settled = (what: string, condition: () => boolean): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (let turn = 0; turn < 10_000; turn++) {
      if (condition()) return
      yield* Effect.yieldNow
    }
    return yield* Effect.die(new Error(`still not so: ${what}`))
  })

const values = (count: number, partition = 0) =>
  range(0, count).map((index) => ({ topic: "orders", partition, value: `value ${index}` }))

describe("InProcessKafka, under the test clock", () => {
  const test = (
    title: string,
    effect: () => Effect.Effect<void, unknown, KafkaClient | InProcessKafka.InProcessBroker | Scope.Scope>,
    options: InProcessKafka.Options = {}
  ) =>
    it.effect(title, () =>
      Effect.provide(effect(), InProcessKafka.layer({ topics: { orders: 4 }, ...options }))
    )

  test("a killed member's partitions pass on when its session ends, and its Scope releases nothing", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessKafka.InProcessBroker
      const client = yield* KafkaClient
      const first = yield* enter(client, "group", ["orders"])
      const second = yield* enter(client, "group", ["orders"])
      yield* settled(
        "both share",
        () => first.probe.assigned.length === 2 && second.probe.assigned.length === 2
      )

      broker.kill(first.probe.assignments.at(-1)?.memberId ?? "")
      yield* first.close
      yield* TestClock.adjust(5_900)
      expect(second.probe.assigned.length).toBe(2)
      expect(broker.isRebalancing("group")).toBe(false)
      yield* TestClock.adjust(200)
      yield* settled("the second has all", () => second.probe.assigned.length === 4)
      expect(first.probe.ends).toEqual([])
      expect(broker.members("group").map(({ memberId }) => memberId)).toEqual([
        second.probe.assignments.at(-1)?.memberId
      ])
    }))

  test("an isolated member goes on as a zombie: it commits nothing, and joins again as another when healed", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessKafka.InProcessBroker
      const client = yield* KafkaClient
      const zombie = yield* enter(client, "group", ["orders"])
      const other = yield* enter(client, "group", ["orders"])
      yield* settled("both share", () => zombie.probe.assigned.length === 2)
      const oldId = zombie.probe.assignments.at(-1)?.memberId ?? ""
      const owned = zombie.probe.assigned[0] ?? at
      startAll(zombie.member, [owned])

      broker.isolate(oldId)
      const heartbeats = zombie.probe.heartbeats
      expect((yield* Effect.flip(zombie.member.commit([{ ...owned, offset: 1, metadata: "" }]))).reason).toBe(
        "Unreachable"
      )
      yield* TestClock.adjust(6_100)
      yield* settled("the other has all", () => other.probe.assigned.length === 4)
      yield* client.produce(values(3, owned.partition))
      expect(zombie.probe.count).toBe(0)
      expect(zombie.probe.heartbeats).toBe(heartbeats)

      broker.heal(oldId)
      yield* settled("it still reads what it thinks it owns", () => zombie.probe.count === 3)
      const stale = yield* Effect.flip(zombie.member.commit([{ ...owned, offset: 1, metadata: "" }]))
      expect(stale.reason).toBe("StaleMember")
      expect(stale.retriable).toBe(true)
      yield* TestClock.adjust(200)
      yield* settled("both share again", () => other.probe.assigned.length === 2)
      expect(zombie.probe.assignments.at(-1)?.memberId).not.toBe(oldId)
      expect(zombie.probe.ends).toEqual([])
    }))

  test("who does not join within the rebalance timeout is dropped", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessKafka.InProcessBroker
      const client = yield* KafkaClient
      const silent = new Probe()
      yield* client.join({ ...memberOptions("group", ["orders"], silent), sessionTimeoutMillis: 60_000 })
      broker.isolate(silent.assignments[0]?.memberId ?? "")
      const probe = new Probe()
      const joining = yield* Effect.forkChild(client.join(memberOptions("group", ["orders"], probe)))
      yield* settled("the round has begun", () => broker.isRebalancing("group"))
      yield* TestClock.adjust(5_900)
      expect(probe.assignments).toEqual([])
      yield* TestClock.adjust(200)
      yield* settled("the round is over", () => probe.assigned.length === 4)
      expect(joining.pollUnsafe()).toBeDefined()
    }))

  test("holes: control records and compaction show in nextOffset only", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessKafka.InProcessBroker
      const client = yield* KafkaClient
      yield* client.produce(values(6))
      broker.compact("orders", 0, [0, 3, 5])
      broker.appendControl("orders", 0, 2)
      const { member, probe } = yield* enter(client, "group", ["orders"])
      startAll(member, [at])
      yield* settled("the records", () => probe.count === 3)
      expect(probe.offsets(0)).toEqual([1, 2, 4])
      expect(probe.batches).toMatchObject([{ fetchedOffset: 0, nextOffset: 8, highWatermark: 8 }])

      broker.appendControl("orders", 0)
      yield* settled("a batch without records", () => probe.batches.length === 2)
      expect(probe.batches[1]).toMatchObject({
        records: [],
        fetchedOffset: 8,
        nextOffset: 9,
        highWatermark: 9
      })
    }))

  test("retention overtakes a reader: it goes on at the log's low end, and the commit is gone", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessKafka.InProcessBroker
      const client = yield* KafkaClient
      yield* client.produce(values(10))
      const { member, probe } = yield* enter(client, "group", ["orders"])
      yield* member.commit([{ ...at, offset: 2, metadata: "tidemark:1:1" }])
      broker.deleteRecords("orders", 0, 7)
      expect(yield* client.logBounds([at])).toEqual([{ ...at, low: 7, high: 10 }])
      startAll(member, [at], 2)
      yield* settled("the rest", () => probe.count === 3)
      expect(probe.batches).toMatchObject([{ fetchedOffset: 7, nextOffset: 10 }])
      expect(yield* client.committed("group", [at])).toEqual([
        { ...at, offset: undefined, metadata: undefined }
      ])
    }))

  test("a topic made anew begins at 0, for its old readers too", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessKafka.InProcessBroker
      const client = yield* KafkaClient
      yield* client.produce(values(10))
      const { member, probe } = yield* enter(client, "group", ["orders"])
      yield* member.commit([{ ...at, offset: 10, metadata: "" }])
      broker.deleteTopic("orders")
      broker.createTopic("orders", 1)
      yield* settled("a new assignment", () => probe.assignments.length === 2)
      expect(probe.assigned).toEqual([at])
      yield* client.produce(values(2))
      startAll(member, [at], 10)
      yield* settled("the new records", () => probe.count === 2)
      expect(probe.batches[0]?.fetchedOffset).toBe(0)
      expect(broker.records("orders", 0).length).toBe(2)
    }))

  test("added partitions are shared out", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessKafka.InProcessBroker
      const { probe } = yield* enter(yield* KafkaClient, "group", ["orders"])
      broker.createTopic("orders", 6)
      yield* settled("all six", () => probe.assigned.length === 6)
      expect(probe.assignments.map(({ generation }) => generation)).toEqual([1, 2])
    }))

  test("a crash is told, and with rejoins an assignment follows", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessKafka.InProcessBroker
      const { member, probe } = yield* enter(yield* KafkaClient, "group", ["orders"])
      broker.crash(probe.assignments[0]?.memberId ?? "", { rejoins: true })
      expect(probe.ends).toMatchObject([
        { reason: "crashed", rejoins: true, error: { reason: "Unreachable" } }
      ])
      yield* settled("it is in again", () => probe.assignments.length === 2)
      broker.crash(probe.assignments[1]?.memberId ?? "")
      expect(probe.ends[1]).toMatchObject({ reason: "crashed", rejoins: false })
      expect(broker.members("group")).toEqual([])
      expect((yield* Effect.flip(member.commit([{ ...at, offset: 1, metadata: "" }]))).reason).toBe(
        "MemberEnded"
      )
    }))

  test("planted faults are met once each, in order", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessKafka.InProcessBroker
      const client = yield* KafkaClient
      const error = (reason: "Unreachable" | "RequestTimedOut") =>
        new KafkaError({
          reason,
          operation: "produce",
          brokers: ["a:1", "b:2"],
          detail: "planted",
          retriable: true
        })
      broker.failNext("produce", error("Unreachable"))
      broker.failNext("produce", error("RequestTimedOut"))
      const first = yield* Effect.flip(client.produce(values(1)))
      expect(first.message).toMatch(/^produce at a:1, b:2: Unreachable: planted\. Check that/)
      expect((yield* Effect.flip(client.produce(values(1)))).reason).toBe("RequestTimedOut")
      yield* client.produce(values(1))
      expect(broker.records("orders", 0).length).toBe(1)
    }))

  test("a transaction that stays open for its timeout is aborted, and its producer fenced", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessKafka.InProcessBroker
      const producer = yield* client.transactionalProducer({ transactionalId: "one", timeoutMillis: 5_000 })
      yield* producer.begin
      yield* producer.send([{ ...at, value: "never" }])
      yield* client.produce([{ ...at, value: "one" }])
      yield* TestClock.adjust(4_999)
      expect(yield* client.logBounds([at])).toMatchObject([{ low: 0, high: 0 }])
      yield* TestClock.adjust(1)
      expect(yield* client.logBounds([at])).toMatchObject([{ low: 0, high: 3 }])
      expect(broker.records("orders", 0).map(({ offset, value }) => [offset, String(value)])).toEqual([
        [1, "one"]
      ])
      expect((yield* Effect.flip(producer.commit)).reason).toBe("Fenced")
    }))

  test("an operator's reset has no metadata, unless it is given", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessKafka.InProcessBroker
      const client = yield* KafkaClient
      broker.setCommitted("group", at, 5)
      expect(yield* client.committed("group", [at])).toEqual([{ ...at, offset: 5, metadata: "" }])
      broker.setCommitted("group", at, 6, "tidemark:1:2")
      expect((yield* client.committed("group", [at]))[0]?.metadata).toBe("tidemark:1:2")
      broker.setCommitted("group", at, undefined)
      expect((yield* client.committed("group", [at]))[0]?.offset).toBeUndefined()
    }))

  test(
    "delivery is never re-entrant, and as large as the bound allows",
    () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        yield* client.produce(values(1_000))
        const { member, probe } = yield* enter(client, "group", ["orders"])
        let depth = 0
        probe.react.onBatch = () => {
          expect(++depth).toBe(1)
          member.pause([at])
          member.resume([at])
          depth--
        }
        startAll(member, [at])
        expect(probe.batches).toEqual([])
        yield* settled("all records", () => probe.count === 1_000)
        expect(probe.batches.map((batch) => batch.records.length)).toEqual(range(0, 10).map(() => 100))
      }),
    { maxRecordsPerBatch: 100 }
  )

  test(
    "a record above the bound is refused with its size, and none of its call is written",
    () =>
      Effect.gen(function* () {
        const broker = yield* InProcessKafka.InProcessBroker
        const client = yield* KafkaClient
        const large = { topic: "orders", partition: 0, value: Buffer.alloc(101) }
        const error = yield* Effect.flip(client.produce([...values(1), large]))
        expect(error.reason).toBe("RecordTooLarge")
        expect(error.message).toContain("101 bytes")
        expect(broker.records("orders", 0)).toEqual([])
      }),
    { maxRecordBytes: 100 }
  )

  test(
    "range assignment gives neighbouring partitions",
    () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const first = yield* enter(client, "group", ["orders"])
        const second = yield* enter(client, "group", ["orders"])
        yield* settled("both share", () => first.probe.assigned.length === 2)
        expect(first.probe.assigned.map(({ partition }) => partition)).toEqual([0, 1])
        expect(second.probe.assigned.map(({ partition }) => partition)).toEqual([2, 3])
      }),
    { assignor: "range" }
  )

  it.effect(
    "clients of one broker see the same topics and groups, and an interrupted join leaves no member",
    () =>
      Effect.gen(function* () {
        const broker = yield* InProcessKafka.make({ topics: { orders: 2 } })
        const first = yield* enter(broker.makeClient({ clientId: "first" }), "group", ["orders"])
        expect(broker.members("group")[0]?.clientId).toBe("first")
        broker.isolate(first.probe.assignments[0]?.memberId ?? "")
        const scope = yield* Scope.make()
        const probe = new Probe()
        const join = broker.makeClient({ clientId: "second" }).join(memberOptions("group", ["orders"], probe))
        yield* Effect.forkChild(Scope.provide(join, scope))
        yield* settled("two members", () => broker.members("group").length === 2)
        yield* Scope.close(scope, Exit.void)
        expect(broker.members("group").map(({ clientId }) => clientId)).toEqual(["first"])
      })
  )

  it.effect("layerClient is one more client of the broker at hand", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessKafka.InProcessBroker
      const client = yield* KafkaClient
      broker.createTopic("orders", 1)
      yield* client.produce(values(1))
      expect(broker.records("orders", 0).length).toBe(1)
      expect(client.brokers).toEqual(["in-process"])
    }).pipe(
      Effect.provide(
        InProcessKafka.layerClient().pipe(
          Layer.provideMerge(Layer.effect(InProcessKafka.InProcessBroker, InProcessKafka.make()))
        )
      )
    )
  )
})

it("keys go to the partitions that Kafka's clients choose", () => {
  const theirs = kafkajs.Partitioners.DefaultPartitioner()
  const metadata = range(0, 7).map((partitionId) => ({
    partitionId,
    leader: 1,
    partitionErrorCode: 0,
    replicas: [1],
    isr: [1]
  }))
  for (const index of range(0, 500)) {
    const key = Buffer.from(`${"ключ".repeat(index % 5)}${index}`)
    const message = { key, value: null }
    expect(partitionOf(key, 7)).toBe(theirs({ topic: "orders", partitionMetadata: metadata, message }))
  }
})
