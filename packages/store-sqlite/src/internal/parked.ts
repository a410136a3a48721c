/** Records that could not be processed, a row for each. */
import type { DatabaseSync } from "node:sqlite"
import { ParkedRecords, type ParkedRecordsService, type StoredRecord } from "@tidemark/core"
import { Option, Stream } from "effect"
import { storeName } from "./failures.ts"
import { rowsOf } from "./rows.ts"
import type { Store } from "./Store.ts"

const streamsPerPage = 500

/** A row without its content. */
interface SummaryRow {
  readonly offset: number
  readonly topic: string
  readonly partition: number
  readonly timestampMillis: number
  readonly errorTag: string
  readonly errorMessage: string
  readonly attempts: number
  readonly parkedAt: number
  readonly bytes: number
}

interface ContentRow {
  readonly content: Uint8Array
}

export const parked = (store: Store): ParkedRecordsService => {
  const sql = prepare(store.connection.db)

  const parkOne = (stream: string, record: StoredRecord, now: number) => {
    const { attempts, content, errorMessage, errorTag, offset, partition, timestampMillis, topic } = record
    const found = rowsOf<ContentRow>(sql.content, stream, offset).at(0)
    if (found !== undefined)
      return Buffer.compare(found.content, content) === 0 ? "AlreadyParked" : "Occupied"
    sql.insert.run(
      stream,
      offset,
      topic,
      partition,
      timestampMillis,
      errorTag,
      errorMessage,
      attempts,
      now,
      content
    )
    return "Parked"
  }

  return ParkedRecords.make({
    name: storeName,
    // alone: others do not suffer when there is no room for it
    park: (stream, records) =>
      store.writeAlone("park", (now) => records.map((record) => parkOne(stream, record, now))),
    page: (stream, from, limit) =>
      store.read("list", () => rowsOf<SummaryRow>(sql.page, stream, from, limit).map((row) => ({ ...row }))),
    get: (stream, offset) =>
      store.read("get", () => rowsOf<SummaryRow & ContentRow>(sql.whole, stream, offset).at(0)),
    remove: (stream, offsets) =>
      store.writeAlone("remove", () =>
        offsets.reduce((count, offset) => count + Number(sql.remove.run(stream, offset).changes), 0)
      ),
    count: (stream) =>
      store.read("count", () => rowsOf<{ readonly count: number }>(sql.count, stream)[0].count),
    streams: Stream.paginate("", (after) =>
      store.read("list", () => {
        const names = rowsOf<{ readonly stream: string }>(sql.streams, after).map(({ stream }) => stream)
        return [names, names.length < streamsPerPage ? Option.none() : Option.fromNullishOr(names.at(-1))]
      })
    )
  })
}

const summary = `position AS offset, topic, partition_number AS partition, timestamp AS timestampMillis,
  error_tag AS errorTag, error_message AS errorMessage, attempts, parked_at AS parkedAt, length(content) AS bytes`

const prepare = (db: DatabaseSync) => ({
  content: db.prepare("SELECT content FROM tidemark_parked WHERE stream = ? AND position = ?"),
  insert: db.prepare("INSERT INTO tidemark_parked VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
  page: db.prepare(
    `SELECT ${summary} FROM tidemark_parked WHERE stream = ? AND position >= ? ORDER BY position LIMIT ?`
  ),
  whole: db.prepare(`SELECT ${summary}, content FROM tidemark_parked WHERE stream = ? AND position = ?`),
  remove: db.prepare("DELETE FROM tidemark_parked WHERE stream = ? AND position = ?"),
  count: db.prepare("SELECT count(*) AS count FROM tidemark_parked WHERE stream = ?"),
  streams: db.prepare(
    `SELECT DISTINCT stream FROM tidemark_parked WHERE stream > ? ORDER BY stream LIMIT ${streamsPerPage}`
  )
})
