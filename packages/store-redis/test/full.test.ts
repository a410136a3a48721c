import { it } from "@effect/vitest"
import { OffsetRanges } from "@tidemark/core"
import { uniqueName } from "@tidemark/test-servers"
import { describeWithOwnRedis } from "@tidemark/test-servers/vitest"
import { Effect } from "effect"
import type { Redis } from "ioredis"
import { expect } from "vitest"
import {
  claimKey,
  clientOf,
  eachFails,
  eachSucceeds,
  expectFailure,
  holding,
  insist,
  openStore,
  ownRedis,
  refusalOf,
  termsOf
} from "./harness.ts"

/** Less than what is in use, so that nothing that takes memory is allowed. */
const fill = (admin: Redis) => Effect.promise(() => admin.config("SET", "maxmemory", "1"))

const makeRoom = (admin: Redis) => Effect.promise(() => admin.config("SET", "maxmemory", "0"))

await describeWithOwnRedis("a Redis whose memory is full", () => {
  it.live("refuses new claims as Full, and lets what is held be completed, given back and renewed", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis()
      const admin = yield* clientOf(redis.url)
      const store = yield* openStore({ url: redis.url })
      const { asking, completed, reading, settling } = yield* holding(store)
      yield* fill(admin)
      yield* eachFails(asking, { reason: "Full", retriable: true, naming: /maxmemory/ })
      yield* eachSucceeds(settling)
      yield* completed
      yield* eachSucceeds(reading)
      yield* makeRoom(admin)
      yield* eachSucceeds(asking)
    })
  )

  it.live("writes nothing of a claim that it refuses, and grants it when there is room", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis()
      const admin = yield* clientOf(redis.url)
      const store = yield* openStore({ url: redis.url })
      const terms = termsOf()
      const items = Array.from({ length: 1_000 }, (_, index) => ({ key: `order-${index}` }))
      const token = yield* claimKey(store, "orders", "before")
      const dumped = () =>
        Effect.promise(async () => {
          const names = (await admin.keys("*")).sort()
          return Promise.all(names.map(async (name) => [name, await admin.dumpBuffer(name)]))
        })
      const before = yield* dumped()
      yield* fill(admin)
      const full = { reason: "Full", retriable: true } as const
      expectFailure(yield* Effect.flip(store.keys.claim("orders", items, terms)), full)
      const scattered = OffsetRanges.fromOffsets(Array.from({ length: 500 }, (_, index) => 2 * index))
      expectFailure(yield* Effect.flip(store.offsets.claim("orders", scattered, terms)), full)
      expect(yield* dumped()).toEqual(before)
      yield* makeRoom(admin)
      const answers = yield* store.keys.claim("orders", items, terms)
      expect(answers.every((answer) => answer._tag === "Claimed" && answer.token > token)).toBe(true)
      expect((yield* store.offsets.claim("orders", scattered, terms)).granted).toEqual(scattered)
    })
  )

  it.live("answers a claim of what is held or completed, which takes no memory", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis()
      const admin = yield* clientOf(redis.url)
      const store = yield* openStore({ url: redis.url })
      const [done, held] = [termsOf(), termsOf()]
      yield* claimKey(store, "orders", "done", done)
      yield* claimKey(store, "orders", "held", held)
      yield* store.keys.complete({ namespace: "orders", claimId: done.claimId }, [{ key: "done" }])
      yield* store.offsets.claim("orders", OffsetRanges.make(0, 10), done)
      yield* fill(admin)
      const again = yield* store.keys.claim("orders", [{ key: "done" }, { key: "held" }], termsOf())
      expect(again.map(({ _tag }) => _tag)).toEqual(["Completed", "InFlight"])
      const offsets = yield* store.offsets.claim("orders", OffsetRanges.make(0, 10), termsOf())
      expect(offsets.held.length).toBe(1)
    })
  )

  it.live("lets a store start on data that is there, and refuses to begin as Full", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis()
      const admin = yield* clientOf(redis.url)
      yield* openStore({ url: redis.url, prefix: "known" })
      yield* fill(admin)
      yield* openStore({ url: redis.url, prefix: "known" })
      expectFailure(yield* refusalOf({ url: redis.url, prefix: "new" }), {
        reason: "Full",
        retriable: true,
        naming: /maxmemory/
      })
    })
  )

  it.live("goes on with a load that met the bound, and each key was claimed once", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis({ config: { maxmemory: "4mb" } })
      const admin = yield* clientOf(redis.url)
      const store = yield* openStore({ url: redis.url })
      let refused = 0
      const completed: Array<string> = []
      /** Keys of 200 bytes, until memory is full. */
      const work = Effect.gen(function* () {
        while (refused < 20) {
          const terms = termsOf()
          const key = `${uniqueName("order")}${"x".repeat(200)}`
          const [answer] = yield* store.keys.claim("orders", [{ key }], terms).pipe(
            Effect.catchTag("StoreError", (error) => {
              expectFailure(error, { reason: "Full", retriable: true })
              refused += 1
              return insist(Effect.andThen(makeRoom(admin), store.keys.claim("orders", [{ key }], terms)))
            })
          )
          expect(answer!._tag).toBe("Claimed")
          const settled = yield* store.keys.complete({ namespace: "orders", claimId: terms.claimId }, [
            { key }
          ])
          expect(settled).toEqual(["Completed"])
          completed.push(key)
          if (refused > 0) yield* Effect.promise(() => admin.config("SET", "maxmemory", "4mb"))
        }
      })
      yield* Effect.replicateEffect(work, 16, { concurrency: "unbounded", discard: true })
      expect(completed.length).toBeGreaterThan(100)
      for (let at = 0; at < completed.length; at += 1_000) {
        const statuses = yield* store.keys.lookup("orders", completed.slice(at, at + 1_000))
        expect(new Set(statuses.map(({ _tag }) => _tag))).toEqual(new Set(["Completed"]))
      }
    })
  )
})
