import { OffsetRanges, type StoredRecord } from "@tidemark/core"
import { Clock, Effect, Stream } from "effect"
import type { Kept } from "../referenceLists.ts"
import type { Mutation } from "../referenceStore.ts"
import { onOffsets, onParked } from "./shared.ts"

/** Parks records that have been changed a little. */
const changed = (change: (record: StoredRecord) => StoredRecord): Mutation =>
  onParked((good) => ({ park: (stream, records) => good.park(stream, records.map(change)) }))

/** Changes what is kept before a record is judged. */
const before = (
  act: (kept: Map<number, Kept>, record: StoredRecord, found: Kept | undefined) => void
): Mutation =>
  onParked((good, data) => ({
    park: (stream, records) =>
      Effect.suspend(() => {
        const kept = data.parked.get(stream)
        if (kept !== undefined) for (const record of records) act(kept, record, kept.get(record.offset))
        return good.park(stream, records)
      })
  }))

const isSame = (one: StoredRecord, other: StoredRecord): boolean =>
  Buffer.compare(one.content, other.content) === 0

/** Stores that each keep parked records badly in one way. */
export const badParkings: Readonly<Record<string, Mutation>> = {
  "puts another record in the place of one": before((kept, record, found) => {
    if (found !== undefined && !isSame(found, record)) kept.delete(record.offset)
  }),
  "parks the same record anew": before((kept, record, found) => {
    if (found !== undefined && isSame(found, record)) kept.delete(record.offset)
  }),
  "replaces why a record was parked": before((kept, { attempts, errorMessage, errorTag, offset }, found) => {
    if (found !== undefined) kept.set(offset, { ...found, attempts, errorMessage, errorTag })
  }),
  "takes another record for the same": onParked((good) => ({
    park: (stream, records) =>
      Effect.map(good.park(stream, records), (answers) =>
        answers.map((answer) => (answer === "Occupied" ? "AlreadyParked" : answer))
      )
  })),
  "takes another record for the same where it is as long": onParked((good, data) => ({
    park: (stream, records) =>
      Effect.map(good.park(stream, records), (answers) =>
        answers.map((answer, index) =>
          answer === "Occupied" &&
          data.parked.get(stream)?.get(records[index].offset)?.content.length ===
            records[index].content.length
            ? "AlreadyParked"
            : answer
        )
      )
  })),
  "answers the same again as new": onParked((good) => ({
    park: (stream, records) =>
      Effect.map(good.park(stream, records), (answers) =>
        answers.map((answer) => (answer === "AlreadyParked" ? "Parked" : answer))
      )
  })),
  "answers in another order": onParked((good) => ({
    park: (stream, records) => Effect.map(good.park(stream, records), (answers) => answers.toReversed())
  })),
  "spoils the others for one that is occupied": onParked((good, data) => ({
    park: (stream, records) =>
      Effect.suspend(() => {
        const kept = data.parked.get(stream)
        const isOccupied = records.some((record) => {
          const found = kept?.get(record.offset)
          return found !== undefined && !isSame(found, record)
        })
        return isOccupied
          ? Effect.succeed(records.map(() => "Occupied" as const))
          : good.park(stream, records)
      })
  })),
  "looks first, and then parks": onParked((good, data) => ({
    park: (stream, records) =>
      Effect.gen(function* () {
        const isFree = records.map(({ offset }) => data.parked.get(stream)?.has(offset) !== true)
        yield* Effect.yieldNow
        const answers = yield* good.park(stream, records)
        return answers.map((answer, index) => (isFree[index] ? "Parked" : answer))
      })
  })),
  "loses the last of many": onParked((good) => ({
    park: (stream, records) =>
      Effect.map(good.park(stream, records.slice(0, 900)), (answers) =>
        records.map((_, at) => answers[at] ?? "Parked")
      )
  })),
  "keeps bytes as text": changed((record) => ({
    ...record,
    content: Buffer.from(Buffer.from(record.content).toString("utf8"))
  })),
  "cuts off what is large": changed((record) => ({
    ...record,
    content: record.content.subarray(0, 1_000_000)
  })),
  "keeps a short message only": changed((record) => ({
    ...record,
    errorMessage: record.errorMessage.slice(0, 255)
  })),
  "tells when the record was written, not when it was parked": onParked((good) => ({
    page: (stream, from, limit) =>
      Effect.map(good.page(stream, from, limit), (page) =>
        page.map((summary) => ({ ...summary, parkedAt: summary.timestampMillis }))
      )
  })),
  "rounds large numbers": changed((record) => ({ ...record, offset: Number(record.offset.toPrecision(15)) })),
  "tells sizes that are none": onParked((good) => ({
    page: (stream, from, limit) =>
      Effect.map(good.page(stream, from, limit), (page) => page.map((summary) => ({ ...summary, bytes: 0 })))
  })),
  "lists by text": onParked((good) => ({
    page: (stream, from, limit) =>
      Effect.map(good.page(stream, from, limit), (page) =>
        page.toSorted((a, b) => (String(a.offset) < String(b.offset) ? -1 : 1))
      )
  })),
  "lists as they were parked": onParked((_, data) => ({
    page: (stream, from, limit) =>
      Effect.sync(() =>
        [...(data.parked.get(stream)?.values() ?? [])]
          .filter(({ offset }) => offset >= from)
          .slice(0, limit)
          .map(({ content, ...told }) => ({ ...told, bytes: content.length }))
      )
  })),
  "leaves out where a page begins": onParked((good) => ({
    page: (stream, from, limit) => good.page(stream, from === 0 ? 0 : from + 1, limit)
  })),
  "leaves out the highest offset": onParked((good) => ({
    page: (stream, from, limit) =>
      Effect.map(good.page(stream, from, limit), (page) =>
        page.filter(({ offset }) => offset < Number.MAX_SAFE_INTEGER)
      )
  })),
  "lists one stream only": onParked((good) => ({ streams: Stream.take(good.streams, 1) })),
  "gets the next one": onParked((good) => ({
    get: (stream, offset) =>
      Effect.flatMap(good.get(stream, offset), (found) =>
        found === undefined ? good.get(stream, offset + 1) : Effect.succeed(found)
      )
  })),
  "counts all": onParked((_, data) => ({
    count: () => Effect.sync(() => [...data.parked.values()].reduce((sum, { size }) => sum + size, 0))
  })),
  "counts what it did not know": onParked((good) => ({
    remove: (stream, offsets) => Effect.as(good.remove(stream, offsets), offsets.length)
  })),
  "removes nothing": onParked((good, data) => ({
    remove: (stream, offsets) =>
      Effect.sync(() => offsets.filter((offset) => data.parked.get(stream)?.has(offset)).length),
    park: good.park
  })),
  "removes all of the stream": onParked((good, data) => ({
    remove: (stream, offsets) =>
      Effect.tap(good.remove(stream, offsets), () => Effect.sync(() => data.parked.delete(stream)))
  })),
  "remembers what was removed": onParked((good) => {
    const removed = new Set<string>()
    return {
      remove: (stream, offsets) =>
        Effect.tap(good.remove(stream, offsets), () =>
          Effect.sync(() => {
            for (const offset of offsets) removed.add(`${stream} ${offset}`)
          })
        ),
      park: (stream, records) =>
        Effect.map(good.park(stream, records), (answers) =>
          answers.map((answer, index) =>
            removed.has(`${stream} ${records[index].offset}`) ? "AlreadyParked" : answer
          )
        )
    }
  }),
  "forgets them with their stream": onOffsets((good, data) => ({
    forget: (stream) =>
      Effect.andThen(
        Effect.sync(() => data.parked.delete(stream)),
        good.forget(stream)
      )
  })),
  "forgets them when their stream is rewound": onOffsets((good, data) => ({
    rewind: (stream, to) =>
      Effect.andThen(
        Effect.sync(() => data.parked.delete(stream)),
        good.rewind(stream, to)
      )
  })),
  "completes what it parks": onParked((good, _, { offsets }) => ({
    park: (stream, records) =>
      Effect.tap(good.park(stream, records), () =>
        Effect.forEach(records, ({ offset }) => offsets.skip(stream, OffsetRanges.of(offset)))
      )
  })),
  "keeps them for an hour": onParked((good, data) => ({
    get: (stream, offset) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const found = data.parked.get(stream)?.get(offset)
        return found !== undefined && found.parkedAt + 3_600_000 <= now
          ? Effect.undefined
          : good.get(stream, offset)
      })
  })),
  "mixes up streams that differ in case": onParked((good) => ({
    park: (stream, records) => good.park(stream.toLowerCase(), records),
    get: (stream, offset) => good.get(stream.toLowerCase(), offset),
    page: (stream, from, limit) => good.page(stream.toLowerCase(), from, limit),
    remove: (stream, offsets) => good.remove(stream.toLowerCase(), offsets),
    count: (stream) => good.count(stream.toLowerCase())
  })),
  "keeps them for one instance": (good, data) => {
    data.parked.clear()
    return good
  }
}
