import { assert, describe, it } from "@effect/vitest"
import { IdempotencyStore, Key, type Lock, type OffsetStore, StoreError, Tracker } from "@tidemark/core"
import { MemoryStore, NearCache } from "@tidemark/store-memory"
import { idempotencyStoreSuite, lockSuite, offsetStoreSuite } from "@tidemark/testkit/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"

const near = MemoryStore.layer().pipe(NearCache.around())
offsetStoreSuite("MemoryStore behind a near cache", near, { clock: "test", durable: false })
idempotencyStoreSuite("MemoryStore behind a near cache", near, { clock: "test", durable: false })
lockSuite("MemoryStore behind a near cache", near, { clock: "test", durable: false })

const terms = (claimId: string) => ({ claimId, owner: claimId, leaseMillis: 30_000 })
const items = (...keys: ReadonlyArray<string>) => keys.map((key) => ({ key }))

/** A store whose verbs can be watched, and made to fail. */
class Watched extends Context.Service<
  Watched,
  {
    calls: Array<string>
    before: (verb: string) => Effect.Effect<void, StoreError>
    after: (verb: string) => Effect.Effect<void>
  }
>()("test/Watched") {}

const watched = Layer.effectContext(
  Effect.gen(function* () {
    const store = yield* IdempotencyStore
    const state: typeof Watched.Service = {
      calls: [],
      before: () => Effect.void,
      after: () => Effect.void
    }
    const seen = <A, E>(verb: string, call: Effect.Effect<A, E>) =>
      Effect.suspend(() => {
        state.calls.push(verb)
        return state.before(verb)
      }).pipe(
        Effect.andThen(call),
        Effect.tap(() => Effect.suspend(() => state.after(verb)))
      )
    return Context.make(
      IdempotencyStore,
      IdempotencyStore.of({
        ...store,
        claim: (...args) => seen("claim", store.claim(...args)),
        complete: (...args) => seen("complete", store.complete(...args)),
        lookup: (...args) => seen("lookup", store.lookup(...args)),
        forget: (...args) => seen("forget", store.forget(...args))
      })
    ).pipe(Context.add(Watched, state))
  })
)

/** The services of a near cache around a watched store, and that store itself, as another process has it. */
const opened = (options?: NearCache.NearCacheOptions) =>
  Effect.gen(function* () {
    const store = yield* Layer.build(watched.pipe(Layer.provideMerge(MemoryStore.layer())))
    const elsewhere = Context.get(store, IdempotencyStore)
    const here = yield* Layer.build(NearCache.around(options)(Layer.succeedContext(store)))
    const cache = Context.get(here, IdempotencyStore)
    const stats = Context.get(here, NearCache.NearCacheStats)
    const watch = Context.get(store, Watched)
    const claim = (key: string, fingerprint?: string) =>
      Effect.map(
        cache.claim("n", [{ key, fingerprint }], terms(`claim ${watch.calls.length} of ${key}`)),
        ([answer]) => answer
      )
    const complete = (
      key: string,
      options: { fingerprint?: string; result?: string; retentionMillis?: number } = {}
    ) =>
      Effect.gen(function* () {
        yield* cache.claim("n", [{ key, fingerprint: options.fingerprint }], terms(`first of ${key}`))
        yield* cache.complete(
          { namespace: "n", claimId: `first of ${key}` },
          [{ key, result: options.result }],
          {
            retentionMillis: options.retentionMillis
          }
        )
        watch.calls.length = 0
      })
    return { cache, claim, complete, elsewhere, stats, watch }
  })

describe("a near cache", () => {
  it.effect("answers for what was completed here, with its result, and asks nobody", () =>
    Effect.gen(function* () {
      const { cache, claim, complete, stats, watch } = yield* opened()
      yield* complete("a", { result: '{"paid":true}' })
      yield* complete("b")
      assert.deepStrictEqual(yield* claim("a"), { _tag: "Completed", result: '{"paid":true}' })
      assert.deepStrictEqual(yield* cache.claim("n", items("b", "a"), terms("both")), [
        { _tag: "Completed", result: undefined },
        { _tag: "Completed", result: '{"paid":true}' }
      ])
      assert.deepStrictEqual(watch.calls, [])
      assert.deepInclude(yield* stats.current, { hits: 3, misses: 2, hitRate: 0.6, size: 2, evictions: 0 })
    })
  )

  it.effect("hands a call over whole where it does not know every key of it", () =>
    Effect.gen(function* () {
      const { cache, complete, stats, watch } = yield* opened()
      yield* complete("a")
      const mixed = yield* cache.claim("n", items("a", "new"), terms("mixed"))
      assert.deepStrictEqual(
        mixed.map(({ _tag }) => _tag),
        ["Completed", "Claimed"]
      )
      // its answer was lost, say: the same claim, asked for again, is the same to the store
      assert.deepStrictEqual(yield* cache.claim("n", items("a", "new"), terms("mixed")), mixed)
      const reused = yield* Effect.flip(cache.claim("n", items("a"), terms("mixed")))
      assert.strictEqual(reused._tag, "ClaimIdReused")
      assert.deepStrictEqual(watch.calls, ["claim", "claim", "claim"])
      assert.deepInclude(yield* stats.current, { hits: 0, misses: 6 })
    })
  )

  it.effect("finds that an id came with another payload", () =>
    Effect.gen(function* () {
      const { claim, complete, watch } = yield* opened()
      yield* complete("a", { fingerprint: "f", result: "1" })
      assert.deepStrictEqual(yield* claim("a", "f"), { _tag: "Completed", result: "1" })
      assert.deepStrictEqual(yield* claim("a", "g"), { _tag: "Mismatch", fingerprint: "f" })
      assert.deepStrictEqual(watch.calls, [])
    })
  )

  it.effect("does not answer for what it did not see claimed, whose fingerprint it does not know", () =>
    Effect.gen(function* () {
      const { cache, claim, elsewhere, watch } = yield* opened()
      yield* elsewhere.claim("n", [{ key: "a", fingerprint: "f" }], terms("theirs"))
      yield* cache.complete({ namespace: "n", claimId: "theirs" }, items("a"))
      watch.calls.length = 0
      assert.strictEqual((yield* claim("a", "g"))._tag, "Mismatch")
      assert.deepStrictEqual(watch.calls, ["claim"])
    })
  )

  it.effect("answers until the retention ends, and not a millisecond longer", () =>
    Effect.gen(function* () {
      const { claim, complete, watch } = yield* opened()
      yield* complete("a", { retentionMillis: 60_000 })
      yield* TestClock.adjust(59_999)
      assert.strictEqual((yield* claim("a"))._tag, "Completed")
      assert.deepStrictEqual(watch.calls, [])
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* claim("a"))._tag, "Claimed")
    })
  )

  it.effect("counts the retention from before the store was asked to complete", () =>
    Effect.gen(function* () {
      const { cache, claim, watch } = yield* opened()
      yield* cache.claim("n", items("a"), terms("slow"))
      watch.before = (verb) => (verb === "complete" ? Effect.sleep(20_000) : Effect.void)
      const completing = yield* Effect.forkChild(
        cache.complete({ namespace: "n", claimId: "slow" }, items("a"), { retentionMillis: 60_000 })
      )
      yield* TestClock.adjust(20_000)
      yield* Fiber.join(completing)
      watch.calls.length = 0
      yield* TestClock.adjust(39_999)
      assert.strictEqual((yield* claim("a"))._tag, "Completed")
      assert.deepStrictEqual(watch.calls, [])
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* claim("a"))._tag, "Completed")
      assert.deepStrictEqual(watch.calls, ["claim"])
    })
  )

  it.effect(
    "asks the store again for what is older than maxAge, which bounds how long a forget elsewhere is missed",
    () =>
      Effect.gen(function* () {
        const { claim, complete, elsewhere } = yield* opened({ maxAge: "10 seconds" })
        yield* complete("a")
        yield* elsewhere.forget("n", ["a"])
        yield* TestClock.adjust(9_999)
        assert.strictEqual((yield* claim("a"))._tag, "Completed")
        yield* TestClock.adjust(1)
        assert.strictEqual((yield* claim("a"))._tag, "Claimed")
      })
  )

  it.effect("forgets what is forgotten here", () =>
    Effect.gen(function* () {
      const { cache, claim, complete } = yield* opened()
      yield* complete("a")
      assert.strictEqual(yield* cache.forget("n", ["a"]), 1)
      assert.strictEqual((yield* claim("a"))._tag, "Claimed")
    })
  )

  it.effect("forgets also what it learnt while the store was asked to forget", () =>
    Effect.gen(function* () {
      const { cache, claim, watch } = yield* opened()
      yield* cache.claim("n", items("a"), terms("of a"))
      const mayArrive = yield* Deferred.make<void>()
      watch.before = (verb) => (verb === "forget" ? Deferred.await(mayArrive) : Effect.void)
      const forgetting = yield* Effect.forkChild(cache.forget("n", ["a"]), { startImmediately: true })
      yield* cache.complete({ namespace: "n", claimId: "of a" }, items("a"))
      assert.strictEqual((yield* claim("a"))._tag, "Completed")
      yield* Deferred.succeed(mayArrive, undefined)
      assert.strictEqual(yield* Fiber.join(forgetting), 1)
      assert.strictEqual((yield* claim("a"))._tag, "Claimed")
    })
  )

  it.effect("does not learn from an answer that comes after the key was forgotten", () =>
    Effect.gen(function* () {
      const { cache, claim, watch } = yield* opened()
      yield* cache.claim("n", items("a"), terms("of a"))
      const mayAnswer = yield* Deferred.make<void>()
      watch.after = (verb) => (verb === "complete" ? Deferred.await(mayAnswer) : Effect.void)
      const ref = { namespace: "n", claimId: "of a" }
      const completing = yield* Effect.forkChild(cache.complete(ref, items("a")), { startImmediately: true })
      assert.strictEqual(yield* cache.forget("n", ["a"]), 1)
      yield* Deferred.succeed(mayAnswer, undefined)
      assert.deepStrictEqual(yield* Fiber.join(completing), ["Completed"])
      assert.strictEqual((yield* claim("a"))._tag, "Claimed")
    })
  )

  it.effect(
    "answers duplicates also while the store can't be reached, and learns nothing from a lost answer",
    () =>
      Effect.gen(function* () {
        const { cache, claim, complete, watch } = yield* opened()
        yield* complete("a")
        yield* cache.claim("n", items("b"), terms("of b"))
        watch.before = (verb) =>
          Effect.fail(
            new StoreError({ store: "watched", verb, reason: "Unavailable", detail: "gone", retriable: true })
          )
        assert.strictEqual((yield* claim("a"))._tag, "Completed")
        assert.strictEqual((yield* Effect.flip(claim("new")))._tag, "StoreError")
        yield* Effect.flip(cache.complete({ namespace: "n", claimId: "of b" }, items("b")))
        assert.strictEqual((yield* Effect.flip(claim("b")))._tag, "StoreError")
      })
  )

  it.effect("leaves look-ups to the store", () =>
    Effect.gen(function* () {
      const { cache, complete, elsewhere, watch } = yield* opened()
      yield* complete("a")
      yield* elsewhere.forget("n", ["a"])
      watch.calls.length = 0
      assert.deepStrictEqual(yield* cache.lookup("n", ["a"]), [{ _tag: "Unknown" }])
      assert.deepStrictEqual(watch.calls, ["lookup"])
    })
  )

  it.effect("checks its input as the store does, also where it knows the answer", () =>
    Effect.gen(function* () {
      const { cache, complete } = yield* opened()
      yield* complete("a")
      const error = yield* Effect.flip(cache.claim("n", items("a"), { ...terms("c"), leaseMillis: 0 }))
      assert.strictEqual(error._tag, "InvalidInput")
    })
  )

  it.effect("stays within its bound, and counts what it dropped", () =>
    Effect.gen(function* () {
      const { claim, complete, stats } = yield* opened({ maxEntries: 10 })
      for (let order = 0; order < 25; order++) yield* complete(`order ${order}`)
      assert.deepInclude(yield* stats.current, { size: 10, evictions: 15 })
      assert.strictEqual((yield* claim("order 0"))._tag, "Completed")
    })
  )

  it.effect.each([
    ["maxEntries", { maxEntries: 0 }],
    ["maxEntries", { maxEntries: 1.5 }],
    ["maxCharacters", { maxCharacters: 100 }],
    ["maxAge", { maxAge: 0 }],
    ["option of NearCache", { max: 50_000 } as NearCache.NearCacheOptions]
  ] as const)("refuses a bad %s", ([field, options]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Layer.build(MemoryStore.layer().pipe(NearCache.around(options))))
      assert.strictEqual(error.field, field)
    }).pipe(Effect.scoped)
  )

  it.effect("is one line between a tracker and its store", () => {
    const layer: Layer.Layer<IdempotencyStore | OffsetStore | Lock | NearCache.NearCacheStats, unknown> =
      MemoryStore.layer().pipe(NearCache.around({ maxEntries: 50_000 }))
    return Effect.gen(function* () {
      const tracker = yield* Tracker
      let charged = 0
      const charge = tracker.once(
        Key.id("order-4711"),
        Effect.sync(() => ++charged),
        { result: Schema.Number }
      )
      assert.deepStrictEqual(yield* charge, { _tag: "Processed", value: 1 })
      assert.deepStrictEqual(yield* charge, { _tag: "Duplicate", value: 1 })
      const stats = yield* NearCache.NearCacheStats
      assert.deepInclude(yield* stats.current, { hits: 1, misses: 1 })
    }).pipe(Effect.provide(Tracker.layer({ namespace: "billing" }).pipe(Layer.provideMerge(layer))))
  })
})
