/**
 * Positions in the file. The rules are core's `StreamState`; here is how a stream gets out of the tables and back.
 *
 * A stream that was used lately is kept in memory with the version it was read at: as long as its row has that version,
 * reading it costs one row. Where another process has changed it, only what is newer is read. What a transaction
 * changed is written at its end, or before a user's function runs in it: one row, the claims that differ, the pages that
 * were touched.
 */

import type { StatementSync } from "node:sqlite"
import { InvalidInput, OffsetRanges, OffsetSet, Protocol } from "@tidemark/core"
import type { Connection } from "./Connection.ts"
import { Counter } from "./Counter.ts"
import { Damaged } from "./failures.ts"
import { decodePage, encodePage, pageOf, pageSize } from "./pages.ts"
import { rowsOf } from "./rows.ts"

/** How many streams are kept in memory. */
const keptInMemory = 1_000

interface StreamRow {
  readonly id: number
  readonly version: number
  readonly origin: number
  readonly watermark: number
  readonly epoch: number
  readonly last_token: number
  readonly note: string | null
}

interface ClaimRow {
  readonly claim_id: string
  readonly owner: string
  readonly token: number
  readonly lease: number
  readonly until: number
  readonly requested: string
  readonly held: string | null
}

/** Where a claim stands in the file. */
export interface ClaimPlace {
  readonly stream: number
  readonly claimId: string
}

/** Before all claims. */
export const firstPlace: ClaimPlace = { stream: 0, claimId: "" }

interface OldClaims {
  readonly old: ReadonlyArray<ClaimPlace>
  readonly next: ClaimPlace | undefined
}

interface PageRow {
  readonly page: number
  readonly pages: number
  readonly content: Uint8Array | null
}

/** A stream in memory, and what the file knows of it. */
interface Entry {
  readonly name: string
  /** 0: not in the file yet. */
  id: number
  version: number
  epoch: number
  origin: number
  state: Protocol.StreamState
  /** The claims as they stand in the file. */
  readonly stored: Map<string, Protocol.StreamClaimRecord>
  /** No row of a page in the file is below this one. */
  lowestPage: number
}

/** A stream that this transaction has changed. */
interface Change {
  readonly entry: Entry
  /** What was completed. */
  done: OffsetRanges.OffsetRanges
  readonly now: number
}

export class Streams {
  private readonly recent = new Map<string, Entry>()
  /** Those that are known to be as the file is, in this transaction. */
  private readonly valid = new Map<string, Entry | undefined>()
  /** What this transaction has changed and not written yet. */
  private readonly changes = new Map<string, Change>()
  /** What it has changed: in memory, that is true only when it is committed. */
  private readonly changed = new Set<string>()
  private readonly tokenFloor: Counter
  private readonly sql: ReturnType<typeof prepare>

  constructor(connection: Connection) {
    this.sql = prepare(connection)
    this.tokenFloor = new Counter(connection, "stream token")
    connection.join({
      flush: () => {
        for (const change of this.changes.values()) this.store(change)
        this.changes.clear()
      },
      ended: (committed) => {
        if (!committed) for (const stream of this.changed) this.recent.delete(stream)
        this.changes.clear()
        this.changed.clear()
        this.valid.clear()
      }
    })
  }

  claim(
    stream: string,
    ranges: OffsetRanges.OffsetRanges,
    terms: Protocol.ClaimTerms,
    now: number
  ): Protocol.OffsetClaimAnswer | undefined {
    const { entry } = this.changing(stream, now)
    return entry.state.claim(ranges, terms, now)
  }

  complete(
    stream: string,
    claimId: string,
    ranges: OffsetRanges.OffsetRanges,
    now: number
  ): Protocol.CompleteAnswer {
    const entry = this.find(stream)
    if (entry === undefined) return new Protocol.StreamState().complete(claimId, ranges, now)
    const answer = entry.state.complete(claimId, ranges, now)
    if (!OffsetRanges.isEmpty(answer.completed)) {
      const change = this.changing(stream, now)
      change.done = OffsetRanges.union(change.done, answer.completed)
    }
    return answer
  }

  /** What of the ranges is completed already, and whether any of the others are not held by the claim. */
  standing(
    stream: string,
    claimId: string,
    ranges: OffsetRanges.OffsetRanges,
    now: number
  ): { readonly completed: OffsetRanges.OffsetRanges; readonly lost: boolean } {
    const snapshot = this.find(stream)?.state.snapshot
    if (snapshot === undefined) return { completed: OffsetRanges.empty, lost: true }
    const { present, missing } = snapshot.completed.partition(ranges)
    const claim = snapshot.claims.find(
      (known) => known.claimId === claimId && !Protocol.isForgotten(known, now)
    )
    const held = claim === undefined ? OffsetRanges.empty : claim.held
    return { completed: present, lost: !OffsetRanges.isEmpty(OffsetRanges.subtract(missing, held)) }
  }

  release(stream: string, claimId: string, ranges: OffsetRanges.OffsetRanges | undefined, now: number): void {
    if (this.find(stream) !== undefined) this.changing(stream, now).entry.state.release(claimId, ranges)
  }

  renew(stream: string, claimId: string, leaseMillis: number, now: number): number | undefined {
    if (this.find(stream) === undefined) return undefined
    return this.changing(stream, now).entry.state.renew(claimId, leaseMillis, now)
  }

  annotate(stream: string, claimId: string, note: string, now: number): boolean {
    const noted = this.find(stream)?.state.annotate(claimId, note, now) ?? false
    if (noted) this.changing(stream, now)
    return noted
  }

  progress(stream: string, now: number): Protocol.Progress | undefined {
    return this.find(stream)?.state.progress(now)
  }

  isCompleted(stream: string, offset: number): boolean {
    return this.find(stream)?.state.isCompleted(offset) ?? false
  }

  rewind(stream: string, to: number, now: number): void {
    this.changing(stream, now).entry.state.rewind(to)
  }

  skip(stream: string, ranges: OffsetRanges.OffsetRanges, now: number): void {
    this.changing(stream, now).entry.state.skip(ranges)
  }

  /** The stream's tokens go on from where they were, should it come again. */
  forget(stream: string): boolean {
    const entry = this.find(stream)
    if (entry === undefined) return false
    this.tokenFloor.value = Math.max(this.tokenFloor.value, entry.state.token)
    if (entry.id !== 0) {
      this.sql.deletePages.run(entry.id)
      this.sql.deleteClaims.run(entry.id)
      this.sql.deleteStream.run(entry.id)
    }
    this.recent.delete(stream)
    this.changes.delete(stream)
    this.valid.set(stream, undefined)
    return true
  }

  /** @returns whether it could: not over progress that is there already. */
  copy(from: string, to: string, now: number): boolean {
    const progress = this.progress(from, now)
    if (progress === undefined) return true
    if (this.find(to) !== undefined) return false
    this.changing(to, now).entry.state.adopt(progress)
    return true
  }

  /** A number that differs when something of the stream has changed; 0 for a stream that is not known. */
  versionOf(stream: string): number {
    return (this.sql.version.get(stream) as { version: number } | undefined)?.version ?? 0
  }

  /**
   * Claims that ended long ago and that nobody overlapped, of some: those that follow `after`, in the file's order.
   *
   * @returns also where to go on; `undefined` when all were looked at.
   */
  oldClaims(after: ClaimPlace, now: number, limit: number): OldClaims {
    const rows = rowsOf<ClaimPlace & { readonly forgottenAt: number }>(
      this.sql.claimsAfter,
      after.stream,
      after.claimId,
      limit
    )
    return {
      old: rows.filter((row) => row.forgottenAt <= now),
      next: rows.length < limit ? undefined : rows[rows.length - 1]
    }
  }

  /** Removes it, if it is old still. */
  removeClaim({ claimId, stream }: ClaimPlace, now: number): void {
    if (this.sql.deleteOldClaim.run(stream, claimId, now).changes > 0) this.sql.touch.run(stream)
  }

  private find(stream: string): Entry | undefined {
    if (this.valid.has(stream)) return this.valid.get(stream)
    const row = this.sql.stream.get(stream) as StreamRow | undefined
    const entry = row === undefined ? undefined : this.current(stream, row)
    this.valid.set(stream, entry)
    return entry
  }

  private changing(stream: string, now: number): Change {
    let change = this.changes.get(stream)
    if (change === undefined) {
      const entry = this.find(stream) ?? this.unknown(stream)
      change = { entry, done: OffsetRanges.empty, now }
      this.changes.set(stream, change)
      this.changed.add(stream)
    }
    return change
  }

  private unknown(name: string): Entry {
    const entry: Entry = {
      name,
      id: 0,
      version: 0,
      epoch: 0,
      origin: 0,
      state: new Protocol.StreamState(this.tokenFloor.value),
      stored: new Map(),
      lowestPage: Number.POSITIVE_INFINITY
    }
    this.valid.set(name, entry)
    return entry
  }

  /** The stream as it is in the file. */
  private current(name: string, row: StreamRow): Entry {
    const known = this.recent.get(name)
    const entry =
      known !== undefined && known.id === row.id && known.version === row.version
        ? known
        : orDamaged(name, () => this.read(name, row, known))
    this.remember(entry)
    return entry
  }

  private remember(entry: Entry): void {
    const { recent } = this
    recent.delete(entry.name)
    recent.set(entry.name, entry)
    if (recent.size > keptInMemory) recent.delete(recent.keys().next().value as string)
  }

  private read(name: string, row: StreamRow, known: Entry | undefined): Entry {
    // within an epoch offsets only come to be completed, so that what is newer can be added to what is known
    const base = known !== undefined && isGrown(known, row) ? known : undefined
    const completed = base?.state.snapshot?.completed ?? OffsetSet.make(row.origin)
    if (row.watermark > row.origin) completed.add(row.origin, row.watermark)
    let lowestPage = base?.lowestPage ?? Number.POSITIVE_INFINITY
    const pages = rowsOf<PageRow>(this.sql.pages, row.id, base?.version ?? -1)
    for (const page of pages) {
      completed.addRanges(OffsetRanges.fromSortedUnsafe(rangesOf(name, page)))
      lowestPage = Math.min(lowestPage, page.page)
    }
    const claims = rowsOf<ClaimRow>(this.sql.claims, row.id).map(claimOf)
    return {
      name,
      id: row.id,
      version: row.version,
      epoch: row.epoch,
      origin: row.origin,
      state: Protocol.StreamState.restore({
        completed,
        epoch: row.epoch,
        lastToken: row.last_token,
        claims,
        note: row.note ?? undefined
      }),
      stored: new Map(claims.map((claim) => [claim.claimId, recordOf(claim)])),
      lowestPage
    }
  }

  private store({ entry, done, now }: Change): void {
    const { snapshot } = entry.state
    if (snapshot === undefined) return
    const { completed, epoch, lastToken, note } = snapshot
    const anew = entry.id === 0 || entry.epoch !== epoch || entry.origin !== completed.origin
    entry.version += 1
    entry.epoch = epoch
    entry.origin = completed.origin
    const columns = [
      entry.version,
      completed.origin,
      completed.watermark,
      completed.highest,
      completed.gapCount,
      epoch,
      lastToken,
      now,
      note ?? null
    ]
    if (entry.id === 0) {
      entry.id = Number(this.sql.insertStream.run(entry.name, ...columns).lastInsertRowid)
      this.remember(entry)
    } else {
      this.sql.updateStream.run(...columns, entry.id)
    }
    this.storeClaims(entry, snapshot.claims)
    if (anew) {
      this.dropPages(entry, Number.POSITIVE_INFINITY)
      this.storePages(entry, completed, completed.toRanges())
    } else {
      this.dropPages(
        entry,
        completed.highest === completed.watermark ? Number.POSITIVE_INFINITY : pageOf(completed.watermark)
      )
      this.storePages(entry, completed, done)
    }
  }

  private storeClaims(entry: Entry, claims: ReadonlyArray<Protocol.StreamClaimRecord>): void {
    const { stored } = entry
    for (const claim of claims) {
      const before = stored.get(claim.claimId)
      if (before?.token === claim.token && before.until === claim.until && before.held === claim.held)
        continue
      stored.set(claim.claimId, recordOf(claim))
      this.sql.putClaim.run(
        entry.id,
        claim.claimId,
        claim.owner,
        claim.token,
        claim.leaseMillis,
        claim.until,
        Protocol.forgottenAt(claim),
        encodeRanges(claim.requested),
        claim.held === claim.requested ? null : encodeRanges(claim.held)
      )
    }
    if (claims.length === stored.size) return
    const present = new Set(claims.map(({ claimId }) => claimId))
    for (const claimId of stored.keys()) {
      if (present.has(claimId)) continue
      stored.delete(claimId)
      this.sql.deleteClaim.run(entry.id, claimId)
    }
  }

  /** Removes the pages below `page`. */
  private dropPages(entry: Entry, page: number): void {
    if (entry.lowestPage >= page) return
    if (page === Number.POSITIVE_INFINITY) this.sql.deletePages.run(entry.id)
    else this.sql.deletePagesBelow.run(entry.id, page)
    entry.lowestPage = page
  }

  /** Writes the pages above the watermark that `touched` lies in. */
  private storePages(entry: Entry, completed: OffsetSet.OffsetSet, touched: OffsetRanges.OffsetRanges): void {
    const { flat } = touched
    const { watermark } = completed
    if (completed.highest === watermark) return
    let next = pageOf(watermark)
    for (let i = 0; i < flat.length; i += 2) {
      if (flat[i + 1] <= watermark) continue
      const end = Math.ceil(flat[i + 1] / pageSize)
      let page = Math.max(next, pageOf(flat[i]))
      // those that lie within one range as a whole are one row
      const fullFrom = Math.max(page, Math.ceil(flat[i] / pageSize))
      const fullTo = Math.floor(flat[i + 1] / pageSize)
      while (page < end) {
        if (page === fullFrom && fullTo > fullFrom) {
          this.storeFull(entry, fullFrom, fullTo)
          page = fullTo
        } else {
          this.storePage(entry, completed, page)
          page += 1
        }
      }
      next = Math.max(next, end)
    }
  }

  private storeFull(entry: Entry, from: number, to: number): void {
    this.sql.deletePagesWithin.run(entry.id, from, to)
    this.putPage(entry, from, to - from, null)
  }

  private storePage(entry: Entry, completed: OffsetSet.OffsetSet, page: number): void {
    const base = page * pageSize
    const { present } = completed.partition(
      OffsetRanges.make(Math.max(base, completed.watermark), base + pageSize)
    )
    const { flat } = present
    if (flat.length === 0) {
      this.sql.deletePagesWithin.run(entry.id, page, page + 1)
    } else {
      const full = flat.length === 2 && flat[1] - flat[0] === pageSize
      this.putPage(entry, page, 1, full ? null : encodePage(flat, base))
    }
  }

  private putPage(entry: Entry, page: number, pages: number, content: Uint8Array | null): void {
    this.sql.putPage.run(entry.id, page, pages, entry.version, content)
    if (page < entry.lowestPage) entry.lowestPage = page
  }
}

/** Numbers that are none of offsets don't come from us. */
const orDamaged = <A>(stream: string, read: () => A): A => {
  try {
    return read()
  } catch (cause) {
    throw cause instanceof InvalidInput ? new Damaged(`stream ${stream}: ${cause.message}`) : cause
  }
}

const isGrown = (known: Entry, row: StreamRow): boolean =>
  known.id === row.id && known.epoch === row.epoch && known.origin === row.origin

const rangesOf = (stream: string, { page, pages, content }: PageRow): ReadonlyArray<number> => {
  const base = page * pageSize
  if (content === null) return [base, base + pages * pageSize]
  const flat = decodePage(content, base)
  if (flat === undefined) throw new Damaged(`page ${page} of stream ${stream} can't be read`)
  return flat
}

const encodeRanges = (ranges: OffsetRanges.OffsetRanges): string => JSON.stringify(ranges.flat)

const decodeRanges = (text: string): OffsetRanges.OffsetRanges => {
  try {
    return OffsetRanges.decode(JSON.parse(text))
  } catch (cause) {
    throw new Damaged(`ranges of a claim: ${String(cause)}`)
  }
}

/** As it is now: the claim itself goes on changing. */
const recordOf = (claim: Protocol.StreamClaimRecord): Protocol.StreamClaimRecord => {
  const { claimId, owner, token, leaseMillis, until, requested, held } = claim
  return { claimId, owner, token, leaseMillis, until, requested, held }
}

const claimOf = (row: ClaimRow): Protocol.StreamClaimRecord => {
  const requested = decodeRanges(row.requested)
  return {
    claimId: row.claim_id,
    owner: row.owner,
    token: row.token,
    leaseMillis: row.lease,
    until: row.until,
    requested,
    held: row.held === null ? requested : decodeRanges(row.held)
  }
}

const prepare = ({ db }: Connection) => {
  const one = (sql: string): StatementSync => db.prepare(sql)
  return {
    stream: one(
      "SELECT id, version, origin, watermark, epoch, last_token, note FROM tidemark_streams WHERE name = ?"
    ),
    version: one("SELECT version FROM tidemark_streams WHERE name = ?"),
    insertStream: one(
      `INSERT INTO tidemark_streams
        (name, version, origin, watermark, highest, gap_count, epoch, last_token, touched_at, note)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
    ),
    updateStream: one(
      `UPDATE tidemark_streams
        SET version = ?, origin = ?, watermark = ?, highest = ?, gap_count = ?, epoch = ?, last_token = ?, touched_at = ?,
          note = ?
        WHERE id = ?`
    ),
    touch: one("UPDATE tidemark_streams SET version = version + 1 WHERE id = ?"),
    deleteStream: one("DELETE FROM tidemark_streams WHERE id = ?"),
    claims: one(
      "SELECT claim_id, owner, token, lease, until, requested, held FROM tidemark_claims WHERE stream = ?"
    ),
    putClaim: one(
      `INSERT OR REPLACE INTO tidemark_claims
        (stream, claim_id, owner, token, lease, until, forgotten_at, requested, held)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`
    ),
    deleteClaim: one("DELETE FROM tidemark_claims WHERE stream = ? AND claim_id = ?"),
    deleteClaims: one("DELETE FROM tidemark_claims WHERE stream = ?"),
    claimsAfter: one(
      `SELECT stream, claim_id AS claimId, forgotten_at AS forgottenAt FROM tidemark_claims
        WHERE (stream, claim_id) > (?, ?) ORDER BY stream, claim_id LIMIT ?`
    ),
    deleteOldClaim: one(
      "DELETE FROM tidemark_claims WHERE stream = ? AND claim_id = ? AND forgotten_at <= ?"
    ),
    pages: one("SELECT page, pages, content FROM tidemark_pages WHERE stream = ? AND version > ?"),
    putPage: one(
      "INSERT OR REPLACE INTO tidemark_pages (stream, page, pages, version, content) VALUES (?, ?, ?, ?, ?)"
    ),
    deletePages: one("DELETE FROM tidemark_pages WHERE stream = ?"),
    deletePagesBelow: one("DELETE FROM tidemark_pages WHERE stream = ? AND page < ?"),
    deletePagesWithin: one("DELETE FROM tidemark_pages WHERE stream = ? AND page >= ? AND page < ?")
  }
}
