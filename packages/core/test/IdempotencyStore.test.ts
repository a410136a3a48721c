import { assert, describe, it } from "@effect/vitest"
import { IdempotencyStore } from "@tidemark/core"
import { Effect } from "effect"
import * as ModelStore from "./ModelStore.ts"

const tooLong = "x".repeat(1_025)
const tags = (answers: ReadonlyArray<string | { readonly _tag: string }>) =>
  answers.map((answer) => (typeof answer === "string" ? answer : answer._tag))

describe("A key that can't be one", () => {
  const claimed = Effect.gen(function* () {
    const store = yield* IdempotencyStore
    const terms = { claimId: "c", owner: "o", leaseMillis: 1_000 }
    const answers = yield* store.claim("n", [{ key: "a" }, { key: "" }, { key: "b" }], terms)
    assert.deepStrictEqual(tags(answers), ["Claimed", "Invalid", "Claimed"])
    return { store, ref: { namespace: "n", claimId: "c" } }
  })

  it.effect("is answered Invalid by complete and lookup; the others are done", () =>
    Effect.gen(function* () {
      const { ref, store } = yield* claimed
      const answers = yield* store.complete(ref, [{ key: tooLong }, { key: "a" }, { key: "\ud800" }])
      assert.deepStrictEqual(tags(answers), ["Invalid", "Completed", "Invalid"])
      const statuses = yield* store.lookup("n", ["b", "", "a"])
      assert.deepStrictEqual(tags(statuses), ["InFlight", "Invalid", "Completed"])
      const [bad] = yield* store.complete(ref, [{ key: "" }])
      assert.isTrue(typeof bad === "object" && bad.error.field === "key")
    }).pipe(Effect.provide(ModelStore.layer))
  )

  it.effect("fails release and forget, which have no answer for it, after the others are done", () =>
    Effect.gen(function* () {
      const { ref, store } = yield* claimed
      const released = yield* Effect.flip(store.release(ref, ["", "a"]))
      assert.strictEqual(released._tag, "InvalidInput")
      assert.deepStrictEqual(tags(yield* store.lookup("n", ["a", "b"])), ["Unknown", "InFlight"])
      yield* store.complete(ref, [{ key: "b" }])
      const forgotten = yield* Effect.flip(store.forget("n", ["b", "\ud800"]))
      assert.strictEqual(forgotten._tag, "InvalidInput")
      assert.deepStrictEqual(tags(yield* store.lookup("n", ["b"])), ["Unknown"])
    }).pipe(Effect.provide(ModelStore.layer))
  )

  it.effect("sends nothing where no other key is given", () =>
    Effect.gen(function* () {
      const store = yield* IdempotencyStore
      const { calls } = yield* ModelStore.Faults
      const ref = { namespace: "n", claimId: "c" }
      yield* store.complete(ref, [{ key: "" }])
      yield* store.lookup("n", [tooLong])
      yield* Effect.flip(store.release(ref, [""]))
      yield* Effect.flip(store.forget("n", [""]))
      assert.strictEqual(calls.size, 0)
    }).pipe(Effect.provide(ModelStore.layer))
  )
})
