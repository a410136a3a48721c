import {
  IdempotencyStore,
  type IdempotencyStoreImplementation,
  Inspect,
  type InspectImplementation,
  Lock,
  OffsetStore,
  type OffsetStoreImplementation,
  ParkedRecords,
  type ParkedRecordsImplementation,
  Protocol
} from "@tidemark/core"
import { Clock, Context, Effect, Layer } from "effect"
import { inspectOn, type Kept, ListedKeyTable, parkedOn } from "./referenceLists.ts"

/** What a store remembers; outlives the layers that are built on it. */
export interface Data {
  readonly streams: Map<string, Protocol.StreamState>
  /** When each stream last changed. */
  readonly touched: Map<string, number>
  readonly parked: Map<string, Map<number, Kept>>
  readonly table: ListedKeyTable
  keys: Protocol.KeyState
  tokenFloor: number
}

export interface Implementations {
  readonly offsets: OffsetStoreImplementation
  readonly keys: IdempotencyStoreImplementation
  readonly inspect: InspectImplementation
  readonly parked: ParkedRecordsImplementation
}

/** What makes a bad store of a good one. */
export type Mutation = (good: Implementations, data: Data) => Implementations

const at = <A>(act: (now: number) => A): Effect.Effect<A> => Effect.map(Clock.currentTimeMillis, act)

const offsetsOn = (data: Data): OffsetStoreImplementation => {
  const { streams } = data
  const changing = (name: string, now: number): Protocol.StreamState => {
    const known = streams.get(name) ?? new Protocol.StreamState(data.tokenFloor)
    streams.set(name, known)
    data.touched.set(name, now)
    return known
  }
  return {
    name: "reference",
    durable: true,
    claim: (name, ranges, terms) => at((now) => changing(name, now).claim(ranges, terms, now)),
    complete: (ref, ranges) => at((now) => changing(ref.stream, now).complete(ref.claimId, ranges, now)),
    release: (ref, ranges) => at((now) => changing(ref.stream, now).release(ref.claimId, ranges)),
    renew: (claims) =>
      at((now) =>
        claims.map((claim) => changing(claim.stream, now).renew(claim.claimId, claim.leaseMillis, now))
      ),
    annotate: (notes) =>
      at((now) => notes.map((note) => changing(note.stream, now).annotate(note.claimId, note.note, now))),
    progress: (name) => at((now) => streams.get(name)?.progress(now)),
    isCompleted: (name, offset) => Effect.sync(() => streams.get(name)?.isCompleted(offset) ?? false),
    rewind: (name, to) => at((now) => changing(name, now).rewind(to)),
    skip: (name, ranges) => at((now) => changing(name, now).skip(ranges)),
    forget: (name) =>
      at((now) => {
        data.tokenFloor = Math.max(data.tokenFloor, streams.get(name)?.token ?? 0)
        const known = streams.get(name)?.progress(now) !== undefined
        streams.delete(name)
        return known
      }),
    copy: (from, to) =>
      at((now) => {
        const progress = streams.get(from)?.progress(now)
        if (progress === undefined) return true
        if (streams.get(to)?.progress(now) !== undefined) return false
        changing(to, now).adopt(progress)
        return true
      }),
    awaitRelease: () => Effect.never
  }
}

const keysOn = (data: Data): IdempotencyStoreImplementation => ({
  name: "reference",
  durable: true,
  retentionMillis: 86_400_000,
  claim: (namespace, items, terms) =>
    at((now) => {
      const outcome = data.keys.claim(namespace, items, terms, now)
      return outcome._tag === "Answers" ? outcome.answers : undefined
    }),
  complete: (ref, items, retention) =>
    at((now) => data.keys.complete(ref.claimId, ref.namespace, items, retention, now)),
  release: (ref, keys) => Effect.sync(() => data.keys.release(ref.claimId, keys)),
  renew: (claims) =>
    at((now) => claims.map((claim) => data.keys.renew(claim.claimId, claim.leaseMillis, now))),
  lookup: (namespace, keys) => at((now) => keys.map((key) => data.keys.lookup(namespace, key, now))),
  forget: (namespace, keys) =>
    Effect.sync(() => keys.filter((key) => data.keys.forget(namespace, key)).length),
  awaitSettled: () => Effect.never
})

const emptyData = (): Data => {
  const table = new ListedKeyTable()
  return {
    streams: new Map(),
    touched: new Map(),
    parked: new Map(),
    keys: new Protocol.KeyState(table),
    table,
    tokenFloor: 0
  }
}

/** The rules of the protocol themselves as a durable store: built again, it has the same data. */
export const referenceStore = (
  mutate: Mutation = (good) => good,
  data: Data = emptyData()
): Layer.Layer<OffsetStore | IdempotencyStore | Lock | Inspect | ParkedRecords> =>
  Layer.provideMerge(
    Lock.layer,
    Layer.effectContext(
      Effect.gen(function* () {
        const good = {
          offsets: offsetsOn(data),
          keys: keysOn(data),
          inspect: inspectOn(data),
          parked: parkedOn(data)
        }
        const { inspect, keys, offsets, parked } = mutate(good, data)
        return Context.make(OffsetStore, yield* OffsetStore.make(offsets)).pipe(
          Context.add(IdempotencyStore, yield* IdempotencyStore.make(keys)),
          Context.add(Inspect, Inspect.make(inspect)),
          Context.add(ParkedRecords, ParkedRecords.make(parked))
        )
      })
    )
  )
