import { describe, expect, it } from "@effect/vitest"
import { IdempotencyStore, type InvalidInput, OffsetStore, StoreError } from "@tidemark/core"
import { Effect, type Scope } from "effect"
import fc from "fast-check"
import * as InProcessKafka from "../src/InProcessKafka.ts"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import type { Order } from "../src/KafkaConsumer.ts"
import { Ledger, layers, type Running, type Services, start, work } from "./consumerHarness.ts"

/** What happens to the group while it works. */
type Act = "join" | "stop" | "crash" | "rebalance" | "isolate"

interface History {
  readonly order: Order
  readonly identified: boolean
  readonly records: number
  readonly keys: number
  readonly concurrency: number
  readonly workMillis: number
  /** How long a few handlers take, longer than a drain waits; no interruption reaches those. */
  readonly stubbornMillis: number
  /** How often a call to the store fails, half of those after it took effect; it may be asked again. */
  readonly failures: number
  readonly bounds: object
  readonly acts: ReadonlyArray<{ readonly act: Act; readonly afterMillis: number; readonly at: number }>
}

const histories = fc.record<History>({
  order: fc.constantFrom("key", "partition", "none"),
  identified: fc.boolean(),
  records: fc.integer({ min: 200, max: 600 }),
  keys: fc.constantFrom(3, 50, 500),
  concurrency: fc.constantFrom(1, 8, 64),
  workMillis: fc.constantFrom(1, 3, 6),
  stubbornMillis: fc.constantFrom(0, 180),
  failures: fc.constantFrom(0, 0.1),
  bounds: fc.constantFrom({}, { maxInFlight: 7 }, { maxUnfinishedOffsets: 20 }, { maxSpan: 30 }),
  acts: fc.array(
    fc.record({
      act: fc.constantFrom<Act>("join", "stop", "crash", "rebalance", "isolate"),
      afterMillis: fc.integer({ min: 0, max: 60 }),
      at: fc.nat({ max: 100 })
    }),
    { minLength: 4, maxLength: 8 }
  )
})

const lostAnswer = new StoreError({
  store: "test",
  verb: "any",
  reason: "Timeout",
  detail: "as told",
  retriable: true
})

/** Verbs that fail now and then, before they took effect or after; never twice within a moment, as leases are short. */
const makeUnsteady = (failures: number) => {
  let failedAt = 0
  const decide = (): "well" | "late" | "lost" | "refused" => {
    const chance = Math.random()
    if (chance >= failures || Date.now() - failedAt < 250) return chance < 0.6 ? "well" : "late"
    failedAt = Date.now()
    return chance < failures / 2 ? "lost" : "refused"
  }
  return <Args extends ReadonlyArray<unknown>, A, E>(verb: (...args: Args) => Effect.Effect<A, E>) =>
    (...args: Args): Effect.Effect<A, E | StoreError> =>
      Effect.suspend((): Effect.Effect<A, E | StoreError> => {
        switch (decide()) {
          case "well":
            return verb(...args)
          case "late":
            return Effect.andThen(Effect.sleep(Math.random() * 4), verb(...args))
          case "lost":
            return Effect.andThen(verb(...args), Effect.fail(lostAnswer))
          case "refused":
            return Effect.fail(lostAnswer)
        }
      })
}

/** Messages of which some come again when they are identified, next to the first or far from it. */
const messagesOf = ({ identified, keys, records }: History) =>
  Array.from({ length: records }, (_, index) => {
    const message = { topic: "orders", key: `key ${index % keys}`, value: `${index}` }
    if (!identified || index % 5 !== 0) return [message]
    return index % 2 === 0
      ? [message, message]
      : [message, { topic: "orders", value: `${index - (index % 13)}` }]
  }).flat()

const begin = (history: History, ledger: Ledger) =>
  Effect.gen(function* () {
    const { bounds, concurrency, failures, identified, order, stubbornMillis, workMillis } = history
    const offsets = yield* OffsetStore
    const keys = yield* IdempotencyStore
    const unsteady = makeUnsteady(failures)
    const quickWork = work(ledger, () => Math.random() * workMillis)
    const stubbornWork = work(ledger, () => stubbornMillis)
    const handler = (record: KafkaRecord): Effect.Effect<void> =>
      stubbornMillis > 0 && Math.random() < 0.03
        ? Effect.uninterruptible(stubbornWork(record))
        : quickWork(record)
    const starting: Effect.Effect<
      Running<never>,
      InvalidInput,
      Services | InProcessKafka.InProcessBroker | Scope.Scope
    > = start({
      topics: ["orders"],
      groupId: "group",
      sessionTimeout: 600,
      commitInterval: 15,
      drainTimeout: 100,
      order,
      bounds,
      concurrency,
      identify: identified ? (record: KafkaRecord) => String(record.value) : undefined,
      handler
    })
    return yield* starting.pipe(
      Effect.provideService(OffsetStore, {
        ...offsets,
        claim: unsteady(offsets.claim),
        complete: unsteady(offsets.complete),
        progress: unsteady(offsets.progress)
      }),
      Effect.provideService(IdempotencyStore, {
        ...keys,
        claim: unsteady(keys.claim),
        complete: unsteady(keys.complete)
      })
    )
  })

const play = (history: History) =>
  Effect.gen(function* () {
    const broker = yield* InProcessKafka.InProcessBroker
    const client = yield* KafkaClient
    const ledger = new Ledger()
    const messages = messagesOf(history)
    const half = messages.length >> 1
    yield* client.produce(messages.slice(0, half))
    const running = [yield* begin(history, ledger)]
    for (const { act, afterMillis, at } of history.acts) {
      yield* Effect.sleep(afterMillis)
      // who is cut off under a handler that can't be interrupted may lose the lease to another: then its token is
      // what turns it away, not we
      if (history.stubbornMillis > 0 && (act === "isolate" || act === "crash")) continue
      const members = broker.members("group")
      const memberId = members.length === 0 ? undefined : members[at % members.length].memberId
      if (act === "join" && running.length < 4) running.push(yield* begin(history, ledger))
      if (act === "stop" && running.length > 1) yield* running.splice(at % running.length, 1)[0].stop
      if (act === "rebalance") broker.rebalance("group")
      if (act === "crash" && memberId !== undefined) broker.crash(memberId, { rejoins: true })
      if (act === "isolate" && memberId !== undefined) {
        broker.isolate(memberId)
        yield* Effect.sleep(at * 10)
        broker.heal(memberId)
      }
    }
    broker.appendControl("orders", 0, 3)
    yield* client.produce(messages.slice(half))
    const distinct = history.identified ? history.records : messages.length
    const count = () => (history.identified ? ledger.byValue.size : ledger.byRecord.size)
    const isOver = () => {
      const partitions = running.flatMap(({ status }) => status().partitions)
      return (
        count() === distinct &&
        partitions.length === 4 &&
        partitions.every(
          ({ lag, phase, unfinished }) => phase === "owned" && unfinished === 0 && (lag ?? 0) === 0
        )
      )
    }
    for (let waited = 0; !isOver() && waited < 20_000; waited += 10) yield* Effect.sleep(10)
    const told = JSON.stringify(running.map(({ status }) => status()))
    expect({ over: isOver(), count: count() }, told).toEqual({ over: true, count: distinct })
    // who is cut off while the store does not answer can't tell what took effect before the lease ends
    if (history.failures > 0 && history.acts.some(({ act }) => act === "isolate")) return
    const times = history.identified ? ledger.byValue : ledger.byRecord
    expect([...times].filter(([, count]) => count > 1)).toEqual([])
    if (history.order !== "none") expect([ledger.disordered, ledger.overlaps]).toEqual([[], 0])
  }).pipe(Effect.scoped, Effect.provide(layers({ topics: { orders: 4 }, maxRecordsPerBatch: 40 })))

describe("KafkaConsumer, whatever happens to its group and its store", () => {
  it("does each record once, and in its order", async () => {
    await fc.assert(
      fc.asyncProperty(histories, (history) => Effect.runPromise(play(history))),
      // a history takes a second, and shrinking it would take hundreds
      { numRuns: Number(process.env.TIDEMARK_HISTORIES ?? 6), endOnFailure: true }
    )
  }, 600_000)
})
