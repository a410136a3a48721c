/** An answer that comes when the lease is over: nothing may begin under it, since another may be at work by then. */
import { assert, describe, it } from "@effect/vitest"
import { IdempotencyStore, Key, Lock, OffsetRanges, OffsetStore, Tracker, withClaim } from "@tidemark/core"
import { Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as ModelStore from "./ModelStore.ts"

const leaseMillis = 30_000

/** A store elsewhere, whose first answer to a claim takes a little longer than the lease. */
const slow = Effect.gen(function* () {
  const keys = yield* IdempotencyStore
  const offsets = yield* OffsetStore
  let claims = 0
  const late = <A, E>(claimed: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() =>
      Effect.tap(claimed, () => (claims++ === 0 ? Effect.sleep(leaseMillis + 1) : Effect.void))
    )
  return Layer.mergeAll(
    Layer.succeed(IdempotencyStore, {
      ...keys,
      durable: true,
      claim: (...args) => late(keys.claim(...args))
    }),
    Layer.succeed(OffsetStore, {
      ...offsets,
      durable: true,
      claim: (...args) => late(offsets.claim(...args)),
      claimOffset: (...args) => late(offsets.claimOffset(...args))
    })
  )
})

const stores = Layer.provideMerge(Layer.unwrap(slow), ModelStore.layer)
// fresh: the model has a lock of its own
const live = Layer.mergeAll(Tracker.layer({ namespace: "n" }), Layer.fresh(Lock.layer)).pipe(
  Layer.provideMerge(stores)
)

/** What becomes of it when the answers have had their time. */
const outcome = <A, E, R>(call: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(call, { startImmediately: true })
    yield* TestClock.adjust(2 * leaseMillis)
    return yield* Fiber.join(fiber)
  })

const errorOf = <A, E, R>(call: Effect.Effect<A, E, R>) => outcome(Effect.flip(call))

describe("a claim that is answered after its lease", () => {
  for (const key of [Key.id("k"), Key.offset("s", 7)]) {
    it.effect(`of a tracker runs nothing, and is given back: ${key._tag}`, () =>
      Effect.gen(function* () {
        const tracker = yield* Tracker
        let runs = 0
        const handler = Effect.sync(() => ++runs)
        const error = yield* errorOf(tracker.once(key, handler))
        assert.deepInclude(error, { _tag: "StoreError", reason: "Timeout", retriable: true })
        assert.strictEqual(runs, 0)
        assert.deepStrictEqual(yield* tracker.once(key, handler, { whenInFlight: "fail" }), {
          _tag: "Processed",
          value: 1
        })
      }).pipe(Effect.provide(live))
    )

    it.effect(`is asked for anew where the store is waited for: ${key._tag}`, () =>
      Effect.gen(function* () {
        const tracker = yield* Tracker
        let runs = 0
        const answer = yield* outcome(
          tracker.once(
            key,
            Effect.sync(() => ++runs),
            { whenStoreFails: "wait" }
          )
        )
        assert.deepStrictEqual(answer, { _tag: "Processed", value: 1 })
      }).pipe(Effect.provide(live))
    )
  }

  for (const whenStoreFails of ["fail", "wait"] as const)
    it.effect(`of a batch runs nothing either: ${whenStoreFails}`, () =>
      Effect.gen(function* () {
        const tracker = yield* Tracker
        let runs = 0
        const all = tracker.onceAll(
          [1, 2, 3],
          (item) => Key.id(`${item}`),
          () => Effect.sync(() => ++runs),
          { whenStoreFails }
        )
        if (whenStoreFails === "wait") {
          assert.deepStrictEqual(
            (yield* outcome(all)).map(({ _tag }) => _tag),
            ["Processed", "Processed", "Processed"]
          )
          assert.strictEqual(runs, 3)
        } else {
          assert.deepInclude(yield* errorOf(all), { _tag: "StoreError", reason: "Timeout" })
          assert.strictEqual(runs, 0)
        }
      }).pipe(Effect.provide(live))
    )

  it.effect("of withClaim is LeaseLost", () =>
    Effect.gen(function* () {
      let runs = 0
      const work = () => Effect.sync(() => ++runs)
      const request = { stream: "s", ranges: OffsetRanges.make(0, 10), owner: "o" }
      assert.strictEqual((yield* errorOf(withClaim(request, work)))._tag, "LeaseLost")
      assert.strictEqual(runs, 0)
      const answer = yield* withClaim(request, (claim) => Effect.succeed(String(claim.granted)))
      assert.strictEqual(answer, "[0,10)")
    }).pipe(Effect.provide(live))
  )

  it.effect("of withClaim on keys too", () =>
    Effect.gen(function* () {
      let runs = 0
      const request = { namespace: "n", items: [{ key: "k" }], owner: "o" }
      const error = yield* errorOf(withClaim(request, () => Effect.sync(() => ++runs)))
      assert.strictEqual(error._tag, "LeaseLost")
      assert.strictEqual(runs, 0)
    }).pipe(Effect.provide(live))
  )

  it.effect("of a lock that is not waited for is given back", () =>
    Effect.gen(function* () {
      const lock = yield* Lock
      assert.strictEqual(
        (yield* errorOf(lock.withLock("l", { wait: 0 })(Effect.void)))._tag,
        "InFlightElsewhere"
      )
      yield* lock.withLock("l", { wait: 0 })(Effect.void)
    }).pipe(Effect.provide(live))
  )

  it.effect("of a lock is given back, and the lock asked for again", () =>
    Effect.gen(function* () {
      const lock = yield* Lock
      const begun: Array<number> = []
      const clock = yield* TestClock.testClockWith((testClock) => Effect.succeed(testClock))
      const before = clock.currentTimeMillisUnsafe()
      yield* outcome(
        lock.withLock("l")(Effect.sync(() => begun.push(clock.currentTimeMillisUnsafe() - before)))
      )
      assert.deepStrictEqual(begun, [leaseMillis + 1])
    }).pipe(Effect.provide(live))
  )
})
