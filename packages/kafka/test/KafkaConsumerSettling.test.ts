/** From a handler's end to the store: what is under way beside what, how much, and for how long. */
import { describe, expect } from "@effect/vitest"
import { IdempotencyStore, OffsetStore, StoreError } from "@tidemark/core"
import { Cause, Deferred, Effect, Exit, Fiber } from "effect"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import {
  clockTests,
  isDone,
  Ledger,
  owns,
  pass,
  records,
  settled,
  start,
  unhurried,
  work
} from "./consumerHarness.ts"

const test = clockTests({ topics: { orders: 1 } })

const identify = (record: KafkaRecord): string => String(record.value)

type Offsets = OffsetStore["Service"]
type Keys = IdempotencyStore["Service"]

interface Gate {
  readonly waiting: ReadonlyArray<unknown>
  /** Lets the first of those go on that wait. */
  readonly open: () => void
}

/** Calls that are told about, and answered when the test lets them. */
const gate = <Args extends ReadonlyArray<unknown>, A, E>(
  log: Array<string>,
  what: string,
  call: (...args: Args) => Effect.Effect<A, E>
) => {
  const waiting: Array<Deferred.Deferred<void>> = []
  return {
    call: (...args: Args): Effect.Effect<A, E> =>
      Effect.suspend(() => {
        const opened = Deferred.makeUnsafe<void>()
        waiting.push(opened)
        log.push(`${what} asked`)
        return Effect.andThen(
          Deferred.await(opened),
          Effect.tap(call(...args), () => Effect.sync(() => log.push(`${what} answered`)))
        )
      }),
    waiting,
    open: (): void => void Deferred.doneUnsafe(waiting.shift() as Deferred.Deferred<void>, Effect.void)
  }
}

const withStores = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  spoil: (stores: { readonly offsets: Offsets; readonly keys: Keys }) => {
    readonly offsets?: Partial<Offsets>
    readonly keys?: Partial<Keys>
  }
): Effect.Effect<A, E, R | OffsetStore | IdempotencyStore> =>
  Effect.gen(function* () {
    const offsets = yield* OffsetStore
    const keys = yield* IdempotencyStore
    const spoiled = spoil({ offsets, keys })
    return yield* effect.pipe(
      Effect.provideService(OffsetStore, { ...offsets, ...spoiled.offsets }),
      Effect.provideService(IdempotencyStore, { ...keys, ...spoiled.keys })
    )
  })

const errorOf = (exit: Exit.Exit<unknown, unknown>): unknown =>
  Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isFailReason)?.error : undefined

describe("KafkaConsumer, what has finished", () => {
  test("has its ids completed first, those of the next records while offsets are under way", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const log: Array<string> = []
      let complete: Gate | undefined
      yield* client.produce([{ topic: "orders", key: "a", value: "0" }])
      const consumer = yield* withStores(
        start({ ...unhurried, identify, handler: () => Effect.void }),
        ({ keys, offsets }) => {
          const slow = gate(log, "offsets", offsets.complete)
          complete = slow
          return {
            offsets: { complete: slow.call },
            keys: {
              complete: (ref, items, options) => {
                log.push(`ids ${items.map(({ key }) => key)}`)
                return keys.complete(ref, items, options)
              }
            }
          }
        }
      )
      yield* settled("offsets under way", () => complete?.waiting.length === 1)
      yield* client.produce([{ topic: "orders", key: "a", value: "1" }])
      yield* settled("the next ids are completed", () => log.includes("ids 1"))
      yield* client.produce([{ topic: "orders", key: "a", value: "2" }])
      yield* settled("and the next", () => log.includes("ids 2"))
      expect(log).toEqual(["ids 0", "offsets asked", "ids 1", "ids 2"])
      expect(consumer.status().partitions[0].watermark).toBe(0)
      complete?.open()
      yield* settled("the rest in one call", () => complete?.waiting.length === 1)
      complete?.open()
      yield* settled("done", () => isDone(consumer, 1))
      expect(log.slice(4)).toEqual(["offsets answered", "offsets asked", "offsets answered"])
    }))

  for (const withIds of [false, true])
    test(`is bounded, with what is at work, by maxUnmarked${withIds ? ", with ids" : ""}`, () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const ledger = new Ledger()
        let complete: Gate | undefined
        yield* client.produce(records("orders", 60, 60))
        const consumer = yield* withStores(
          start({
            ...unhurried,
            concurrency: 4,
            maxUnmarked: 10,
            ...(withIds ? { identify } : {}),
            handler: work(ledger, () => (ledger.count % 3 === 0 ? 0 : 20))
          }),
          ({ offsets }) => {
            const slow = gate([], "offsets", offsets.complete)
            complete = slow
            return { offsets: { complete: slow.call } }
          }
        )
        for (let calls = 0; !isDone(consumer, 1); calls++) {
          yield* pass(1)
          const { counters, running, unmarked } = consumer.status()
          const completed = counters.processed - unmarked
          expect({ running, unmarked }).toEqual({ running: 0, unmarked: Math.min(10, 60 - completed) })
          expect(ledger.count).toBe(counters.processed)
          expect(calls).toBeLessThan(61)
          complete?.open()
          yield* settled("answered", () => consumer.status().unmarked < unmarked || isDone(consumer, 1))
        }
        yield* settled("done", () => isDone(consumer, 1))
        expect(ledger.byRecord.size).toBe(60)
      }))

  test("is counted once, also where completing ids fails while offsets are under way", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      let complete: Gate | undefined
      let fails = false
      yield* client.produce(records("orders", 1))
      const consumer = yield* withStores(
        start({ ...unhurried, identify, handler: () => Effect.void }),
        ({ keys, offsets }) => {
          const slow = gate([], "offsets", offsets.complete)
          complete = slow
          return {
            offsets: { complete: slow.call },
            keys: {
              complete: (ref, items, options) =>
                fails
                  ? Effect.fail(
                      new StoreError({
                        store: "test",
                        verb: "complete",
                        reason: "Corrupt",
                        detail: "as told",
                        retriable: false
                      })
                    )
                  : keys.complete(ref, items, options)
            }
          }
        }
      )
      yield* settled("offsets under way", () => complete?.waiting.length === 1)
      fails = true
      yield* client.produce(records("orders", 3, 50, 1))
      const ended = yield* Effect.forkScoped(consumer.exit)
      yield* settled("failed", () => consumer.status().phase !== "running")
      complete?.open()
      yield* pass(12)
      expect(errorOf(yield* Fiber.join(ended))).toMatchObject({ reason: "Corrupt" })
      expect(consumer.status().unmarked).toBe(0)
    }))
})

describe("KafkaConsumer, with a store that does not answer any more", () => {
  const spoilings: ReadonlyArray<
    readonly [
      what: string,
      verb: string,
      spoil: (stores: { readonly offsets: Offsets; readonly keys: Keys }) => {
        readonly offsets?: Partial<Offsets>
        readonly keys?: Partial<Keys>
      }
    ]
  > = [
    ["to a completion of offsets", "complete", () => ({ offsets: { complete: () => Effect.never } })],
    ["to a completion of ids", "complete", () => ({ keys: { complete: () => Effect.never } })],
    ["to a claim of ids", "claim", () => ({ keys: { claim: () => Effect.never } })]
  ]
  for (const [what, verb, spoil] of spoilings)
    test(`${what}, stops with an error within a lease's time, though leases are renewed`, () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        yield* client.produce(records("orders", 1))
        const consumer = yield* withStores(
          start({ ...unhurried, identify, handler: () => Effect.void }),
          spoil
        )
        yield* settled("owned", () => owns(consumer, 1))
        // the lease lasts 10 s
        yield* pass(9)
        expect(consumer.status().counters.leaseLosses).toBe(0)
        const exit = yield* Effect.forkScoped(consumer.exit)
        yield* pass(16)
        yield* settled("ended", () => exit.pollUnsafe() !== undefined)
        const error = errorOf(yield* consumer.exit) as StoreError
        expect(error).toMatchObject({ _tag: "StoreError", verb, reason: "Timeout" })
        expect(error.message).toContain('partition 0 of topic "orders"')
      }))

  test("to renewals, loses the partition when its lease ends, and has it again", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const offsets = yield* OffsetStore
      yield* client.produce(records("orders", 1))
      // a keeper of its own, whose renewals go nowhere
      const { leases } = yield* OffsetStore.make({ ...offsets, renew: () => Effect.never } as never)
      const interrupted: Array<number> = []
      const begun: Array<number> = []
      const handler = ({ offset }: KafkaRecord) =>
        Effect.suspend(() => {
          begun.push(offset)
          if (begun.length > 1) return Effect.void
          return Effect.onInterrupt(Effect.never, () => Effect.sync(() => void interrupted.push(offset)))
        })
      const consumer = yield* withStores(start({ ...unhurried, handler }), () => ({ offsets: { leases } }))
      yield* settled("at work", () => consumer.status().running === 1)
      yield* pass(11)
      yield* settled("done", () => isDone(consumer, 1))
      expect({ begun, interrupted }).toEqual({ begun: [0, 0], interrupted: [0] })
      expect(consumer.status().counters.leaseLosses).toBe(1)
    }))
})
