/** Keys in shards; the contract, on a cluster, has a file of its own. */
import { it } from "@effect/vitest"
import { Inspect } from "@tidemark/core"
import { uniqueName } from "@tidemark/test-servers"
import { describeWithRedis, describeWithRedisCluster } from "@tidemark/test-servers/vitest"
import { Context, Effect, Stream } from "effect"
import * as fc from "fast-check"
import { Cluster } from "ioredis"
import { describe, expect } from "vitest"
import { RedisStore } from "../src/index.ts"
import { namespaceOf, placesOf, shardOf, slotOf } from "../src/internal/shards.ts"
import { hashTag } from "../src/internal/wire.ts"
import { clientOf, expectFailure, openStore, refusalOf, termsOf } from "./harness.ts"
import { openStore as openWithInspect } from "./store.ts"

const ids = Array.from({ length: 300 }, (_, index) => `order-${index}`)

describe("the shard of a key", () => {
  it("is part of the format, and so the same for ever", () => {
    const keys = ["a", "order-4711", "0189a1c2-7d3e-7c4b-9f00-2b1c3d4e5f60", "\u{1F30A}", ""]
    expect(keys.map((key) => shardOf(key, 16))).toEqual([0, 6, 0, 12, 9])
  })

  it("spreads keys evenly, whatever they have in common", () => {
    const families: ReadonlyArray<(index: number) => string> = [
      (index) => `order-${index}`,
      (index) => `${index}-order`,
      (index) => `${index * 16}`,
      () => crypto.randomUUID()
    ]
    for (const family of families) {
      const counts = new Array<number>(16).fill(0)
      for (let index = 0; index < 16_000; index++) counts[shardOf(family(index), 16)]++
      expect(Math.max(...counts)).toBeLessThan(1_250)
      expect(Math.min(...counts)).toBeGreaterThan(750)
    }
  })

  it("and its namespace can be told from the place of both", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.constantFrom(1, 2, 16, 256), (namespace, count) => {
        const places = placesOf(namespace, count)
        expect(new Set(places).size).toBe(count)
        for (const place of places) expect(namespaceOf(place, count)).toBe(namespace)
      })
    )
  })

  it("lies in its own part of the slots, whatever the namespace", () => {
    const slots = (namespace: string, count: number) =>
      placesOf(namespace, count).map((place) => slotOf(`tidemark:k:${hashTag(place)}`))
    fc.assert(
      fc.property(
        fc.string({ unit: "binary", minLength: 1 }),
        fc.constantFrom(2, 4, 16, 64, 256),
        (namespace, count) => {
          const parts = slots(namespace, count).map((slot) => Math.floor(slot / (16_384 / count)))
          expect(new Set(parts).size).toBe(count)
        }
      )
    )
    expect(slots("billing", 16)).toEqual([
      12724, 13733, 14767, 15775, 8597, 9604, 10638, 11710, 4525, 5549, 6567, 7606, 396, 1420, 2438, 3510
    ])
  })
})

await describeWithRedis("keys in shards", ({ url }) => {
  it.live("the number is recorded when a prefix is first used, and holds for all", () =>
    Effect.gen(function* () {
      const prefix = uniqueName("recorded")
      const first = yield* openStore({ url, prefix, shards: 4 })
      const claimed = yield* first.keys.claim(
        "orders",
        ids.map((key) => ({ key })),
        termsOf(600_000, "c")
      )
      expect(new Set(claimed.map(({ _tag }) => _tag))).toEqual(new Set(["Claimed"]))
      const redis = yield* clientOf(url)
      const places = yield* Effect.promise(() => redis.keys(`${prefix}:k:*`))
      expect(places.sort()).toEqual(
        placesOf("orders", 4)
          .map((place) => `${prefix}:k:{${place}}`)
          .sort()
      )
      // who does not say follows what is recorded
      const second = yield* openStore({ url, prefix })
      const done = yield* second.keys.complete(
        { namespace: "orders", claimId: "c" },
        ids.slice(0, 100).map((key) => ({ key }))
      )
      expect(new Set(done)).toEqual(new Set(["Completed"]))
      expectFailure(yield* refusalOf({ url, prefix, shards: 8 }), {
        reason: "Misconfigured",
        retriable: false,
        naming: /4 shards.*8/
      })
      for (const shards of [0, -1, 1.5, 3, 512, Number.NaN]) {
        expect(yield* refusalOf({ url, prefix, shards })).toMatchObject({
          _tag: "InvalidInput",
          field: "shards"
        })
      }
    })
  )

  it.live("a claim over several is listed, renewed and given back as one", () =>
    Effect.gen(function* () {
      const { context, keys } = yield* openWithInspect(
        RedisStore.layer({ url, prefix: uniqueName("listed"), shards: 4 })
      )
      const inspect = Context.get(context, Inspect)
      const ref = { namespace: "a/b", claimId: "c" }
      yield* keys.claim(
        "a/b",
        ids.map((key) => ({ key })),
        { claimId: "c", owner: "o", leaseMillis: 60_000 }
      )
      yield* keys.claim("other", [{ key: "x" }], termsOf())
      yield* keys.complete(
        ref,
        ids.slice(0, 100).map((key) => ({ key }))
      )
      const listed = yield* Stream.runCollect(inspect.keys())
      const ours = listed.filter(({ namespace }) => namespace === "a/b")
      expect(new Set(ours.map(({ key }) => key))).toEqual(new Set(ids))
      expect(ours.filter(({ status }) => status._tag === "Completed").length).toBe(100)
      expect(yield* Stream.runCollect(inspect.keys({ namespace: "other" }))).toMatchObject([
        { namespace: "other", key: "x" }
      ])
      const claims = yield* Stream.runCollect(inspect.claims())
      expect(claims.map(({ held, of }) => [of, held]).sort()).toEqual([
        ["a/b", 200],
        ["other", 1]
      ])
      expect(yield* Stream.runCollect(inspect.claims({ of: "a/b" }))).toMatchObject([
        { claimId: "c", owner: "o", held: 200 }
      ])
      const [until] = yield* keys.renew([{ ...ref, leaseMillis: 120_000 }])
      expect(until).toBeGreaterThan(claims.find(({ of }) => of === "a/b")!.until)
      yield* keys.release(ref)
      expect(yield* keys.renew([{ ...ref, leaseMillis: 120_000 }])).toEqual([undefined])
      expect(yield* keys.forget("a/b", ids)).toBe(100)
    })
  )
})

await describeWithRedisCluster("keys in shards on a cluster", ({ urls }) => {
  it.live("those of one namespace are spread over the nodes", () =>
    Effect.gen(function* () {
      const prefix = uniqueName("spread")
      const { keys } = yield* openStore({ cluster: { nodes: [...urls] }, prefix })
      const items = ids.map((key) => ({ key }))
      yield* keys.claim("orders", items, termsOf(600_000, "c"))
      expect(new Set(yield* keys.complete({ namespace: "orders", claimId: "c" }, items))).toEqual(
        new Set(["Completed"])
      )
      const client = yield* Effect.acquireRelease(
        Effect.sync(() => new Cluster([...urls]).on("error", () => {})),
        (client) => Effect.sync(() => client.disconnect())
      )
      yield* Effect.promise(() => client.ping())
      const counts = yield* Effect.promise(() =>
        Promise.all(client.nodes("master").map(async (node) => (await node.keys(`${prefix}:k:*}`)).length))
      )
      expect(counts.reduce((sum, count) => sum + count)).toBe(16)
      expect(Math.min(...counts)).toBeGreaterThan(4)
    })
  )
})
