/**
 * Records that a handler could not process, set aside in the store itself: an optional ability of durable stores.
 *
 * A consumer parks a record first, and completes its offset then, so that the store has the only copy that anybody will
 * look at. Nothing removes it but `remove`: no retention, no sweep, and not `OffsetStore.forget`, which only forgets
 * progress. What is parked is kept with its original bytes, and with why.
 *
 * Every verb may be asked again when its answer was lost. An implementation holds no retries, no logging and no checks of
 * its input: {@link ParkedRecords.make} adds what all have in common, and cuts what is large into parts.
 */
import { Context, Effect, Option, Stream } from "effect"
import { type InvalidInput, StoreError } from "./Errors.ts"
import * as Input from "./internal/input.ts"
import * as RecordBytes from "./internal/recordBytes.ts"

export type { RecordContent, RecordHeader } from "./internal/recordBytes.ts"

/** Where a record comes from, and why it was parked. */
export interface ParkedReason {
  readonly offset: number
  readonly topic: string
  readonly partition: number
  /** Milliseconds since the epoch, as the producer or the broker set it. */
  readonly timestampMillis: number
  /** The stable tag of the error: its `_tag`, or its name. */
  readonly errorTag: string
  /** For people. Of a longer one the first 4,096 characters are kept. */
  readonly errorMessage: string
  /** How often its handler was tried. */
  readonly attempts: number
}

/** A record to be parked. */
export interface RecordToPark extends ParkedReason, RecordBytes.RecordContent {
  /** The stream that its offset is completed in. */
  readonly stream: string
}

/** A parked record without its bytes. */
export interface ParkedSummary extends ParkedReason {
  readonly stream: string
  /** When it was parked, in milliseconds since the epoch, by the store's clock. */
  readonly parkedAt: number
  /** How many bytes its key, value and headers take in the store. */
  readonly bytes: number
}

/** A parked record, whole: it could be sent again as it was. */
export interface ParkedRecord extends ParkedSummary, RecordBytes.RecordContent {}

/** `AlreadyParked`: the same record was parked before, and nothing of it was replaced. */
export type ParkAnswer = "Parked" | "AlreadyParked"

/** How many records of a stream are parked. */
export interface ParkedCount {
  readonly stream: string
  readonly count: number
}

/** What an implementation keeps of a record: two records are the same where their `content` is equal, byte by byte. */
export interface StoredRecord extends ParkedReason {
  readonly content: Uint8Array
}

/** What an adapter implements. Input has been checked; streams are 1 to 1,024 bytes of UTF-8. */
export interface ParkedRecordsImplementation {
  /** For messages: "redis", "sqlite", ... */
  readonly name: string
  /**
   * Keeps records of one stream, each at its offset: all of them, or none. They are at most 1,000, and together at most
   * 4 MiB unless it is one alone. `Occupied`: another record is at that offset, and stays.
   */
  readonly park: (
    stream: string,
    records: ReadonlyArray<StoredRecord>
  ) => Effect.Effect<ReadonlyArray<ParkAnswer | "Occupied">, StoreError>
  /** The first `limit` summaries from offset `from` on, ascending. */
  readonly page: (
    stream: string,
    from: number,
    limit: number
  ) => Effect.Effect<ReadonlyArray<Omit<ParkedSummary, "stream">>, StoreError>
  /** The record, with its bytes as they were given. */
  readonly get: (
    stream: string,
    offset: number
  ) => Effect.Effect<(Omit<ParkedSummary, "stream"> & StoredRecord) | undefined, StoreError>
  /** Removes at most 1,000 records. Answers how many there were. */
  readonly remove: (stream: string, offsets: ReadonlyArray<number>) => Effect.Effect<number, StoreError>
  readonly count: (stream: string) => Effect.Effect<number, StoreError>
  /** The streams that something is parked of, a page at a time in memory, each at least once. */
  readonly streams: Stream.Stream<string, StoreError>
}

/** What everyone else uses. */
export interface ParkedRecordsService {
  /**
   * Keeps records, of any streams, durably, before it answers: in order, one answer for each. The same record again is
   * `AlreadyParked`, and what is there stays as it is, its reason too.
   *
   * Many or large records are written in parts. When it fails, some may be parked: ask again with all of them. Fails with
   * `InvalidInput` before anything is written; with `StoreError` `Full` where there is no room; with `StoreError`
   * `NotEmpty` where another record is parked at the same offset of the same stream (was the topic made anew?), which
   * stays: the others are parked then.
   */
  readonly park: (
    records: ReadonlyArray<RecordToPark>
  ) => Effect.Effect<ReadonlyArray<ParkAnswer>, StoreError | InvalidInput>
  /** What is parked, without its bytes: of one stream, or of all; of a stream in the order of offsets. */
  readonly list: (options?: {
    readonly stream?: string
  }) => Stream.Stream<ParkedSummary, StoreError | InvalidInput>
  /** A parked record with its bytes. */
  readonly get: (
    stream: string,
    offset: number
  ) => Effect.Effect<ParkedRecord | undefined, StoreError | InvalidInput>
  /** Discards parked records: for good, so after what became of them is durable. Answers how many there were. */
  readonly remove: (
    stream: string,
    offsets: ReadonlyArray<number>
  ) => Effect.Effect<number, StoreError | InvalidInput>
  /** How many records of a stream are parked. */
  readonly count: (stream: string) => Effect.Effect<number, StoreError | InvalidInput>
  /** The same for each stream that any is parked of. */
  readonly counts: Stream.Stream<ParkedCount, StoreError>
}

/**
 * Keeps what could not be processed.
 *
 * @example
 * const parked = yield* ParkedRecords
 * yield* Stream.runForEach(parked.list(), ({ stream, offset, errorMessage }) =>
 *   Console.log(stream, offset, errorMessage))
 */
export class ParkedRecords extends Context.Service<ParkedRecords, ParkedRecordsService>()(
  "@tidemark/core/ParkedRecords"
) {
  /** Makes the service from an adapter: checks the input of every verb (invariant 9) before anything is sent. */
  static make(implementation: ParkedRecordsImplementation): ParkedRecordsService {
    return makeService(implementation)
  }
}

const recordsPerPart = 1_000
const bytesPerPart = 4 * 1_048_576
const mostBytes = 64 * 1_048_576
const mostCharacters = 4_096
const recordsPerPage = 100

const checkBytes = (field: string, value: unknown): InvalidInput | undefined =>
  value === undefined || value instanceof Uint8Array
    ? undefined
    : Input.invalid(field, value, "bytes (a Uint8Array or Buffer), or undefined")

const checkHeaders = (headers: unknown): InvalidInput | undefined => {
  if (!Array.isArray(headers)) return Input.invalid("headers", headers, "an array of { name, value }")
  return Input.firstBad(headers as ReadonlyArray<RecordBytes.RecordHeader>, ({ name, value }) =>
    typeof name === "string" && name.isWellFormed()
      ? checkBytes(`header ${name}`, value)
      : Input.invalid("name of a header", name, "text without lone surrogates")
  )
}

const integer = (field: string, value: unknown, min: number): InvalidInput | undefined =>
  Number.isSafeInteger(value) && (value as number) >= min
    ? undefined
    : Input.invalid(field, value, `a safe integer from ${min} on`)

const checkRecord = (record: RecordToPark): InvalidInput | undefined =>
  Input.name("stream", record.stream) ??
  Input.offset("offset", record.offset) ??
  Input.name("topic", record.topic) ??
  integer("partition", record.partition, 0) ??
  integer("timestampMillis", record.timestampMillis, Number.MIN_SAFE_INTEGER) ??
  Input.name("errorTag", record.errorTag) ??
  (typeof record.errorMessage === "string"
    ? undefined
    : Input.invalid("errorMessage", record.errorMessage, "a string")) ??
  integer("attempts", record.attempts, 1) ??
  checkBytes("key", record.key) ??
  checkBytes("value", record.value) ??
  checkHeaders(record.headers) ??
  (RecordBytes.encodedSize(record) <= mostBytes
    ? undefined
    : Input.invalid(
        "record",
        `${RecordBytes.encodedSize(record)} bytes`,
        `at most ${mostBytes} bytes of key, value and headers`
      ))

const checkPlace = (stream: string, offset: number): InvalidInput | undefined =>
  Input.name("stream", stream) ?? Input.offset("offset", offset)

const toStored = (record: RecordToPark): StoredRecord => ({
  offset: record.offset,
  topic: record.topic,
  partition: record.partition,
  timestampMillis: record.timestampMillis,
  errorTag: record.errorTag,
  errorMessage: record.errorMessage.slice(0, mostCharacters).toWellFormed(),
  attempts: record.attempts,
  content: RecordBytes.encode(record)
})

/** Where records stand among those that are to be parked. */
type Part = ReadonlyArray<number>

/** Parts of one stream each, none too large. The same place twice stands in two parts: the first one is decided before. */
const inParts = (records: ReadonlyArray<RecordToPark>): ReadonlyArray<Part> => {
  const parts: Array<Array<number>> = []
  const open = new Map<string, { part: Array<number>; bytes: number; offsets: Set<number> }>()
  records.forEach((record, index) => {
    const size = RecordBytes.encodedSize(record)
    const last = open.get(record.stream)
    if (
      last !== undefined &&
      last.part.length < recordsPerPart &&
      last.bytes + size <= bytesPerPart &&
      !last.offsets.has(record.offset)
    ) {
      last.part.push(index)
      last.bytes += size
      last.offsets.add(record.offset)
    } else {
      const part = [index]
      parts.push(part)
      open.set(record.stream, { part, bytes: size, offsets: new Set([record.offset]) })
    }
  })
  return parts
}

const occupied = (store: string, { offset, stream }: RecordToPark): StoreError =>
  new StoreError({
    store,
    verb: "park",
    reason: "NotEmpty",
    detail:
      `another record is parked at offset ${offset} of stream ${stream}, and was kept (was the topic made anew?); ` +
      "this one was not parked. Send the parked one again, or discard it, and remove it; then ask again",
    retriable: false
  })

const parkAll = (
  { name, park }: ParkedRecordsImplementation,
  records: ReadonlyArray<RecordToPark>
): Effect.Effect<ReadonlyArray<ParkAnswer>, StoreError> => {
  const answers = new Array<ParkAnswer | "Occupied">(records.length)
  return Effect.flatMap(
    Effect.forEach(
      inParts(records),
      (part) =>
        Effect.map(
          Effect.suspend(() =>
            park(
              records[part[0]].stream,
              part.map((index) => toStored(records[index]))
            )
          ),
          (answered) => {
            part.forEach((index, at) => {
              answers[index] = answered[at]
            })
          }
        ),
      { discard: true }
    ),
    () => {
      const at = answers.indexOf("Occupied")
      return at < 0
        ? Effect.succeed(answers as ReadonlyArray<ParkAnswer>)
        : Effect.fail(occupied(name, records[at]))
    }
  )
}

const listOf = (
  { page }: ParkedRecordsImplementation,
  stream: string
): Stream.Stream<ParkedSummary, StoreError> =>
  Stream.paginate(0, (from) =>
    Effect.map(page(stream, from, recordsPerPage), (found) => {
      const next = found.length < recordsPerPage ? Option.none() : nextOffset(found[found.length - 1].offset)
      return [found.map((summary): ParkedSummary => ({ stream, ...summary })), next] as const
    })
  )

const nextOffset = (offset: number): Option.Option<number> =>
  offset < Number.MAX_SAFE_INTEGER ? Option.some(offset + 1) : Option.none()

const toRecord = (
  store: string,
  stream: string,
  { content: bytes, ...summary }: Omit<ParkedSummary, "stream"> & StoredRecord
): Effect.Effect<ParkedRecord, StoreError> => {
  const content = RecordBytes.decode(bytes)
  return content === undefined
    ? Effect.fail(
        new StoreError({
          store,
          verb: "get",
          reason: "Corrupt",
          detail: `what is stored of offset ${summary.offset} of stream ${stream} can't be read; restore a backup`,
          retriable: false
        })
      )
    : Effect.succeed({ stream, ...summary, ...content })
}

const removeAll = (
  { remove }: ParkedRecordsImplementation,
  stream: string,
  offsets: ReadonlyArray<number>
): Effect.Effect<number, StoreError> => {
  const parts = Array.from({ length: Math.ceil(offsets.length / recordsPerPart) }, (_, part) =>
    offsets.slice(part * recordsPerPart, (part + 1) * recordsPerPart)
  )
  return Effect.map(
    Effect.forEach(parts, (part) => remove(stream, part)),
    (counts) => counts.reduce((sum, count) => sum + count, 0)
  )
}

const makeService = (implementation: ParkedRecordsImplementation): ParkedRecordsService =>
  ParkedRecords.of({
    park: (records) =>
      Input.unless(Input.firstBad(records, checkRecord), () => parkAll(implementation, records)),
    list: ({ stream } = {}) => {
      if (stream === undefined) {
        return Stream.flatMap(implementation.streams, (found) => listOf(implementation, found))
      }
      const bad = Input.name("stream", stream)
      return bad === undefined ? listOf(implementation, stream) : Stream.fail(bad)
    },
    get: (stream, offset) =>
      Input.unless(checkPlace(stream, offset), () =>
        Effect.flatMap(implementation.get(stream, offset), (found) =>
          found === undefined ? Effect.undefined : toRecord(implementation.name, stream, found)
        )
      ),
    remove: (stream, offsets) =>
      Input.unless(
        Input.name("stream", stream) ?? Input.firstBad(offsets, (offset) => Input.offset("offset", offset)),
        () => removeAll(implementation, stream, [...new Set(offsets)])
      ),
    count: (stream) => Input.unless(Input.name("stream", stream), () => implementation.count(stream)),
    counts: Stream.filter(
      Stream.mapEffect(implementation.streams, (stream) =>
        Effect.map(implementation.count(stream), (count) => ({ stream, count }))
      ),
      ({ count }) => count > 0
    )
  })
