/** What every driver of `KafkaClient` that has transactions must do, as one suite. It runs on live time. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, type Layer, Scope } from "effect"
import { KafkaClient, type TransactionalProducer } from "../src/KafkaClient.ts"
import type { KafkaError } from "../src/KafkaErrors.ts"
import { enter, range, startAll, uniqueName, until } from "./kafkaClientSuite.ts"

/** A topic with two partitions, a reader of it that has begun, and an id for producers. */
const setUp = Effect.gen(function* () {
  const client = yield* KafkaClient
  const topic = uniqueName("topic")
  yield* client.createTopics([{ topic, partitions: 2 }])
  const { member, probe } = yield* enter(client, uniqueName("readers"), [topic])
  startAll(member, probe.assigned)
  const groupId = uniqueName("group")
  const at = { topic, partition: 0 }
  const committed = Effect.map(client.committed(groupId, [at]), ([found]) => found?.offset)
  const values = (partition = 0) => probe.records(partition).map(({ value }) => String(value))
  return { client, topic, at, groupId, committed, values, probe, transactionalId: uniqueName("producer") }
})

/** A producer that can be closed before the test ends. */
const produceAs = Effect.fnUntraced(function* (transactionalId: string) {
  const client = yield* KafkaClient
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const making: Effect.Effect<TransactionalProducer, KafkaError, Scope.Scope> = client.transactionalProducer({
    transactionalId,
    timeoutMillis: 60_000
  })
  return { producer: yield* Scope.provide(making, scope), close: Scope.close(scope, Exit.void) }
})

/** The suite for a driver; `layer` makes one client, on a cluster that may hold other topics. */
export const kafkaTransactionsSuite = <E>(name: string, layer: Layer.Layer<KafkaClient, E>): void => {
  describe(`${name}, transactions`, () => {
    const test = (title: string, effect: () => Effect.Effect<void, unknown, KafkaClient | Scope.Scope>) =>
      it.live(title, () => Effect.provide(effect(), layer), 60_000)

    test("records and offsets take effect together, when the transaction is committed", () =>
      Effect.gen(function* () {
        const { client, at, committed, groupId, transactionalId, values } = yield* setUp
        const { producer } = yield* produceAs(transactionalId)
        yield* producer.begin
        yield* producer.send([
          { ...at, value: "one" },
          { ...at, value: "two" }
        ])
        yield* producer.sendOffsets(groupId, [{ ...at, offset: 7, metadata: "seven" }])
        // written after it and not in it, so readable once it is over, and not before
        yield* client.produce([{ ...at, value: "outside" }])
        yield* client.produce([{ ...at, partition: 1, value: "elsewhere" }])
        yield* until("the other partition is read", () => values(1).length === 1)
        expect(values()).toEqual([])
        expect(yield* committed).toBeUndefined()
        yield* producer.commit
        yield* until("all is read", () => values().length === 3)
        expect(values()).toEqual(["one", "two", "outside"])
        yield* Effect.repeat(committed, { until: (offset) => offset === 7 })
        expect(yield* client.committed(groupId, [at])).toMatchObject([{ metadata: "seven" }])
      }))

    test("of an aborted transaction nothing is seen, and the next one begins anew", () =>
      Effect.gen(function* () {
        const { at, committed, groupId, transactionalId, values } = yield* setUp
        const { producer } = yield* produceAs(transactionalId)
        yield* producer.begin
        yield* producer.send([{ ...at, value: "never" }])
        yield* producer.sendOffsets(groupId, [{ ...at, offset: 1, metadata: "" }])
        yield* producer.abort
        yield* producer.begin
        yield* producer.sendOffsets(groupId, [{ ...at, offset: 2, metadata: "" }])
        yield* producer.commit
        yield* producer.begin
        yield* producer.send([{ ...at, value: "one" }])
        yield* producer.commit
        yield* until("what was committed is read", () => values().length === 1)
        expect(values()).toEqual(["one"])
        expect(yield* committed).toBe(2)
      }))

    test("a newer producer with the same id aborts what the older one left, and fences it", () =>
      Effect.gen(function* () {
        const { at, committed, groupId, probe, transactionalId, values } = yield* setUp
        const old = yield* produceAs(transactionalId)
        yield* old.producer.begin
        yield* old.producer.send([{ ...at, value: "never" }])
        yield* old.producer.sendOffsets(groupId, [{ ...at, offset: 1, metadata: "" }])
        const { producer } = yield* produceAs(transactionalId)
        expect(yield* committed).toBeUndefined()
        expect(yield* Effect.flip(old.producer.commit)).toMatchObject({ reason: "Fenced", retriable: false })
        yield* producer.begin
        yield* producer.send([{ ...at, value: "one" }])
        yield* producer.sendOffsets(groupId, [{ ...at, offset: 2, metadata: "" }])
        yield* producer.commit
        yield* until("the newer one's is read", () => values().length === 1)
        expect(values()).toEqual(["one"])
        expect(yield* committed).toBe(2)
        // a record of the old one, its marker, ours, our marker
        yield* until("the markers are passed", () => probe.batches.at(-1)?.nextOffset === 4)
        yield* old.close
        yield* producer.begin
        yield* producer.abort
      }))

    test("an older producer's first word in a transaction is refused too", () =>
      Effect.gen(function* () {
        const { at, groupId, transactionalId } = yield* setUp
        const first = yield* produceAs(transactionalId)
        const second = yield* produceAs(transactionalId)
        yield* produceAs(transactionalId)
        yield* first.producer.begin.pipe(
          Effect.andThen(first.producer.send([{ ...at, value: "never" }])),
          Effect.flip,
          Effect.map((error) => expect(error.reason).toBe("Fenced"))
        )
        yield* second.producer.begin.pipe(
          Effect.andThen(second.producer.sendOffsets(groupId, [{ ...at, offset: 1, metadata: "" }])),
          Effect.flip,
          Effect.map((error) => expect(error.reason).toBe("Fenced"))
        )
      }))

    test("who closes a producer aborts its transaction, and readers go on at once", () =>
      Effect.gen(function* () {
        const { client, at, transactionalId, values } = yield* setUp
        const { close, producer } = yield* produceAs(transactionalId)
        yield* producer.begin
        yield* producer.send([{ ...at, value: "never" }])
        yield* client.produce([{ ...at, value: "one" }])
        yield* close
        yield* until("what follows is read", () => values().length === 1)
        expect(values()).toEqual(["one"])
      }))

    test("3,000 records to two topics, with keys and without, come once each and in their order", () =>
      Effect.gen(function* () {
        const { client, topic, transactionalId, probe } = yield* setUp
        const other = uniqueName("topic")
        yield* client.createTopics([{ topic: other, partitions: 1 }])
        const second = yield* enter(client, uniqueName("readers"), [other])
        startAll(second.member, second.probe.assigned)
        const { producer } = yield* produceAs(transactionalId)
        yield* producer.begin
        yield* producer.send(
          range(0, 3_000).map((index) => ({
            topic: index % 3 === 0 ? other : topic,
            ...(index % 2 === 0 ? { key: `key ${index % 10}` } : {}),
            value: String(index)
          }))
        )
        yield* producer.commit
        yield* until("all are read", () => probe.count === 2_000 && second.probe.count === 1_000)
        const read = [probe.records(0), probe.records(1), second.probe.records(0)].map((records) =>
          records.map(({ value }) => Number(String(value)))
        )
        for (const numbers of read) expect(numbers).toEqual(numbers.toSorted((one, two) => one - two))
        expect(read.flat().toSorted((one, two) => one - two)).toEqual(range(0, 3_000))
        expect(read[0]?.length).toBeGreaterThan(400)
        expect(read[1]?.length).toBeGreaterThan(400)
      }))

    test("what can't be is refused, and said", () =>
      Effect.gen(function* () {
        const { client, at, groupId, transactionalId } = yield* setUp
        const reasonOf = <A>(effect: Effect.Effect<A, KafkaError, Scope.Scope>) =>
          Effect.map(Effect.flip(effect), ({ reason, detail }) => `${reason}: ${detail}`)
        const made = (id: string, timeoutMillis: number) =>
          reasonOf(client.transactionalProducer({ transactionalId: id, timeoutMillis }))
        expect(yield* made("", 1)).toContain('InvalidRequest: transactionalId is ""; allowed')
        expect(yield* made("one", 0)).toContain("InvalidRequest: timeoutMillis is 0; allowed")
        const { producer } = yield* produceAs(transactionalId)
        expect(yield* reasonOf(producer.commit)).toBe("InvalidRequest: no transaction is open")
        expect(yield* reasonOf(producer.send([{ ...at, value: "one" }]))).toBe(
          "InvalidRequest: no transaction is open"
        )
        yield* producer.begin
        expect(yield* reasonOf(producer.begin)).toBe("InvalidRequest: a transaction is open already")
        const wrong = producer.sendOffsets(groupId, [{ ...at, offset: -1, metadata: "" }])
        expect(yield* reasonOf(wrong)).toContain("InvalidRequest: offset is -1; allowed")
        const unknown = producer.send([{ topic: uniqueName("missing"), value: "one" }])
        expect(yield* reasonOf(unknown)).toContain("UnknownTopic")
      }))
  })
}
