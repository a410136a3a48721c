/** A server that is killed in the middle of everything, again and again. */
import { it } from "@effect/vitest"
import { OffsetRanges } from "@tidemark/core"
import { describeWithOwnRedis } from "@tidemark/test-servers/vitest"
import { Effect } from "effect"
import { expect } from "vitest"
import { claimKey, insist, openStore, ownRedis, termsOf } from "./harness.ts"
import { Ledger, loadOn } from "./Ledger.ts"

await describeWithOwnRedis("a Redis that is killed and started again", () => {
  it.live(
    "loses nothing that it acknowledged, where it appends to a file, however often and whenever it dies",
    () =>
      Effect.gen(function* () {
        const redis = yield* ownRedis({ appendonly: true })
        const ledger = new Ledger()
        const stores = [yield* openStore({ url: redis.url }), yield* openStore({ url: redis.url })]
        const load = yield* loadOn(stores, ledger)
        for (let death = 1; death <= 4; death++) {
          yield* load.progress
          yield* Effect.promise(() => redis.kill())
          yield* Effect.promise(() => redis.restart())
        }
        yield* load.progress
        yield* load.end
        yield* ledger.holds(stores[0]!)
      })
  )

  it.live(
    "without a file it has forgotten all: it runs again, with greater tokens, and no late owner is believed",
    () =>
      Effect.gen(function* () {
        const redis = yield* ownRedis()
        const store = yield* openStore({ url: redis.url })
        const [done, held] = [termsOf(), termsOf()]
        const tokens = [
          yield* claimKey(store, "orders", "done", done),
          yield* claimKey(store, "orders", "held", held)
        ]
        yield* store.keys.complete({ namespace: "orders", claimId: done.claimId }, [{ key: "done" }])
        const claimed = yield* store.offsets.claim("orders", OffsetRanges.openEnded(0), held)
        yield* store.offsets.complete({ stream: "orders", claimId: held.claimId }, OffsetRanges.make(0, 100))
        yield* Effect.promise(() => redis.kill())
        yield* Effect.promise(() => redis.restart())

        const ref = { claimId: held.claimId, leaseMillis: 30_000 }
        expect(yield* insist(store.keys.renew([{ ...ref, namespace: "orders" }]))).toEqual([undefined])
        expect(yield* store.offsets.renew([{ ...ref, stream: "orders" }])).toEqual([undefined])
        expect(yield* store.offsets.progress("orders")).toBeUndefined()
        const other = termsOf()
        for (const key of ["done", "held"]) {
          expect(yield* claimKey(store, "orders", key, termsOf())).toBeGreaterThan(Math.max(...tokens))
        }
        const again = yield* store.offsets.claim("orders", OffsetRanges.openEnded(0), other)
        expect(again.token).toBeGreaterThan(claimed.token!)
        const late = yield* store.keys.complete({ namespace: "orders", claimId: held.claimId }, [
          { key: "held" }
        ])
        expect(late).toEqual(["LeaseLost"])
        const lost = yield* store.offsets.complete(
          { stream: "orders", claimId: held.claimId },
          OffsetRanges.of(5)
        )
        expect(lost.leaseLost).toEqual(OffsetRanges.of(5))
        yield* store.keys.release({ namespace: "orders", claimId: held.claimId })
      })
  )
})
