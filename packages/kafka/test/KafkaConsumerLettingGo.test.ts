import { describe, expect } from "@effect/vitest"
import { ClaimId, IdempotencyStore, OffsetStore } from "@tidemark/core"
import { Effect, Exit, Layer, type Scope } from "effect"
import type { InProcessBroker } from "../src/InProcessKafka.ts"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import * as KafkaConsumer from "../src/KafkaConsumer.ts"
import {
  clockTests,
  isDone,
  Ledger,
  logLines,
  owns,
  pass,
  type Services,
  settled,
  start,
  streamOf,
  unhurried,
  work
} from "./consumerHarness.ts"

const test = clockTests({ topics: { orders: 2 } })

/** With a deadline, too, which puts a handler on a fiber of its own. */
const ways: ReadonlyArray<readonly [how: string, options: { readonly stallTimeout?: "1 hour" }]> = [
  ["", {}],
  [", with a stall timeout", { stallTimeout: "1 hour" }]
]

const identify = (record: KafkaRecord): string => String(record.value)
const message = (partition: number, value: string, key?: string) => ({
  topic: "orders",
  partition,
  value,
  ...(key === undefined ? {} : { key })
})

/** Work that no interruption reaches, and how much of it was going on at once for one value. */
const uninterruptible = (ledger: Ledger, millis: () => number) => {
  const atWork = new Map<string, number>()
  const counts = { begun: 0, besideItself: 0 }
  const handler = (record: KafkaRecord): Effect.Effect<void> =>
    Effect.uninterruptible(
      Effect.gen(function* () {
        const value = String(record.value)
        const others = atWork.get(value) ?? 0
        counts.begun++
        if (others > 0) counts.besideItself++
        atWork.set(value, others + 1)
        yield* Effect.sleep(millis())
        ledger.note(record)
        atWork.set(value, (atWork.get(value) ?? 0) - 1)
      })
    )
  return { counts, handler }
}

describe.each(ways)(
  "KafkaConsumer, when a claim is lost under a handler that can't be interrupted%s",
  (_, way) => {
    test("its id does not run beside itself, and is completed when the handler has ended well", () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const store = yield* OffsetStore
        const keys = yield* IdempotencyStore
        const ledger = new Ledger()
        const { counts, handler } = uninterruptible(ledger, () => 8_000)
        yield* client.produce([message(0, "one"), message(1, "one")])
        const consumer = yield* start({ ...unhurried, ...way, identify, handler })
        yield* settled("at work", () => consumer.status().running === 1)
        // whichever of the two it is
        for (const partition of [0, 1]) yield* store.rewind(streamOf(partition), 0)
        yield* pass(6)
        expect(consumer.status().counters.leaseLosses).toBe(2)
        expect(counts).toEqual({ begun: 1, besideItself: 0 })
        yield* pass(6)
        yield* settled("done", () => isDone(consumer, 2))
        expect(counts).toEqual({ begun: 1, besideItself: 0 })
        expect(ledger.byValue.get("one")).toBe(1)
        expect(yield* keys.lookup("group", ["one"])).toMatchObject([{ _tag: "Completed" }])
      }))

    test("what had not started is given back at once", () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const store = yield* OffsetStore
        const keys = yield* IdempotencyStore
        const { handler } = uninterruptible(new Ledger(), () => 9_000)
        yield* client.produce([message(0, "at work", "a"), message(0, "queued", "a")])
        const consumer = yield* start({ ...unhurried, ...way, identify, handler })
        yield* settled("at work", () => consumer.status().running === 1)
        yield* store.rewind(streamOf(0), 0)
        yield* pass(5)
        expect(yield* keys.lookup("group", ["at work", "queued"])).toMatchObject([
          { _tag: "InFlight" },
          { _tag: "Unknown" }
        ])
        yield* pass(15)
      }))

    test("its record does not run beside itself in this process", () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const store = yield* OffsetStore
        const ledger = new Ledger()
        const log = logLines()
        const { counts, handler } = uninterruptible(ledger, () => 12_000)
        yield* client.produce([message(0, "one")])
        const consumer = yield* Effect.provide(start({ ...unhurried, ...way, handler }), log.layer)
        yield* settled("at work", () => consumer.status().running === 1)
        yield* store.rewind(streamOf(0), 0)
        yield* pass(11)
        expect(counts).toEqual({ begun: 1, besideItself: 0 })
        expect(log.lines.filter((line) => line.includes("have not ended"))).toHaveLength(1)
        // the operator has said that it shall run again, and it does, afterwards
        yield* pass(16)
        yield* settled("done", () => isDone(consumer, 2))
        expect(counts).toEqual({ begun: 2, besideItself: 0 })
      }))
  }
)

describe("KafkaConsumer, when another member takes a partition over", () => {
  test("the ids that it had claimed and not started are had at once", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      const messages = Array.from({ length: 40 }, (_, index) => message(index % 2, `${index}`))
      yield* client.produce(messages)
      const options = { ...unhurried, identify, handler: work(ledger, () => 500) }
      const first = yield* start({ ...options, concurrency: 1 })
      yield* settled("at work", () => first.status().running === 1)
      const second = yield* start(options)
      yield* pass(5)
      // a lease lasts 10 s
      yield* settled("both own", () => owns(first, 1) && owns(second, 1))
      expect(second.status().counters.processed).toBeGreaterThan(10)
      yield* pass(12)
      yield* settled("done", () => isDone(first, 1) && isDone(second, 1))
      expect(ledger.byValue.size).toBe(40)
      expect(ledger.count).toBe(40)
    }))
})

describe.each(ways)("KafkaConsumer, when it stops%s", (_, way) => {
  for (const identified of [false, true])
    test(`what ends well after the drain timeout is completed, ${identified ? "with" : "without"} an id`, () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const ledger = new Ledger()
        const { counts, handler } = uninterruptible(ledger, () => 2_500)
        yield* client.produce([message(0, "one"), message(1, "two")])
        const options = { ...unhurried, ...way, identify: identified ? identify : undefined }
        const first = yield* start({ ...options, handler })
        yield* settled("at work", () => first.status().running === 2)
        const stopping = yield* Effect.forkScoped(first.stop)
        yield* pass(4)
        yield* settled("stopped", () => stopping.pollUnsafe() !== undefined)
        expect(ledger.count).toBe(2)
        expect(first.status()).toMatchObject({ counters: { processed: 2 }, running: 0 })
        const second = yield* start({ ...options, handler })
        yield* settled("owned", () => isDone(second, 2))
        yield* pass(4)
        expect(counts.begun).toBe(2)
      }))

  test("what begins to wait after the drain timeout is interrupted there, soon", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      let interrupted = 0
      yield* client.produce([message(0, "one")])
      const consumer = yield* start({
        ...unhurried,
        ...way,
        handler: () =>
          Effect.andThen(
            Effect.uninterruptible(Effect.sleep(2_400)),
            Effect.onInterrupt(Effect.never, () => Effect.sync(() => void interrupted++))
          )
      })
      yield* settled("at work", () => consumer.status().running === 1)
      const stopping = yield* Effect.forkScoped(consumer.stop)
      yield* pass(3)
      expect(interrupted).toBe(1)
      yield* settled("stopped", () => stopping.pollUnsafe() !== undefined)
    }))

  test("no handler counts as running when all have ended", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const ledger = new Ledger()
      yield* client.produce([message(0, "one"), message(1, "two")])
      const consumer = yield* start({ ...unhurried, ...way, handler: work(ledger, () => 1_000) })
      yield* settled("at work", () => consumer.status().running === 2)
      const stopping = yield* Effect.forkScoped(consumer.stop)
      yield* pass(2)
      yield* settled("stopped", () => stopping.pollUnsafe() !== undefined)
      expect(ledger.count).toBe(2)
      expect(consumer.status().running).toBe(0)
    }))
})

describe("KafkaConsumer, when it stops beside a store that is silent", () => {
  test("a store that answers nothing holds it up for the drain timeout, and the partition is named", () =>
    Effect.gen(function* () {
      const store = yield* OffsetStore
      const log = logLines()
      let asked = 0
      const silent = Effect.suspend(() => {
        asked++
        return Effect.never
      })
      const consumer = yield* start({ ...unhurried, handler: () => Effect.void }).pipe(
        Effect.provideService(OffsetStore, { ...store, claim: () => silent, release: () => silent }),
        Effect.provide(log.layer)
      )
      yield* settled("asked for both", () => asked === 2)
      const stopping = yield* Effect.forkScoped(consumer.stop)
      yield* pass(3)
      yield* settled("stopped", () => stopping.pollUnsafe() !== undefined)
      for (const partition of [0, 1])
        expect(log.lines).toContainEqual(
          expect.stringContaining(
            `the claim on partition ${partition} of topic "orders" could not be given back; it ends with its lease: ` +
              "the store has not answered for 2000 ms"
          )
        )
    }))

  test("a store that does not answer for the time of a lease is an error that names the partition", () =>
    Effect.gen(function* () {
      const store = yield* OffsetStore
      const consumer = yield* Effect.provideService(
        start({ ...unhurried, handler: () => Effect.void }),
        OffsetStore,
        {
          ...store,
          claim: (stream, ranges, terms) =>
            stream === streamOf(1) ? Effect.never : store.claim(stream, ranges, terms)
        }
      )
      const ended = yield* Effect.forkScoped(consumer.exit)
      yield* pass(11)
      yield* settled("ended", () => ended.pollUnsafe() !== undefined)
      const exit = yield* consumer.exit
      expect(Exit.isFailure(exit) && exit.cause.reasons).toMatchObject([
        {
          error: {
            _tag: "StoreError",
            verb: "claim",
            reason: "Timeout",
            message: expect.stringContaining('partition 1 of topic "orders"')
          }
        }
      ])
    }))
})

describe("KafkaConsumer, as a layer", () => {
  test("says so when a handler that interrupts itself stops it", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const log = logLines()
      yield* client.produce([message(1, "one")])
      const layer = KafkaConsumer.layer({ ...unhurried, handler: () => Effect.interrupt })
      yield* Effect.provide(Layer.build(layer), log.layer)
      const told = () => log.lines.filter((line) => line.startsWith("Error"))
      yield* settled("told", () => told().length > 0)
      expect(told()).toEqual([
        expect.stringContaining('interrupted itself at offset 0 of partition 1 of topic "orders"')
      ])
    }))
})

describe("KafkaConsumer, an id that was given back and claimed anew", () => {
  const history = (
    spoil: (keys: IdempotencyStore["Service"]) => Partial<IdempotencyStore["Service"]>
  ): Effect.Effect<void, unknown, Services | InProcessBroker | Scope.Scope> =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const keys = yield* IdempotencyStore
      const ledger = new Ledger()
      const held = { namespace: "group", claimId: ClaimId.make() }
      const terms = { claimId: held.claimId, owner: "another", leaseMillis: 60_000 }
      yield* keys.claim("group", [{ key: "held" }], terms)
      // "behind" is claimed with the batch, and given back since the record before it waits
      yield* client.produce([message(0, "held", "a"), message(0, "behind", "a")])
      let begun = 0
      const consumer = yield* Effect.provideService(
        start({
          ...unhurried,
          identify,
          handler: (record) => {
            begun++
            return work(ledger, () => (String(record.value) === "behind" ? 15_000 : 10))(record)
          }
        }),
        IdempotencyStore,
        { ...keys, ...spoil(keys) }
      )
      yield* settled("owned", () => owns(consumer, 2))
      yield* pass(1)
      yield* keys.release(held)
      yield* pass(2)
      expect(begun).toBe(2)
      yield* pass(20)
      yield* settled("done", () => isDone(consumer, 2))
      expect({ begun, done: ledger.count }).toEqual({ begun: 2, done: 2 })
      expect(consumer.status().counters.keyLeaseLosses).toBe(0)
    })

  test("is not revoked by its old claim, whose release was not answered", () =>
    history((keys) => ({
      release: (claim, ids) => Effect.andThen(keys.release(claim, ids), Effect.never)
    })))
})
