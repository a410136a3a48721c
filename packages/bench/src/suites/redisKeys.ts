/** Idempotency keys in Redis: ours beside what people write by hand, and beside Powertools. */
import { Key } from "@tidemark/core"
import { RedisStore } from "@tidemark/store-redis"
import { startOwnRedis, uniqueName } from "@tidemark/test-servers"
import { Effect } from "effect"
import { type Contestant, contest, type Work } from "../Contest.ts"
import { type Figure, rateAgainst, type Suite } from "../Figure.ts"
import { inFlight } from "../InFlight.ts"
import { uuids } from "../Random.ts"
import { connect, connectPowertools } from "../RedisPeers.ts"
import { completeKeys, openServices } from "../Subjects.ts"

type Keys = ReadonlyArray<string>

const batch = 500
const perSlice = 1_000
const callers = 64

const batchesOf = (keys: Keys): ReadonlyArray<Keys> => {
  const batches: Array<Keys> = []
  for (let from = 0; from < keys.length; from += batch) batches.push(keys.slice(from, from + batch))
  return batches
}

const input = (slice: number): Keys => Array.from({ length: perSlice }, uuids(slice + 1))

const names = {
  one: "SET NX, then SET, one in flight",
  many: "SET NX, then SET, 64 in flight",
  pipelines: "two pipelines of 500",
  scripts: "two hand-written scripts of 500",
  powertools: "Powertools idempotency, 64 in flight",
  batches: "tidemark, batches of 500",
  once: "tidemark, Tracker.once, one caller",
  onceMany: "tidemark, Tracker.once, 64 callers"
}

export const suite: Suite = {
  name: "redis-keys",
  about: "ids in the form of a UUID, all new, in Redis on the same machine: claimed and completed",
  run: async (progress) => {
    await using redis = await startOwnRedis()
    const peers = connect(redis.url)
    const powertools = await connectPowertools(redis.url)
    const closing: Array<() => Promise<unknown>> = [powertools.close, () => peers.redis.quit()]
    /** Each instance has keys of its own, all of which are gone before the next. */
    const open = async () => {
      const services = await openServices(RedisStore.layer({ url: redis.url, prefix: uniqueName("bench") }))
      closing.push(services.close)
      return services
    }
    const byHand = (work: (keys: Keys, prefix: string) => Promise<void>) => (): Work<Keys> => {
      const prefix = uniqueName("hand")
      return (keys) => work(keys, prefix)
    }
    const named = (keys: Keys, prefix: string): Keys => keys.map((key) => `${prefix}:${key}`)

    const inBatches = async (): Promise<Work<Keys>> => {
      const { keys: store } = await open()
      return async (keys) => {
        for (const part of batchesOf(keys)) await Effect.runPromise(completeKeys(store, part))
      }
    }
    const once = (count: number) => async (): Promise<Work<Keys>> => {
      const { tracker } = await open()
      return (keys) =>
        inFlight(keys, count, (key) => Effect.runPromise(tracker.once(Key.id(key), Effect.void)))
    }
    const contestants: ReadonlyArray<Contestant<Keys>> = [
      {
        name: names.one,
        everySlices: 5,
        start: byHand((keys, prefix) =>
          inFlight(named(keys, prefix), 1, (key) => peers.setNxThenSet(key, "1"))
        ),
        input
      },
      {
        name: names.many,
        start: byHand((keys, prefix) =>
          inFlight(named(keys, prefix), callers, (key) => peers.setNxThenSet(key, "1"))
        ),
        input
      },
      {
        name: names.pipelines,
        start: byHand(async (keys, prefix) => {
          for (const part of batchesOf(named(keys, prefix))) await peers.inPipelines(part, "1")
        }),
        input
      },
      {
        name: names.scripts,
        start: byHand(async (keys, prefix) => {
          for (const part of batchesOf(named(keys, prefix))) await peers.claimAndComplete(part, "1")
        }),
        input
      },
      {
        name: names.powertools,
        start: byHand((keys, prefix) => inFlight(named(keys, prefix), callers, powertools.once)),
        input
      },
      { name: names.batches, start: inBatches, input },
      { name: names.once, everySlices: 5, start: once(1), input },
      { name: names.onceMany, start: once(callers), input }
    ]
    try {
      const times = await contest({
        contestants,
        slices: 20,
        operationsPerSlice: perSlice,
        passes: 7,
        warmups: 1,
        onPass: (pass, of) => progress(`pass ${pass} of ${of}`)
      })
      return [
        ...contestants.map(
          ({ name }): Figure => ({ what: name, unit: "ns per key", measured: times.nanos(name) })
        ),
        rateAgainst(times, names.batches, names.scripts, 1),
        rateAgainst(times, names.batches, names.powertools, 6),
        rateAgainst(times, names.onceMany, names.many, 2),
        rateAgainst(times, names.once, names.one)
      ]
    } finally {
      for (const close of closing) await close()
    }
  }
}
