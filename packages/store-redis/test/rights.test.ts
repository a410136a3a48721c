import { it } from "@effect/vitest"
import { OffsetRanges } from "@tidemark/core"
import { describeWithOwnRedis } from "@tidemark/test-servers/vitest"
import { Effect, Fiber } from "effect"
import { Redis } from "ioredis"
import { expect } from "vitest"
import { RedisStore } from "../src/index.ts"
import {
  claimKey,
  clientOf,
  eachSucceeds,
  expectFailure,
  holding,
  open,
  openStore,
  ownRedis,
  refusalOf,
  termsOf
} from "./harness.ts"

const urlFor = (url: string, user: string): string => url.replace("redis://", `redis://${user}:secret@`)

/** The rights that the README names, with these words after them. */
const restricted = (user: string, ...words: ReadonlyArray<string>): ReadonlyArray<string> => [
  "SETUSER",
  user,
  "on",
  ">secret",
  "~days:*",
  "&days:wake",
  ..."+@connection +@hash +@sortedset +@scripting +@pubsub +set +get +del +exists +pexpireat +time +info +wait +type +unlink".split(
    " "
  ),
  ...words
]

await describeWithOwnRedis("who may use a Redis", () => {
  it.live("a wrong password, and none, are Refused at once, and not worth asking again", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis({ config: { requirepass: "right" } })
      const wrong = { reason: "Refused", retriable: false, naming: /WRONGPASS.*password/ } as const
      expectFailure(yield* refusalOf({ url: redis.url.replace("right", "wrong") }), wrong)
      const none = { reason: "Refused", retriable: false, naming: /NOAUTH.*password/ } as const
      expectFailure(yield* refusalOf({ url: `redis://${redis.address}` }), none)
      yield* openStore({ url: redis.url })
    })
  )

  it.live("the rights that the README names suffice for every verb", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis()
      const admin = yield* clientOf(redis.url)
      yield* Effect.promise(() => admin.call("ACL", ...restricted("ann")))
      const store = yield* openStore({ url: urlFor(redis.url, "ann"), prefix: "days" })
      const { asking, operating, reading, settling } = yield* holding(store)
      yield* eachSucceeds({ ...asking, ...settling, ...reading, ...operating })
      const denied = (yield* Effect.promise(() => admin.call("ACL", "LOG"))) as Array<unknown>
      expect(denied).toEqual([])
    })
  )

  it.live("a right that is missing is Refused when the store starts, and named", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis()
      const admin = yield* clientOf(redis.url)
      const missing: ReadonlyArray<readonly [right: string, naming: RegExp]> = [
        ["-evalsha", /evalsha/i],
        ["-wait", /wait/i],
        ["-hset", /hset/i],
        ["-hdel", /hdel/i],
        ["-hgetall", /hgetall/i],
        ["-pexpireat", /pexpireat/i],
        ["-zadd", /zadd/i],
        ["-del", /\bdel\b/i],
        ["resetkeys", /keys/]
      ]
      yield* Effect.forEach(
        missing,
        ([right, naming], index) =>
          Effect.gen(function* () {
            yield* Effect.promise(() => admin.call("ACL", ...restricted(`user${index}`, right)))
            const error = yield* refusalOf({
              url: urlFor(redis.url, `user${index}`),
              prefix: "days",
              waitReplicas: { count: 1, timeoutMillis: 100 }
            })
            expectFailure(error, { reason: "Refused", retriable: false, naming })
          }),
        { concurrency: "unbounded" }
      )
    })
  )

  it.live("a right that is taken away later is Refused, call by call, until it is given back", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis()
      const admin = yield* clientOf(redis.url)
      yield* Effect.promise(() => admin.call("ACL", ...restricted("ann")))
      const store = yield* openStore({ url: urlFor(redis.url, "ann"), prefix: "days" })
      yield* Effect.promise(() => admin.call("ACL", "SETUSER", "ann", "-hset"))
      const error = yield* Effect.flip(claimKey(store, "orders", "4711"))
      expectFailure(error, { reason: "Refused", retriable: false, naming: /hset|user/i })
      yield* Effect.promise(() => admin.call("ACL", "SETUSER", "ann", "+hset"))
      yield* claimKey(store, "orders", "4711")
    })
  )

  it.live("without the right to publish and to subscribe, whoever waits asks again by a timer", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis()
      const admin = yield* clientOf(redis.url)
      yield* Effect.promise(() =>
        admin.call("ACL", ...restricted("ann", "-publish", "-subscribe", "resetchannels"))
      )
      const url = urlFor(redis.url, "ann")
      const [one, two] = [
        yield* openStore({ url, prefix: "days" }),
        yield* openStore({ url, prefix: "days" })
      ]
      const terms = termsOf()
      const token = yield* claimKey(one, "lock", "report", terms)
      const waiting = yield* Effect.forkChild(
        two.lock.withLock("report")((held) => Effect.succeed(held.token)),
        { startImmediately: true }
      )
      yield* one.keys.release({ namespace: "lock", claimId: terms.claimId })
      expect(yield* Fiber.join(waiting)).toBeGreaterThan(token)
    })
  )
})

await describeWithOwnRedis("a Redis that can't be trusted", () => {
  it.live("one that may evict is Misconfigured, unless that is accepted", () =>
    Effect.gen(function* () {
      for (const policy of ["allkeys-lru", "volatile-ttl"]) {
        const redis = yield* ownRedis({ config: { "maxmemory-policy": policy } })
        expectFailure(yield* refusalOf({ url: redis.url }), {
          reason: "Misconfigured",
          retriable: false,
          naming: new RegExp(`${policy}.*noeviction`)
        })
        const store = yield* openStore({ url: redis.url, acceptEviction: true })
        yield* claimKey(store, "orders", "4711")
      }
    })
  )

  it.live("one that is too old is Misconfigured, whoever made the connection", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis()
      const versions: ReadonlyArray<readonly [version: string, good: boolean]> = [
        ["5.0.14", false],
        ["6.0.16", false],
        ["6.2.0", true],
        ["7.2.4", true],
        ["10.0.0", true]
      ]
      for (const [version, good] of versions) {
        // the one answer that no server at hand would give
        class Old extends Redis {
          override async info(): Promise<string> {
            return (await super.info()).replace(/redis_version:\S+/, `redis_version:${version}`)
          }
        }
        const client = yield* Effect.acquireRelease(
          Effect.sync(() => new Old(redis.url, { replyMapping: "legacy", enableReadyCheck: false })),
          (one) => Effect.sync(() => one.disconnect())
        )
        const opening = open(RedisStore.layerClient(client))
        if (good) yield* opening
        else
          expectFailure(yield* Effect.flip(opening), {
            reason: "Misconfigured",
            retriable: false,
            naming: new RegExp(`${version}.*6\\.2`)
          })
      }
    })
  )
})

await describeWithOwnRedis("data that is not ours", () => {
  it.live(
    "of another format is WrongVersion, when the store starts and of each stream, and is left alone",
    () =>
      Effect.gen(function* () {
        const redis = yield* ownRedis()
        const admin = yield* clientOf(redis.url)
        const store = yield* openStore({ url: redis.url, prefix: "days" })
        const wrong = { reason: "WrongVersion", retriable: false, naming: /99/ } as const
        yield* store.offsets.claim("orders", OffsetRanges.make(0, 10), termsOf())
        const [stream] = yield* Effect.promise(() => admin.keys("days:s:*}"))
        yield* Effect.promise(() => admin.hset(stream!, "v", "99"))
        const before = yield* Effect.promise(() => admin.dump(stream!))
        for (const call of [
          store.offsets.claim("orders", OffsetRanges.make(10, 20), termsOf()),
          store.offsets.progress("orders"),
          store.offsets.rewind("orders", 0)
        ]) {
          expectFailure(yield* Effect.flip<unknown, unknown, never>(call), wrong)
        }
        expect(yield* Effect.promise(() => admin.dump(stream!))).toEqual(before)

        yield* Effect.promise(() => admin.hset("days:{format}", "v", "99"))
        expectFailure(yield* refusalOf({ url: redis.url, prefix: "days" }), wrong)
        yield* openStore({ url: redis.url, prefix: "other" })
      })
  )

  it.live("a key of another type under our prefix is Corrupt, which names it, and is left alone", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis()
      const admin = yield* clientOf(redis.url)
      const store = yield* openStore({ url: redis.url, prefix: "days" })
      yield* claimKey(store, "orders", "4711")
      yield* store.offsets.claim("orders", OffsetRanges.make(0, 10), termsOf())
      const found = yield* Effect.promise(() => admin.keys("days:[ks]:*orders*"))
      expect(found.length).toBeGreaterThan(2)
      for (const key of found) {
        yield* Effect.promise(() => admin.pipeline().del(key).set(key, "mine").exec())
        const call: Effect.Effect<unknown, unknown> = key.startsWith("days:k:")
          ? store.keys.claim("orders", [{ key: "4712" }], termsOf())
          : store.offsets.claim("orders", OffsetRanges.make(10, 20), termsOf())
        const naming = new RegExp(`${key.replaceAll(/[{}]/g, ".")}, a string`)
        expectFailure(yield* Effect.flip(call), { reason: "Corrupt", retriable: false, naming }, key)
        expect(yield* Effect.promise(() => admin.get(key))).toBe("mine")
        yield* Effect.promise(() => admin.del(key))
      }
    })
  )

  it.live("another prefix is untouched by all that a store does", () =>
    Effect.gen(function* () {
      const redis = yield* ownRedis()
      const admin = yield* clientOf(redis.url)
      const [one, two] = [
        yield* openStore({ url: redis.url, prefix: "days" }),
        yield* openStore({ url: redis.url, prefix: "days:two" })
      ]
      yield* claimKey(one, "orders", "4711")
      yield* one.offsets.claim("orders", OffsetRanges.make(0, 10), termsOf())
      yield* Effect.promise(() => admin.set("theirs", "theirs"))
      const dumped = () =>
        Effect.promise(async () => {
          const names = (await admin.keys("*")).filter((name) => !name.startsWith("days:two:")).sort()
          return Promise.all(names.map(async (name) => [name, await admin.dumpBuffer(name)]))
        })
      const before = yield* dumped()
      const { asking, operating, reading, settling } = yield* holding(two)
      yield* eachSucceeds({ ...asking, ...settling, ...reading, ...operating })
      yield* claimKey(two, "orders", "4711")
      yield* two.offsets.forget("orders")
      yield* two.keys.forget("orders", ["4711"])
      expect(yield* dumped()).toEqual(before)
    })
  )
})
