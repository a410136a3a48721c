/** What a failover may lose, what it may not, and what waiting for replicas makes of it. */
import { describe, it } from "@effect/vitest"
import { OffsetRanges } from "@tidemark/core"
import { startRedisReplication, startRedisSentinel } from "@tidemark/test-servers"
import { describeWithOwnRedisCluster } from "@tidemark/test-servers/vitest"
import { Effect } from "effect"
import { expect } from "vitest"
import {
  claimKey,
  clientOf,
  eachFails,
  eachSucceeds,
  ending,
  eventually,
  holding,
  insist,
  networkBefore,
  openStore,
  ownRedis,
  termsOf
} from "./harness.ts"
import { Ledger, loadOn } from "./Ledger.ts"

const replication = ending(() => startRedisReplication())
const notReplicated = {
  reason: "NotReplicated",
  retriable: true,
  naming: /0 of 1/,
  withinMillis: 6_000
} as const
const waitReplicas = { count: 1, timeoutMillis: 200 }

await describeWithOwnRedisCluster("a primary that has become a replica", () => {
  describe.concurrent("each on servers of its own", () => {
    it.live("answers writes with ReadOnly, which may be asked again, and questions as before", () =>
      Effect.gen(function* () {
        const redis = yield* replication
        const store = yield* openStore({ url: redis.primary.url })
        const { asking, completed, reading, settling } = yield* holding(store)
        yield* Effect.promise(() => redis.caughtUp())
        yield* Effect.promise(() => redis.promote())
        yield* eachFails(
          { ...asking, ...settling },
          { reason: "ReadOnly", retriable: true, naming: /replica/ }
        )
        // the client connects anew, to find the primary
        yield* insist(reading.progress!)
        yield* eachSucceeds(reading)
        yield* Effect.promise(() => redis.promote())
        yield* insist(settling["renew of keys"]!)
        yield* eachSucceeds({ ...asking, ...settling })
        yield* completed
      })
    )

    it.live(
      "has lost what its successor had not got: that runs again, tokens grow, and its owners lose it at their next renewal",
      () =>
        Effect.gen(function* () {
          const redis = yield* replication
          const before = yield* openStore({ url: redis.primary.url })
          const [kept, done, held] = [termsOf(), termsOf(), termsOf()]
          const orders = { namespace: "orders", stream: "orders" }
          yield* claimKey(before, "orders", "kept", kept)
          yield* before.keys.complete({ ...orders, claimId: kept.claimId }, [{ key: "kept" }])
          yield* before.offsets.claim("orders", OffsetRanges.make(0, 10), kept)
          yield* before.offsets.complete({ ...orders, claimId: kept.claimId }, OffsetRanges.make(0, 10))
          yield* Effect.promise(() => redis.caughtUp())
          redis.link.cut()
          yield* claimKey(before, "orders", "done", done)
          yield* before.keys.complete({ ...orders, claimId: done.claimId }, [{ key: "done" }])
          const token = yield* claimKey(before, "orders", "held", held)
          const lost = yield* before.offsets.claim("orders", OffsetRanges.make(10, 20), held)
          yield* Effect.promise(() => redis.promote())

          const after = yield* openStore({ url: redis.primary.url })
          expect(yield* after.keys.lookup("orders", ["kept", "done", "held"])).toMatchObject([
            { _tag: "Completed" },
            { _tag: "Unknown" },
            { _tag: "Unknown" }
          ])
          expect(yield* claimKey(after, "orders", "done")).toBeGreaterThan(token)
          const other = termsOf()
          expect(yield* claimKey(after, "orders", "held", other)).toBeGreaterThan(token)
          const again = yield* after.offsets.claim("orders", OffsetRanges.make(0, 20), other)
          expect(again).toMatchObject({
            granted: OffsetRanges.make(10, 20),
            completed: OffsetRanges.make(0, 10)
          })
          expect(again.token).toBeGreaterThan(lost.token!)

          const ref = { ...orders, claimId: held.claimId }
          expect(yield* after.keys.renew([{ ...ref, leaseMillis: 30_000 }])).toEqual([undefined])
          expect(yield* after.offsets.renew([{ ...ref, leaseMillis: 30_000 }])).toEqual([undefined])
          expect(yield* after.keys.complete(ref, [{ key: "held" }])).toEqual(["LeaseLost"])
          const late = yield* after.offsets.complete(ref, OffsetRanges.make(10, 20))
          expect(late.leaseLost).toEqual(OffsetRanges.make(10, 20))
        })
    )
  })
})

await describeWithOwnRedisCluster("a store that waits for a replica", () => {
  describe.concurrent("each on servers of its own", () => {
    it.live("fails each write as NotReplicated while the replica is away, and has all when asked again", () =>
      Effect.gen(function* () {
        const redis = yield* replication
        const store = yield* insist(openStore({ url: redis.primary.url, waitReplicas }))
        const { asking, completed, reading, settling } = yield* insist(holding(store))
        const { lock: _lock, ...claiming } = asking
        redis.link.cut()
        yield* eachFails({ ...claiming, ...settling }, notReplicated)
        yield* eachSucceeds(reading)
        // not a word of them is new, and the replica has not got them still
        yield* eachFails({ ...claiming, "renew of keys": settling["renew of keys"]! }, notReplicated)
        yield* Effect.promise(() => redis.link.heal())
        yield* insist(settling["renew of keys"]!)
        yield* eachSucceeds({ ...asking, ...settling })
        yield* completed
        yield* Effect.promise(() => redis.promote())
        const after = yield* openStore({ url: redis.primary.url })
        expect(yield* after.keys.lookup("anything", ["anything"])).toEqual([{ _tag: "Unknown" }])
      })
    )

    it.live("is not told by a new connection that the replica has what it has not", () =>
      Effect.gen(function* () {
        const redis = yield* replication
        const network = yield* networkBefore(redis.primary.address)
        const store = yield* insist(openStore({ url: `redis://${network.address}`, waitReplicas }))
        const { settling } = yield* insist(holding(store))
        // the primary takes the replica for connected
        redis.link.halfOpen()
        yield* eachFails(settling, notReplicated)
        network.cut()
        yield* Effect.promise(() => network.heal())
        yield* eachFails(settling, notReplicated)
        yield* Effect.promise(() => redis.link.heal())
        yield* insist(settling["renew of keys"]!)
        yield* eachSucceeds(settling)
      })
    )

    it.live(
      "writes something whenever it is asked again: newer servers wait only for what a connection wrote",
      () =>
        Effect.gen(function* () {
          const redis = yield* ownRedis()
          const admin = yield* clientOf(redis.url)
          const store = yield* openStore({ url: redis.url })
          const { asking, settling } = yield* holding(store)
          const again = { ...asking, ...settling }
          yield* eachSucceeds(again)
          const changes = Effect.promise(async () =>
            Number(/rdb_changes_since_last_save:(\d+)/.exec(await admin.info("persistence"))?.[1])
          )
          for (const [name, call] of Object.entries(again)) {
            // of what is given back there is nothing left to write
            if (name === "lock" || name.startsWith("release")) continue
            const before = yield* changes
            yield* eachSucceeds({ [name]: call })
            expect(yield* changes, name).toBeGreaterThan(before)
          }
        })
    )

    it.live("needs no script to be known: what was flushed is sent again", () =>
      Effect.gen(function* () {
        const redis = yield* replication
        const admin = yield* clientOf(redis.primary.url)
        const store = yield* openStore({
          url: redis.primary.url,
          waitReplicas: { count: 1, timeoutMillis: 5_000 }
        })
        const { asking, completed, operating, settling } = yield* holding(store)
        for (const [name, call] of Object.entries({ ...asking, ...settling })) {
          yield* Effect.promise(() => admin.script("FLUSH"))
          yield* eachSucceeds({ [name]: call })
        }
        yield* completed
        yield* Effect.promise(() => admin.script("FLUSH"))
        yield* eachSucceeds(operating)
      })
    )
  })
})

await describeWithOwnRedisCluster("a store that asks a Sentinel", () => {
  describe.concurrent("each on servers of its own", () => {
    it.live(
      "follows to the new primary amid a load, and loses nothing that a replica had acknowledged",
      () =>
        Effect.gen(function* () {
          const { name, sentinels, servers } = yield* ending(() => startRedisSentinel())
          const redis = { sentinels: [...sentinels], name }
          const { asking, completed, operating, reading, settling } = yield* holding(
            yield* openStore({ redis })
          )
          yield* eachSucceeds({ ...asking, ...settling, ...reading })
          yield* completed
          yield* eachSucceeds(operating)

          const opening = insist(openStore({ redis, waitReplicas }))
          const stores = [yield* opening, yield* opening]
          const ledger = new Ledger()
          const load = yield* loadOn(stores, ledger)
          yield* load.progress
          yield* Effect.promise(() => servers[0].kill())
          const successor = yield* clientOf(servers[1].url)
          yield* eventually(async () => expect((await successor.role())[0]).toBe("master"))
          // nothing is acknowledged until the new primary has a replica again
          yield* Effect.promise(() => servers[0].restart())
          const old = yield* clientOf(servers[0].url)
          const { hostname, port } = new URL(servers[1].url)
          yield* Effect.promise(() => old.replicaof(hostname, Number(port)))
          yield* load.progress
          yield* load.end
          yield* ledger.holds(stores[0]!)
        }),
      60_000
    )
  })
})
