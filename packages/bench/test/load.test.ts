import { assert, describe, it } from "@effect/vitest"
import { type Handler, Key, type Outcome, Tracker } from "@tidemark/core"
import { Effect, Layer } from "effect"
import * as contendedLocks from "../src/load/contendedLocks.ts"
import * as heapGrowth from "../src/load/heapGrowth.ts"
import { isKept, mean, percentile, subjects } from "../src/load/LoadTest.ts"
import * as shuffledDuplicates from "../src/load/shuffledDuplicates.ts"
import * as steadyRate from "../src/load/steadyRate.ts"
import * as writersAndReaders from "../src/load/writersAndReaders.ts"

const scale = 0.1

const unclaimed = {
  claimId: "none",
  token: undefined,
  ref: { namespace: "none", claimId: "none" },
  noteCompleted: () => {}
}

/** The usual tracker, which asks first and adds after: what the counts must catch. */
const checkThenAdd = Layer.sync(Tracker, () => {
  const done = new Set<string>()
  const once = <A, E, R>(key: Key.Key, handler: Handler<A, E, R>): Effect.Effect<Outcome<A>, E, R> =>
    Effect.suspend((): Effect.Effect<Outcome<A>, E, R> => {
      if (done.has(Key.format(key))) return Effect.succeed({ _tag: "Duplicate", value: undefined } as const)
      const work = Effect.isEffect(handler) ? handler : handler({ ...unclaimed, key })
      return Effect.map(work, (value) => {
        done.add(Key.format(key))
        return { _tag: "Processed", value } as const
      })
    })
  return Tracker.of({
    once,
    onceAll: (items, keyOf, handler) =>
      Effect.forEach(
        items,
        (item) =>
          Effect.match(
            once(keyOf(item), (claim) => handler(item, claim)),
            {
              onFailure: (error) => ({ _tag: "Failed", error }) as const,
              onSuccess: (outcome) => outcome
            }
          ),
        { concurrency: "unbounded" }
      ),
    isProcessed: (key) => Effect.sync(() => done.has(Key.format(key))),
    markProcessed: () => Effect.succeed(true)
  })
})
const racy = Layer.provideMerge(checkThenAdd, subjects())

describe("load test 1, a steady rate with redeliveries", () => {
  it.live("processes every message once, and recognises every redelivery", () =>
    Effect.gen(function* () {
      const result = yield* steadyRate.run({ scale, paced: false })
      assert.strictEqual(result.messages, 1_000)
      assert.strictEqual(result.processed, 1_000)
      assert.strictEqual(result.effectsTwice, 0)
      assert.strictEqual(result.redeliveries, 5_000)
      assert.strictEqual(result.recognised, 5_000)
      assert.isAbove(result.storeHits / (result.storeHits + result.storeMisses), 0.8)
    }).pipe(Effect.provide(subjects()))
  )

  it.live("catches check-then-add", () =>
    Effect.gen(function* () {
      const result = yield* steadyRate.run({ scale, paced: false })
      assert.isAbove(result.effectsTwice, 0)
      assert.isBelow(result.recognised, result.redeliveries)
    }).pipe(Effect.provide(racy))
  )
})

describe("load test 2, writers beside readers", () => {
  it.live("processes each message once, and answers each read consistently", () =>
    Effect.gen(function* () {
      const result = yield* writersAndReaders.run({ scale })
      assert.strictEqual(result.processed, 1_000)
      assert.strictEqual(result.effectsTwice, 0)
      assert.strictEqual(result.reads, 1_000)
      assert.strictEqual(result.inconsistentReads, 0)
      // both answers were given, or the readers would have seen nothing of the writers
      assert.isAbove(result.readsOfProcessed, 0)
      assert.isBelow(result.readsOfProcessed, result.reads)
    }).pipe(Effect.provide(subjects()))
  )

  it.live("catches reads that lag behind", () =>
    Effect.gen(function* () {
      const tracker = yield* Tracker
      const forgetful = Tracker.of({ ...tracker, isProcessed: () => Effect.succeed(false) })
      const result = yield* Effect.provideService(writersAndReaders.run({ scale }), Tracker, forgetful)
      assert.isAbove(result.inconsistentReads, 0)
    }).pipe(Effect.provide(subjects()))
  )
})

describe("load test 3, shuffled duplicates", () => {
  it.live("finds exactly the duplicates, one by one and in batches", () =>
    Effect.gen(function* () {
      const { elapsedMillis: _, ...counts } = yield* shuffledDuplicates.run({ scale })
      assert.deepStrictEqual(counts, {
        messages: 100,
        processed: 100,
        duplicates: 400,
        effectsTwice: 0,
        processedInBatches: 100,
        duplicatesInBatches: 400,
        effectsTwiceInBatches: 0
      })
    }).pipe(Effect.provide(subjects()))
  )

  it.live("catches check-then-add", () =>
    Effect.gen(function* () {
      const result = yield* shuffledDuplicates.run({ scale })
      assert.isAbove(result.effectsTwice, 0)
      assert.isAbove(result.effectsTwiceInBatches, 0)
    }).pipe(Effect.provide(racy))
  )
})

describe("load test 4, contended locks", () => {
  it.live("lets one holder in at a time, and loses no update", () =>
    Effect.gen(function* () {
      const result = yield* contendedLocks.run({ scale })
      assert.strictEqual(result.operations, 1_000)
      assert.strictEqual(result.counted, 1_000)
      assert.strictEqual(result.overlaps, 0)
      assert.strictEqual(result.tokensOutOfOrder, 0)
      assert.isAbove(result.waited, 0)
    }).pipe(Effect.provide(subjects()))
  )
})

describe("load test 5, the heap", () => {
  it.live("processes every message of every round", () =>
    Effect.gen(function* () {
      const result = yield* heapGrowth.run({ scale })
      assert.strictEqual(result.processed, 2_000)
      assert.lengthOf(result.bytesByOffsets, 5)
      assert.lengthOf(result.bytesByIds, 5)
    }).pipe(Effect.provide(subjects()))
  )
})

describe("judging", () => {
  it("keeps a threshold only within it", () => {
    const judged = (measured: number, relation: "=" | "<" | ">" | ">=") =>
      isKept({ what: "", unit: "", measured, threshold: [relation, 10] })
    assert.deepStrictEqual(
      (["=", "<", ">", ">="] as const).map((relation) => [9, 10, 11].map((value) => judged(value, relation))),
      [
        [false, true, false],
        [true, false, false],
        [false, false, true],
        [false, true, true]
      ]
    )
    assert.isFalse(judged(Number.NaN, "<"))
    assert.isUndefined(isKept({ what: "", unit: "", measured: 1 }))
  })

  it("takes the mean, and percentiles by nearest rank", () => {
    const times = Array.from({ length: 100 }, (_, index) => 100 - index)
    assert.strictEqual(mean(times), 50.5)
    assert.strictEqual(percentile(times, 0.99), 99)
    assert.strictEqual(percentile([7], 0.99), 7)
    assert.isNaN(percentile([], 0.99))
  })
})
