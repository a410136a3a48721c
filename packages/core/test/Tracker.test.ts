import { assert, describe, it } from "@effect/vitest"
import { Key, Metrics, type OffsetStore, Tracker } from "@tidemark/core"
import { Cause, ConfigProvider, Deferred, Effect, Exit, Fiber, Layer, Metric, Ref, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as ModelStore from "./ModelStore.ts"

const live = Tracker.layer({ namespace: "test", lease: "30 seconds" }).pipe(
  Layer.provideMerge(ModelStore.layer)
)
const withTracker = <A, E>(
  body: (
    tracker: Tracker["Service"],
    faults: ModelStore.Faults["Service"]
  ) => Effect.Effect<A, E, Tracker | OffsetStore>
) =>
  Effect.gen(function* () {
    return yield* body(yield* Tracker, yield* ModelStore.Faults)
  }).pipe(Effect.provide(live))

const keys = [
  ["a position", Key.offset("orders/0", 42)],
  ["an id", Key.id("order-4711")]
] as const

/** A handler that waits until the test lets it go on. */
const gated = Effect.gen(function* () {
  const started = yield* Deferred.make<void>()
  const gate = yield* Deferred.make<void>()
  const runs = yield* Ref.make(0)
  const handler = Ref.update(runs, (count) => count + 1).pipe(
    Effect.andThen(Deferred.succeed(started, undefined)),
    Effect.andThen(Deferred.await(gate))
  )
  return {
    started: Deferred.await(started),
    open: Deferred.succeed(gate, undefined),
    runs: Ref.get(runs),
    handler
  }
})

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

describe("onceAll", () => {
  const numbers = (count: number) => Array.from({ length: count }, (_, index) => index)

  for (const [what, keyOf] of [
    ["positions", (item: number) => Key.offset("s", item)],
    ["ids", (item: number) => Key.id(`id-${item}`)],
    [
      "both, in several streams and namespaces",
      (item: number) =>
        item % 2 === 0
          ? Key.offset(`s${item % 3}`, item)
          : Key.id(`id-${item}`, { namespace: `n${item % 3}` })
    ]
  ] as const) {
    for (const concurrency of [1, 7]) {
      it.effect(`${what}, ${concurrency} at a time: each takes effect once, outcomes in order`, () =>
        withTracker((tracker) =>
          Effect.gen(function* () {
            const effects: Array<number> = []
            const handler = (item: number) => Effect.sync(() => effects.push(item) && item * 10)
            const first = yield* tracker.onceAll(numbers(50), keyOf, handler, { concurrency })
            assert.deepStrictEqual(
              first,
              numbers(50).map((item) => ({ _tag: "Processed", value: item * 10 }))
            )
            const second = yield* tracker.onceAll(numbers(60), keyOf, handler, { concurrency })
            assert.deepStrictEqual(
              second.map((outcome) => outcome._tag),
              numbers(60).map((item) => (item < 50 ? "Duplicate" : "Processed"))
            )
            assert.deepStrictEqual(
              effects.slice().sort((a, b) => a - b),
              numbers(60)
            )
          })
        )
      )
    }

    it.effect(`${what}: of equal keys the first runs`, () =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          const effects: Array<number> = []
          const fiber = yield* Effect.forkChild(
            tracker.onceAll([1, 2, 1, 2, 1], keyOf, (item) => Effect.sync(() => effects.push(item)))
          )
          yield* TestClock.adjust("2 seconds")
          const outcomes = yield* Fiber.join(fiber)
          assert.deepStrictEqual(
            outcomes.map((outcome) => outcome._tag),
            ["Processed", "Processed", "Duplicate", "Duplicate", "Duplicate"]
          )
          assert.deepStrictEqual(effects.slice().sort(), [1, 2])
        })
      )
    )

    it.effect(`${what}: an item that fails is Failed and free again, the others go their way`, () =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          const outcomes = yield* tracker.onceAll(numbers(5), keyOf, (item) =>
            item === 2 ? Effect.fail("bad") : Effect.succeed(item)
          )
          assert.deepStrictEqual(outcomes[2], { _tag: "Failed", error: "bad" })
          const again = yield* tracker.onceAll(numbers(5), keyOf, Effect.succeed)
          assert.deepStrictEqual(
            again.map((outcome) => outcome._tag),
            ["Duplicate", "Duplicate", "Processed", "Duplicate", "Duplicate"]
          )
        })
      )
    )

    it.effect(`${what}: interrupted in the middle, what ran is marked and the rest is free`, () =>
      withTracker((tracker) =>
        Effect.gen(function* () {
          const started = yield* Deferred.make<void>()
          const fiber = yield* Effect.forkChild(
            tracker.onceAll([0, 2, 4, 6], keyOf, (item) =>
              item === 4 ? Effect.andThen(Deferred.succeed(started, undefined), Effect.never) : Effect.void
            )
          )
          yield* Deferred.await(started)
          yield* Fiber.interrupt(fiber)
          const again = yield* tracker.onceAll([0, 2, 4, 6], keyOf, () => Effect.void, {
            whenInFlight: "fail"
          })
          for (const [index, item] of [0, 2, 4, 6].entries()) {
            const key = keyOf(item)
            // groups are done one after another: with several, what comes before in its own group counts
            const ranBefore = key._tag === "Id" || key.stream === "s" || key.stream === "s1" ? item < 4 : true
            if (what !== "both, in several streams and namespaces") {
              assert.strictEqual(again[index]._tag, ranBefore ? "Duplicate" : "Processed", `item ${item}`)
            } else {
              assert.include(["Duplicate", "Processed"], again[index]._tag)
            }
          }
        })
      )
    )
  }

  for (const whenInFlight of ["wait", "fail", "skip"] as const) {
    for (const [what, keyOf] of [
      ["a position", (item: string) => Key.offset(`s${item}`, 1)],
      ["an id", (item: string) => Key.id(item)]
    ] as const) {
      it.effect(`${what} that comes again is a Duplicate at once, under ${whenInFlight}`, () =>
        withTracker((tracker) =>
          Effect.gen(function* () {
            const effects: Array<string> = []
            const outcomes = yield* tracker.onceAll(
              ["a", "b", "a", "a", "b"],
              keyOf,
              (item) => Effect.sync(() => effects.push(item)),
              { whenInFlight }
            )
            assert.deepStrictEqual(
              outcomes.map((outcome) => outcome._tag),
              ["Processed", "Processed", "Duplicate", "Duplicate", "Duplicate"]
            )
            assert.deepStrictEqual(effects, ["a", "b"])
          })
        )
      )

      it.effect(`${what} that comes again shares the failure of the first, under ${whenInFlight}`, () =>
        withTracker((tracker) =>
          Effect.gen(function* () {
            let attempts = 0
            const failing = Effect.suspend(() => Effect.fail(`attempt ${++attempts}`))
            const outcomes = yield* tracker.onceAll(["a", "a"], keyOf, () => failing, { whenInFlight })
            const failed = { _tag: "Failed" as const, error: "attempt 1" }
            assert.deepStrictEqual(outcomes, [failed, failed])
            assert.strictEqual((yield* tracker.once(keyOf("a"), Effect.void))._tag, "Processed")
          })
        )
      )
    }
  }

  it.effect("what comes again gets the stored result, as any other duplicate", () =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        const at = new Date(0)
        const outcomes = yield* tracker.onceAll(
          ["a", "a"],
          (item) => Key.id(item),
          () => Effect.succeed({ at }),
          { result: Schema.Struct({ at: Schema.Date }) }
        )
        assert.deepStrictEqual(outcomes, [
          { _tag: "Processed", value: { at } },
          { _tag: "Duplicate", value: { at } }
        ])
      })
    )
  )

  it.effect("what comes again while another holds it waits, and runs once", () =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        const holding = yield* Effect.forkChild(tracker.once(Key.id("a"), Effect.sleep(500)), {
          startImmediately: true
        })
        let runs = 0
        const fiber = yield* Effect.forkChild(
          tracker.onceAll(
            ["b", "a", "a"],
            (item) => Key.id(item),
            () => Effect.sync(() => ++runs)
          )
        )
        yield* TestClock.adjust("3 seconds")
        yield* Fiber.join(holding)
        const outcomes = yield* Fiber.join(fiber)
        assert.deepStrictEqual(
          outcomes.map((outcome) => outcome._tag),
          ["Processed", "Duplicate", "Duplicate"]
        )
        assert.strictEqual(runs, 1)
      })
    )
  )

  it.effect("runs unprotected each key once, too", () =>
    withTracker((tracker, faults) =>
      Effect.gen(function* () {
        faults.failBefore.set("claim", 1)
        let runs = 0
        const outcomes = yield* tracker.onceAll(
          ["a", "b", "a"],
          (item) => Key.id(item),
          () => Effect.sync(() => ++runs),
          { whenStoreFails: "run" }
        )
        assert.deepStrictEqual(
          outcomes.map((outcome) => outcome._tag),
          ["Processed", "Processed", "Duplicate"]
        )
        assert.strictEqual(runs, 2)
      })
    )
  )

  it.effect("goes on after failures, however many, and after a handler that throws it does not", () =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        const keyOf = (item: number) => Key.offset("s", item)
        const outcomes = yield* tracker.onceAll(numbers(20_000), keyOf, (item) =>
          item % 2 === 0 ? Effect.fail(item) : Effect.void
        )
        assert.isTrue(
          outcomes.every((outcome, item) => outcome._tag === (item % 2 === 0 ? "Failed" : "Processed"))
        )
        const ran: Array<number> = []
        const exit = yield* Effect.exit(
          tracker.onceAll([0, 2, 4], keyOf, (item) => {
            if (item === 2) throw new Error("thrown")
            return Effect.sync(() => ran.push(item))
          })
        )
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
        assert.deepStrictEqual(ran, [0])
        assert.isTrue(yield* tracker.isProcessed(keyOf(0)))
        assert.strictEqual(
          (yield* tracker.once(keyOf(2), Effect.void, { whenInFlight: "fail" }))._tag,
          "Processed"
        )
      })
    )
  )

  it.effect("a bad item is Failed, and does not spoil the others", () =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        const items = [Key.id("good"), Key.id(""), Key.offset("s", -1), Key.offset("s", 3), Key.id("\ud800")]
        const outcomes = yield* tracker.onceAll(
          items,
          (key) => key,
          () => Effect.void
        )
        assert.deepStrictEqual(
          outcomes.map((outcome) => outcome._tag),
          ["Processed", "Failed", "Failed", "Processed", "Failed"]
        )
      })
    )
  )

  it.effect("two batches that hold each other's keys both come to an end", () =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        const runs: Array<string> = []
        const one = (name: string, items: ReadonlyArray<string>) =>
          tracker.onceAll(
            items,
            (item) => Key.id(item),
            (item) =>
              Effect.andThen(
                Effect.sleep("1 seconds"),
                Effect.sync(() => runs.push(`${name}:${item}`))
              )
          )
        const left = yield* Effect.forkChild(one("left", ["a", "b"]))
        const right = yield* Effect.forkChild(one("right", ["c", "a", "b"]))
        const third = yield* Effect.forkChild(one("third", ["b", "c", "a"]))
        yield* TestClock.adjust("1 minutes")
        yield* Effect.forEach([left, right, third], Fiber.join)
        assert.deepStrictEqual(runs.map((run) => run.split(":")[1]).sort(), ["a", "b", "c"])
      })
    )
  )

  it.effect("marks again when the answer to the mark was lost", () =>
    withTracker((tracker, faults) =>
      Effect.gen(function* () {
        faults.failAfter.set("complete", 1)
        const fiber = yield* Effect.forkChild(
          tracker.onceAll(numbers(5), (item) => Key.id(`${item}`), Effect.succeed)
        )
        yield* TestClock.adjust("5 seconds")
        const outcomes = yield* Fiber.join(fiber)
        assert.isTrue(outcomes.every((outcome) => outcome._tag === "Processed"))
      })
    )
  )
})

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
