import { describe, it } from "@effect/vitest"
import { ClaimId, IdempotencyStore } from "@tidemark/core"
import { NearCache } from "@tidemark/store-memory"
import { RedisStore } from "@tidemark/store-redis"
import { startOwnRedis, startTcpProxy, uniqueName } from "@tidemark/test-servers"
import { describeWithOwnRedis } from "@tidemark/test-servers/vitest"
import { Context, Effect, Layer, Random } from "effect"
import { expect } from "vitest"

const processes = 4
const workersEach = 4
const keys = Array.from({ length: 200 }, (_, index) => `order-${index}`)
const roundsEach = 300

/** What was seen from outside: who holds a key, and what is completed by an answer that arrived. */
class Ledger {
  readonly holders = new Map<string, string>()
  readonly completed = new Set<string>()
  lostAnswers = 0

  grant(key: string, claimId: string): void {
    expect(this.completed, `${key} was completed, and granted to ${claimId}`).not.toContain(key)
    expect(this.holders.get(key), `${key} is held, and granted to ${claimId}`).toBeUndefined()
    this.holders.set(key, claimId)
  }

  complete(key: string): void {
    this.completed.add(key)
    this.holders.delete(key)
  }
}

/** A process: its own connections to Redis, over a network of its own, and its own near cache. */
const startProcess = (address: string, prefix: string) =>
  Effect.gen(function* () {
    const network = yield* Effect.acquireRelease(
      Effect.promise(() => startTcpProxy(address)),
      (proxy) => Effect.sync(() => proxy.stop())
    )
    const layer = RedisStore.layer({ url: `redis://${network.address}`, prefix }).pipe(
      NearCache.around({ maxEntries: 60 })
    )
    const services = yield* Layer.build(layer)
    const store = Context.get(services, IdempotencyStore)
    const stats = Context.get(services, NearCache.NearCacheStats)
    return { network, store, stats }
  })

type Process = Effect.Success<ReturnType<typeof startProcess>>

/** The same question until an answer arrives, as a client does that must know. */
const insist = <A, E extends { readonly _tag: string }>(ask: Effect.Effect<A, E>) =>
  Effect.retry(ask, { while: (error) => error._tag === "StoreError" })

/** Spoils the network of a process for a moment, now and then. */
const spoil = ({ network }: Process, ledger: Ledger) =>
  Effect.flatMap(Random.next, (chance) => {
    if (chance < 0.02) {
      return Effect.sync(() => {
        network.loseNextAnswer("evalsha").then(() => {
          ledger.lostAnswers += 1
        })
      })
    }
    if (chance > 0.005 + 0.02) return Effect.void
    network.cut()
    return Effect.promise(() => network.heal())
  })

/** Claims a batch of keys that others claim too, and completes or gives back what was granted. */
const round = (process: Process, ledger: Ledger) =>
  Effect.gen(function* () {
    const { store } = process
    const count = yield* Random.nextIntBetween(1, 3)
    const wanted = new Set<string>()
    while (wanted.size < count) wanted.add(keys[yield* Random.nextIntBetween(0, keys.length - 1)] as string)
    const items = [...wanted].map((key) => ({ key, fingerprint: `of ${key}` }))
    const claimId = ClaimId.make()
    yield* spoil(process, ledger)
    const answers = yield* insist(
      store.claim("orders", items, { claimId, owner: "worker", leaseMillis: 60_000 })
    )
    const granted: Array<string> = []
    for (const [index, { key }] of items.entries()) {
      const answer = answers[index]!
      if (answer._tag === "Completed") expect(answer.result).toBe(`"done: ${key}"`)
      else if (answer._tag === "Claimed") granted.push(key)
      else expect(answer._tag).toBe("InFlight")
    }
    for (const key of granted) ledger.grant(key, claimId)
    if (granted.length === 0) return
    yield* spoil(process, ledger)
    const ref = { namespace: "orders", claimId }
    if ((yield* Random.next) < 0.2) {
      for (const key of granted) ledger.holders.delete(key)
      return yield* insist(store.release(ref))
    }
    const completions = granted.map((key) => ({ key, result: `"done: ${key}"` }))
    const settled = yield* insist(store.complete(ref, completions))
    for (const [index, key] of granted.entries()) {
      expect(["Completed", "AlreadyCompleted"]).toContain(settled[index])
      ledger.complete(key)
    }
  })

await describeWithOwnRedis("near caches before one Redis", () => {
  describe("no interleaving of memory and Redis grants what is completed or held", () => {
    it.live(
      "with four processes, lost answers and connections cut",
      () =>
        Effect.gen(function* () {
          const redis = yield* Effect.acquireRelease(
            Effect.promise(() => startOwnRedis()),
            (server) => Effect.promise(() => server.stop())
          )
          const ledger = new Ledger()
          const prefix = uniqueName("near")
          const started: Array<Process> = []
          for (let index = 0; index < processes; index++) {
            started.push(yield* startProcess(redis.address, prefix))
          }
          const workers = started.flatMap((process) =>
            Array.from({ length: workersEach }, () =>
              Effect.replicateEffect(round(process, ledger), roundsEach, { discard: true })
            )
          )
          yield* Effect.all(workers, { concurrency: "unbounded", discard: true })
          expect(ledger.completed.size).toBe(keys.length)
          expect([...ledger.holders]).toEqual([])
          expect(ledger.lostAnswers).toBeGreaterThan(0)
          for (const { stats } of started) {
            const { hits, size } = yield* stats.current
            expect(hits).toBeGreaterThan(0)
            expect(size).toBeLessThanOrEqual(60)
          }
        }),
      90_000
    )
  })
})
