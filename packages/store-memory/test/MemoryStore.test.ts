import { assert, describe, it } from "@effect/vitest"
import { IdempotencyStore, Key, Lock, OffsetStore, Settings, Tracker } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"
import { ConfigProvider, Deferred, Effect, Fiber, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"

const terms = (claimId: string, leaseMillis = 30_000) => ({ claimId, owner: claimId, leaseMillis })

describe("MemoryStore", () => {
  it.effect("gives all three services in one layer", () =>
    Effect.gen(function* () {
      const tracker = yield* Tracker
      const lock = yield* Lock
      const outcome = yield* lock.withLock("l")(tracker.once(Key.id("a"), Effect.succeed(1)))
      assert.deepStrictEqual(outcome, { _tag: "Processed", value: 1 })
      assert.strictEqual((yield* OffsetStore).durable, false)
    }).pipe(Effect.provide(Tracker.layer({ namespace: "n" }).pipe(Layer.provideMerge(MemoryStore.layer()))))
  )

  it.effect("remembers a key for its retention, by Effect's clock: 5 minutes by default", () =>
    Effect.gen(function* () {
      const store = yield* IdempotencyStore
      const tag = (claimId: string) =>
        Effect.map(store.claim("n", [{ key: "k" }], terms(claimId)), ([answer]) => answer._tag)
      yield* tag("first")
      yield* store.complete({ namespace: "n", claimId: "first" }, [{ key: "k" }])
      yield* TestClock.adjust("299999 millis")
      assert.strictEqual(yield* tag("second"), "Completed")
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* tag("third"), "Claimed")
    }).pipe(Effect.provide(MemoryStore.layer()))
  )

  it.effect("sweeps by itself on its interval", () =>
    Effect.gen(function* () {
      const store = yield* IdempotencyStore
      const stats = yield* MemoryStore.MemoryStoreStats
      yield* store.claim("n", [{ key: "k" }], terms("c"))
      yield* store.complete({ namespace: "n", claimId: "c" }, [{ key: "k" }], { retentionMillis: 5_000 })
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual((yield* stats.current).size, 1)
      yield* TestClock.adjust("2 seconds")
      assert.deepInclude(yield* stats.current, { size: 0, expired: 1, sweeps: 1 })
    }).pipe(Effect.provide(MemoryStore.layer()))
  )

  it.effect(
    "sweeps when 90 % of the bound is reached, and evicts at the bound down to 80 %, with one warning",
    () => {
      const warnings: Array<string> = []
      const logger = Logger.make((options) => {
        if (options.logLevel === "Warn") warnings.push(String(options.message))
      })
      return Effect.gen(function* () {
        const store = yield* IdempotencyStore
        const stats = yield* MemoryStore.MemoryStoreStats
        const remember = (from: number, to: number) => {
          const items = Array.from({ length: to - from }, (_, index) => ({ key: `k${from + index}` }))
          const claimId = `c${from}`
          return Effect.andThen(
            store.claim("n", items, terms(claimId)),
            store.complete({ namespace: "n", claimId }, items, { retentionMillis: 10_000 })
          )
        }
        yield* remember(0, 500)
        yield* TestClock.adjust("20 seconds")
        assert.deepInclude(yield* stats.current, { size: 500, sweeps: 0 })
        yield* remember(500, 900)
        yield* TestClock.adjust("1 millis")
        assert.deepInclude(yield* stats.current, { size: 400, expired: 500, sweeps: 1, evictions: 0 })
        yield* remember(900, 1_600)
        yield* TestClock.adjust("1 millis")
        const { evictions, largestSize, size } = yield* stats.current
        assert.isAtMost(largestSize, 1_000)
        assert.isAtMost(size, 900)
        assert.isAbove(evictions, 0)
        yield* remember(1_600, 2_600)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(warnings.length, 1)
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual(warnings.length, 2)
        assert.include(warnings[0], "MAX_TRACKED_OFFSETS")
      }).pipe(
        Effect.provide(MemoryStore.layer({ maxTrackedOffsets: 1_000 })),
        Effect.provide(Logger.layer([logger]))
      )
    }
  )

  it.effect("reject: a full store is a StoreError that may pass", () =>
    Effect.gen(function* () {
      const store = yield* IdempotencyStore
      yield* store.claim("n", [{ key: "a" }, { key: "b" }], terms("c"))
      const error = yield* Effect.flip(store.claim("n", [{ key: "d" }], terms("e")))
      assert.isTrue(error._tag === "StoreError" && error.reason === "Full" && error.retriable, error.message)
    }).pipe(Effect.provide(MemoryStore.layer({ maxTrackedOffsets: 2, whenFull: "reject" })))
  )

  it.effect("wakes whoever waits for a key as soon as it is settled", () =>
    Effect.gen(function* () {
      const tracker = yield* Tracker
      const gate = yield* Deferred.make<void>()
      const first = yield* Effect.forkChild(tracker.once(Key.id("a"), Deferred.await(gate)), {
        startImmediately: true
      })
      const second = yield* Effect.forkChild(tracker.once(Key.id("a"), Effect.void), {
        startImmediately: true
      })
      const third = yield* Effect.forkChild(tracker.once(Key.offset("s", 1), Deferred.await(gate)), {
        startImmediately: true
      })
      const fourth = yield* Effect.forkChild(tracker.once(Key.offset("s", 1), Effect.void), {
        startImmediately: true
      })
      yield* Deferred.succeed(gate, undefined)
      // no time passes: only the hint can have woken them
      const outcomes = yield* Effect.forEach([first, second, third, fourth], Fiber.join)
      assert.deepStrictEqual(
        outcomes.map((outcome) => outcome._tag),
        ["Processed", "Duplicate", "Processed", "Duplicate"]
      )
    }).pipe(Effect.provide(Tracker.layer({ namespace: "n" }).pipe(Layer.provideMerge(MemoryStore.layer()))))
  )

  it.effect("takes its settings from the environment, over a preset", () =>
    Effect.gen(function* () {
      const stats = yield* MemoryStore.MemoryStoreStats
      const store = yield* IdempotencyStore
      assert.strictEqual((yield* stats.current).maxSize, 77)
      assert.strictEqual(store.retentionMillis, 120_000)
    }).pipe(
      Effect.provide(MemoryStore.layerConfig(Settings.memoryConstrained)),
      Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ MAX_TRACKED_OFFSETS: "77" })))
    )
  )

  it.effect("keeps its bounds where an option is there, and undefined", () =>
    Effect.gen(function* () {
      const { current } = yield* MemoryStore.MemoryStoreStats
      assert.strictEqual((yield* current).maxSize, 50_000)
      assert.strictEqual((yield* IdempotencyStore).retentionMillis, 300_000)
    }).pipe(
      Effect.provide(MemoryStore.layer({ maxTrackedOffsets: undefined, ttlSeconds: undefined } as never))
    )
  )

  it.effect.each([
    [{ maxTrackedOffsets: 0 }, "maxTrackedOffsets"],
    [{ maxTrackedOffsets: 1.5 }, "maxTrackedOffsets"],
    [{ ttlSeconds: Number.NaN }, "ttlSeconds"],
    [{ cleanupIntervalSeconds: -1 }, "cleanupIntervalSeconds"],
    [{ whenFull: "explode" }, "whenFull"],
    [{ maxSize: 3 }, "option of MemoryStore"]
  ])("the options %j are refused, naming %s", ([options, field]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Layer.build(MemoryStore.layer(options as never)))
      assert.strictEqual(error.field, field)
    }).pipe(Effect.scoped)
  )
})
