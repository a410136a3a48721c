import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { IdempotencyStore, Lock, OffsetRanges, OffsetStore } from "@tidemark/core"
import { SqliteStore } from "@tidemark/store-sqlite"
import { Context, Deferred, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { temporaryFolder } from "./files.ts"

const terms = (claimId: string) => ({ claimId, owner: claimId, leaseMillis: 600_000 })

/** Two layers on one file: as two processes have them. */
const two = Effect.gen(function* () {
  const filename = join(yield* temporaryFolder, "two.db")
  const build = Layer.build(Layer.fresh(SqliteStore.layer({ filename, synchronous: "normal" })))
  const [a, b] = [yield* build, yield* build]
  return {
    keys: [Context.get(a, IdempotencyStore), Context.get(b, IdempotencyStore)],
    offsets: [Context.get(a, OffsetStore), Context.get(b, OffsetStore)],
    locks: [Context.get(a, Lock), Context.get(b, Lock)]
  } as const
})

const waiting = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

describe("waiting for what another process holds", () => {
  it.effect("a key: ends soon after it is completed, given back or forgotten there", () =>
    Effect.gen(function* () {
      const { keys } = yield* two
      for (const settle of [
        keys[0].complete({ namespace: "n", claimId: "c" }, [{ key: "k" }], { retentionMillis: 1 }),
        keys[0].release({ namespace: "n", claimId: "c" }),
        keys[0].forget("n", ["k"])
      ]) {
        yield* keys[0].claim("n", [{ key: "k" }, { key: "other" }], terms("c"))
        const waiter = yield* waiting(keys[1].awaitSettled("n", "k"))
        // others commit, and it is not settled yet
        yield* keys[0].claim("m", [{ key: "x" }], terms("unrelated"))
        yield* TestClock.adjust("1 second")
        expect(waiter.pollUnsafe()).toBeUndefined()
        yield* settle
        yield* TestClock.adjust("50 millis")
        expect(waiter.pollUnsafe()?._tag).toBe("Success")
        yield* keys[0].forget("n", ["k", "other"])
        yield* TestClock.adjust("1 millis")
      }
    })
  )

  it.effect("a stream: ends soon after something of it has changed there", () =>
    Effect.gen(function* () {
      const { offsets } = yield* two
      yield* offsets[0].claim("s", OffsetRanges.openEnded(0), terms("c"))
      yield* offsets[0].claim("other", OffsetRanges.openEnded(0), terms("c"))
      const waiter = yield* waiting(offsets[1].awaitRelease("s"))
      yield* offsets[0].release({ stream: "other", claimId: "c" })
      yield* TestClock.adjust("1 second")
      expect(waiter.pollUnsafe()).toBeUndefined()
      yield* offsets[0].release({ stream: "s", claimId: "c" })
      yield* TestClock.adjust("50 millis")
      expect(waiter.pollUnsafe()?._tag).toBe("Success")
    })
  )

  it.effect("a lock: its waiter is soon next", () =>
    Effect.gen(function* () {
      const { locks } = yield* two
      const gate = yield* Deferred.make<void>()
      const first = yield* waiting(locks[0].withLock("l")(Deferred.await(gate)))
      const second = yield* waiting(locks[1].withLock("l")(Effect.succeed("mine")))
      yield* TestClock.adjust("10 seconds")
      expect(second.pollUnsafe()).toBeUndefined()
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(first)
      yield* TestClock.adjust("50 millis")
      expect(yield* Fiber.join(second)).toBe("mine")
    })
  )

  it.effect(
    "ends at once where there is nothing to wait for, and leaves nothing behind when interrupted",
    () =>
      Effect.gen(function* () {
        const { keys, offsets } = yield* two
        yield* keys[1].awaitSettled("n", "unknown")
        yield* offsets[1].awaitRelease("unknown")
        yield* keys[0].claim("n", [{ key: "k" }], terms("c"))
        yield* Fiber.interrupt(yield* waiting(keys[1].awaitSettled("n", "k")))
        const again = yield* waiting(keys[1].awaitSettled("n", "k"))
        yield* TestClock.adjust("100 millis")
        expect(again.pollUnsafe()).toBeUndefined()
        yield* keys[0].release({ namespace: "n", claimId: "c" })
        yield* TestClock.adjust("50 millis")
        expect(again.pollUnsafe()?._tag).toBe("Success")
      })
  )
})
