import { assert, describe, it } from "@effect/vitest"
import { IdempotencyStore, OffsetRanges, OffsetStore, StoreError } from "@tidemark/core"
import {
  type Fault,
  faultyIdempotencyStore,
  faultyOffsetStore,
  patientOffsetStore,
  withFaults
} from "@tidemark/testkit"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { referenceStore } from "./referenceStore.ts"

const terms = (claimId: string) => ({ claimId, owner: claimId, leaseMillis: 60_000 })
const range = OffsetRanges.make(0, 10)

/** A store whose every call meets this fault. */
const always = (fault: Fault) => ({ seed: 1, rate: 1, faults: [fault], longestMillis: 1_000 })

const onOffsets = <A, E, R>(
  fault: Fault,
  body: (faulty: OffsetStore["Service"], store: OffsetStore["Service"]) => Effect.Effect<A, E, R>
) =>
  Effect.gen(function* () {
    const store = yield* OffsetStore
    return yield* body(yield* faultyOffsetStore(store, always(fault)), store)
  }).pipe(Effect.scoped, Effect.provide(referenceStore()))

const failure = <A, E>(call: Effect.Effect<A, E>) =>
  Effect.map(Effect.flip(call), (error) => {
    assert.instanceOf(error, StoreError)
    assert.isTrue(error.retriable && error.reason === "Unavailable", error.message)
  })

describe("faults", () => {
  it.effect("lost: the call fails, and has not taken effect", () =>
    onOffsets("lost", (faulty, store) =>
      Effect.gen(function* () {
        yield* failure(faulty.claim("s", range, terms("c")))
        assert.isUndefined(yield* store.progress("s"))
      })
    )
  )

  it.effect("unanswered: the call fails, and has taken effect", () =>
    onOffsets("unanswered", (faulty, store) =>
      Effect.gen(function* () {
        yield* failure(faulty.claim("s", range, terms("c")))
        assert.strictEqual((yield* store.progress("s"))?.claims.length, 1)
      })
    )
  )

  it.effect("twice: the second answer is given", () =>
    onOffsets("twice", (faulty, store) =>
      Effect.gen(function* () {
        yield* store.claim("s", range, terms("c"))
        const answer = yield* faulty.complete({ stream: "s", claimId: "c" }, range)
        assert.strictEqual(String(answer.alreadyCompleted), "[0,10)")
      })
    )
  )

  it.effect("late: it is delivered again, when all is over", () =>
    onOffsets("late", (faulty, store) =>
      Effect.gen(function* () {
        yield* faulty.claim("s", range, terms("c"))
        yield* store.release({ stream: "s", claimId: "c" })
        assert.deepStrictEqual((yield* store.progress("s"))?.claims, [])
        yield* TestClock.adjust("1 seconds")
        assert.strictEqual((yield* store.progress("s"))?.claims[0].claimId, "c")
      })
    )
  )

  it.effect("slow: it takes effect when its time has come", () =>
    onOffsets("slow", (faulty, store) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(faulty.claim("s", range, terms("c")), {
          startImmediately: true
        })
        assert.isUndefined(yield* store.progress("s"))
        yield* TestClock.adjust("1 seconds")
        assert.strictEqual((yield* store.progress("s"))?.claims.length, 1)
        assert.isDefined(fiber.pollUnsafe())
      })
    )
  )

  it.effect("cut: a part takes effect, and the call fails", () =>
    Effect.gen(function* () {
      const offsets = yield* OffsetStore
      const keys = yield* IdempotencyStore
      const faulty = yield* faultyOffsetStore(offsets, always("cut"))
      const faultyKeys = yield* faultyIdempotencyStore(keys, always("cut"))
      yield* offsets.claim("s", range, terms("c"))
      yield* failure(faulty.complete({ stream: "s", claimId: "c" }, range))
      assert.strictEqual(String((yield* offsets.progress("s"))?.completed), "[0,5)")
      const items = ["a", "b", "c", "d"].map((key) => ({ key }))
      yield* keys.claim("n", items, terms("c"))
      yield* failure(faultyKeys.complete({ namespace: "n", claimId: "c" }, items))
      const statuses = yield* keys.lookup("n", ["a", "b", "c", "d"])
      assert.deepStrictEqual(
        statuses.map(({ _tag }) => _tag),
        ["Completed", "Completed", "InFlight", "InFlight"]
      )
      yield* failure(faultyKeys.renew([{ namespace: "n", claimId: "c", leaseMillis: 120_000 }]))
    }).pipe(Effect.scoped, Effect.provide(referenceStore()))
  )

  it.effect("the same seed gives the same faults to the same calls, another seed others", () => {
    const outcomes = (seed: number) =>
      Effect.gen(function* () {
        const faulty = yield* faultyOffsetStore(yield* OffsetStore, {
          seed,
          rate: 0.5,
          faults: ["lost", "twice"]
        })
        return yield* Effect.forEach(Array.from({ length: 40 }), () =>
          Effect.map(Effect.exit(faulty.progress("s")), ({ _tag }) => _tag)
        )
      }).pipe(Effect.scoped, Effect.provide(referenceStore()))
    return Effect.gen(function* () {
      assert.deepStrictEqual(yield* outcomes(1), yield* outcomes(1))
      assert.notDeepEqual(yield* outcomes(1), yield* outcomes(2))
    })
  })

  it.effect("a caller that asks again gets there, with the claim it asked for at first", () =>
    Effect.gen(function* () {
      const faulty = yield* faultyOffsetStore(yield* OffsetStore, {
        seed: 3,
        rate: 0.8,
        faults: ["lost", "unanswered"]
      })
      const patient = patientOffsetStore(faulty)
      for (let index = 0; index < 50; index++) {
        const answer = yield* patient.claim("s", OffsetRanges.of(index), terms(`c${index}`))
        assert.strictEqual(String(answer.granted), `[${index},${index + 1})`)
      }
    }).pipe(Effect.scoped, Effect.provide(referenceStore()))
  )

  it.effect("withFaults puts them around the services of a layer", () =>
    Effect.gen(function* () {
      yield* failure((yield* OffsetStore).claim("s", range, terms("c")))
      yield* failure((yield* IdempotencyStore).claim("n", [{ key: "k" }], terms("c")))
    }).pipe(Effect.provide(withFaults(referenceStore(), always("lost"))))
  )
})
