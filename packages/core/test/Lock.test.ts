import { assert, describe, it } from "@effect/vitest"
import { Lock, type LockOptions } from "@tidemark/core"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as ModelStore from "./ModelStore.ts"

const withLock = <A, E>(
  body: (lock: Lock["Service"], faults: ModelStore.Faults["Service"]) => Effect.Effect<A, E, Lock>
) =>
  Effect.gen(function* () {
    return yield* body(yield* Lock, yield* ModelStore.Faults)
  }).pipe(Effect.provide(ModelStore.layer))

describe("Lock", () => {
  it.effect("lets one in at a time, first come, first served", () =>
    withLock((lock) =>
      Effect.gen(function* () {
        const order: Array<number> = []
        let inside = 0
        const fibers = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, index) => index),
          (index) =>
            Effect.forkChild(
              lock.withLock("l")(
                Effect.gen(function* () {
                  inside += 1
                  assert.strictEqual(inside, 1)
                  order.push(index)
                  yield* Effect.sleep("10 millis")
                  inside -= 1
                })
              ),
              { startImmediately: true }
            )
        )
        yield* TestClock.adjust("1 seconds")
        yield* Effect.forEach(fibers, Fiber.join)
        assert.deepStrictEqual(
          order,
          Array.from({ length: 20 }, (_, index) => index)
        )
      })
    )
  )

  it.effect("is renewed while it is held, and lost when it can't be", () =>
    withLock((lock, faults) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(
          Effect.flip(lock.withLock("l", { lease: "3 seconds" })(Effect.never))
        )
        yield* TestClock.adjust("1 minutes")
        assert.isUndefined(fiber.pollUnsafe())
        faults.failBefore.set("renew", Number.POSITIVE_INFINITY)
        yield* TestClock.adjust("3 seconds")
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "LeaseLost")
      })
    )
  )

  it.effect("acquire holds it until the Scope closes, and tells of its loss", () =>
    withLock((lock, faults) =>
      Effect.gen(function* () {
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* lock.acquire("l")
            const refused = yield* Effect.flip(Effect.scoped(lock.acquire("l", { wait: 0 })))
            assert.strictEqual(refused._tag, "InFlightElsewhere")
          })
        )
        yield* Effect.scoped(
          Effect.gen(function* () {
            const held = yield* lock.acquire("l", { wait: 0, lease: "3 seconds" })
            const watching = yield* Effect.forkChild(Effect.flip(held.lost))
            faults.failBefore.set("renew", Number.POSITIVE_INFINITY)
            yield* TestClock.adjust("3 seconds")
            assert.strictEqual((yield* Fiber.join(watching))._tag, "LeaseLost")
          })
        )
      })
    )
  )

  it.effect.each([
    ["", {}, "lock name"],
    ["l", { lease: 0 }, "lease"],
    ["l", { wait: -1 }, "wait"],
    ["l", { wait: Number.NaN }, "wait"],
    ["l", { owner: "" }, "owner"],
    ["l", { lise: 1 }, "option of the lock"]
  ] as const)("withLock(%j, %j) is refused, naming %s", ([name, options, field]) =>
    withLock((lock) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(lock.withLock(name, options as LockOptions)(Effect.void))
        assert.isTrue(error._tag === "InvalidInput" && error.field === field, error.message)
      })
    )
  )
})
