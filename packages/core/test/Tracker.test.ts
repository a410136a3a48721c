import { assert, describe, it } from "@effect/vitest"
import { Key, Metrics } from "@tidemark/core"
import { Cause, Deferred, Effect, Exit, Fiber, Metric, Schema } from "effect"
import { TestClock } from "effect/testing"
import { gated, withTracker } from "./trackers.ts"

const keys = [
  ["a position", Key.offset("orders/0", 42)],
  ["an id", Key.id("order-4711")]
] as const

for (const [what, key] of keys) {
  describe(`once, by ${what}`, () => {
    it.effect("processes the first time, and answers Duplicate ever after", () =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          let runs = 0
          const handler = Effect.sync(() => ++runs)
          assert.deepStrictEqual(yield* tracker.once(key, handler), { _tag: "Processed", value: 1 })
          assert.deepStrictEqual(yield* tracker.once(key, handler), { _tag: "Duplicate", value: undefined })
          assert.isTrue(yield* tracker.isProcessed(key))
          assert.strictEqual(runs, 1)
        })
      )
    )

    it.effect("runs once however many ask at the same time", () =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          const { handler, open, runs, started } = yield* gated
          const fibers = yield* Effect.forEach(Array.from({ length: 20 }), () =>
            Effect.forkChild(tracker.once(key, handler))
          )
          yield* started
          yield* open
          yield* TestClock.adjust("2 seconds")
          const outcomes = yield* Effect.forEach(fibers, Fiber.join)
          assert.strictEqual(outcomes.filter((outcome) => outcome._tag === "Processed").length, 1)
          assert.strictEqual(outcomes.filter((outcome) => outcome._tag === "Duplicate").length, 19)
          assert.strictEqual(yield* runs, 1)
        })
      )
    )

    it.effect("gives the claim back at once when the handler fails, so that it can be tried again", () =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          const failed = yield* Effect.flip(tracker.once(key, Effect.fail("no card")))
          assert.strictEqual(failed, "no card")
          assert.isFalse(yield* tracker.isProcessed(key))
          assert.strictEqual((yield* tracker.once(key, Effect.void))._tag, "Processed")
        })
      )
    )

    it.effect("gives the claim back when the handler dies, and when it is interrupted", () =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          const died = yield* Effect.exit(tracker.once(key, Effect.die("bug")))
          assert.isTrue(Exit.isFailure(died) && Cause.hasDies(died.cause))
          const { handler, started } = yield* gated
          const fiber = yield* Effect.forkChild(tracker.once(key, handler))
          yield* started
          yield* Fiber.interrupt(fiber)
          assert.strictEqual((yield* tracker.once(key, Effect.void))._tag, "Processed")
        })
      )
    )

    it.effect("answers InFlight, or fails, where the policy says so", () =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          const { handler, open, started } = yield* gated
          const fiber = yield* Effect.forkChild(tracker.once(key, handler))
          yield* started
          assert.deepStrictEqual(yield* tracker.once(key, Effect.void, { whenInFlight: "skip" }), {
            _tag: "InFlight",
            until: 30_000
          })
          const refused = yield* Effect.flip(tracker.once(key, Effect.void, { whenInFlight: "fail" }))
          assert.strictEqual(refused._tag, "InFlightElsewhere")
          yield* open
          yield* Fiber.join(fiber)
        })
      )
    )

    it.effect("waits no longer than it is told to", () =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          const { handler, started } = yield* gated
          yield* Effect.forkChild(tracker.once(key, handler))
          yield* started
          const waiting = yield* Effect.forkChild(
            Effect.flip(tracker.once(key, Effect.void, { waitAtMost: "5 seconds" }))
          )
          yield* TestClock.adjust("4 seconds")
          assert.isUndefined(waiting.pollUnsafe())
          yield* TestClock.adjust("2 seconds")
          assert.strictEqual((yield* Fiber.join(waiting))._tag, "InFlightElsewhere")
        })
      )
    )

    it.effect("renews the lease while a long handler runs", () =>
      withTracker((tracker, faults) =>
        Effect.gen(function* () {
          const { handler, open, runs, started } = yield* gated
          const fiber = yield* Effect.forkChild(tracker.once(key, handler))
          yield* started
          yield* TestClock.adjust("5 minutes")
          assert.isAtLeast(faults.calls.get("renew") ?? 0, 25)
          assert.strictEqual(
            (yield* tracker.once(key, Effect.void, { whenInFlight: "skip" }))._tag,
            "InFlight"
          )
          yield* open
          assert.strictEqual((yield* Fiber.join(fiber))._tag, "Processed")
          assert.strictEqual(yield* runs, 1)
        })
      )
    )

    it.effect(
      "interrupts the handler and fails with LeaseLost when the store can't be reached for a lease",
      () =>
        withTracker((tracker, faults) =>
          Effect.gen(function* () {
            const interrupted = yield* Deferred.make<void>()
            const started = yield* Deferred.make<void>()
            const handler = Deferred.succeed(started, undefined).pipe(
              Effect.andThen(Effect.never),
              Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
            )
            const fiber = yield* Effect.forkChild(Effect.flip(tracker.once(key, handler)))
            yield* Deferred.await(started)
            faults.failBefore.set("renew", Number.POSITIVE_INFINITY)
            yield* TestClock.adjust("29 seconds")
            assert.isUndefined(fiber.pollUnsafe())
            yield* TestClock.adjust("1 seconds")
            yield* Deferred.await(interrupted)
            const error = yield* Fiber.join(fiber)
            assert.strictEqual(error._tag, "LeaseLost")
            assert.isAtLeast(faults.calls.get("renew") ?? 0, 3)
          })
        )
    )

    it.effect("marks again when the answer to the mark was lost, without running again", () =>
      withTracker((tracker, faults) =>
        Effect.gen(function* () {
          let runs = 0
          faults.failAfter.set("complete", 2)
          const fiber = yield* Effect.forkChild(
            tracker.once(
              key,
              Effect.sync(() => ++runs)
            )
          )
          yield* TestClock.adjust("5 seconds")
          assert.strictEqual((yield* Fiber.join(fiber))._tag, "Processed")
          assert.strictEqual(runs, 1)
          assert.isTrue(yield* tracker.isProcessed(key))
        })
      )
    )

    it.effect(
      "does not give the claim back when the mark can't be made: it runs again after the lease only",
      () =>
        withTracker((tracker, faults) =>
          Effect.gen(function* () {
            faults.failBefore.set("complete", Number.POSITIVE_INFINITY)
            const fiber = yield* Effect.forkChild(Effect.flip(tracker.once(key, Effect.void)))
            yield* TestClock.adjust("30 seconds")
            assert.strictEqual((yield* Fiber.join(fiber))._tag, "StoreError")
            assert.strictEqual(faults.calls.get("release") ?? 0, 0)
          })
        )
    )

    it.effect("fails, runs unprotected, or waits when the store fails, as the policy says", () =>
      withTracker((tracker, faults) =>
        Effect.gen(function* () {
          faults.failBefore.set("claim", 1)
          assert.strictEqual((yield* Effect.flip(tracker.once(key, Effect.void)))._tag, "StoreError")

          const before = (yield* Metric.value(Metrics.unprotectedRuns)).count
          faults.failBefore.set("claim", 1)
          const ran = yield* tracker.once(key, Effect.succeed("ran"), { whenStoreFails: "run" })
          assert.deepStrictEqual(ran, { _tag: "Processed", value: "ran" })
          assert.strictEqual((yield* Metric.value(Metrics.unprotectedRuns)).count, before + 1)
          assert.isFalse(yield* tracker.isProcessed(key))

          faults.failBefore.set("claim", 5)
          const fiber = yield* Effect.forkChild(tracker.once(key, Effect.void, { whenStoreFails: "wait" }))
          yield* TestClock.adjust("10 seconds")
          assert.strictEqual((yield* Fiber.join(fiber))._tag, "Processed")
        })
      )
    )

    it.effect("hands the handler its claim, with a token that grows", () =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          const first = yield* Effect.flip(tracker.once(key, (claim) => Effect.fail(claim)))
          const second = yield* tracker.once(key, (claim) => Effect.succeed(claim))
          assert.isTrue("token" in first && second._tag === "Processed")
          if (!("token" in first) || second._tag !== "Processed") return
          assert.isAbove(second.value.token as number, first.token as number)
          assert.notStrictEqual(second.value.claimId, first.claimId)
        })
      )
    )

    it.effect("is marked by markProcessed, which tells whether that was news", () =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          assert.isTrue(yield* tracker.markProcessed(key))
          assert.isFalse(yield* tracker.markProcessed(key))
          assert.strictEqual((yield* tracker.once(key, Effect.die("must not run")))._tag, "Duplicate")
        })
      )
    )
  })
}

describe("results and fingerprints", () => {
  const Receipt = Schema.Struct({ amount: Schema.Number, at: Schema.Date })

  it.effect("a result is kept, and given to later askers", () =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        const receipt = { amount: 12.5, at: new Date(0) }
        const key = Key.id("payment-1")
        yield* tracker.once(key, Effect.succeed(receipt), { result: Receipt })
        const again = yield* tracker.once(key, Effect.die("must not run"), { result: Receipt })
        assert.deepStrictEqual(again, { _tag: "Duplicate", value: receipt })
      })
    )
  )

  it.effect("a stored result that can't be read is an error that names the key", () =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        const key = Key.id("payment-2")
        yield* tracker.once(key, Effect.succeed("text"), { result: Schema.String })
        const error = yield* Effect.flip(tracker.once(key, Effect.succeed(1), { result: Schema.Number }))
        assert.strictEqual(error._tag, "InvalidInput")
        assert.include(error.message, "payment-2")
      })
    )
  )

  it.effect("the same id with another payload is a PayloadMismatch, while it runs and after", () =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        const key = Key.id("payment-3")
        const inner = yield* tracker.once(
          key,
          Effect.flip(tracker.once(key, Effect.void, { fingerprint: "other" })),
          { fingerprint: "one" }
        )
        assert.isTrue(inner._tag === "Processed" && inner.value._tag === "PayloadMismatch")
        const after = yield* Effect.flip(tracker.once(key, Effect.void, { fingerprint: "other" }))
        assert.strictEqual(after._tag, "PayloadMismatch")
        assert.strictEqual((yield* tracker.once(key, Effect.void, { fingerprint: "one" }))._tag, "Duplicate")
      })
    )
  )
})
