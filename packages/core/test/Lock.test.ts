import { assert, describe, it } from "@effect/vitest"
import { type InFlightElsewhere, Lock, type LockOptions } from "@tidemark/core"
import { Deferred, Effect, Fiber } from "effect"
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

  it.effect("gives tokens that grow", () =>
    withLock((lock) =>
      Effect.gen(function* () {
        const token = lock.withLock("l")((held) => Effect.succeed(held.token))
        const first = yield* token
        const second = yield* token
        assert.isAbove(second, first)
      })
    )
  )

  it.effect("is free again after a failure, a defect and an interruption", () =>
    withLock((lock) =>
      Effect.gen(function* () {
        yield* Effect.exit(lock.withLock("l")(Effect.fail("x")))
        yield* Effect.exit(lock.withLock("l")(Effect.die("x")))
        const fiber = yield* Effect.forkChild(lock.withLock("l")(Effect.never), { startImmediately: true })
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* lock.withLock("l", { wait: 0 })(Effect.succeed("mine")), "mine")
      })
    )
  )

  it.effect("does not wait where it is told not to, nor longer than it is told to", () =>
    withLock((lock) =>
      Effect.gen(function* () {
        const holder = yield* Effect.forkChild(lock.withLock("l")(Effect.never), { startImmediately: true })
        const atOnce = yield* Effect.flip(lock.withLock("l", { wait: 0 })(Effect.void))
        assert.strictEqual((atOnce as InFlightElsewhere)._tag, "InFlightElsewhere")
        const later = yield* Effect.forkChild(
          Effect.flip(lock.withLock("l", { wait: "3 seconds" })(Effect.void))
        )
        yield* TestClock.adjust("3 seconds")
        assert.strictEqual((yield* Fiber.join(later))._tag, "InFlightElsewhere")
        yield* Fiber.interrupt(holder)
        assert.strictEqual(yield* lock.withLock("l", { wait: 0 })(Effect.succeed(1)), 1)
      })
    )
  )

  it.effect("an interrupted waiter leaves nothing behind, and does not lose another's turn", () =>
    withLock((lock) =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const holder = yield* Effect.forkChild(lock.withLock("l")(Deferred.await(gate)), {
          startImmediately: true
        })
        const impatient = yield* Effect.forkChild(lock.withLock("l")(Effect.void), { startImmediately: true })
        const patient = yield* Effect.forkChild(lock.withLock("l")(Effect.succeed("got it")), {
          startImmediately: true
        })
        yield* Fiber.interrupt(impatient)
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(holder)
        yield* TestClock.adjust("1 seconds")
        assert.strictEqual(yield* Fiber.join(patient), "got it")
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

  it.effect("50 tasks, 200 times each, never meet inside", () =>
    withLock((lock) =>
      Effect.gen(function* () {
        const inside = new Map<string, number>()
        let entered = 0
        const once = (name: string) =>
          lock.withLock(name)(
            Effect.gen(function* () {
              const others = inside.get(name) ?? 0
              inside.set(name, others + 1)
              yield* Effect.yieldNow
              assert.strictEqual(others, 0)
              entered += 1
              inside.set(name, 0)
            })
          )
        yield* Effect.forEach(
          Array.from({ length: 50 }, (_, task) => task),
          (task) =>
            Effect.forEach(Array.from({ length: 200 }), (_, round) => once(`lock-${(task + round) % 5}`), {
              discard: true
            }),
          { concurrency: "unbounded", discard: true }
        )
        assert.strictEqual(entered, 10_000)
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
