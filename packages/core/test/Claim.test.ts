import { assert, describe, it } from "@effect/vitest"
import { IdempotencyStore, OffsetRanges, OffsetStore, withClaim } from "@tidemark/core"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as ModelStore from "./ModelStore.ts"

const ranges = OffsetRanges.make(0, 10)

describe("withClaim", () => {
  it.effect("releases what the work did not settle, also when it fails", () =>
    Effect.gen(function* () {
      const store = yield* OffsetStore
      yield* Effect.exit(
        withClaim({ stream: "s", ranges, owner: "w" }, (claim) =>
          Effect.andThen(claim.complete(OffsetRanges.make(0, 4)), Effect.fail("half way"))
        )
      )
      const progress = yield* store.progress("s")
      assert.strictEqual(progress?.watermark, 4)
      assert.deepStrictEqual(progress?.claims, [])
    }).pipe(Effect.provide(ModelStore.layer))
  )

  it.effect("tells what was granted, what was completed and what others hold", () =>
    Effect.gen(function* () {
      const store = yield* OffsetStore
      const terms = { claimId: "other", owner: "other", leaseMillis: 60_000 }
      yield* store.claim("s", OffsetRanges.make(0, 6), terms)
      yield* store.complete({ stream: "s", claimId: "other" }, OffsetRanges.make(0, 3))
      yield* withClaim({ stream: "s", ranges, owner: "w" }, (claim) =>
        Effect.sync(() => {
          assert.strictEqual(String(claim.granted), "[6,10)")
          assert.strictEqual(String(claim.completed), "[0,3)")
          assert.deepStrictEqual(
            claim.held.map((held) => [String(held.ranges), held.owner]),
            [["[3,6)", "other"]]
          )
        })
      )
    }).pipe(Effect.provide(ModelStore.layer))
  )

  it.effect("runs the work also where nothing was granted", () =>
    Effect.gen(function* () {
      const store = yield* OffsetStore
      yield* store.skip("s", ranges)
      const token = yield* withClaim({ stream: "s", ranges, owner: "w" }, (claim) =>
        Effect.succeed(claim.token)
      )
      assert.isUndefined(token)
    }).pipe(Effect.provide(ModelStore.layer))
  )

  it.effect("interrupts the work when an operator takes the claim away", () =>
    Effect.gen(function* () {
      const store = yield* OffsetStore
      const fiber = yield* Effect.forkChild(
        Effect.flip(withClaim({ stream: "s", ranges, owner: "w", lease: "9 seconds" }, () => Effect.never)),
        { startImmediately: true }
      )
      yield* store.rewind("s", 0)
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "LeaseLost")
    }).pipe(Effect.provide(ModelStore.layer))
  )

  it.effect("works on keys alike", () =>
    Effect.gen(function* () {
      const store = yield* IdempotencyStore
      const items = [{ key: "a" }, { key: "" }, { key: "b" }]
      const tags = yield* withClaim({ namespace: "n", items, owner: "w" }, (claim) =>
        Effect.as(
          claim.complete([{ key: "a" }]),
          claim.answers.map((answer) => answer._tag)
        )
      )
      assert.deepStrictEqual(tags, ["Claimed", "Invalid", "Claimed"])
      assert.deepStrictEqual(
        (yield* store.lookup("n", ["a", "b"])).map((status) => status._tag),
        ["Completed", "Unknown"]
      )
    }).pipe(Effect.provide(ModelStore.layer))
  )

  it.effect("refuses to complete, or skip, everything there will ever be", () =>
    Effect.gen(function* () {
      const store = yield* OffsetStore
      const all = OffsetRanges.openEnded(0)
      const error = yield* Effect.flip(
        withClaim({ stream: "s", ranges: all, owner: "w" }, (claim) => claim.complete(claim.granted))
      )
      assert.strictEqual(error._tag, "InvalidInput")
      assert.strictEqual((yield* Effect.flip(store.skip("s", all)))._tag, "InvalidInput")
      assert.strictEqual((yield* store.progress("s"))?.watermark, 0)
    }).pipe(Effect.provide(ModelStore.layer))
  )

  it.effect("refuses a bad lease before the store is asked", () =>
    Effect.gen(function* () {
      const faults = yield* ModelStore.Faults
      const error = yield* Effect.flip(
        withClaim({ stream: "s", ranges, owner: "w", lease: 0 }, () => Effect.void)
      )
      assert.strictEqual(error._tag, "InvalidInput")
      assert.strictEqual(faults.calls.size, 0)
    }).pipe(Effect.provide(ModelStore.layer))
  )
})
