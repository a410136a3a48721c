/** The two ways to hand records to the user's code: one by one, or in batches of what keeps its order. */
import type { Cause, Effect } from "effect"
import type { KafkaRecord } from "../../KafkaClient.ts"
import type { Spans } from "../tracing.ts"
import { type BatchProcessing, type BatchProgress, offsetsDone } from "./BatchProcessing.ts"
import type { ConsumerFailure } from "./environment.ts"
import type { Partition } from "./Partition.ts"
import type { Handler } from "./settings.ts"
import { setAside, undone } from "./verdicts.ts"
import type { Worker } from "./Workers.ts"

/** What a worker takes at a time, and what becomes of it. */
export interface Handling<E, R> {
  /** Gives the worker its next work of this partition, at most so many records; tells how many, 0 for none. */
  readonly take: (worker: Worker, partition: Partition, most: number) => number
  /** Whether this record is among those that the worker works on. */
  readonly has: (worker: Worker, tile: number) => boolean
  /** What the worker works on. */
  readonly recordsOf: (worker: Worker, partition: Partition) => ReadonlyArray<KafkaRecord>
  readonly run: (worker: Worker, partition: Partition) => Effect.Effect<unknown, E, R>
  /** The handler has ended well, or the processing has answered with a verdict in its place. */
  readonly finish: (worker: Worker, partition: Partition, answer: unknown) => void
  /** The handler has ended otherwise. */
  readonly abandon: (worker: Worker, partition: Partition, cause: Cause.Cause<E>) => void
}

export const perRecord = <E, R>(handler: Handler<E, R>): Handling<E, R> => ({
  take: (worker, partition) => {
    const tile = partition.take()
    if (tile === -1) return 0
    worker.tile = tile
    return 1
  },
  has: (worker, tile) => worker.tile === tile,
  recordsOf: ({ tile }, { state }) => [state.recordAt(tile) as KafkaRecord],
  run: ({ tile }, partition) =>
    handler(partition.state.recordAt(tile) as KafkaRecord, partition.claimFor(tile)),
  finish: ({ tile }, partition, answer) => {
    if (answer === undone) partition.abandon(tile)
    else partition.finish(tile, answer === setAside)
  },
  abandon: ({ tile }, partition) => partition.abandon(tile)
})

export const perBatch = <E, R>(
  processing: BatchProcessing<E, R>,
  spans: Spans
): Handling<E | ConsumerFailure, R> => {
  const { maxRecords } = processing
  const handler = spans.batch(processing.handler)
  /** What a worker works on. */
  const batches = new WeakMap<Worker, ReadonlyArray<number>>()
  const handed = new WeakMap<Worker, ReadonlyArray<KafkaRecord>>()
  const tilesOf = (worker: Worker): ReadonlyArray<number> => batches.get(worker) ?? []
  const progressIn = (worker: Worker): BatchProgress | undefined =>
    processing.progressOf(handed.get(worker) ?? [])
  return {
    take: (worker, partition, most) => {
      const tiles = partition.takeBatch(Math.min(most, maxRecords))
      if (tiles.length === 0) return 0
      batches.set(worker, tiles)
      worker.tile = tiles[0]
      return tiles.length
    },
    has: (worker, tile) => tilesOf(worker).includes(tile),
    recordsOf: (worker) => handed.get(worker) ?? [],
    run: (worker, partition) => {
      const tiles = tilesOf(worker)
      const records: Array<KafkaRecord> = new Array(tiles.length)
      for (let index = 0; index < tiles.length; index++)
        records[index] = partition.state.recordAt(tiles[index]) as KafkaRecord
      handed.set(worker, records)
      return handler(records, partition.claimForBatch(tiles))
    },
    finish: (worker, partition, answer) => {
      const tiles = tilesOf(worker)
      const progress = progressIn(worker)
      const aside = tilesIn(progress?.aside, partition, tiles)
      if (answer === undone) partition.abandonBatch(tiles, tilesIn(progress?.done, partition, tiles), aside)
      else partition.finishBatch(tiles, aside)
    },
    abandon: (worker, partition, cause) => {
      const tiles = tilesOf(worker)
      const progress = progressIn(worker)
      const done = doneOf(cause, partition, tiles).union(tilesIn(progress?.done, partition, tiles))
      partition.abandonBatch(tiles, done, tilesIn(progress?.aside, partition, tiles))
    }
  }
}

const none: ReadonlySet<number> = new Set()

/** The tiles of these records. */
const tilesIn = (
  records: ReadonlySet<KafkaRecord> | undefined,
  { state }: Partition,
  tiles: ReadonlyArray<number>
): ReadonlySet<number> => {
  if (records === undefined || records.size === 0) return none
  return new Set(tiles.filter((tile) => records.has(state.recordAt(tile) as KafkaRecord)))
}

/** The tiles of the records that a batch handler says it has done, although it has failed. */
const doneOf = (
  cause: Cause.Cause<unknown>,
  { state }: Partition,
  tiles: ReadonlyArray<number>
): ReadonlySet<number> => {
  const offsets = offsetsDone(cause)
  if (offsets.size === 0) return none
  return new Set(tiles.filter((tile) => offsets.has(state.recordAt(tile)?.offset ?? -1)))
}
