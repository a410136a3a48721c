/** What the reference store lists, and what it keeps of records that could not be processed. */
import {
  type ClaimSummary,
  type InspectImplementation,
  type KeySummary,
  OffsetRanges,
  type ParkedRecordsImplementation,
  type ParkedSummary,
  Protocol,
  type StoredRecord,
  type StreamSummary
} from "@tidemark/core"
import { Clock, Effect, Stream } from "effect"
import type { Data } from "./referenceStore.ts"

/** A table that can be gone through. */
export class ListedKeyTable extends Protocol.MapKeyTable {
  readonly names = new Map<number, { readonly namespace: string; readonly key: string }>()

  override insert(namespace: string, key: string, claim: Protocol.KeyClaimRecord): number {
    const entry = super.insert(namespace, key, claim)
    this.names.set(entry, { namespace, key })
    return entry
  }

  override remove(entry: number): void {
    super.remove(entry)
    this.names.delete(entry)
  }
}

const listed = <A>(entries: (now: number) => ReadonlyArray<A>): Stream.Stream<A> =>
  Stream.unwrap(Effect.map(Clock.currentTimeMillis, (now) => Stream.fromIterable(entries(now))))

const streamsOf = ({ streams, touched }: Data, now: number): ReadonlyArray<StreamSummary> =>
  [...streams].flatMap(([stream, state]) => {
    const progress = state.progress(now)
    if (progress === undefined) return []
    const { claims, epoch, gapCount, highest, lastToken, origin, watermark } = progress
    const touchedAt = touched.get(stream) ?? 0
    return [
      { stream, origin, watermark, highest, gapCount, epoch, lastToken, liveClaims: claims.length, touchedAt }
    ]
  })

const keysOf = ({ keys, table }: Data, now: number): ReadonlyArray<KeySummary> =>
  [...table.names.values()]
    .map(({ key, namespace }) => ({ namespace, key, status: keys.lookup(namespace, key, now) }))
    .filter(({ status }) => status._tag !== "Unknown")

const streamClaims = ({ streams }: Data, now: number): ReadonlyArray<ClaimSummary> =>
  [...streams].flatMap(([stream, state]) =>
    (state.progress(now)?.claims ?? []).map(({ claimId, owner, ranges, token, until }) => ({
      kind: "offsets" as const,
      of: stream,
      claimId,
      owner,
      token,
      until,
      held: OffsetRanges.isOpenEnded(ranges) ? Number.POSITIVE_INFINITY : OffsetRanges.size(ranges)
    }))
  )

const keyClaims = ({ table }: Data, now: number): ReadonlyArray<ClaimSummary> => {
  const claims = new Map<Protocol.KeyClaimRecord, ClaimSummary>()
  for (const entry of table.names.keys()) {
    const claim = table.claimOf(entry)
    if (claim === undefined || claim.until <= now) continue
    const { claimId, namespace, owner, token, until } = claim
    const held = (claims.get(claim)?.held ?? 0) + 1
    claims.set(claim, { kind: "keys", of: namespace, claimId, owner, token, until, held })
  }
  return [...claims.values()]
}

export const inspectOn = (data: Data): InspectImplementation => ({
  streams: (untouchedForMillis) =>
    listed((now) => streamsOf(data, now).filter(({ touchedAt }) => touchedAt + untouchedForMillis <= now)),
  keys: (namespace) =>
    listed((now) =>
      keysOf(data, now).filter((entry) => namespace === undefined || entry.namespace === namespace)
    ),
  claims: (of) =>
    listed((now) =>
      [...streamClaims(data, now), ...keyClaims(data, now)].filter(
        (claim) => of === undefined || claim.of === of
      )
    )
})

/** A parked record as it is remembered. */
export interface Kept extends StoredRecord {
  readonly parkedAt: number
}

const summaryOf = ({ content, ...told }: Kept): Omit<ParkedSummary, "stream"> => ({
  ...told,
  bytes: content.length
})

export const parkedOn = ({ parked }: Data): ParkedRecordsImplementation => {
  const ofStream = (stream: string): Map<number, Kept> => {
    const known = parked.get(stream) ?? new Map<number, Kept>()
    parked.set(stream, known)
    return known
  }
  return {
    name: "reference",
    park: (stream, records) =>
      Effect.map(Clock.currentTimeMillis, (now) =>
        records.map((record) => {
          const found = ofStream(stream).get(record.offset)
          if (found !== undefined) {
            return Buffer.compare(found.content, record.content) === 0 ? "AlreadyParked" : "Occupied"
          }
          ofStream(stream).set(record.offset, { ...record, parkedAt: now })
          return "Parked"
        })
      ),
    page: (stream, from, limit) =>
      Effect.sync(() =>
        [...ofStream(stream).values()]
          .filter(({ offset }) => offset >= from)
          .toSorted((a, b) => a.offset - b.offset)
          .slice(0, limit)
          .map(summaryOf)
      ),
    get: (stream, offset) =>
      Effect.sync(() => {
        const found = ofStream(stream).get(offset)
        return found && { ...summaryOf(found), content: found.content }
      }),
    remove: (stream, offsets) =>
      Effect.sync(() => offsets.filter((offset) => ofStream(stream).delete(offset)).length),
    count: (stream) => Effect.sync(() => ofStream(stream).size),
    streams: listed(() => [...parked.keys()])
  }
}
