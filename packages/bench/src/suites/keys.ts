/** Idempotency keys in memory: ours claims and completes, the others check and add. */
import { TTLCache } from "@isaacs/ttlcache"
import { ClaimId, type Protocol } from "@tidemark/core"
import { Effect } from "effect"
import { Keyv } from "keyv"
import { LRUCache } from "lru-cache"
import { type Contestant, contest, type Opened, type Spread, type Work } from "../Contest.ts"
import type { Figure, Suite } from "../Figure.ts"
import { uuids } from "../Random.ts"
import { leaseMillis, newCore, newServices, owner, retentionMillis } from "../Subjects.ts"

type Keys = ReadonlyArray<string>

const batch = 500
const perSlice = 1_000
/**
 * A pass fills at least so many: small ones one after another. A pass of a few milliseconds, between two full
 * collections, is over before V8 has compiled again what it threw away there.
 */
const perPass = 100_000
/** Keys that each contestant is given before those that count: with more of them the ratios move no further. */
const warmingKeys = 1_000_000
const namespace = "billing"

const lruCache = (size: number) => (): Work<Keys> => {
  const cache = new LRUCache<string, boolean>({ max: size, ttl: retentionMillis })
  return (keys) => {
    for (const key of keys) if (!cache.has(key)) cache.set(key, true)
  }
}

const setOfStrings = (): Work<Keys> => {
  const set = new Set<string>()
  return (keys) => {
    for (const key of keys) if (!set.has(key)) set.add(key)
  }
}

const mapWithExpiry = (): Work<Keys> => {
  const map = new Map<string, number>()
  return (keys) => {
    for (const key of keys) {
      const now = Date.now()
      const until = map.get(key)
      if (until === undefined || until <= now) map.set(key, now + retentionMillis)
    }
  }
}

const ttlCache = (size: number) => (): Work<Keys> => {
  const cache = new TTLCache<string, boolean>({ max: size, ttl: retentionMillis })
  return (keys) => {
    for (const key of keys) if (!cache.has(key)) cache.set(key, true)
  }
}

const keyv = (): Work<Keys> => {
  const cache = new Keyv({ ttl: retentionMillis })
  return async (keys) => {
    for (const key of keys) if (!(await cache.has(key))) await cache.set(key, true)
  }
}

const coreOneAtATime = (size: number) => (): Work<Keys> => {
  const core = newCore(size)
  return (keys) => {
    // lru-cache reads the clock once a millisecond by itself (`ttlResolution`) to judge what it finds; here a slice
    // takes less than one
    const now = Date.now()
    for (const key of keys) {
      const claimId = ClaimId.make()
      const item = { key }
      core.claimKey(namespace, item, { claimId, owner, leaseMillis }, now)
      core.completeKey(claimId, namespace, item, retentionMillis, now)
    }
  }
}

const itemsOf = (keys: Keys, from: number): Array<Protocol.KeyItem> => {
  const items: Array<Protocol.KeyItem> = []
  for (let index = from; index < from + batch; index++) items.push({ key: keys[index] })
  return items
}

const coreInBatches = (size: number) => (): Work<Keys> => {
  const core = newCore(size)
  return (keys) => {
    for (let from = 0; from < keys.length; from += batch) {
      const claimId = ClaimId.make()
      const items = itemsOf(keys, from)
      core.claimKeys(namespace, items, { claimId, owner, leaseMillis }, Date.now())
      core.completeKeys(claimId, namespace, items, retentionMillis, Date.now())
    }
  }
}

const throughService = (size: number) => async (): Promise<Opened<Keys>> => {
  const { keys: store, close } = await newServices(size)
  const work = (keys: Keys): void => {
    let next = 0
    const step = Effect.suspend(() => {
      const items = itemsOf(keys, next)
      next += batch
      const claimId = ClaimId.make()
      return Effect.flatMap(store.claim(namespace, items, { claimId, owner, leaseMillis }), () =>
        store.complete({ namespace, claimId }, items)
      )
    })
    Effect.runSync(Effect.whileLoop({ while: () => next < keys.length, body: () => step, step: () => {} }))
  }
  return { work, close }
}

type Started = Work<Keys> | Opened<Keys>

const isOpened = (started: Started): started is Opened<Keys> => typeof started !== "function"

/** Instances that are filled one after another, each by as many slices. */
const inTurn =
  (count: number, slicesEach: number, start: () => Started | Promise<Started>) =>
  async (): Promise<Opened<Keys>> => {
    const instances: Array<Started> = []
    while (instances.length < count) instances.push(await start())
    const works = instances.map((started) => (isOpened(started) ? started.work : started))
    return {
      work: (keys, slice) => works[Math.floor(slice / slicesEach)](keys, slice),
      close: async () => {
        for (const started of instances) if (isOpened(started)) await started.close()
      }
    }
  }

const names = {
  lru: "lru-cache (max, ttl)",
  set: "Set of strings",
  map: "Map with expiry",
  ttl: "@isaacs/ttlcache (max, ttl)",
  keyv: "keyv",
  one: "MemoryCore, one at a time",
  batches: "MemoryCore, batches of 500",
  service: "IdempotencyStore, batches of 500"
}

const atSize = async (
  size: number,
  atMost: number,
  passes: number,
  progress: (line: string) => void
): Promise<ReadonlyArray<Figure>> => {
  // the ids of one contestant are strings of its own, which were never hashed: as they come out of a message
  const input = (slice: number): Keys => {
    const next = uuids(slice + 1)
    return Array.from({ length: perSlice }, next)
  }
  const ours = [
    { name: names.one, start: coreOneAtATime(size), input },
    { name: names.batches, start: coreInBatches(size), input },
    { name: names.service, start: throughService(size), input }
  ]
  const peers: ReadonlyArray<Contestant<Keys>> = [
    { name: names.set, start: () => setOfStrings(), input },
    { name: names.map, start: () => mapWithExpiry(), input },
    { name: names.ttl, start: ttlCache(size), input },
    { name: names.keyv, start: () => keyv(), input, everySlices: 5 }
  ]
  const lru: Contestant<Keys> = { name: names.lru, start: lruCache(size), input }
  const count = size.toLocaleString("en-US")
  const instances = Math.max(1, perPass / size)
  const figure = (name: string, measured: Spread): Figure => ({
    what: `${count}: ${name}`,
    unit: "ns per key",
    measured
  })
  const contestants = size > 100_000 ? [lru, ...ours] : [lru, ...ours, ...peers]
  const times = await contest({
    contestants: contestants.map((contestant) => ({
      ...contestant,
      start: inTurn(instances, size / perSlice, contestant.start)
    })),
    slices: (instances * size) / perSlice,
    operationsPerSlice: perSlice,
    passes,
    warmups: Math.ceil(warmingKeys / (instances * size)),
    onPass: (pass, of) => progress(`${count} keys, pass ${pass} of ${of}`)
  })
  return [
    ...contestants.map(({ name }) => figure(name, times.nanos(name))),
    ...ours.map(
      ({ name }): Figure => ({
        what: `${count}: ${name}: time against lru-cache's`,
        unit: "x",
        measured: times.ratio(name, names.lru),
        target: { atMost }
      })
    )
  ]
}

export const suite: Suite = {
  name: "keys",
  about:
    "ids in the form of a UUID, all new: claim and complete (ours) against one check-and-add (the others), when warm",
  run: async (progress) => [
    ...(await atSize(10_000, 1, 11, progress)),
    ...(await atSize(100_000, 1, 11, progress)),
    ...(await atSize(1_000_000, 1.25, 5, progress))
  ]
}
