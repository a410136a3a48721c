/** What has come to its end is marked, whatever interrupted it meanwhile; what has not, is not. */
import { assert, describe, it } from "@effect/vitest"
import { IdempotencyStore, Key, Tracker } from "@tidemark/core"
import { Cause, Deferred, Effect, Exit, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { onOwnFiber } from "../src/internal/ownFiber.ts"
import * as ModelStore from "./ModelStore.ts"

const live = Tracker.layer({ namespace: "n", lease: "30 seconds" }).pipe(Layer.provideMerge(ModelStore.layer))

type Run = (
  tracker: Tracker["Service"],
  key: Key.Key,
  handler: Effect.Effect<unknown>
) => Effect.Effect<unknown, unknown>

const runs: ReadonlyArray<readonly [string, Run]> = [
  ["once", (tracker, key, handler) => tracker.once(key, handler)],
  ...[1, 3].map(
    (concurrency) =>
      [
        `onceAll, ${concurrency} at a time`,
        (tracker: Tracker["Service"], key: Key.Key, handler: Effect.Effect<unknown>) =>
          tracker.onceAll(
            [key],
            (item) => item,
            () => handler,
            { concurrency }
          )
      ] as const
  )
]

/** A part of a handler: waits, and may be interrupted meanwhile or not. */
interface Part {
  readonly millis: number
  readonly interruptible: boolean
}

/** The parts one after the other; `onEnd` is the last thing that the last part does. */
const handlerOf = (parts: ReadonlyArray<Part>, onEnd: () => void): Effect.Effect<void> =>
  parts.reduceRight<Effect.Effect<void>>((rest, { interruptible, millis }, index) => {
    const wait = millis === 0 ? Effect.void : Effect.sleep(millis)
    const work = index === parts.length - 1 ? Effect.andThen(wait, Effect.sync(onEnd)) : wait
    return Effect.andThen(interruptible ? work : Effect.uninterruptible(work), rest)
  }, Effect.void)

for (const [what, run] of runs) {
  describe(what, () => {
    it.effect("marks a handler that could not be interrupted and has come to its end", () =>
      Effect.gen(function* () {
        const tracker = yield* Tracker
        const gate = yield* Deferred.make<void>()
        const started = yield* Deferred.make<void>()
        let effects = 0
        const handler = Deferred.succeed(started, undefined).pipe(
          Effect.andThen(Deferred.await(gate)),
          Effect.andThen(Effect.sync(() => ++effects)),
          Effect.uninterruptible
        )
        const key = Key.id("k")
        const fiber = yield* Effect.forkChild(run(tracker, key, handler))
        yield* Deferred.await(started)
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber))
        yield* Effect.yieldNow
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(interrupting)
        const exit = fiber.pollUnsafe()
        assert.isTrue(exit !== undefined && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        assert.strictEqual(effects, 1)
        assert.isTrue(yield* tracker.isProcessed(key))
      }).pipe(Effect.provide(live))
    )

    it.effect("marks a handler that interrupts its own caller as its last act", () =>
      Effect.gen(function* () {
        const tracker = yield* Tracker
        const key = Key.id("k")
        const pause = yield* Deferred.make<void>()
        let caller: Fiber.Fiber<unknown, unknown> | undefined
        const handler = Effect.andThen(
          Deferred.await(pause),
          Effect.sync(() => caller?.interruptUnsafe())
        )
        caller = yield* Effect.forkChild(run(tracker, key, handler))
        yield* Effect.yieldNow
        yield* Deferred.succeed(pause, undefined)
        const exit = yield* Fiber.await(caller)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        assert.isTrue(yield* tracker.isProcessed(key))
      }).pipe(Effect.provide(live))
    )

    it.effect(
      "ends a handler that interrupts its own caller and goes on, before the claim is given back",
      () =>
        Effect.gen(function* () {
          const tracker = yield* Tracker
          const key = Key.id("k")
          let caller: Fiber.Fiber<unknown, unknown> | undefined
          let ended = "not"
          const handler = Effect.sync(() => caller?.interruptUnsafe()).pipe(
            Effect.andThen(Effect.sleep(10)),
            Effect.andThen(Effect.sync(() => (ended = "came to its end"))),
            Effect.onInterrupt(() => Effect.sync(() => (ended = "interrupted")))
          )
          caller = yield* Effect.forkChild(run(tracker, key, handler))
          const exit = yield* Fiber.await(caller)
          assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
          assert.strictEqual(ended, "interrupted")
          assert.strictEqual(
            (yield* tracker.once(key, Effect.void, { whenInFlight: "fail" }))._tag,
            "Processed"
          )
        }).pipe(Effect.provide(live))
    )

    it.effect("marks a handler that has come to its end, while what it forked is being interrupted", () =>
      Effect.gen(function* () {
        const tracker = yield* Tracker
        const key = Key.id("k")
        let effects = 0
        const beside = Effect.onInterrupt(Effect.never, () => Effect.sleep(10))
        const handler = Effect.forkChild(beside, { startImmediately: true }).pipe(
          Effect.andThen(Effect.sleep(5)),
          Effect.andThen(Effect.sync(() => ++effects))
        )
        const fiber = yield* Effect.forkChild(run(tracker, key, handler), { startImmediately: true })
        yield* TestClock.adjust(7)
        assert.strictEqual(effects, 1)
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
        yield* TestClock.adjust(20)
        yield* Fiber.join(interrupting)
        assert.isTrue(yield* tracker.isProcessed(key))
      }).pipe(Effect.provide(live))
    )

    it.effect("begins no handler where the caller was interrupted while the claim was asked for", () =>
      Effect.gen(function* () {
        const asking = yield* Deferred.make<void>()
        const answer = yield* Deferred.make<void>()
        const store = yield* IdempotencyStore
        const slow = IdempotencyStore.of({
          ...store,
          claim: (...args) =>
            Deferred.succeed(asking, undefined).pipe(
              Effect.andThen(Deferred.await(answer)),
              Effect.andThen(store.claim(...args))
            )
        })
        const tracker = yield* Effect.provideService(Tracker.make({ namespace: "n" }), IdempotencyStore, slow)
        let effects = 0
        const fiber = yield* Effect.forkChild(
          run(
            tracker,
            Key.id("k"),
            Effect.sync(() => ++effects)
          )
        )
        yield* Deferred.await(asking)
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
        yield* Deferred.succeed(answer, undefined)
        yield* Fiber.join(interrupting)
        assert.strictEqual(effects, 0)
        assert.deepStrictEqual(yield* store.lookup("n", ["k"]), [{ _tag: "Unknown" }])
      }).pipe(Effect.provide(live))
    )

    it.effect("marks a handler that could not be interrupted when its lease was lost", () =>
      Effect.gen(function* () {
        const tracker = yield* Tracker
        const { failBefore } = yield* ModelStore.Faults
        const key = Key.id("k")
        const fiber = yield* Effect.forkChild(run(tracker, key, Effect.uninterruptible(Effect.sleep(60_000))))
        yield* Effect.yieldNow
        failBefore.set("renew", Number.POSITIVE_INFINITY)
        yield* TestClock.adjust("61 seconds")
        yield* Fiber.join(fiber)
        assert.isTrue(yield* tracker.isProcessed(key))
      }).pipe(Effect.provide(live))
    )

    it.effect(
      "whatever a handler is made of and whenever it is interrupted: marked if and only if done",
      () =>
        Effect.promise(() =>
          fc.assert(
            fc.asyncProperty(
              fc.array(fc.record({ millis: fc.integer({ min: 0, max: 3 }), interruptible: fc.boolean() }), {
                minLength: 1,
                maxLength: 4
              }),
              fc.integer({ min: 0, max: 12 }),
              fc.boolean(),
              (parts, interruptedAt, byOffset) =>
                Effect.runPromise(
                  Effect.gen(function* () {
                    const tracker = yield* Tracker
                    const key = byOffset ? Key.offset("s", 1) : Key.id("k")
                    let effects = 0
                    const count = (): void => {
                      effects += 1
                    }
                    const fiber = yield* Effect.forkChild(run(tracker, key, handlerOf(parts, count)), {
                      startImmediately: true
                    })
                    yield* TestClock.adjust(interruptedAt)
                    const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber), {
                      startImmediately: true
                    })
                    for (let step = 0; step < 15; step++) yield* TestClock.adjust(1)
                    yield* Fiber.join(interrupting)
                    assert.strictEqual(yield* tracker.isProcessed(key), effects === 1)
                    yield* run(tracker, key, Effect.sync(count))
                    assert.strictEqual(effects, 1)
                  }).pipe(Effect.provide(live), Effect.provide(TestClock.layer()))
                )
            ),
            { numRuns: 150 }
          )
        )
    )
  })
}

describe("onceAll, interrupted or without its lease", () => {
  for (const concurrency of [1, 3]) {
    it.effect(`begins no other handler, ${concurrency} at a time`, () =>
      Effect.gen(function* () {
        const tracker = yield* Tracker
        const begun: Array<number> = []
        const items = Array.from({ length: 10 }, (_, index) => index)
        const handler = (item: number) =>
          Effect.andThen(
            Effect.sync(() => begun.push(item)),
            Effect.uninterruptible(Effect.sleep(10))
          )
        const all = tracker.onceAll(items, (item) => Key.offset("s", item), handler, { concurrency })
        const fiber = yield* Effect.forkChild(all, { startImmediately: true })
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
        yield* TestClock.adjust(1_000)
        yield* Fiber.join(interrupting)
        assert.deepStrictEqual(begun, items.slice(0, concurrency))
        for (const item of items) {
          assert.strictEqual(yield* tracker.isProcessed(Key.offset("s", item)), item < concurrency)
        }
      }).pipe(Effect.provide(live))
    )
  }

  it.effect("tells of what it did not begin that the lease was lost", () =>
    Effect.gen(function* () {
      const tracker = yield* Tracker
      const { failBefore } = yield* ModelStore.Faults
      failBefore.set("renew", Number.POSITIVE_INFINITY)
      const work = Effect.uninterruptible(Effect.sleep(20_000))
      const all = tracker.onceAll(
        [1, 2, 3],
        (item) => Key.id(`${item}`),
        () => work
      )
      const fiber = yield* Effect.forkChild(all, { startImmediately: true })
      yield* TestClock.adjust("90 seconds")
      const outcomes = yield* Fiber.join(fiber)
      assert.deepStrictEqual(
        outcomes.map((outcome) => (outcome._tag === "Failed" ? outcome.error._tag : outcome._tag)),
        ["Processed", "Processed", "LeaseLost"]
      )
    }).pipe(Effect.provide(live))
  )
})

describe("onOwnFiber", () => {
  const watched = <A, E>(work: Effect.Effect<A, E>) => {
    let exit: Exit.Exit<A, E> | undefined
    const watcher = {
      resting: () => {},
      stopping: () => {},
      ended: (given: Exit.Exit<A, E>) => {
        exit = given
        return given
      }
    }
    return { run: onOwnFiber(work, watcher), exit: () => exit }
  }

  // these read what Effect keeps to itself: if they fail after an update, ownFiber.ts is to be looked at
  it.effect("knows when a fiber can't be interrupted, and when it can again", () =>
    Effect.gen(function* () {
      for (const [work, expected] of [
        [Effect.uninterruptible(Effect.sleep(10)), "Success"],
        [Effect.andThen(Effect.uninterruptible(Effect.sleep(10)), Effect.never), "Failure"],
        [Effect.uninterruptibleMask((restore) => restore(Effect.never)), "Failure"],
        [
          Effect.uninterruptibleMask((restore) =>
            Effect.andThen(Effect.sleep(10), restore(Effect.sleep(1_000_000)))
          ),
          "Failure"
        ],
        [Effect.never, "Failure"]
      ] as const) {
        const { exit, run } = watched(work as Effect.Effect<void>)
        const fiber = yield* Effect.forkChild(run, { startImmediately: true })
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
        yield* TestClock.adjust(11)
        yield* Fiber.join(interrupting)
        assert.strictEqual(exit()?._tag, expected)
      }
    })
  )
})
