/** A Redis Cluster: slots, and what becomes of calls while they move. The contract has a file of its own. */
import { describe, it } from "@effect/vitest"
import { OffsetRanges } from "@tidemark/core"
import { startRedisCluster, uniqueName } from "@tidemark/test-servers"
import { describeWithOwnRedisCluster, describeWithRedisCluster } from "@tidemark/test-servers/vitest"
import { Effect } from "effect"
import { Cluster } from "ioredis"
import { expect } from "vitest"
import { RedisStore } from "../src/index.ts"
import { placeOf, shardOf } from "../src/internal/shards.ts"
import {
  claimKey,
  clientOf,
  eachSucceeds,
  ending,
  eventually,
  expectFailure,
  holding,
  insist,
  open,
  openStore,
  refusalOf,
  type Store,
  termsOf
} from "./harness.ts"
import { Ledger, loadOn } from "./Ledger.ts"

const clusterClient = (urls: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => new Cluster([...urls]).on("error", () => {})),
    (client) => Effect.sync(() => client.disconnect())
  )

const ownCluster = ending(() => startRedisCluster())

const manyNames = Array.from({ length: 30 }, (_, index) => `orders ${index}`)

/** Works each name, all at once; answers the tokens. */
const workOn = (store: Store, names: ReadonlyArray<string>) =>
  Effect.forEach(
    names,
    (name) =>
      Effect.gen(function* () {
        const terms = termsOf()
        const ref = { stream: name, namespace: name, claimId: terms.claimId }
        const ofKey = yield* claimKey(store, name, "one", terms)
        expect(yield* store.keys.complete(ref, [{ key: "one" }])).toEqual(["Completed"])
        yield* store.keys.forget(name, ["one"])
        const { token } = yield* store.offsets.claim(name, OffsetRanges.openEnded(0), terms)
        yield* store.offsets.complete(ref, OffsetRanges.make(0, 10))
        yield* store.offsets.release(ref)
        yield* store.offsets.rewind(name, 0)
        return [ofKey, token!] as const
      }),
    { concurrency: "unbounded" }
  )

await describeWithRedisCluster("the store on a cluster", ({ urls }) => {
  it.live("spreads streams and namespaces over the nodes, and serves each, whatever its name", () =>
    Effect.gen(function* () {
      const prefix = uniqueName("spread")
      const store = yield* openStore({ cluster: { nodes: [...urls] }, prefix })
      const strange = ["{a}b", "a}{b", "{}", "}", "{", "\u{1F30A}", "a\u0000b", "x".repeat(1_024)]
      const names = [...manyNames, ...strange]
      const first = yield* workOn(store, names)
      const second = yield* workOn(store, names)
      for (const [index, [ofKey, ofStream]] of second.entries()) {
        expect(ofKey).toBeGreaterThan(first[index]![0])
        expect(ofStream).toBeGreaterThan(first[index]![1])
      }
      const client = yield* clusterClient(urls)
      yield* eventually(async () => expect(client.status).toBe("ready"))
      const counts = yield* Effect.promise(() =>
        Promise.all(client.nodes("master").map(async (node) => (await node.keys(`${prefix}:s:*`)).length))
      )
      expect(counts.length).toBe(3)
      expect(Math.min(...counts)).toBeGreaterThan(2)
    })
  )

  it.live("works through a Cluster of one's own, and leaves it open and as it was", () =>
    Effect.gen(function* () {
      const client = yield* clusterClient(urls)
      const prefix = uniqueName("own")
      yield* eventually(async () => expect(client.status).toBe("ready"))
      const listeners = () => client.eventNames().reduce((sum, name) => sum + client.listenerCount(name), 0)
      const before = listeners()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const store = yield* open(RedisStore.layerClient(client, { prefix }))
          const { asking, completed, operating, reading, settling } = yield* holding(store)
          yield* eachSucceeds({ ...asking, ...settling, ...reading })
          yield* completed
          yield* eachSucceeds(operating)
        })
      )
      expect(listeners()).toBe(before)
      expect(yield* Effect.promise(() => client.get(`${prefix}:nothing`))).toBeNull()
    })
  )
})

/** What needs keys of which some are not there, nobody can answer now: neither the old owner of the slot nor the new. */
const whileItMoves = ({ keys, offsets }: Store) =>
  Effect.forEach(
    [
      offsets.progress("orders"),
      keys.lookup("orders", ["key-1"]),
      offsets.renew([{ stream: "orders", claimId: "unknown", leaseMillis: 1_000 }]),
      keys.release({ namespace: "orders", claimId: "unknown" })
    ],
    (call) =>
      Effect.match(call as Effect.Effect<unknown, unknown>, {
        onSuccess: () => {},
        onFailure: (error) => expectFailure(error, { reason: "Moved", retriable: true })
      }),
    { concurrency: "unbounded", discard: true }
  )

await describeWithOwnRedisCluster("a cluster that changes", () => {
  describe.concurrent("each on servers of its own", () => {
    it.live("whose scripts are flushed, on each node: they are sent again", () =>
      Effect.gen(function* () {
        const { nodes } = yield* ownCluster
        const store = yield* openStore({ cluster: { nodes: nodes.map(({ url }) => url) } })
        yield* workOn(store, manyNames)
        for (const { url } of nodes) {
          const admin = yield* clientOf(url)
          yield* Effect.promise(() => admin.script("FLUSH"))
        }
        yield* workOn(store, manyNames)
      })
    )

    it.live(
      "whose slots move amid a load: calls go on, or fail as Moved for a moment, and nothing is granted twice",
      () =>
        Effect.gen(function* () {
          const cluster = yield* ownCluster
          const options = { cluster: { nodes: cluster.nodes.map(({ url }) => url) }, prefix: "days" }
          const stores = [yield* openStore(options), yield* openStore(options)]
          const ledger = new Ledger()
          const load = yield* loadOn(stores, ledger)
          yield* load.progress
          // the stream of the ledger, and the shard of one of its keys
          const ofKey = `{${placeOf("orders", shardOf("key-1", 16), 16)}}`
          for (const [slot, to] of [0, 1, 2, 0, 1, 2].flatMap(
            (to) =>
              [
                ["{orders}", to],
                [ofKey, to]
              ] as const
          )) {
            const move = yield* Effect.promise(() =>
              cluster.beginSlotMove(slot, to).catch((error: Error) => {
                expect(error.message).toContain("already")
              })
            )
            if (move === undefined) continue
            yield* whileItMoves(stores[0]!)
            yield* Effect.promise(() => move.finish())
            yield* load.progress
          }
          yield* load.end
          yield* ledger.holds(stores[0]!)
        }),
      60_000
    )

    it.live("a part of whose slots nobody serves: Moved, in time, until the node is back", () =>
      Effect.gen(function* () {
        const cluster = yield* ending(() => startRedisCluster({ appendonly: true }))
        const nodes = cluster.nodes.map(({ url }) => url)
        // few tries, so that a busy machine has time for them
        const options = { maxRedirections: 3, retryDelayOnClusterDown: 20 }
        const store = yield* openStore({ cluster: { nodes, options }, timeout: 4_000 })
        const first = yield* workOn(store, manyNames)
        yield* Effect.promise(() => cluster.nodes[1]!.kill())
        for (const living of [0, 2]) {
          const other = yield* clientOf(cluster.nodes[living]!.url)
          yield* eventually(async () => expect(await other.cluster("INFO")).toContain("cluster_state:fail"))
        }
        const failed = yield* Effect.forEach(
          manyNames,
          (name) => Effect.flip(store.offsets.claim(name, OffsetRanges.of(5), termsOf())),
          { concurrency: "unbounded" }
        )
        for (const error of failed) {
          expect(error).toMatchObject({ _tag: "StoreError", retriable: true })
          expect(["Moved", "Unavailable", "Timeout"]).toContain((error as { reason: string }).reason)
        }
        expect(failed.map((error) => (error as { reason: string }).reason)).toContain("Moved")
        yield* Effect.promise(() => cluster.nodes[1]!.restart())
        yield* Effect.promise(() => cluster.ready())
        yield* Effect.forEach(manyNames, (name) => insist(store.offsets.progress(name)), {
          concurrency: "unbounded"
        })
        const second = yield* workOn(store, manyNames)
        for (const [index, [ofKey, ofStream]] of second.entries()) {
          expect(ofKey).toBeGreaterThan(first[index]![0])
          expect(ofStream).toBeGreaterThan(first[index]![1])
        }
      })
    )

    it.live("one of whose nodes may evict: Misconfigured", () =>
      Effect.gen(function* () {
        const { nodes } = yield* ownCluster
        const admin = yield* clientOf(nodes[2]!.url)
        yield* Effect.promise(() => admin.config("SET", "maxmemory-policy", "allkeys-lfu"))
        const urls = nodes.map(({ url }) => url)
        expectFailure(yield* refusalOf({ cluster: { nodes: urls } }), {
          reason: "Misconfigured",
          retriable: false,
          naming: /allkeys-lfu/
        })
        yield* openStore({ cluster: { nodes: urls }, acceptEviction: true })
      })
    )

    it.live("that nobody serves at the start: Unavailable, in time", () =>
      Effect.gen(function* () {
        const { nodes } = yield* ownCluster
        for (const node of nodes) yield* Effect.promise(() => node.kill())
        const began = performance.now()
        const error = yield* refusalOf({ cluster: { nodes: nodes.map(({ url }) => url) }, timeout: 1_000 })
        expectFailure(error, { reason: "Unavailable", retriable: true })
        expect(performance.now() - began).toBeLessThan(4_000)
      })
    )
  })
})
