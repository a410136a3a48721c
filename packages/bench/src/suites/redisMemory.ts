/** What Redis keeps: per remembered id beside `SET ... PX`, and per completed offset. */
import { ClaimId, OffsetRanges } from "@tidemark/core"
import { RedisStore } from "@tidemark/store-redis"
import { startOwnRedis } from "@tidemark/test-servers"
import { Effect } from "effect"
import type { Spread } from "../Contest.ts"
import type { Figure, Suite } from "../Figure.ts"
import { uuids } from "../Random.ts"
import { connect } from "../RedisPeers.ts"
import { completeKeys, openServices, owner, retentionMillis, type Services } from "../Subjects.ts"

const batch = 500
const stream = "kafka/billing/orders/0"

const exactly = (value: number): Spread => ({ median: value, min: value, max: value })

type Stats = ReadonlyArray<string | number | Stats>

/** A number of `MEMORY STATS`, whose answer is names and values in turn, some of which are such answers themselves. */
const numberIn = (stats: Stats, name: string): number => {
  const at = stats.indexOf(name)
  if (at >= 0) return Number(stats[at + 1])
  return stats.reduce<number>((sum, value) => sum + (Array.isArray(value) ? numberIn(value, name) : 0), 0)
}

type Work = (services: Services, peers: ReturnType<typeof connect>) => Promise<unknown>

/** Works on a server of its own, and asks it before and after. */
const onServer = async (ask: (peers: ReturnType<typeof connect>) => Promise<number>, work: Work) => {
  await using redis = await startOwnRedis()
  const peers = connect(redis.url)
  const services = await openServices(RedisStore.layer({ url: redis.url }))
  try {
    // what is there once
    await Effect.runPromise(completeKeys(services.keys, ["warm-up"], { retentionMillis }))
    await completeOffsets(services, "warm-up", [OffsetRanges.of(0)])
    await peers.claimAndComplete(["warm-up"], "1")
    const before = await ask(peers)
    await work(services, peers)
    return (await ask(peers)) - before
  } finally {
    await services.close()
    await peers.redis.quit()
  }
}

/** Of many keys: the data, and the tables of keys and of expiries, without the buffers of clients; to some 20 kB. */
const bytesOfAll = (work: Work): Promise<number> =>
  onServer(async ({ redis }) => {
    const stats = (await redis.call("MEMORY", "STATS")) as Stats
    return (
      numberIn(stats, "dataset.bytes") +
      numberIn(stats, "overhead.hashtable.main") +
      numberIn(stats, "overhead.hashtable.expires")
    )
  }, work)

/** Of a few keys, to the byte: each one's name, value and place. */
const bytesOfEach = (work: Work): Promise<number> =>
  onServer(async ({ redis }) => {
    let bytes = 0
    for await (const names of redis.scanStream({ count: 1_000 }) as AsyncIterable<Array<string>>) {
      for (const name of names) bytes += Number(await redis.memory("USAGE", name, "SAMPLES", 0))
    }
    return bytes
  }, work)

const completeOffsets = async (
  { offsets: store }: Services,
  name: string,
  completed: Iterable<OffsetRanges.OffsetRanges>
): Promise<void> => {
  const claimId = ClaimId.make()
  const claim = store.claim(name, OffsetRanges.openEnded(0), { claimId, owner, leaseMillis: 600_000 })
  await Effect.runPromise(claim)
  for (const ranges of completed) await Effect.runPromise(store.complete({ stream: name, claimId }, ranges))
}

function* batchesOfKeys(count: number): Generator<ReadonlyArray<string>> {
  const next = uuids(1)
  for (let from = 0; from < count; from += batch) {
    yield Array.from({ length: Math.min(batch, count - from) }, next)
  }
}

function* dense(count: number): Generator<OffsetRanges.OffsetRanges> {
  for (let from = 0; from < count; from += batch) yield OffsetRanges.make(from, from + batch)
}

/** All but every tenth, which is missing from the first on. */
function* tenthMissing(window: number): Generator<OffsetRanges.OffsetRanges> {
  for (let from = 0; from < window; from += batch) {
    const offsets = Array.from({ length: batch }, (_, index) => from + index)
    yield OffsetRanges.fromOffsets(offsets.filter((offset) => offset % 10 !== 0))
  }
}

const keysFigures = async (count: number): Promise<ReadonlyArray<Figure>> => {
  const ours = await bytesOfAll(async (services) => {
    for (const keys of batchesOfKeys(count))
      await Effect.runPromise(completeKeys(services.keys, keys, { retentionMillis }))
  })
  const plain = await bytesOfAll(async (_services, peers) => {
    for (const keys of batchesOfKeys(count)) await peers.claimAndComplete(keys, "1")
  })
  const label = count.toLocaleString("en-US")
  return [
    { what: `${label} ids: SET ... PX`, unit: "bytes per id", measured: exactly(plain / count) },
    { what: `${label} ids: tidemark`, unit: "bytes per id", measured: exactly(ours / count) },
    {
      what: `${label} ids: tidemark against SET ... PX`,
      unit: "x",
      measured: exactly(ours / plain),
      target: { atMost: 0.6 }
    }
  ]
}

export const suite: Suite = {
  name: "redis-memory",
  about:
    "bytes that Redis keeps, by its own word (MEMORY STATS, USAGE): ids in the form of a UUID, and offsets",
  run: async (progress) => {
    const figures: Array<Figure> = []
    for (const count of [10_000, 100_000, 1_000_000]) {
      progress(`${count.toLocaleString("en-US")} ids`)
      figures.push(...(await keysFigures(count)))
    }
    progress("offsets")
    const denseCount = 1_000_000
    const denseBytes = await bytesOfEach((services) => completeOffsets(services, stream, dense(denseCount)))
    const window = 50_000
    const gapBytes = await bytesOfEach((services) => completeOffsets(services, stream, tenthMissing(window)))
    return [
      ...figures,
      {
        what: "a dense stream of 1,000,000",
        unit: "bytes per completed offset",
        measured: exactly(denseBytes / denseCount),
        target: { atMost: 0.02 }
      },
      {
        what: "every tenth a gap, in a window of 50,000",
        unit: "bytes per completed offset",
        measured: exactly(gapBytes / (window * 0.9)),
        target: { atMost: 0.5 }
      }
    ]
  }
}
