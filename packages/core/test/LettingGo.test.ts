/** What a failing store, an interruption or a settled claim must not leave behind. */
import { assert, describe, it } from "@effect/vitest"
import {
  IdempotencyStore,
  Key,
  Lock,
  OffsetRanges,
  OffsetStore,
  Patience,
  Tracker,
  withClaim
} from "@tidemark/core"
import { Clock, Effect, Exit, Fiber, Layer, Logger, References } from "effect"
import { TestClock } from "effect/testing"
import * as LeaseKeeper from "../src/internal/LeaseKeeper.ts"
import * as ModelStore from "./ModelStore.ts"

const live = Tracker.layer({ namespace: "n" }).pipe(Layer.provideMerge(ModelStore.layer))
type Asked = Effect.Effect<unknown, unknown, OffsetStore | IdempotencyStore>

const offsets = { stream: "s", ranges: OffsetRanges.make(0, 10), owner: "o", lease: 3_000 }

const verbs = Effect.gen(function* () {
  const tracker = yield* Tracker
  const lock = yield* Lock
  return (name: string, work: Effect.Effect<void>): Readonly<Record<string, Asked>> => ({
    once: tracker.once(Key.id(name), work),
    onceAll: tracker.onceAll(
      [1],
      () => Key.id(name),
      () => work
    ),
    markProcessed: tracker.markProcessed(Key.id(name)),
    withClaim: withClaim({ namespace: "n", items: [{ key: name }], owner: "o" }, () => work),
    withLock: lock.withLock(name)(work),
    acquire: Effect.scoped(Effect.andThen(lock.acquire(name), work))
  })
})

const names = ["once", "onceAll", "markProcessed", "withClaim", "withLock", "acquire"]
const namespaceOf = (verb: string) => (verb === "withLock" || verb === "acquire" ? "lock" : "n")
const statusOf = (verb: string, key: string) =>
  Effect.gen(function* () {
    const [status] = yield* (yield* IdempotencyStore).lookup(namespaceOf(verb), [key])
    return status._tag
  })

describe("A claim whose answer was lost", () => {
  for (const verb of names) {
    it.effect(`is given back when ${verb} fails for it`, () =>
      Effect.gen(function* () {
        const { failAfter } = yield* ModelStore.Faults
        failAfter.set("claim", 1)
        const exit = yield* Effect.exit((yield* verbs)("k", Effect.void)[verb])
        assert.isTrue(Exit.isFailure(exit))
        assert.strictEqual(yield* statusOf(verb, "k"), "Unknown")
      }).pipe(Effect.provide(live))
    )
  }

  for (const verb of names) {
    it.effect(`leaves a line in the log when ${verb} can't give it back either`, () =>
      Effect.gen(function* () {
        const { failAfter, failBefore } = yield* ModelStore.Faults
        const lines: Array<string> = []
        const logger = Logger.make(({ message }) => {
          lines.push(String(message))
        })
        failAfter.set("claim", 1)
        failBefore.set("release", 1)
        const ask = (yield* verbs)("k", Effect.void)[verb]
        assert.isTrue(Exit.isFailure(yield* Effect.exit(Effect.provide(ask, Logger.layer([logger])))))
        assert.strictEqual(lines.length, 1)
        assert.include(lines[0], "could not be given back")
        assert.include(lines[0], "switched off by a test")
      }).pipe(Effect.provide(live))
    )
  }

  it.effect("is asked for anew after an outage that was longer than its lease", () =>
    Effect.gen(function* () {
      const { failAfter, failBefore } = yield* ModelStore.Faults
      const tracker = yield* Tracker
      const terms = { whenStoreFails: "wait", lease: 3_000 } as const
      const work = Effect.as(Effect.sleep(500), "done")
      const asks = [
        tracker.once(Key.id("one"), work, terms),
        Effect.map(
          tracker.onceAll(
            [1],
            () => Key.id("all"),
            () => work,
            terms
          ),
          ([outcome]) => outcome
        )
      ]
      for (const ask of asks) {
        failAfter.set("claim", 1)
        failBefore.set("claim", 20)
        const fiber = yield* Effect.forkChild(ask, { startImmediately: true })
        while (fiber.pollUnsafe() === undefined) yield* TestClock.adjust("100 millis")
        assert.deepStrictEqual(yield* Fiber.join(fiber), { _tag: "Processed", value: "done" })
      }
    }).pipe(Effect.provide(live))
  )
})

describe("An interruption at any step", () => {
  for (const verb of names) {
    it.effect(`leaves no claim and no lock of ${verb} behind`, () =>
      Effect.gen(function* () {
        const make = yield* verbs
        const lock = yield* Lock
        for (let steps = 0; steps < 60; steps++) {
          const key = `k${steps}`
          const asked = make(key, Effect.andThen(Effect.yieldNow, Effect.yieldNow))[verb]
          const fiber = yield* Effect.forkChild(Effect.provideService(asked, References.MaxOpsBeforeYield, 6))
          for (let step = 0; step < steps; step++) yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
          assert.notStrictEqual(yield* statusOf(verb, key), "InFlight", `after ${steps} steps`)
          if (namespaceOf(verb) === "lock") yield* lock.withLock(key, { wait: 0 })(Effect.void)
        }
      }).pipe(Effect.provide(live))
    )
  }
})

describe("An interruption after the effect", () => {
  it.effect("finds it marked: it does not run twice", () =>
    Effect.gen(function* () {
      const tracker = yield* Tracker
      for (const operations of [4, 5, 6, 7, 8]) {
        for (let steps = 0; steps < 30; steps++) {
          let effects = 0
          const key = Key.id(`${operations}-${steps}`)
          const take = tracker.once(
            key,
            Effect.sync(() => {
              effects += 1
            })
          )
          const fiber = yield* Effect.forkChild(
            Effect.provideService(take, References.MaxOpsBeforeYield, operations)
          )
          for (let step = 0; step < steps; step++) yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
          assert.strictEqual(yield* tracker.isProcessed(key), effects === 1, `${operations}, ${steps} steps`)
        }
      }
    }).pipe(Effect.provide(live))
  )
})

describe("withClaim", () => {
  it.effect("works on when all is settled: there is nothing left to lose", () =>
    Effect.gen(function* () {
      const settling: ReadonlyArray<Asked> = [
        withClaim(offsets, (claim) => Effect.andThen(claim.complete(claim.granted), Effect.sleep(10_000))),
        withClaim({ ...offsets, stream: "t" }, (claim) =>
          Effect.andThen(claim.release(), Effect.sleep(10_000))
        ),
        withClaim({ namespace: "n", items: [{ key: "a" }], owner: "o", lease: 3_000 }, (claim) =>
          Effect.andThen(claim.complete([{ key: "a" }]), Effect.sleep(10_000))
        )
      ]
      for (const ask of settling) {
        const fiber = yield* Effect.forkChild(ask, { startImmediately: true })
        yield* TestClock.adjust("20 seconds")
        yield* Fiber.join(fiber)
      }
    }).pipe(Effect.provide(live))
  )

  it.effect("gives back when the work throws before it begins", () =>
    Effect.gen(function* () {
      const thrown = withClaim(offsets, () => {
        throw new Error("thrown")
      })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(thrown as Asked)))
      assert.deepStrictEqual((yield* (yield* OffsetStore).progress("s"))?.claims, [])
    }).pipe(Effect.provide(live))
  )

  it.effect("refuses an option that it does not know", () =>
    Effect.gen(function* () {
      const misspelt = { ...offsets, leese: 1_000 }
      const error = yield* Effect.flip(withClaim(misspelt, () => Effect.void))
      assert.include(error.message, "leese")
    }).pipe(Effect.provide(live))
  )
})

describe("LeaseKeeper", () => {
  it.effect("renews on while the store does not answer for other leases, or has failed for them", () =>
    Effect.scoped(
      Effect.gen(function* () {
        for (const broken of [Effect.never, Effect.fail("down")]) {
          const renewed: Array<string> = []
          const lost: Array<string> = []
          const keeper = yield* LeaseKeeper.make<string>((due) =>
            due.some(({ ref }) => ref === "long")
              ? broken
              : Effect.sync(() => due.map(({ ref }) => renewed.push(ref) > 0))
          )
          const hold = (ref: string, leaseMillis: number, now: number) =>
            keeper.hold({
              ref,
              leaseMillis,
              deadline: now + leaseMillis,
              index: -1,
              onLost: () => lost.push(ref)
            })
          const clock = yield* Clock.Clock
          hold("long", 600_000, Patience.monotonicMillis(clock))
          yield* TestClock.adjust("201 seconds")
          hold("short", 3_000, Patience.monotonicMillis(clock))
          yield* TestClock.adjust("10 seconds")
          assert.isAbove(renewed.length, 5)
          assert.deepStrictEqual(lost, [])
          yield* TestClock.adjust("400 seconds")
          assert.deepStrictEqual(lost, ["long"])
        }
      })
    )
  )
})
