import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Random } from "effect"
import { TestClock } from "effect/testing"
import { InvalidInput, StoreError } from "../src/Errors.ts"
import * as Patience from "../src/Patience.ts"

/** How long it takes, in steps of a millisecond, with the chance as given. */
const millisOf = (wait: Effect.Effect<unknown, unknown>, chance: number) =>
  Effect.gen(function* () {
    const random = { nextDoubleUnsafe: () => chance, nextIntUnsafe: () => 0 }
    const fiber = yield* Effect.forkChild(Effect.exit(Effect.provideService(wait, Random.Random, random)), {
      startImmediately: true
    })
    let millis = 0
    for (; fiber.pollUnsafe() === undefined && millis < 10_000; millis++) yield* TestClock.adjust(1)
    return millis
  })

const soon = 1 - 2 ** -53

describe("untilWorthAsking", () => {
  it.effect("pauses 50 to 100 ms at first, 500 to 1,000 ms later", () =>
    Effect.gen(function* () {
      const wait = (attempt: number) => Patience.untilWorthAsking(Effect.never, attempt, 1e15)
      assert.deepStrictEqual([yield* millisOf(wait(0), 0), yield* millisOf(wait(0), soon)], [50, 100])
      assert.deepStrictEqual(
        [yield* millisOf(wait(1_000), 0), yield* millisOf(wait(1_000), soon)],
        [500, 1_000]
      )
    })
  )

  it.effect("ends with the hint, with the lease, and with patience", () =>
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      assert.strictEqual(yield* millisOf(Patience.untilWorthAsking(Effect.sleep(7), 9, now + 5_000), soon), 7)
      const later = yield* Clock.currentTimeMillis
      assert.strictEqual(yield* millisOf(Patience.untilWorthAsking(Effect.never, 9, later + 12), soon), 12)
      assert.strictEqual(yield* millisOf(Patience.untilWorthAsking(Effect.never, 9, 1e15, 30), soon), 30)
    })
  )

  it.effect("does not ask without a pause where the lease is over by our clock, and not by the store's", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust(60_000)
      const wait = (attempt: number) => Patience.untilWorthAsking(Effect.never, attempt, 1_000)
      assert.strictEqual(yield* millisOf(wait(0), 0), 50)
      assert.strictEqual(yield* millisOf(wait(9), 0), 500)
    })
  )
})

describe("retryUntil", () => {
  const failure = new StoreError({
    store: "test",
    verb: "claim",
    reason: "Timeout",
    detail: "no answer",
    retriable: true
  })

  it.effect("asks until it succeeds, and tells how often was asked before", () =>
    Effect.gen(function* () {
      const asked: Array<number> = []
      const fiber = yield* Effect.forkChild(
        Patience.retryUntil(
          (attempt) => {
            asked.push(attempt)
            return attempt < 3 ? Effect.fail(failure) : Effect.succeed("answer")
          },
          () => Number.POSITIVE_INFINITY
        )
      )
      yield* TestClock.adjust(100 + 200 + 400)
      assert.strictEqual(yield* Fiber.join(fiber), "answer")
      assert.deepStrictEqual(asked, [0, 1, 2, 3])
    })
  )

  it.effect("gives up before the deadline with what came last, and follows a deadline that moves", () =>
    Effect.gen(function* () {
      const clock = yield* Clock.Clock
      const start = Patience.monotonicMillis(clock)
      let deadline = start + 2_000
      const asked: Array<number> = []
      const ask = Effect.suspend(() => {
        asked.push(Patience.monotonicMillis(clock) - start)
        if (asked.length === 3) deadline = start + 4_000
        return Effect.fail(failure)
      })
      const fiber = yield* Effect.forkChild(
        Effect.flip(
          Patience.retryUntil(
            () => ask,
            () => deadline
          )
        )
      )
      yield* TestClock.adjust(1_999)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(2_001)
      assert.strictEqual(yield* Fiber.join(fiber), failure)
      assert.isBelow(asked.at(-1) as number, 4_000)
      assert.isAbove(asked.at(-1) as number, 3_000 - 1)
    })
  )

  it.effect("does not ask again what can't succeed", () =>
    Effect.gen(function* () {
      let asked = 0
      const invalid = new InvalidInput({ field: "stream", value: "", allowed: "1 to 1,024 bytes" })
      const error = yield* Effect.flip(
        Patience.retryUntil(
          () => {
            asked++
            return Effect.fail(invalid)
          },
          () => Number.POSITIVE_INFINITY
        )
      )
      assert.strictEqual(error, invalid)
      assert.strictEqual(asked, 1)
    })
  )
})
