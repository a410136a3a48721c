/** Completed offsets in memory: ours against caches, and against a flat bitmap, the limit for dense offsets. */
import { ClaimId, OffsetRanges } from "@tidemark/core"
import { Effect } from "effect"
import { LRUCache } from "lru-cache"
import { type Contestant, contest, type Opened, type Work } from "../Contest.ts"
import type { Figure, Suite } from "../Figure.ts"
import { random32, shuffled } from "../Random.ts"
import { leaseMillis, newCore, newServices, owner, retentionMillis } from "../Subjects.ts"

const total = 100_000
const perSlice = 5_000
const batch = 500
const slices = total / perSlice
const stream = "kafka/billing/orders/0"

/** The offsets of one slice, in batches. */
type Offsets = ReadonlyArray<ReadonlyArray<number>>

const inBatches = (offsets: ReadonlyArray<number>): Offsets => {
  const batches: Array<ReadonlyArray<number>> = []
  for (let from = 0; from < offsets.length; from += batch) batches.push(offsets.slice(from, from + batch))
  return batches
}

const dense = (slice: number): Offsets =>
  inBatches(Array.from({ length: perSlice }, (_, index) => slice * perSlice + index))

/** Ascending, a third of all offsets on average: what one of three consumers of a shared log is given. */
const scattered = (slice: number): Offsets => {
  const next = random32(slice + 1)
  return inBatches(
    Array.from({ length: perSlice }, (_, index) => (slice * perSlice + index) * 3 + (next() % 3))
  )
}

/** Dense in the end, but each batch takes its offsets from anywhere in a window of 5,000. */
const disorderly = (slice: number): Offsets => inBatches(shuffled(dense(slice).flat(), slice + 1))

const lruCache = (): Work<Offsets> => {
  const cache = new LRUCache<string, boolean>({ max: total, ttl: retentionMillis })
  return (batches) => {
    for (const offsets of batches) {
      for (const offset of offsets) {
        const key = `${stream}/${offset}`
        if (!cache.has(key)) cache.set(key, true)
      }
    }
  }
}

const lruCacheOfNumbers = (): Work<Offsets> => {
  const cache = new LRUCache<number, boolean>({ max: total, ttl: retentionMillis })
  return (batches) => {
    for (const offsets of batches)
      for (const offset of offsets) if (!cache.has(offset)) cache.set(offset, true)
  }
}

const setOfStrings = (): Work<Offsets> => {
  const set = new Set<string>()
  return (batches) => {
    for (const offsets of batches) {
      for (const offset of offsets) {
        const key = `${stream}/${offset}`
        if (!set.has(key)) set.add(key)
      }
    }
  }
}

const bitmap = (): Work<Offsets> => {
  const words = new Int32Array(total / 32)
  return (batches) => {
    for (const offsets of batches) {
      for (const offset of offsets) {
        const bit = 1 << (offset & 31)
        if ((words[offset >>> 5] & bit) === 0) words[offset >>> 5] |= bit
      }
    }
  }
}

/** Of every stream the same offsets. */
const throughService =
  (ranges: (offsets: ReadonlyArray<number>) => OffsetRanges.OffsetRanges, streams = 1) =>
  async (): Promise<Opened<Offsets>> => {
    const { offsets: store, close } = await newServices()
    const names = Array.from({ length: streams }, (_, index) => `kafka/billing/orders/${index}`)
    const work = (batches: Offsets): void => {
      let next = 0
      const step = Effect.suspend(() => {
        const stream = names[next % streams]
        const asked = ranges(batches[Math.floor(next / streams)])
        next += 1
        const claimId = ClaimId.make()
        return Effect.flatMap(store.claim(stream, asked, { claimId, owner, leaseMillis }), ({ granted }) =>
          store.complete({ stream, claimId }, granted)
        )
      })
      Effect.runSync(
        Effect.whileLoop({ while: () => next < batches.length * streams, body: () => step, step: () => {} })
      )
    }
    return { work, close }
  }

/** So many partitions make a slice of ranges about as long as one of the others. */
const rangeStreams = 100

const asRange = (offsets: ReadonlyArray<number>): OffsetRanges.OffsetRanges =>
  OffsetRanges.make(offsets[0], offsets[0] + offsets.length)

/** So many make a slice of single offsets about as long as one of lru-cache. */
const singleStreams = 10

const oneAtATime = (): Work<Offsets> => {
  const core = newCore(1)
  const names = Array.from({ length: singleStreams }, (_, index) => `kafka/billing/orders/${index}`)
  return (batches) => {
    // lru-cache reads the clock once a millisecond by itself (`ttlResolution`); here once a slice, of some milliseconds
    const now = Date.now()
    for (const stream of names) {
      for (const offsets of batches) {
        for (const offset of offsets) {
          const claimId = ClaimId.make()
          core.claimOffset(stream, offset, { claimId, owner, leaseMillis }, now)
          core.completeOffset(stream, claimId, offset, now)
        }
      }
    }
  }
}

const names = {
  lru: "lru-cache (max, ttl), key `stream/offset`",
  lruNumbers: "lru-cache (max, ttl), the number as key",
  set: "Set of strings",
  bitmap: "flat bitmap",
  ranges: "OffsetStore, batches of 500, one range, 100 streams",
  scattered: "OffsetStore, batches of 500, scattered",
  disorderly: "OffsetStore, batches of 500, in disorder",
  one: "MemoryCore, one at a time"
}

const contestants: ReadonlyArray<Contestant<Offsets>> = [
  { name: names.lru, start: lruCache, input: dense },
  { name: names.lruNumbers, start: lruCacheOfNumbers, input: dense },
  { name: names.set, start: setOfStrings, input: dense },
  { name: names.bitmap, start: bitmap, input: dense },
  { name: names.ranges, start: throughService(asRange, rangeStreams), input: dense, times: rangeStreams },
  { name: names.scattered, start: throughService(OffsetRanges.fromOffsets), input: scattered },
  { name: names.disorderly, start: throughService(OffsetRanges.fromOffsets), input: disorderly },
  { name: names.one, start: oneAtATime, input: dense, times: singleStreams }
]

export const suite: Suite = {
  name: "offsets",
  about: "100,000 offsets, all new: claim and complete (ours) against one check-and-add (the others)",
  run: async (progress) => {
    const times = await contest({
      contestants,
      slices,
      operationsPerSlice: perSlice,
      passes: 15,
      onPass: (pass, of) => progress(`pass ${pass} of ${of}`)
    })
    const faster = (name: string, atLeast: number): Figure => ({
      what: `${name}: rate against lru-cache's`,
      unit: "x",
      measured: times.ratio(names.lru, name),
      target: { atLeast }
    })
    return [
      ...contestants.map(
        ({ name }): Figure => ({ what: name, unit: "ns per offset", measured: times.nanos(name) })
      ),
      faster(names.ranges, 100),
      faster(names.scattered, 10),
      faster(names.disorderly, 10),
      faster(names.one, 10),
      {
        what: `${names.one}: rate against lru-cache's with numbers as keys`,
        unit: "x",
        measured: times.ratio(names.lruNumbers, names.one)
      }
    ]
  }
}
