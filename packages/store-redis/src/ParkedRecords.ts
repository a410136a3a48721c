/** Records that could not be processed, on Redis: see scripts/lib/parked.lua for what is kept of a stream. */
import { ParkedRecords, type ParkedSummary, type StoredRecord, type StoreError } from "@tidemark/core"
import { Effect } from "effect"
import type { Connection } from "./internal/Connection.ts"
import { failure, storeName } from "./internal/errors.ts"
import { names } from "./internal/names.ts"
import { parkedScripts } from "./internal/scripts.ts"
import { hashTag } from "./internal/wire.ts"

/** The hash of a stream's records, and the sorted set of their offsets. */
const parkedKeys = (prefix: string, stream: string): readonly [string, string] => {
  const key = `${prefix}:p:${hashTag(stream)}`
  return [key, `${key}:i`]
}

const answers = ["Parked", "AlreadyParked", "Occupied"] as const

type Told = Omit<ParkedSummary, "stream" | "offset">

/** What goes into a list of records; `parkedAt` is put to it there. */
const tell = ({
  attempts,
  content,
  errorMessage,
  errorTag,
  partition,
  timestampMillis,
  topic
}: StoredRecord) =>
  JSON.stringify({
    topic,
    partition,
    timestampMillis,
    errorTag,
    errorMessage,
    attempts,
    bytes: content.length
  } satisfies Omit<Told, "parkedAt">)

const summaryOf = (
  verb: string,
  stream: string,
  offset: number,
  told: string | null
): Effect.Effect<Omit<ParkedSummary, "stream">, StoreError> =>
  Effect.try({
    try: () => ({ offset, ...(JSON.parse(told ?? "") as Told) }),
    catch: (cause) =>
      failure(
        verb,
        "Corrupt",
        `what is told of the record at offset ${offset} of stream ${stream} can't be read; has somebody changed it?`,
        false,
        cause
      )
  })

/** The service on a connection; keys begin with `prefix`. */
export const make = (connection: Connection, prefix: string) => {
  const keysOf = (stream: string) => parkedKeys(prefix, stream)
  return ParkedRecords.make({
    name: storeName,
    park: (stream, records) =>
      Effect.map(
        connection.write(
          "park",
          parkedScripts.park,
          keysOf(stream),
          records.flatMap((record) => [String(record.offset), tell(record), Buffer.from(record.content)])
        ),
        (replies) => (replies as ReadonlyArray<number>).map((reply) => answers[reply - 1])
      ),
    page: (stream, from, limit) =>
      Effect.flatMap(
        connection.read("list", parkedScripts.page, keysOf(stream), [String(from), String(limit)]),
        (reply) => {
          const [offsets, told] = reply as [Array<string>, Array<string | null>]
          return Effect.forEach(offsets, (offset, index) =>
            summaryOf("list", stream, Number(offset), told[index])
          )
        }
      ),
    get: (stream, offset) =>
      Effect.flatMap(
        connection.readBytes("get", parkedScripts.get, keysOf(stream), [String(offset)]),
        (reply) => {
          const [told, content] = reply as [Buffer | null, Buffer | null]
          return content === null
            ? Effect.undefined
            : Effect.map(summaryOf("get", stream, offset, String(told)), (summary) => ({
                ...summary,
                content
              }))
        }
      ),
    remove: (stream, offsets) =>
      Effect.map(
        connection.write("remove", parkedScripts.remove, keysOf(stream), offsets.map(String)),
        Number
      ),
    count: (stream) => {
      const [, index] = keysOf(stream)
      return Effect.map(
        connection.send("count", (client) => client.zcard(index), [index]),
        Number
      )
    },
    streams: names(connection, "list", `${prefix}:p:{`)
  })
}
