/** What every `ParkedRecords` must do: an optional ability of durable stores. */
import {
  OffsetRanges,
  type OffsetStoreService,
  type ParkedRecord,
  type ParkedRecordsService,
  type RecordToPark
} from "@tidemark/core"
import { Effect, Stream } from "effect"
import type { Check } from "../Check.ts"
import { ensure, failsWith, same } from "../internal/expect.ts"
import type { StoreTime } from "../Subject.ts"
import { allowedNames, refusedNames, terms, timed } from "./shared.ts"

/** What parks records, with the positions that the same store keeps. */
export interface ParkedRecordsSubject {
  readonly parked: ParkedRecordsService
  readonly offsets: OffsetStoreService
  readonly durable: boolean
}

const highest = Number.MAX_SAFE_INTEGER

const recordAt = (stream: string, offset: number, other: Partial<RecordToPark> = {}): RecordToPark => ({
  stream,
  offset,
  topic: "orders",
  partition: 3,
  timestampMillis: 1_700_000_000_123,
  key: Buffer.from(`key ${offset}`),
  value: Buffer.from(`value ${offset}`),
  headers: [{ name: "trace", value: Buffer.from("a") }],
  errorTag: "CardDeclined",
  errorMessage: `no ${offset}`,
  attempts: 4,
  ...other
})

const hex = (bytes: Uint8Array | undefined): string | undefined =>
  bytes === undefined ? undefined : Buffer.from(bytes).toString("hex")

/** A record as values that can be compared and read; long bytes by their length and their ends. */
const readable = ({ headers, key, value, ...rest }: RecordToPark) => {
  const bytes = (field: Uint8Array | undefined): string | undefined =>
    field === undefined || field.length <= 400
      ? hex(field)
      : `${field.length} bytes, ${hex(field.subarray(0, 8))}...${hex(field.subarray(-8))}`
  return {
    ...rest,
    key: bytes(key),
    value: bytes(value),
    headers: headers.map((header) => [header.name, bytes(header.value)])
  }
}

const asParked = ({ bytes: _, parkedAt: __, ...record }: ParkedRecord) => readable(record)

/** Fails unless what is kept is this record, byte by byte, and why it was parked. */
const kept = (parked: ParkedRecordsService, record: RecordToPark) =>
  Effect.gen(function* () {
    const what = `the record at offset ${record.offset}`
    const found = yield* parked.get(record.stream, record.offset)
    yield* ensure(found !== undefined, () => `${what} is not there`)
    if (found === undefined) return
    yield* same(what, asParked(found), readable(record))
    const isEqual = [record.key, record.value].every((bytes, index) => {
      const stored = index === 0 ? found.key : found.value
      return bytes === undefined || (stored !== undefined && Buffer.compare(bytes, stored) === 0)
    })
    yield* ensure(isEqual, () => `${what} has other bytes than were given`)
  })

const offsetsOf = (parked: ParkedRecordsService, stream: string) =>
  Effect.map(Stream.runCollect(parked.list({ stream })), (found) => found.map(({ offset }) => offset))

/** Without those that are seen twice, which a list of all streams may do. */
const ofStreams = (parked: ParkedRecordsService, streams: ReadonlyArray<string>) =>
  Effect.map(Stream.runCollect(parked.list()), (found) => [
    ...new Set(
      found
        .filter(({ stream }) => streams.includes(stream))
        .map(({ offset, stream }) => `${streams.indexOf(stream)}/${offset}`)
    )
  ])

const range = (size: number, from = 0): ReadonlyArray<number> =>
  Array.from({ length: size }, (_, index) => from + index)

const everyByte = Buffer.from(range(256))

/** Records of every sort that there can be, at offsets from 0 on. */
const allSorts = (stream: string): ReadonlyArray<RecordToPark> =>
  (
    [
      {},
      { key: undefined, value: undefined, headers: [] },
      { key: Buffer.alloc(0), value: Buffer.alloc(0), headers: [{ name: "", value: Buffer.alloc(0) }] },
      { key: everyByte, value: Buffer.concat([everyByte, everyByte]) },
      { value: new Uint8Array(Buffer.from("within another").buffer, 0, 5) },
      {
        headers: [
          { name: "twice", value: Buffer.from("b") },
          { name: "none", value: undefined },
          { name: "twice", value: Buffer.from("a") },
          { name: "\u{1F30A} e\u0301", value: everyByte }
        ]
      },
      { timestampMillis: -1, partition: 0, attempts: 1 },
      { timestampMillis: highest, partition: 2_147_483_647, attempts: highest },
      { topic: "a.b_c-d", errorTag: 'Quo"te\\', errorMessage: "" },
      { errorMessage: 'lines\r\n\u0000 and "quotes" \u{1F30A} \u2028' },
      { errorMessage: "x".repeat(4_096) }
    ] satisfies ReadonlyArray<Partial<RecordToPark>>
  ).map((other, offset) => recordAt(stream, offset, other))

const isParkedBetween = (parkedAt: number, from: number, to: number, time: StoreTime): boolean =>
  parkedAt >= from - time.toleranceMillis && parkedAt <= to + time.toleranceMillis

const parking: ReadonlyArray<Check<ParkedRecordsSubject>> = [
  {
    invariant: 6,
    name: "a record comes back with its bytes as they were given, and with why it was parked",
    run: ({ name, store: { parked } }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const records = allSorts(stream)
        const answers = yield* parked.park(records)
        yield* same(
          "the answers",
          answers,
          records.map(() => "Parked")
        )
        for (const record of records) yield* kept(parked, record)
        yield* same("what was never parked", yield* parked.get(stream, records.length), undefined)
        yield* same("of another stream", yield* parked.get(name("stream"), 0), undefined)
      })
  },
  {
    invariant: 6,
    name: "records of several streams in one call are each answered, in order, and kept apart",
    run: ({ name, store: { parked } }) =>
      Effect.gen(function* () {
        const [one, two] = [name("stream"), name("stream")]
        yield* parked.park([recordAt(two, 1), recordAt(one, 2)])
        const answers = yield* parked.park(
          [0, 1, 2].flatMap((offset) => [
            recordAt(one, offset),
            recordAt(two, offset, { value: Buffer.from("value 1"), key: Buffer.from("key 1") })
          ])
        )
        yield* same("the answers", answers, [
          ...["Parked", "Parked"],
          ...["Parked", "AlreadyParked"],
          ...["AlreadyParked", "Parked"]
        ])
        yield* same("one", yield* offsetsOf(parked, one), [0, 1, 2])
        yield* same("two", yield* offsetsOf(parked, two), [0, 1, 2])
        yield* kept(parked, recordAt(one, 0))
        yield* same("no record is no answer", yield* parked.park([]), [])
      })
  },
  {
    invariant: 6,
    name: "many records, and large ones, are all kept",
    run: ({ name, store: { parked } }) =>
      Effect.gen(function* () {
        const [many, large] = [name("many"), name("large")]
        const small = range(2_300).map((offset) => recordAt(many, 3 * offset))
        const big = range(7).map((offset) =>
          recordAt(large, offset, { value: Buffer.alloc(1_500_000 + offset, offset + 1) })
        )
        const huge = recordAt(large, 100, { key: Buffer.alloc(5_000_000, 7), value: Buffer.alloc(1) })
        const answers = yield* parked.park([...small, ...big, huge])
        yield* same("the number of answers", answers.length, small.length + big.length + 1)
        yield* same("the answers", new Set(answers).size === 1 && answers[0], "Parked")
        yield* same(
          "many",
          yield* offsetsOf(parked, many),
          small.map(({ offset }) => offset)
        )
        yield* same("the count", yield* parked.count(many), small.length)
        for (const record of [...big, huge]) yield* kept(parked, record)
        const again = yield* parked.park([huge, ...small.slice(500, 1_800)])
        yield* same("asked again", new Set(again).size === 1 && again[0], "AlreadyParked")
      })
  },
  {
    invariant: 7,
    name: "the same record again changes nothing, nor why and when it was parked",
    run: ({ name, store: { parked }, time }) =>
      Effect.gen(function* () {
        const record = recordAt(name("stream"), 7)
        const again = { ...record, errorTag: "Other", errorMessage: "another", attempts: 9 }
        yield* same("twice in a call", yield* parked.park([record, again]), ["Parked", "AlreadyParked"])
        const before = yield* parked.get(record.stream, 7)
        yield* time.pass(5)
        yield* same("in another call", yield* parked.park([again]), ["AlreadyParked"])
        yield* kept(parked, record)
        yield* same("when", (yield* parked.get(record.stream, 7))?.parkedAt, before?.parkedAt)
        yield* same("the count", yield* parked.count(record.stream), 1)
      })
  },
  {
    name: "another record at the same offset is NotEmpty, whatever differs, and does not take its place",
    run: ({ name, store: { parked } }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const record = recordAt(stream, 5, { value: Buffer.alloc(0) })
        yield* parked.park([record])
        const others: Readonly<Record<string, Partial<RecordToPark>>> = {
          value: { value: Buffer.from("v") },
          "no value": { value: undefined },
          key: { key: Buffer.from("key 6") },
          "no key": { key: undefined },
          timestamp: { timestampMillis: record.timestampMillis + 1 },
          headers: { headers: [] },
          "a header's value": { headers: [{ name: "trace", value: undefined }] }
        }
        for (const [what, other] of Object.entries(others)) {
          const error = yield* failsWith(
            `another ${what}`,
            parked.park([{ ...record, ...other }]),
            "StoreError"
          )
          yield* same(
            `the reason for another ${what}`,
            error._tag === "StoreError" && error.reason,
            "NotEmpty"
          )
        }
        yield* failsWith(
          "between others",
          parked.park([recordAt(stream, 4), { ...record, key: undefined }, recordAt(stream, 6)]),
          "StoreError"
        )
        yield* kept(parked, record)
        yield* same("the others are parked", yield* offsetsOf(parked, stream), [4, 5, 6])
      })
  },
  {
    name: "of many who park the same records at once, one has parked each",
    liveClock: true,
    run: ({ name, store: { parked } }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const records = range(40).map((offset) => recordAt(stream, offset))
        const answers = yield* Effect.forEach(
          range(8),
          (turn) =>
            Effect.map(parked.park([...records.slice(5 * turn), ...records.slice(0, 5 * turn)]), (answered) =>
              records.map((_, index) => answered[(index - 5 * turn + records.length) % records.length])
            ),
          { concurrency: "unbounded" }
        )
        for (const { offset } of records) {
          const those = answers.map((answered) => answered[offset])
          yield* same(
            `how many have parked offset ${offset}`,
            those.filter((answer) => answer === "Parked").length,
            1
          )
        }
        yield* same("the count", yield* parked.count(stream), records.length)
      })
  },
  {
    invariant: 8,
    name: "a record says when it was parked, by the store's clock",
    run: ({ name, store: { parked }, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const { from, to } = yield* timed(time, parked.park([recordAt(stream, 0)]))
        yield* time.pass(50)
        const later = yield* timed(time, parked.park([recordAt(stream, 1)]))
        const [first, second] = yield* Stream.runCollect(parked.list({ stream }))
        yield* ensure(
          isParkedBetween(first.parkedAt, from, to, time),
          () => `${first.parkedAt} is not between ${from} and ${to}`
        )
        yield* ensure(
          isParkedBetween(second.parkedAt, later.from, later.to, time),
          () => `${second.parkedAt} is not between ${later.from} and ${later.to}`
        )
        yield* same("got alone", (yield* parked.get(stream, 0))?.parkedAt, first.parkedAt)
      })
  }
]

const listing: ReadonlyArray<Check<ParkedRecordsSubject>> = [
  {
    name: "a list has what is told of each record, in the order of offsets, and not its bytes",
    run: ({ name, store: { parked } }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const offsets = [10, 9, 0, 1_000_000_007, 2 ** 32, highest, 100, 99, highest - 1]
        yield* parked.park(
          offsets.map((offset) =>
            recordAt(stream, offset, { partition: offset % 7, attempts: 1 + (offset % 3) })
          )
        )
        const found = yield* Stream.runCollect(parked.list({ stream }))
        yield* same(
          "the offsets",
          found.map(({ offset }) => offset),
          offsets.toSorted((a, b) => a - b)
        )
        for (const summary of found) {
          const { bytes, parkedAt, ...told } = summary
          const { headers, key, value, ...expected } = recordAt(stream, summary.offset, {
            partition: summary.offset % 7,
            attempts: 1 + (summary.offset % 3)
          })
          yield* same(`what is told of offset ${summary.offset}`, told, expected)
          const content = (key?.length ?? 0) + (value?.length ?? 0) + headers.length
          yield* ensure(
            bytes >= content,
            () => `${bytes} bytes are told of offset ${summary.offset}, it has more`
          )
          const whole = yield* parked.get(stream, summary.offset)
          yield* same("told with its bytes", [whole?.bytes, whole?.parkedAt], [bytes, parkedAt])
        }
        yield* same("of a stream without any", yield* offsetsOf(parked, name("stream")), [])
      })
  },
  {
    name: "a list of all has every stream, and of a list that is long one may take the beginning",
    run: ({ name, store: { parked } }) =>
      Effect.gen(function* () {
        const streams = [name("stream"), name("stream"), name("stream")]
        yield* parked.park([
          ...range(150).map((offset) => recordAt(streams[0], offset)),
          recordAt(streams[1], 8),
          recordAt(streams[2], 5)
        ])
        yield* parked.remove(streams[2], [5])
        const found = yield* ofStreams(parked, streams)
        const expected = [...range(150).map((offset) => `0/${offset}`), "1/8"]
        yield* same("all", found.toSorted(), expected.toSorted())
        const counts = (yield* Stream.runCollect(parked.counts)).filter(({ stream }) =>
          streams.includes(stream)
        )
        const counted = Object.fromEntries(
          counts.map(({ count, stream }) => [streams.indexOf(stream), count])
        )
        yield* same("the counts", counted, { 0: 150, 1: 1 })
        const first = yield* Stream.runCollect(Stream.take(parked.list({ stream: streams[0] }), 130))
        yield* same(
          "the beginning",
          first.map(({ offset }) => offset),
          range(130)
        )
      })
  },
  {
    name: "a list that others change meanwhile has all that was there from beginning to end",
    run: ({ name, store: { parked } }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        yield* parked.park(range(700).map((offset) => recordAt(stream, 2 * offset)))
        const changing = (offset: number) =>
          offset % 140 === 0
            ? Effect.andThen(
                parked.remove(stream, [offset, 2 + offset, 1_396 - offset]),
                parked.park([recordAt(stream, offset + 41), recordAt(stream, Math.max(0, offset - 41))])
              )
            : Effect.void
        const removed = new Set(range(10).flatMap((turn) => [140 * turn, 2 + 140 * turn, 1_396 - 140 * turn]))
        const seen = yield* Stream.runCollect(
          Stream.mapEffect(parked.list({ stream }), ({ offset }) => Effect.as(changing(offset), offset))
        )
        const missing = range(700)
          .map((index) => 2 * index)
          .filter((offset) => !removed.has(offset) && !seen.includes(offset))
        yield* same("what the list left out", missing, [])
      })
  },
  {
    name: "what is removed is gone, is not counted twice, and may be parked anew",
    run: ({ name, store: { parked } }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        yield* parked.park(range(1_500).map((offset) => recordAt(stream, offset)))
        yield* same("of which one is not there", yield* parked.remove(stream, [3, 3, 9_999]), 1)
        yield* same("again", yield* parked.remove(stream, [3]), 0)
        yield* same("gone", yield* parked.get(stream, 3), undefined)
        yield* same("its neighbour", (yield* parked.get(stream, 4))?.offset, 4)
        yield* same("the count", yield* parked.count(stream), 1_499)
        const other = recordAt(stream, 3, { value: Buffer.from("another") })
        yield* same("another at its place", yield* parked.park([other]), ["Parked"])
        yield* kept(parked, other)
        yield* same("all of them", yield* parked.remove(stream, range(1_500)), 1_500)
        yield* same("none left", [yield* parked.count(stream), yield* offsetsOf(parked, stream)], [0, []])
        yield* same("none to remove", yield* parked.remove(stream, []), 0)
        yield* same("parked anew", yield* parked.park([recordAt(stream, 4)]), ["Parked"])
      })
  }
]

const besidePositions: ReadonlyArray<Check<ParkedRecordsSubject>> = [
  {
    name: "what is parked is no progress, and stays for long, also when its stream is rewound or forgotten",
    run: ({ name, store: { offsets, parked }, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const record = recordAt(stream, 0)
        yield* parked.park([record])
        yield* same(
          "progress of a stream of which a record is parked",
          yield* offsets.progress(stream),
          undefined
        )
        const claimId = name("claim")
        yield* offsets.claim(stream, OffsetRanges.make(0, 3), terms(claimId, time.longMillis))
        yield* offsets.complete({ stream, claimId }, OffsetRanges.make(0, 3))
        yield* offsets.rewind(stream, 0)
        yield* kept(parked, record)
        yield* offsets.forget(stream)
        yield* kept(parked, record)
        if (time.exact) yield* time.pass(100_000_000)
        yield* kept(parked, record)
        yield* same("what forget answers of what is only parked", yield* offsets.forget(stream), false)
        yield* parked.remove(stream, [0])
        const again = yield* offsets.claim(stream, OffsetRanges.of(0), terms(name("claim"), time.longMillis))
        yield* same("granted", String(again.granted), String(OffsetRanges.of(0)))
      })
  },
  {
    invariant: 6,
    name: "what was acknowledged is there for other instances, and after a restart",
    onlyDurable: true,
    run: ({ another, name, restarted, store: { parked } }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const records = allSorts(stream)
        yield* parked.park(records)
        yield* kept((yield* another).parked, records[5])
        const afterwards = (yield* restarted).parked
        for (const record of records) yield* kept(afterwards, record)
        yield* same("asked again", yield* afterwards.park([records[0]]), ["AlreadyParked"])
        yield* same("removed", yield* afterwards.remove(stream, [0]), 1)
        yield* same("elsewhere too", yield* (yield* another).parked.count(stream), records.length - 1)
      })
  }
]

const input: ReadonlyArray<Check<ParkedRecordsSubject>> = [
  {
    invariant: 9,
    name: "names of any characters, up to 1,024 bytes, are taken as they are, and kept apart",
    run: ({ name, store: { parked } }) =>
      Effect.gen(function* () {
        const named = allowedNames(name("stream"))
        for (const [index, [, stream]] of named.entries()) {
          yield* parked.park([recordAt(stream, 1, { attempts: index + 1, topic: stream })])
        }
        for (const [index, [what, stream]] of named.entries()) {
          yield* same(`how often ${what}`, (yield* parked.get(stream, 1))?.attempts, index + 1)
        }
        const found = yield* ofStreams(
          parked,
          named.map(([, stream]) => stream)
        )
        yield* same("in the list of all", found.length, named.length)
        for (const [what, stream] of named)
          yield* same(`removed of ${what}`, yield* parked.remove(stream, [1]), 1)
      })
  },
  {
    invariant: 9,
    name: "bad input is InvalidInput in every verb, and nothing is written",
    run: ({ name, store: { parked } }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const good = recordAt(stream, 0)
        const bad: Array<readonly [what: string, call: Effect.Effect<unknown, { readonly _tag: string }>]> =
          []
        const parking = (what: string, other: object) =>
          bad.push([`park with ${what}`, parked.park([good, { ...recordAt(stream, 1), ...other }])])
        for (const [what, refused] of refusedNames) {
          parking(`a stream, ${what}`, { stream: refused })
          parking(`a topic, ${what}`, { topic: refused })
          parking(`a tag, ${what}`, { errorTag: refused })
          bad.push([`get of ${what}`, parked.get(refused, 0)])
          bad.push([`remove of ${what}`, parked.remove(refused, [0])])
          bad.push([`count of ${what}`, parked.count(refused)])
          bad.push([`list of ${what}`, Stream.runCollect(parked.list({ stream: refused }))])
        }
        for (const offset of [-1, 0.5, Number.NaN, highest + 1]) {
          parking(`offset ${offset}`, { offset })
          parking(`partition ${offset}`, { partition: offset })
          bad.push([`get of offset ${offset}`, parked.get(stream, offset)])
          bad.push([`remove of offset ${offset}`, parked.remove(stream, [0, offset])])
        }
        parking("no attempt", { attempts: 0 })
        parking("half a millisecond", { timestampMillis: 0.5 })
        parking("a text as its value", { value: "text" })
        parking("null as its key", { key: null })
        parking("headers that are none", { headers: { a: Buffer.alloc(0) } })
        parking("a text in a header", { headers: [{ name: "a", value: "text" }] })
        parking("a lone surrogate in a header's name", { headers: [{ name: "a\ud800", value: undefined }] })
        parking("more than 64 MiB", { value: Buffer.alloc(64 * 1_048_576) })
        for (const [what, call] of bad) yield* failsWith(what, call, "InvalidInput")
        yield* same("what is there after all of it", yield* parked.count(stream), 0)
      })
  },
  {
    invariant: 9,
    name: "a message of any length and form is no reason not to park: its beginning is kept",
    run: ({ name, store: { parked } }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const errorMessage = `a\ud800b ${"x".repeat(10_000)}`
        yield* parked.park([recordAt(stream, 0, { errorMessage })])
        const found = (yield* parked.get(stream, 0))?.errorMessage
        yield* same("its beginning", found, errorMessage.slice(0, 4_096).toWellFormed())
      })
  }
]

/** The contract of `ParkedRecords`. */
export const parkedRecordsChecks: ReadonlyArray<Check<ParkedRecordsSubject>> = [
  ...parking,
  ...listing,
  ...besidePositions,
  ...input
]
