/** Completed offsets in Redis: ours in ranges, beside two hand-written scripts with a key an offset. */
import { ClaimId, OffsetRanges } from "@tidemark/core"
import { RedisStore } from "@tidemark/store-redis"
import { startOwnRedis, uniqueName } from "@tidemark/test-servers"
import { Effect } from "effect"
import { type Contestant, contest, type Spread, type Work } from "../Contest.ts"
import type { Figure, Suite } from "../Figure.ts"
import { connect } from "../RedisPeers.ts"
import { completeRange, openServices, owner, type Services } from "../Subjects.ts"

const batch = 500
const streams = 8
const batchesPerStream = 4
const perSlice = batch * streams * batchesPerStream

/** Number of the slice. */
type Slice = number

const streamName = (index: number): string => `kafka/billing/orders/${index}`

/** The batches of a slice: all of one stream after another, or one after another of each stream, side by side. */
const inOrder =
  (sideBySide: boolean, work: (stream: string, from: number) => Promise<unknown>): Work<Slice> =>
  async (slice) => {
    if (!sideBySide) {
      const first = slice * streams * batchesPerStream
      for (let index = 0; index < streams * batchesPerStream; index++) {
        await work(streamName(0), (first + index) * batch)
      }
      return
    }
    await Promise.all(
      Array.from({ length: streams }, async (_, stream) => {
        for (let index = 0; index < batchesPerStream; index++) {
          await work(streamName(stream), (slice * batchesPerStream + index) * batch)
        }
      })
    )
  }

const names = {
  scripts: "two hand-written scripts of 500, one in flight",
  scriptsMany: "two hand-written scripts of 500, 8 in flight",
  ours: "tidemark, ranges of 500, one stream in flight",
  oursMany: "tidemark, ranges of 500, 8 streams in flight",
  complete: "complete of 500, nothing stuck",
  stuck: "complete of 500, one stuck below 100,000 completed"
}

/** Completes under one open-ended claim, as a consumer does, above `completedAbove` offsets and one that is stuck. */
const completing = (open: () => Promise<Services>, above: number) => async (): Promise<Work<Slice>> => {
  const { offsets: store } = await open()
  const stream = streamName(0)
  const claimId = ClaimId.make()
  const claimed = store.claim(stream, OffsetRanges.openEnded(0), { claimId, owner, leaseMillis: 600_000 })
  const complete = (from: number, to: number) =>
    store.complete({ stream, claimId }, OffsetRanges.make(from, to))
  await Effect.runPromise(claimed)
  // every other batch first, so that pages and runs are as they come in life
  for (let from = 1; from < above; from += 1_000) await Effect.runPromise(complete(from, from + 500))
  for (let from = 501; from < above; from += 1_000) await Effect.runPromise(complete(from, from + 500))
  let next = above === 0 ? 0 : above + 1
  return async () => {
    for (let index = 0; index < streams * batchesPerStream; index++, next += batch) {
      await Effect.runPromise(complete(next, next + batch))
    }
  }
}

/** Bytes on the wire, both ways, of one completion of 500 offsets. */
const wireBytes = async (url: string, open: () => Promise<Services>): Promise<number> => {
  const peers = connect(url)
  const total = async (): Promise<number> => {
    const info = await peers.redis.info("stats")
    const of = (field: string): number => Number(new RegExp(`${field}:(\\d+)`).exec(info)?.[1])
    return of("total_net_input_bytes") + of("total_net_output_bytes")
  }
  const rounds = 1_000
  const measure = async (work: (round: number) => Promise<unknown>): Promise<number> => {
    await work(-1)
    const before = await total()
    for (let round = 0; round < rounds; round++) await work(round)
    return (await total()) - before
  }
  const asking = await measure(() => Promise.resolve())
  const { offsets: store } = await open()
  const stream = streamName(0)
  const claimId = ClaimId.make()
  await Effect.runPromise(
    store.claim(stream, OffsetRanges.openEnded(1_000_000), { claimId, owner, leaseMillis: 600_000 })
  )
  const bytes = await measure((round) => {
    const from = 1_000_500 + round * batch
    return Effect.runPromise(store.complete({ stream, claimId }, OffsetRanges.make(from, from + batch)))
  })
  await peers.redis.quit()
  return (bytes - asking) / rounds
}

const exactly = (value: number): Spread => ({ median: value, min: value, max: value })

export const suite: Suite = {
  name: "redis-offsets",
  about: "offsets, all new, in Redis on the same machine, batches of 500 as one range: claimed and completed",
  run: async (progress) => {
    await using redis = await startOwnRedis()
    const peers = connect(redis.url)
    const closing: Array<() => Promise<unknown>> = [() => peers.redis.quit()]
    const open = async (): Promise<Services> => {
      const services = await openServices(RedisStore.layer({ url: redis.url, prefix: uniqueName("bench") }))
      closing.push(services.close)
      return services
    }
    const byHand = (sideBySide: boolean) => (): Work<Slice> => {
      const prefix = uniqueName("hand")
      return inOrder(sideBySide, (stream, from) =>
        peers.claimAndComplete(
          Array.from({ length: batch }, (_, index) => `${prefix}:${stream}/${from + index}`),
          "1"
        )
      )
    }
    const ours = (sideBySide: boolean) => async (): Promise<Work<Slice>> => {
      const { offsets: store } = await open()
      return inOrder(sideBySide, (stream, from) =>
        Effect.runPromise(completeRange(store, stream, from, from + batch))
      )
    }
    const input = (slice: number): Slice => slice
    const contestants: ReadonlyArray<Contestant<Slice>> = [
      { name: names.scripts, start: byHand(false), input },
      { name: names.scriptsMany, start: byHand(true), input },
      { name: names.ours, start: ours(false), input },
      { name: names.oursMany, start: ours(true), input },
      { name: names.complete, start: completing(open, 0), input },
      { name: names.stuck, start: completing(open, 100_000), input }
    ]
    try {
      const times = await contest({
        contestants,
        slices: 5,
        operationsPerSlice: perSlice,
        passes: 7,
        warmups: 1,
        onPass: (pass, of) => progress(`pass ${pass} of ${of}`)
      })
      progress("bytes on the wire")
      const bytes = await wireBytes(redis.url, open)
      return [
        ...contestants.map(
          ({ name }): Figure => ({ what: name, unit: "ns per offset", measured: times.nanos(name) })
        ),
        {
          what: `${names.oursMany}: rate against the scripts', 8 in flight`,
          unit: "x",
          measured: times.ratio(names.scriptsMany, names.oursMany),
          target: { atLeast: 20 }
        },
        {
          what: `${names.ours}: rate against the scripts', one in flight`,
          unit: "x",
          measured: times.ratio(names.scripts, names.ours),
          target: { atLeast: 8 }
        },
        {
          what: `${names.stuck}: time against nothing stuck`,
          unit: "x",
          measured: times.ratio(names.stuck, names.complete),
          target: { atMost: 2 }
        },
        {
          what: "one complete of 500 on the wire, both ways",
          unit: "bytes",
          measured: exactly(bytes),
          target: { atMost: 300 }
        }
      ]
    } finally {
      for (const close of closing) await close()
    }
  }
}
