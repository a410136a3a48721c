/** How the store is opened, what it demands of Redis, and what only several of its kind show. */
import { assert, describe, it } from "@effect/vitest"
import { Lock, OffsetRanges } from "@tidemark/core"
import { uniqueName } from "@tidemark/test-servers"
import { describeWithRedis } from "@tidemark/test-servers/vitest"
import { ConfigProvider, Context, Deferred, Effect, Fiber, Layer } from "effect"
import { Redis } from "ioredis"
import { openStore, RedisStore, storeErrorOf } from "./store.ts"

const terms = (claimId: string, leaseMillis = 600_000) => ({
  claimId,
  owner: `owner of ${claimId}`,
  leaseMillis
})

const client = (url: string, options = {}) =>
  Effect.acquireRelease(
    Effect.sync(() => new Redis(url, options)),
    (open) => Effect.sync(() => open.disconnect())
  )

describe("options", () => {
  const url = "redis://localhost:1"
  it.effect.each([
    [{}, "connection"],
    [{ url, redis: {} }, "connection"],
    [{ url: "http://localhost" }, "url"],
    [{ cluster: { nodes: [] } }, "cluster.nodes"],
    [{ redis: { keyPrefix: "x" } }, "keyPrefix of ioredis"],
    [{ url, prefix: "{x}" }, "prefix"],
    [{ url, prefix: "" }, "prefix"],
    [{ url, retention: 0 }, "retention"],
    [{ url, timeout: "for ever" }, "timeout"],
    [{ url, waitReplicas: { count: 0, timeoutMillis: 1 } }, "waitReplicas"],
    [{ url, retries: 3 }, "option of RedisStore"]
  ])("%j are refused, naming %s", ([options, field]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Layer.build(RedisStore.layer(options as never)))
      assert.isTrue(error._tag === "InvalidInput" && error.field === field, error.message)
    }).pipe(Effect.scoped)
  )

  it.effect("a bad URL is told without its password", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Layer.build(RedisStore.layer({ url: "http://me:secret@localhost" })))
      assert.notInclude(error.message, "secret")
    }).pipe(Effect.scoped)
  )
})

await describeWithRedis("RedisStore", ({ url }) => {
  const prefix = uniqueName("store")
  const layer = RedisStore.layer({ url, prefix })

  it.live("layerConfig reads the environment, over the options that it is given", () =>
    Effect.gen(function* () {
      const { keys } = yield* openStore(
        RedisStore.layerConfig({ retention: "1 hour", prefix: "not this one" }).pipe(
          Layer.provide(
            ConfigProvider.layer(
              ConfigProvider.fromUnknown({ REDIS_URL: url, REDIS_PREFIX: prefix, REDIS_TIMEOUT: "3 seconds" })
            )
          )
        ) as typeof layer
      )
      assert.strictEqual(keys.retentionMillis, 3_600_000)
      yield* keys.claim("config", [{ key: "a" }], terms("c"))
      const redis = yield* client(url)
      assert.strictEqual(yield* Effect.promise(() => redis.exists(`${prefix}:k:{config}`)), 1)
    })
  )

  it.live("layerClient uses a connection of the user's, which works on when the store is closed", () =>
    Effect.gen(function* () {
      const redis = yield* client(url)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { offsets } = yield* openStore(RedisStore.layerClient(redis, { prefix }) as typeof layer)
          yield* offsets.claim("of a client", OffsetRanges.of(1), terms("c"))
        })
      )
      assert.strictEqual(yield* Effect.promise(() => redis.ping()), "PONG")
      assert.strictEqual(redis.listenerCount("error"), 0)
      const prefixed = yield* client(url, { keyPrefix: "x:" })
      const error = yield* Effect.flip(Layer.build(RedisStore.layerClient(prefixed)).pipe(Effect.scoped))
      assert.isTrue(error._tag === "InvalidInput" && error.field === "keyPrefix of ioredis")
    })
  )

  it.live("a store that is closed says so", () =>
    Effect.gen(function* () {
      const { offsets } = yield* Effect.scoped(openStore(layer))
      const error = yield* storeErrorOf(offsets.isCompleted("s", 1))
      assert.deepInclude(error, { reason: "Closed", retriable: false }, error.message)
    })
  )

  it.live("data of another format is WrongVersion: of the prefix, of a stream, of a namespace", () =>
    Effect.gen(function* () {
      const redis = yield* client(url)
      const other = uniqueName("newer")
      const { keys, offsets } = yield* openStore(RedisStore.layer({ url, prefix: other }))
      yield* offsets.claim("s", OffsetRanges.of(1), terms("c"))
      yield* Effect.promise(() => redis.hset(`${other}:s:{s}`, "v", "2"))
      for (const call of [
        offsets.claim("s", OffsetRanges.of(2), terms("d")),
        offsets.progress("s"),
        offsets.renew([{ stream: "s", claimId: "c", leaseMillis: 1 }])
      ]) {
        const error = yield* storeErrorOf(call as Effect.Effect<unknown, unknown>)
        assert.deepInclude(error, { reason: "WrongVersion", retriable: false }, error.message)
        // which would show users' keys in logs
        assert.notProperty(error.cause, "command")
      }
      yield* Effect.promise(() =>
        redis.eval(
          "redis.call('HSET', KEYS[1], '\\255', cmsgpack.pack('2', 1, {}, '0', '-'))",
          1,
          `${other}:k:{n}`
        )
      )
      const error = yield* storeErrorOf(keys.claim("n", [{ key: "a" }], terms("c")))
      assert.strictEqual(error.reason, "WrongVersion", error.message)
      yield* Effect.promise(() => redis.hset(`${other}:{format}`, "v", "2"))
      const opening = yield* storeErrorOf(Effect.scoped(openStore(RedisStore.layer({ url, prefix: other }))))
      assert.deepInclude(opening, { reason: "WrongVersion", retriable: false }, opening.message)
    })
  )

  it.live("who waits is woken by another process's release or completion, long before he asks again", () =>
    Effect.gen(function* () {
      const one = yield* openStore(layer)
      const two = yield* openStore(layer)
      const stream = uniqueName("stream")
      const key = { key: uniqueName("key") }
      const uuid = { key: crypto.randomUUID() }
      yield* one.offsets.claim(stream, OffsetRanges.openEnded(0), terms("c"))
      yield* one.keys.claim("wake", [key, uuid], terms("c"))
      yield* two.offsets.claim(stream, OffsetRanges.openEnded(0), terms("d"))
      yield* two.keys.claim("wake", [key, uuid], terms("d"))
      const waiting = yield* Effect.forEach(
        [
          two.offsets.awaitRelease(stream),
          two.keys.awaitSettled("wake", key.key),
          two.keys.awaitSettled("wake", uuid.key)
        ],
        (wait) => Effect.forkChild(wait, { startImmediately: true })
      )
      // asked for again until it is heard, since the subscription may still be on its way
      yield* Effect.forEach(waiting, (fiber) => Fiber.join(fiber), { concurrency: "unbounded" }).pipe(
        Effect.raceFirst(
          Effect.forever(
            Effect.gen(function* () {
              yield* two.offsets.claim(stream, OffsetRanges.openEnded(0), terms("d"))
              yield* two.keys.claim("wake", [key, uuid], terms("d"))
              yield* one.offsets.release({ stream, claimId: "c" })
              yield* one.keys.release({ namespace: "wake", claimId: "c" })
              yield* two.offsets.release({ stream, claimId: "d" })
              yield* two.keys.release({ namespace: "wake", claimId: "d" })
              yield* one.offsets.claim(stream, OffsetRanges.openEnded(0), terms("c"))
              yield* one.keys.claim("wake", [key, uuid], terms("c"))
              yield* Effect.sleep(20)
            })
          )
        ),
        Effect.timeout("20 seconds")
      )
    })
  )

  it.live("a lock goes from process to process without waiting for the next question", () =>
    Effect.gen(function* () {
      const locks = yield* Effect.forEach([1, 2], () =>
        Effect.map(openStore(layer), ({ context }) => Context.get(context, Lock))
      )
      const name = uniqueName("lock")
      const times: Array<number> = []
      // a warm-up, in which the connections for messages are made
      for (let round = 0; round < 12; round++) {
        const [holder, waiter] = round % 2 === 0 ? locks : [locks[1], locks[0]]
        const held = yield* Deferred.make<void>()
        const gate = yield* Deferred.make<void>()
        const first = yield* Effect.forkChild(
          holder.withLock(name)(Effect.andThen(Deferred.succeed(held, undefined), Deferred.await(gate)))
        )
        yield* Deferred.await(held)
        const second = yield* Effect.forkChild(waiter.withLock(name)(Effect.sync(() => performance.now())))
        yield* Effect.sleep(30)
        const from = performance.now()
        yield* Deferred.succeed(gate, undefined)
        const entered = yield* Fiber.join(second)
        yield* Fiber.join(first)
        if (round >= 2) times.push(entered - from)
      }
      times.sort((a, b) => a - b)
      // by polling alone it would be some 50 ms
      assert.isBelow(times[Math.floor(times.length / 2)], 25, String(times))
    })
  )

  it.live("what died without a word is swept away on the way of later claims", () =>
    Effect.gen(function* () {
      const swept = uniqueName("swept")
      const { keys } = yield* openStore(RedisStore.layer({ url, prefix: swept }))
      const redis = yield* client(url)
      const dead = Array.from({ length: 200 }, (_, index) => ({ key: `dead ${index}` }))
      yield* keys.claim("n", dead, terms("dead", 1))
      const sizeNow = () => Effect.promise(() => redis.hlen(`${swept}:k:{n}`))
      assert.strictEqual(yield* sizeNow(), 202)
      for (let round = 0; (yield* sizeNow()) > 3; round++) {
        assert.isBelow(round, 5_000)
        yield* keys.claim("n", [{ key: "live" }], terms(`live ${round}`))
        yield* keys.release({ namespace: "n", claimId: `live ${round}` })
      }
    })
  )

  it.live("an expired generation of keys is gone, and with it its memory; other retentions stay", () =>
    Effect.gen(function* () {
      const expiring = uniqueName("expiring")
      const { keys } = yield* openStore(RedisStore.layer({ url, prefix: expiring }))
      const redis = yield* client(url)
      const complete = (name: string, retentionMillis: number) =>
        Effect.gen(function* () {
          yield* keys.claim("n", [{ key: name }], terms(name))
          yield* keys.complete({ namespace: "n", claimId: name }, [{ key: name }], { retentionMillis })
        })
      const generations = () => Effect.promise(() => redis.keys(`${expiring}:k:{n}:d:*`))
      yield* complete("short", 50)
      yield* complete("long", 3_600_000)
      yield* complete("long too", 3_700_000)
      assert.strictEqual((yield* generations()).length, 2)
      yield* Effect.sleep(1_200)
      yield* complete("later", 3_600_000)
      assert.strictEqual((yield* generations()).length, 1)
      const statuses = yield* keys.lookup("n", ["short", "long", "long too"])
      assert.deepStrictEqual(
        statuses.map(({ _tag }) => _tag),
        ["Unknown", "Completed", "Completed"]
      )
    })
  )
})
