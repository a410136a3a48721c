/** Listings: a page of rows at a time, each page from one moment. */

import type { DatabaseSync } from "node:sqlite"
import {
  type ClaimSummary,
  Inspect,
  type InspectImplementation,
  type InspectService,
  OffsetRanges,
  type Protocol,
  type StoreError,
  type StreamSummary
} from "@tidemark/core"
import { Effect, Option, Stream } from "effect"
import { rowsOf } from "./rows.ts"
import type { Store } from "./Store.ts"

const rowsPerPage = 500

/** What is asked for page by page: the rows after a place, and the place of a row. */
interface Listing<Place, Row> {
  readonly first: Place
  readonly rowsAfter: (place: Place, now: number) => ReadonlyArray<Row>
  readonly placeOf: (row: Row) => Place
}

const list = <Place, Row, A>(
  store: Store,
  { first, rowsAfter, placeOf }: Listing<Place, Row>,
  summaries: (rows: ReadonlyArray<Row>, now: number) => ReadonlyArray<A>
): Stream.Stream<A, StoreError> =>
  Stream.paginate(first, (place) =>
    store.read("inspect", (now) => {
      const rows = rowsAfter(place, now)
      const next = rows.length < rowsPerPage ? Option.none() : Option.some(placeOf(rows[rows.length - 1]))
      return [summaries(rows, now), next] as const
    })
  )

interface StreamRow {
  readonly id: number
  readonly name: string
  readonly origin: number
  readonly watermark: number
  readonly highest: number
  readonly gap_count: number
  readonly epoch: number
  readonly last_token: number
  readonly live_claims: number
  readonly touched_at: number
}

const streamSummary = (row: StreamRow): StreamSummary => ({
  stream: row.name,
  origin: row.origin,
  watermark: row.watermark,
  highest: row.highest,
  gapCount: row.gap_count,
  epoch: row.epoch,
  lastToken: row.last_token,
  liveClaims: row.live_claims,
  touchedAt: row.touched_at
})

interface KeyRow {
  readonly namespace: number
  readonly name: string
  readonly key: string
  readonly result: string | null
  readonly owner: string | null
  readonly until: number
}

const keyStatus = ({ owner, result, until }: KeyRow): Protocol.KeyStatus =>
  owner === null
    ? { _tag: "Completed", result: result ?? undefined, until }
    : { _tag: "InFlight", until, owner }

interface ClaimedRow {
  readonly id: number
  readonly name: string
}

interface BatchRow {
  readonly id: number
  readonly name: string
  readonly claimId: string
  readonly owner: string
  readonly token: number
  readonly until: number
  readonly held: number
}

const keyClaim = ({ name, claimId, owner, token, until, held }: BatchRow): ClaimSummary => ({
  kind: "keys",
  of: name,
  claimId,
  owner,
  token,
  until,
  held
})

const offsetClaims = ({ streams }: Store, stream: string, now: number): ReadonlyArray<ClaimSummary> =>
  (streams.progress(stream, now)?.claims ?? []).map(({ claimId, owner, token, until, ranges }) => ({
    kind: "offsets",
    of: stream,
    claimId,
    owner,
    token,
    until,
    held: OffsetRanges.isOpenEnded(ranges) ? Number.POSITIVE_INFINITY : OffsetRanges.size(ranges)
  }))

const idOf = ({ id }: { readonly id: number }): number => id

export const inspect = (store: Store): InspectService => {
  const sql = prepare(store.connection.db)

  const streams: InspectImplementation["streams"] = (untouchedMillis) => {
    const listing: Listing<number, StreamRow> = {
      first: 0,
      rowsAfter: (id, now) => rowsOf(sql.streams, now, id, now - untouchedMillis),
      placeOf: idOf
    }
    return list(store, listing, (rows) => rows.map(streamSummary))
  }

  const keys: InspectImplementation["keys"] = (namespace) =>
    Stream.unwrap(
      Effect.map(
        store.read("inspect", () =>
          namespace === undefined ? undefined : (store.keys.namespaceId(namespace) ?? 0)
        ),
        (only) => {
          const listing: Listing<Pick<KeyRow, "namespace" | "key">, KeyRow> = {
            first: { namespace: only ?? 0, key: "" },
            rowsAfter: (after) =>
              rowsOf(sql.keys, after.namespace, after.key, only ?? Number.MAX_SAFE_INTEGER),
            placeOf: (row) => row
          }
          return list(store, listing, (rows, now) =>
            rows
              .filter(({ until }) => now < until)
              .map((row) => ({ namespace: row.name, key: row.key, status: keyStatus(row) }))
          )
        }
      )
    )

  const claims: InspectImplementation["claims"] = (of) => {
    const claimed: Listing<number, ClaimedRow> = {
      first: 0,
      rowsAfter: (id) => rowsOf(sql.claimed, id, of ?? null),
      placeOf: idOf
    }
    const batches: Listing<number, BatchRow> = {
      first: 0,
      rowsAfter: (id) => rowsOf(sql.batches, id, of ?? null),
      placeOf: idOf
    }
    return Stream.concat(
      list(store, claimed, (rows, now) => rows.flatMap(({ name }) => offsetClaims(store, name, now))),
      list(store, batches, (rows, now) => rows.filter(({ until }) => now < until).map(keyClaim))
    )
  }

  return Inspect.make({ streams, keys, claims })
}

const prepare = (db: DatabaseSync) => ({
  streams: db.prepare(
    `SELECT id, name, origin, watermark, highest, gap_count, epoch, last_token, touched_at,
        (SELECT count(*) FROM tidemark_claims WHERE stream = id AND until > ?) AS live_claims
      FROM tidemark_streams WHERE id > ? AND touched_at <= ? ORDER BY id LIMIT ${rowsPerPage}`
  ),
  claimed: db.prepare(
    `SELECT id, name FROM tidemark_streams
      WHERE id > ?1 AND (?2 IS NULL OR name = ?2) AND EXISTS (SELECT 1 FROM tidemark_claims WHERE stream = id)
      ORDER BY id LIMIT ${rowsPerPage}`
  ),
  keys: db.prepare(
    `SELECT k.namespace, n.name, k.key, k.result, b.owner, b.until
      FROM tidemark_keys k JOIN tidemark_batches b ON b.id = k.batch JOIN tidemark_namespaces n ON n.id = k.namespace
      WHERE (k.namespace, k.key) > (?, ?) AND k.namespace <= ?
      ORDER BY k.namespace, k.key LIMIT ${rowsPerPage}`
  ),
  batches: db.prepare(
    `SELECT b.id, n.name, b.claim_id AS claimId, b.owner, b.token, b.until, b.held
      FROM tidemark_batches b JOIN tidemark_namespaces n ON n.id = b.namespace
      WHERE b.id > ?1 AND b.claim_id IS NOT NULL AND (?2 IS NULL OR n.name = ?2)
      ORDER BY b.id LIMIT ${rowsPerPage}`
  )
})
