import { assert, describe, it } from "@effect/vitest"
import { Key, Metrics, Tracker } from "@tidemark/core"
import { ConfigProvider, Effect, Layer, Metric, Schema } from "effect"
import * as ModelStore from "./ModelStore.ts"
import { withTracker } from "./trackers.ts"

describe("bad input", () => {
  it.effect.each([
    [Key.id(""), "key"],
    [Key.id("x".repeat(1_025)), "key"],
    [Key.id("é".repeat(513)), "key"],
    [Key.id("\ud800"), "key"],
    [Key.id("fine", { namespace: "" }), "namespace"],
    [Key.offset("", 1), "stream"],
    [Key.offset("s", -1), "offset"],
    [Key.offset("s", 1.5), "offset"],
    [Key.offset("s", Number.NaN), "offset"],
    [Key.offset("s", Number.MAX_SAFE_INTEGER + 1), "offset"]
  ] as const)("%j is refused, naming %s, before the store is asked", ([key, field]) =>
    withTracker((tracker, faults) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(tracker.once(key, Effect.die("must not run")))
        assert.isTrue(error._tag === "InvalidInput" && error.field === field, error.message)
        assert.strictEqual(faults.calls.size, 0)
      })
    )
  )

  it.effect.each([
    [Key.id("x".repeat(1_024))],
    [Key.id("é".repeat(512))],
    [Key.offset("s", 0)],
    [Key.offset("s", Number.MAX_SAFE_INTEGER)]
  ] as const)("%j, just inside, is taken", ([key]) =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        assert.strictEqual((yield* tracker.once(key, Effect.void))._tag, "Processed")
      })
    )
  )

  it.effect.each([
    [{ lease: 0 }, "lease"],
    [{ lease: -1 }, "lease"],
    [{ lease: Number.NaN }, "lease"],
    [{ retention: 0 }, "retention"],
    [{ waitAtMost: -5 }, "waitAtMost"],
    [{ whenInFlight: "ignore" }, "whenInFlight"],
    [{ whenStoreFails: "shrug" }, "whenStoreFails"],
    [{ leese: 5 }, "option of the tracker"],
    [{ namespace: "" }, "namespace"],
    [{ owner: "" }, "owner"],
    [{ enabled: "yes" }, "enabled"]
  ])("the options %j are refused, naming %s", ([options, field]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Tracker.make(options as never))
      assert.strictEqual(error.field, field)
    }).pipe(Effect.provide(ModelStore.layer))
  )

  it.effect("an id without any namespace is refused, with what to do", () =>
    Effect.gen(function* () {
      const tracker = yield* Tracker.make()
      const error = yield* Effect.flip(tracker.once(Key.id("x"), Effect.void))
      assert.include(error.message, "Tracker.layer({ namespace })")
    }).pipe(Effect.provide(ModelStore.layer))
  )

  it.effect("a position keeps no result and has no fingerprint", () =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        const key = Key.offset("s", 1)
        const first = yield* Effect.flip(tracker.once(key, Effect.succeed("x"), { result: Schema.String }))
        const second = yield* Effect.flip(tracker.once(key, Effect.void, { fingerprint: "x" }))
        assert.deepStrictEqual([first._tag, second._tag], ["InvalidInput", "InvalidInput"])
      })
    )
  )
})

describe("switched off", () => {
  const off = Tracker.layerConfig({ namespace: "test" }).pipe(
    Layer.provideMerge(ModelStore.layer),
    Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ OFFSET_TRACKING_ENABLED: "false" })))
  )

  it.effect("handlers run unguarded, and each run is counted", () =>
    Effect.gen(function* () {
      const tracker = yield* Tracker
      const before = (yield* Metric.value(Metrics.unprotectedRuns)).count
      let runs = 0
      const handler = Effect.sync(() => ++runs)
      yield* tracker.once(Key.id("a"), handler)
      yield* tracker.once(Key.id("a"), handler)
      yield* tracker.onceAll(
        [1, 1],
        () => Key.id("a"),
        () => handler
      )
      assert.strictEqual(runs, 4)
      assert.strictEqual((yield* Metric.value(Metrics.unprotectedRuns)).count, before + 4)
    }).pipe(Effect.provide(off))
  )
})
