/** What the memory suite measures. As a program: measures the pattern that it is told, and prints the result. */
import { OffsetRanges } from "@tidemark/core"
import type { MemoryCore } from "@tidemark/store-memory"
import { LRUCache } from "lru-cache"
import { random32, shuffled, uuids } from "./Random.ts"
import { leaseMillis, newCore, owner, retentionMillis } from "./Subjects.ts"

/** Bytes per item, measured and by the store's own estimate. */
export interface Measured {
  readonly bytes: number
  readonly estimated?: number
}

export interface Pattern {
  readonly name: string
  readonly what: string
  readonly unit: string
  readonly atMost?: number
  readonly run: () => Measured
}

/** The length of the window, half of which is unfinished where every other offset is completed. */
const window = 200_000

const bytesInUse = (): number => {
  for (let i = 0; i < 4; i++) globalThis.gc?.()
  const { heapUsed, external } = process.memoryUsage()
  // external counts the array buffers too
  return heapUsed + external
}

/** Instances built before those that are weighed: V8 keeps compiled code on the heap too, some 100 kB here. */
const warmupStreams = 10
const weighedStreams = 100

/** Builds some instances first, so that compiled code and caches are there, then weighs others together. */
const weigh = <Instance>(
  count: number,
  items: number,
  make: (index: number) => Instance,
  estimate?: (instance: Instance) => number,
  warmups = 1
): Measured => {
  for (let index = -warmups; index < 0; index++) make(index)
  const kept: Array<Instance> = new Array<Instance>(count)
  const before = bytesInUse()
  for (let index = 0; index < count; index++) kept[index] = make(index)
  const bytes = (bytesInUse() - before) / (count * items)
  return estimate === undefined ? { bytes } : { bytes, estimated: estimate(kept[0]) / items }
}

/** A stream of `core` that is claimed as a consumer does it, and completed range by range or 500 offsets at a time. */
const addStream = (core: MemoryCore, name: string, completed: Iterable<OffsetRanges.OffsetRanges>): void => {
  const claimId = `claim on ${name}`
  core.claimOffsets(name, OffsetRanges.openEnded(0), { claimId, owner, leaseMillis }, 0)
  for (const ranges of completed) core.completeOffsets(name, claimId, ranges, 0)
}

function* inBatches(offsets: ReadonlyArray<number>): Generator<OffsetRanges.OffsetRanges> {
  for (let from = 0; from < offsets.length; from += 500) {
    yield OffsetRanges.fromOffsets(offsets.slice(from, from + 500))
  }
}

function* densePrefix(length: number): Generator<OffsetRanges.OffsetRanges> {
  for (let from = 0; from < length; from += 500) yield OffsetRanges.make(from, from + 500)
}

/** Streams of one store, weighed together. */
const streams = (
  items: number,
  completed: (index: number) => Iterable<OffsetRanges.OffsetRanges>
): Measured => {
  const core = newCore(1)
  let estimatedBefore = 0
  const measured = weigh(
    weighedStreams,
    items,
    (index) => {
      addStream(core, `kafka/billing/orders/${index}`, completed(index))
      if (index === -1) estimatedBefore = core.stats.estimatedBytes
      return core
    },
    undefined,
    warmupStreams
  )
  return { ...measured, estimated: (core.stats.estimatedBytes - estimatedBefore) / (weighedStreams * items) }
}

const everyOther = Array.from({ length: window / 2 }, (_, index) => 2 * index + 1)

/** Half of the window by chance; offset 0 is never among them, so that nothing is below the watermark. */
const byChance = (seed: number): ReadonlyArray<number> => {
  const next = random32(seed + 2)
  return Array.from({ length: window - 1 }, (_, index) => index + 1).filter(() => next() % 2 === 0)
}

const estimateOf = (core: MemoryCore): number => core.stats.estimatedBytes

/** As many keys in all for small stores: some 30 kB that V8 keeps once would pass for bytes of theirs. */
const keysWeighed = 100_000

const keys = (count: number): Measured =>
  weigh(
    Math.max(1, keysWeighed / count),
    count,
    (index) => {
      const core = newCore(count)
      const next = uuids(index + 2)
      for (let from = 0; from < count; from += 500) {
        const items = Array.from({ length: 500 }, () => ({ key: next() }))
        const claimId = `c${from}`
        core.claimKeys("billing", items, { claimId, owner, leaseMillis }, 0)
        core.completeKeys(claimId, "billing", items, retentionMillis, 0)
      }
      return core
    },
    estimateOf
  )

const lruCache = (count: number): Measured =>
  weigh(1, count, (index) => {
    const cache = new LRUCache<string, boolean>({ max: count, ttl: retentionMillis })
    const next = uuids(index + 2)
    for (let i = 0; i < count; i++) cache.set(next(), true)
    return cache
  })

const offsetUnit = "bytes per completed offset"
const keyUnit = "bytes per key"

export const patterns: ReadonlyArray<Pattern> = [
  {
    name: "dense",
    what: "offsets: a dense prefix of 1,000,000",
    unit: offsetUnit,
    atMost: 0.1,
    run: () => streams(1_000_000, () => densePrefix(1_000_000))
  },
  {
    name: "alternating",
    what: "offsets: every other one, 100,000 unfinished between",
    unit: offsetUnit,
    atMost: 0.3,
    run: () => streams(window / 2, () => inBatches(everyOther))
  },
  {
    name: "shuffled",
    what: "offsets: the same, completed in an order of chance",
    unit: offsetUnit,
    atMost: 0.3,
    run: () => streams(window / 2, (index) => inBatches(shuffled(everyOther, index + 2)))
  },
  {
    name: "chance",
    what: "offsets: each of 200,000 with a chance of one half",
    unit: offsetUnit,
    atMost: 0.3,
    run: () => streams(window / 2, (index) => inBatches(byChance(index)))
  },
  {
    name: "pairs",
    what: "offsets: two done, two not, 100,000 unfinished",
    unit: offsetUnit,
    atMost: 0.3,
    run: () => {
      const pairs = Array.from({ length: window / 2 }, (_, index) => 2 * index + 2 - (index & 1))
      return streams(window / 2, () => inBatches(pairs))
    }
  },
  {
    name: "one-open",
    what: "offsets: the first of 100,000 unfinished, all others done",
    unit: offsetUnit,
    run: () => {
      const others = Array.from({ length: window / 2 - 1 }, (_, index) => index + 1)
      return streams(others.length, () => inBatches(others))
    }
  },
  {
    name: "keys-100k",
    what: "keys: 100,000 UUIDs, the strings included",
    unit: keyUnit,
    atMost: 140,
    run: () => keys(100_000)
  },
  {
    name: "keys-10k",
    what: "keys: 10,000 UUIDs, the strings included",
    unit: keyUnit,
    atMost: 140,
    run: () => keys(10_000)
  },
  {
    name: "keys-1m",
    what: "keys: 1,000,000 UUIDs, the strings included",
    unit: keyUnit,
    atMost: 140,
    run: () => keys(1_000_000)
  },
  {
    name: "lru-100k",
    what: "lru-cache (max, ttl): 100,000 UUIDs, the strings included",
    unit: keyUnit,
    run: () => lruCache(100_000)
  }
]

if (import.meta.main) {
  const wanted = process.argv[2]
  const pattern = patterns.find(({ name }) => name === wanted)
  if (pattern === undefined) throw new Error(`no pattern is called ${wanted}`)
  console.log(JSON.stringify(pattern.run()))
}
