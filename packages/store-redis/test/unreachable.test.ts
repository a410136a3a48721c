import { describe, it } from "@effect/vitest"
import { describeWithOwnRedis } from "@tidemark/test-servers/vitest"
import { Effect, Fiber } from "effect"
import { expect } from "vitest"
import { RedisStore } from "../src/index.ts"
import { fromRedis } from "../src/internal/errors.ts"
import {
  claimKey,
  clientOf,
  eachFails,
  eachSucceeds,
  eventually,
  expectFailure,
  holding,
  insist,
  networkBefore,
  open,
  openStore,
  ownRedis,
  refusalOf,
  termsOf
} from "./harness.ts"

const timeout = 500
const unavailable = { reason: "Unavailable", retriable: true, naming: /is it running/ } as const
const unanswered = { reason: "Timeout", retriable: true, naming: /same claim id/ } as const

await describeWithOwnRedis("a Redis that can't be reached", () => {
  describe.concurrent("each on servers of its own", () => {
    it.live("is Unavailable when a store starts, within its time-out", () =>
      Effect.gen(function* () {
        const redis = yield* ownRedis()
        yield* Effect.promise(() => redis.kill())
        const began = performance.now()
        expectFailure(yield* refusalOf({ url: redis.url, timeout }), unavailable)
        expect(performance.now() - began).toBeGreaterThanOrEqual(timeout - 1)
        expect(performance.now() - began).toBeLessThan(timeout + 2_500)
      })
    )

    it.live("is waited for when a store starts, for so long", () =>
      Effect.gen(function* () {
        const redis = yield* ownRedis()
        yield* Effect.promise(() => redis.kill())
        const opening = yield* Effect.forkChild(openStore({ url: redis.url, timeout: 20_000 }), {
          startImmediately: true
        })
        yield* Effect.promise(() => redis.restart())
        yield* claimKey(yield* Fiber.join(opening), "orders", "4711")
      })
    )

    it.live("fails each call as Unavailable in time while it is down, and serves again by itself", () =>
      Effect.gen(function* () {
        const redis = yield* ownRedis({ appendonly: true })
        const store = yield* openStore({ url: redis.url, timeout })
        const { asking, completed, operating, reading, settling } = yield* holding(store)
        yield* Effect.promise(() => redis.kill())
        yield* eachFails({ ...asking, ...settling, ...reading, ...operating }, unavailable)
        yield* Effect.promise(() => redis.restart())
        yield* insist(eachSucceeds({ lookup: insist(reading.lookup!) }))
        yield* eachSucceeds({ ...asking, ...settling })
        yield* completed
      })
    )

    it.live("is waited for by any number of calls without a listener for each", () =>
      Effect.gen(function* () {
        const redis = yield* ownRedis()
        const client = yield* clientOf(redis.url)
        const store = yield* open(RedisStore.layerClient(client, { timeout }))
        const listeners = () => client.eventNames().reduce((sum, name) => sum + client.listenerCount(name), 0)
        const before = listeners()
        yield* Effect.promise(() => redis.kill())
        yield* eventually(async () => expect(client.status).toBe("reconnecting"))
        const calls = yield* Effect.forkChild(
          Effect.replicateEffect(Effect.flip(store.offsets.progress("orders")), 100, {
            concurrency: "unbounded"
          }),
          { startImmediately: true }
        )
        expect(listeners()).toBeLessThanOrEqual(before)
        for (const error of yield* Fiber.join(calls)) expectFailure(error, unavailable)
      })
    )
  })
})

await describeWithOwnRedis("a Redis that does not answer", () => {
  describe.concurrent("each on servers of its own", () => {
    it.live(
      "stopped where it stands, fails each call as Timeout in time; what was asked meanwhile harms nothing",
      () =>
        Effect.gen(function* () {
          const redis = yield* ownRedis()
          const store = yield* openStore({ url: redis.url, timeout })
          const { asking, completed, reading, settling } = yield* holding(store)
          yield* Effect.promise(() => redis.pause())
          yield* eachFails({ ...asking, ...settling, ...reading }, unanswered)
          expectFailure(yield* refusalOf({ url: redis.url, timeout }), {
            reason: "Unavailable",
            retriable: true
          })
          yield* Effect.promise(() => redis.resume())
          yield* insist(reading.lookup!)
          // all of it took effect late, and is asked again with the same claim ids
          yield* eachSucceeds({ ...asking, ...settling, ...reading })
          yield* completed
        })
    )

    it.live("halted by CLIENT PAUSE, fails each write as Timeout in time, and goes on", () =>
      Effect.gen(function* () {
        const redis = yield* ownRedis()
        const admin = yield* clientOf(redis.url)
        const store = yield* openStore({ url: redis.url, timeout })
        const { asking, completed, operating, settling } = yield* holding(store)
        yield* Effect.promise(() => admin.call("CLIENT", "PAUSE", "60000", "WRITE"))
        yield* eachFails({ ...asking, ...settling }, unanswered)
        yield* Effect.promise(() => admin.call("CLIENT", "UNPAUSE"))
        yield* eachSucceeds({ ...asking, ...settling })
        yield* completed
        yield* eachSucceeds(operating)
      })
    )

    it.live("behind a cable that was cut without notice, fails each call as Timeout in time", () =>
      Effect.gen(function* () {
        const redis = yield* ownRedis()
        const network = yield* networkBefore(redis.address)
        const store = yield* openStore({ url: `redis://${network.address}`, timeout })
        const { asking, completed, reading, settling } = yield* holding(store)
        network.halfOpen()
        yield* eachFails({ ...asking, ...settling, ...reading }, unanswered)
        yield* Effect.promise(() => network.heal())
        yield* eachSucceeds({ ...asking, ...settling, ...reading })
        yield* completed
      })
    )

    it.live("held up by another's script, fails each call as Busy at once", () =>
      Effect.gen(function* () {
        const redis = yield* ownRedis({ config: { "lua-time-limit": "20" } })
        const [admin, looping] = [yield* clientOf(redis.url), yield* clientOf(redis.url)]
        const store = yield* openStore({ url: redis.url, timeout: 5_000 })
        const { asking, completed, reading, settling } = yield* holding(store)
        const loop = looping.eval("while true do end", 0).catch((error: Error) => error)
        yield* eventually(async () =>
          expect(await admin.ping().catch((error: Error) => error.message)).toMatch(/^BUSY/)
        )
        yield* eachFails(
          { ...asking, ...settling, ...reading },
          { reason: "Busy", retriable: true, naming: /SCRIPT KILL/ }
        )
        yield* Effect.promise(() => admin.script("KILL"))
        // as one of our own would end, if it were killed
        const killed = yield* Effect.promise(() => loop)
        expectFailure(fromRedis("claim", killed as Error), {
          reason: "Busy",
          retriable: true,
          naming: /SCRIPT KILL/
        })
        yield* eachSucceeds({ ...asking, ...settling, ...reading })
        yield* completed
      })
    )

    it.live(
      "reading its data after a start, fails each call as Loading in time, and then has all of it",
      () =>
        Effect.gen(function* () {
          const redis = yield* ownRedis({
            appendonly: true,
            config: { "key-load-delay": "2000", "loading-process-events-interval-bytes": "1024" }
          })
          const admin = yield* clientOf(redis.url)
          const store = yield* openStore({ url: redis.url, timeout })
          const { completed, operating, reading, settling, ...held } = yield* holding(store)
          const terms = termsOf()
          const token = yield* claimKey(store, "orders", "4711", terms)
          // four seconds' worth of reading
          yield* Effect.promise(() => admin.eval("for n = 1, 2000 do redis.call('SET', 'n' .. n, n) end", 0))
          yield* Effect.promise(() => admin.bgrewriteaof())
          yield* eventually(async () =>
            expect(await admin.info("persistence")).toMatch(/aof_rewrite_in_progress:0/)
          )
          yield* Effect.promise(() => redis.kill())
          const asking = yield* clientOf(redis.url, { enableReadyCheck: false })
          const restarting = yield* Effect.forkChild(
            Effect.promise(() => redis.restart()),
            { startImmediately: true }
          )
          yield* eventually(async () => expect(await asking.get("n1").catch(String)).toMatch(/LOADING/))
          yield* eachFails(
            { ...held.asking, ...settling, ...reading, ...operating },
            { reason: "Loading", retriable: true, naming: /reads its data/ }
          )
          expectFailure(yield* refusalOf({ url: redis.url, timeout }), { reason: "Loading", retriable: true })
          yield* Fiber.join(restarting)
          yield* insist(reading.lookup!)
          yield* eachSucceeds(settling)
          yield* completed
          expect(yield* claimKey(store, "orders", "4711", terms)).toBe(token)
        })
    )
  })
})
