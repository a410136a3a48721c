/** Handlers that complete their claim themselves, as in one transaction with their own writes. */
import { describe, expect, it } from "@effect/vitest"
import {
  type HandlerClaim,
  IdempotencyStore,
  Key,
  makeTracker,
  OffsetRanges,
  OffsetStore,
  Tracker,
  withClaim
} from "@tidemark/core"
import { Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as ModelStore from "./ModelStore.ts"

const stores = ModelStore.layer
const trackers = Tracker.layer({ namespace: "n" }).pipe(Layer.provideMerge(stores))

/** What a transaction does: completes the claim, and says so. */
const settleSelf = ({ key, noteCompleted, ref }: HandlerClaim) =>
  Effect.gen(function* () {
    if ("stream" in ref && key._tag === "Offset") {
      yield* (yield* OffsetStore).complete(ref, OffsetRanges.of(key.offset))
    } else if ("namespace" in ref && key._tag === "Id") {
      yield* (yield* IdempotencyStore).complete(ref, [{ key: key.id }])
    }
    noteCompleted()
  })

describe.each([
  { what: "an id", key: Key.id("a") },
  { what: "an id with a namespace of its own", key: Key.id("a", { namespace: "m" }) },
  { what: "a position", key: Key.offset("s", 7) }
])("once, for $what", ({ key }) => {
  it.effect("asks the store for nothing more when the handler has completed its key", () =>
    Effect.gen(function* () {
      const tracker = yield* Tracker
      const { calls } = yield* ModelStore.Faults
      const first = yield* tracker.once(key, (claim) => Effect.as(settleSelf(claim), "done"))
      expect(first).toEqual({ _tag: "Processed", value: "done" })
      expect(calls.get("complete") ?? calls.get("completeOffset")).toBe(1)
      expect(yield* tracker.once(key, () => Effect.die("again"))).toMatchObject({ _tag: "Duplicate" })
    }).pipe(Effect.provide(trackers))
  )

  it.effect("loses no lease any more, however long the handler goes on", () =>
    Effect.gen(function* () {
      const tracker = yield* Tracker
      const running = yield* Effect.forkChild(
        tracker.once(key, (claim) =>
          Effect.as(Effect.andThen(settleSelf(claim), Effect.sleep("5 minutes")), "done")
        ),
        { startImmediately: true }
      )
      yield* TestClock.adjust("5 minutes")
      expect(yield* Fiber.join(running)).toEqual({ _tag: "Processed", value: "done" })
    }).pipe(Effect.provide(trackers))
  )

  it.effect("stays completed when the handler fails afterwards", () =>
    Effect.gen(function* () {
      const tracker = yield* Tracker
      const error = yield* Effect.flip(
        tracker.once(key, (claim) => Effect.andThen(settleSelf(claim), Effect.fail("late" as const)))
      )
      expect(error).toBe("late")
      expect(yield* tracker.isProcessed(key)).toBe(true)
    }).pipe(Effect.provide(trackers))
  )
})

describe("onceAll", () => {
  it.effect.each([1, 4])("completes what the handlers did not, %s at a time", (concurrency) =>
    Effect.gen(function* () {
      const tracker = yield* Tracker
      const { calls } = yield* ModelStore.Faults
      const ids = ["a", "b", "c", "d"]
      const outcomes = yield* tracker.onceAll(
        ids,
        (id) => Key.id(id),
        (id, claim) => (id === "a" || id === "c" ? settleSelf(claim) : Effect.void),
        { concurrency }
      )
      expect(outcomes.map(({ _tag }) => _tag)).toEqual(ids.map(() => "Processed"))
      // two of the handlers' own, and one for the others
      expect(calls.get("complete")).toBe(3)
      for (const id of ids) expect(yield* tracker.isProcessed(Key.id(id))).toBe(true)
    }).pipe(Effect.provide(trackers))
  )

  it.effect("loses no lease any more when all is completed", () =>
    Effect.gen(function* () {
      const tracker = yield* Tracker
      const running = yield* Effect.forkChild(
        tracker.onceAll(
          ["a", "b"],
          (id) => Key.id(id),
          (_, claim) => Effect.andThen(settleSelf(claim), Effect.sleep("5 minutes")),
          { concurrency: 2 }
        ),
        { startImmediately: true }
      )
      yield* TestClock.adjust("5 minutes")
      expect((yield* Fiber.join(running)).map(({ _tag }) => _tag)).toEqual(["Processed", "Processed"])
    }).pipe(Effect.provide(trackers))
  )
})

describe("withClaim", () => {
  it.effect("loses no lease on positions or keys that were completed otherwise", () =>
    Effect.gen(function* () {
      const offsets = yield* OffsetStore
      const keys = yield* IdempotencyStore
      const ranges = OffsetRanges.make(0, 5)
      const positions = withClaim({ stream: "s", ranges, owner: "w" }, (claim) =>
        Effect.gen(function* () {
          yield* offsets.complete({ stream: claim.stream, claimId: claim.claimId }, ranges)
          claim.noteCompleted(ranges)
          yield* Effect.sleep("5 minutes")
        })
      )
      const ids = withClaim({ namespace: "n", items: [{ key: "a" }], owner: "w" }, (claim) =>
        Effect.gen(function* () {
          yield* keys.complete({ namespace: claim.namespace, claimId: claim.claimId }, [{ key: "a" }])
          claim.noteCompleted(["a"])
          yield* Effect.sleep("5 minutes")
        })
      )
      const running = yield* Effect.forkChild(Effect.all([positions, ids], { concurrency: 2 }), {
        startImmediately: true
      })
      yield* TestClock.adjust("5 minutes")
      yield* Fiber.join(running)
    }).pipe(Effect.provide(stores))
  )
})

describe("makeTracker", () => {
  it("hands the same on to plain handlers", async () => {
    const tracker = await makeTracker({ store: stores, namespace: "n" })
    const outcome = await tracker.once("a", ({ key, ref, noteCompleted }) => {
      noteCompleted()
      return [key, "namespace" in ref && ref.namespace]
    })
    expect(outcome).toEqual({ _tag: "Processed", value: [Key.id("a"), "n"] })
    // nobody has completed it: we were told that somebody had
    expect(await tracker.isProcessed("a")).toBe(false)
    await tracker.close()
  })
})
