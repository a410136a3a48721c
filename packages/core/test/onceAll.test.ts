import { assert, describe, it } from "@effect/vitest"
import { Key } from "@tidemark/core"
import { Cause, Deferred, Effect, Exit, Fiber, Schema } from "effect"
import { TestClock } from "effect/testing"
import { withTracker } from "./trackers.ts"

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
