/**
 * Offsets without a record, on a real broker: those that compaction leaves, of aborted transactions, and of the markers by
 * which transactions end. The watermark passes them, and the lag reaches 0, also where nothing else follows.
 */
import { it } from "@effect/vitest"
import { uniqueName } from "@tidemark/test-servers"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Effect, type Scope } from "effect"
import kafkajs from "kafkajs"
import { describe, expect } from "vitest"
import { until } from "./consumers.ts"
import { ask, atPlace, type Place, span } from "./positions.ts"

/** Transactions of two records each, one after the other; each takes an offset more for its marker. */
const transactions = (place: Place, ends: ReadonlyArray<"commit" | "abort">): Effect.Effect<void> =>
  ask(async () => {
    const producer = place.kafka.producer({
      idempotent: true,
      transactionalId: uniqueName("transactions"),
      maxInFlightRequests: 1
    })
    await producer.connect()
    for (const end of ends) {
      const transaction = await producer.transaction()
      await transaction.send({
        topic: place.topic,
        messages: [1, 2].map((number) => ({ key: `${number}`, value: end }))
      })
      await transaction[end]()
    }
    await producer.disconnect()
  })

/** Waits for the log's end: the broker acknowledges that of a transaction before its markers are in the log. */
const endOf = (place: Place, high: number) =>
  Effect.repeat(place.client.logBounds([{ topic: place.topic, partition: 0 }]), {
    until: ([bounds]) => bounds?.high === high
  })

// beside each other, since brokers take their time to compact
const concurrent = { concurrent: true }

await describeWithKafka("the watermark passes over what is not there", ({ brokers }) => {
  describe.each(["kafkajs", "platformatic"])("with the driver %s", concurrent, (driver) => {
    const test = (title: string, body: (place: Place) => Effect.Effect<void, unknown, Scope.Scope>): void =>
      it.live(title, () => atPlace(brokers, driver, body), 90_000)

    test("aborted transactions and markers, at the log's end too: the lag reaches 0, running or away", (place) =>
      Effect.gen(function* () {
        yield* transactions(place, ["commit", "abort", "commit", "abort", "abort"])
        yield* endOf(place, 15)
        const running = yield* place.start()
        const at = () => running.status().partitions[0]
        yield* until("the end", () => at()?.watermark === 15 && at()?.lag === 0, running.status)
        expect(running.ran()).toEqual(["0", "1", "6", "7"])
        yield* transactions(place, ["abort"])
        yield* until("the end after another", () => at()?.watermark === 18 && at()?.lag === 0, running.status)
        yield* running.end
        expect((yield* place.commit).offset).toBe(18)
        yield* transactions(place, ["abort", "abort"])
        yield* endOf(place, 24)
        const again = yield* place.run({}, ({ status }) => status().partitions[0]?.lag === 0)
        expect(again.ran).toEqual([])
        expect((yield* place.commit).offset).toBe(24)
        expect((yield* place.progress)?.watermark).toBe(24)
      }))

    test("nothing but aborted transactions: the lag reaches 0", (place) =>
      Effect.gen(function* () {
        yield* transactions(place, ["abort", "abort"])
        yield* endOf(place, 6)
        const { ran } = yield* place.run({}, ({ status }) => status().partitions[0]?.lag === 0)
        expect(ran).toEqual([])
        expect((yield* place.commit).offset).toBe(6)
      }))

    /** Records of five keys, one round after the other, each in a segment of its own. */
    const compacting = (place: Place, rounds: number) =>
      Effect.gen(function* () {
        for (let round = 0; round < rounds; round++) {
          yield* place.produce(5)
          // the next record begins a segment when this one is that old
          yield* Effect.sleep(120)
        }
        yield* place.produce(1)
      })

    const makeCompacted = (place: Place) =>
      ask(() =>
        place.admin.alterConfigs({
          validateOnly: false,
          resources: [
            {
              type: kafkajs.ConfigResourceTypes.TOPIC,
              name: place.topic,
              configEntries: [
                { name: "cleanup.policy", value: "compact" },
                { name: "segment.ms", value: "100" },
                { name: "min.cleanable.dirty.ratio", value: "0.001" },
                { name: "delete.retention.ms", value: "0" }
              ]
            }
          ]
        })
      )

    /** What the log still holds, read by a group of its own; again until `condition` holds of it. */
    const held = (place: Place, condition: (offsets: ReadonlyArray<string>) => boolean) =>
      Effect.repeat(
        Effect.suspend(() => Effect.map(place.run({ groupId: uniqueName("reader") }), ({ ran }) => ran)),
        { until: condition }
      )

    test("a compacted topic: the records that are left, and the lag reaches 0", (place) =>
      Effect.gen(function* () {
        yield* makeCompacted(place)
        yield* compacting(place, 4)
        const left = yield* held(place, (offsets) => offsets.length <= 10)
        expect(left).toContain("20")
        const { ran } = yield* place.run({}, ({ status }) => status().partitions[0]?.lag === 0)
        expect(left).toEqual(expect.arrayContaining([...ran]))
        expect(ran.length).toBeLessThan(21)
        expect((yield* place.commit).offset).toBe(21)
        expect((yield* place.progress)?.watermark).toBe(21)
      }))

    test("a commit is gone, and so is the record that the log was known by: stops, and follows where it is set", (place) =>
      Effect.gen(function* () {
        yield* makeCompacted(place)
        yield* place.produce(5)
        expect((yield* place.run()).ran).toEqual(span(0, 5))
        yield* compacting(place, 3)
        yield* held(place, (offsets) => !offsets.includes("4"))
        yield* ask(() => place.admin.deleteGroups([place.groupId]))
        expect(yield* place.run()).toMatchObject({
          ran: [],
          failure: { _tag: "LogWentBack", changed: { offset: 4, nowMillis: undefined } }
        })
        yield* place.reset(20)
        expect((yield* place.run()).ran).toEqual(["20"])
      }))
  })
})
