import { ParkedRecords, type RecordContent, type RecordToPark, type StoredRecord } from "@tidemark/core"
import { Effect, Stream } from "effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { decode, encode, encodedSize } from "../src/internal/recordBytes.ts"

const bytes = fc.option(fc.uint8Array({ maxLength: 40 }), { nil: undefined })
const content: fc.Arbitrary<RecordContent> = fc.record({
  timestampMillis: fc.maxSafeInteger(),
  key: bytes,
  value: bytes,
  headers: fc.array(fc.record({ name: fc.string({ unit: "grapheme", maxLength: 9 }), value: bytes }), {
    maxLength: 4
  })
})

const plain = (field: Uint8Array | undefined) => (field === undefined ? undefined : [...field])
const readable = ({ headers, key, timestampMillis, value }: RecordContent) => ({
  timestampMillis,
  key: plain(key),
  value: plain(value),
  headers: headers.map((header) => [header.name, plain(header.value)])
})

describe("the bytes of a record", () => {
  it("are read as they were written, and are as many as was said", () => {
    fc.assert(
      fc.property(content, (record) => {
        const encoded = encode(record)
        expect(encoded.length).toBe(encodedSize(record))
        const decoded = decode(encoded)
        expect(decoded && readable(decoded)).toEqual(readable(record))
      })
    )
  })

  it("are the same of the same record only", () => {
    fc.assert(
      fc.property(content, content, (one, other) => {
        const isSame = JSON.stringify(readable(one)) === JSON.stringify(readable(other))
        expect(encode(one).equals(encode(other))).toBe(isSame)
      })
    )
  })

  it("are not read where some are missing, or are too many", () => {
    fc.assert(
      fc.property(content, fc.nat(), (record, at) => {
        const encoded = encode(record)
        expect(decode(encoded.subarray(0, at % encoded.length))).toBeUndefined()
        expect(decode(Buffer.concat([encoded, Buffer.alloc(1)]))).toBeUndefined()
      })
    )
  })

  it("are read, or not, whatever they are", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (rest) => {
        expect(() => decode(Buffer.concat([Buffer.from([1]), rest]))).not.toThrow()
      })
    )
  })
})

interface Part {
  readonly stream: string
  readonly records: ReadonlyArray<StoredRecord>
}

/** Keeps what it is told in a map, and what it was asked for in which parts. */
const keeping = () => {
  const parts: Array<Part> = []
  const kept = new Map<string, StoredRecord>()
  const service = ParkedRecords.make({
    name: "test",
    park: (stream, records) =>
      Effect.sync(() => {
        parts.push({ stream, records })
        return records.map((record) => {
          const place = `${stream}/${record.offset}`
          const found = kept.get(place)
          if (found === undefined) kept.set(place, record)
          if (found === undefined) return "Parked"
          return Buffer.compare(found.content, record.content) === 0 ? "AlreadyParked" : "Occupied"
        })
      }),
    page: () => Effect.succeed([]),
    get: () => Effect.undefined,
    remove: (_, offsets) => Effect.succeed(offsets.length),
    count: () => Effect.succeed(0),
    streams: Stream.empty
  })
  return { kept, parts, service }
}

const toPark = (stream: string, offset: number, size: number): RecordToPark => ({
  stream,
  offset,
  topic: "t",
  partition: 0,
  timestampMillis: 0,
  key: undefined,
  value: new Uint8Array(size),
  headers: [],
  errorTag: "E",
  errorMessage: "",
  attempts: 1
})

describe("records to be parked", () => {
  const sizes = fc.oneof(
    fc.nat(50),
    fc.nat(2 * 1_048_576),
    fc.integer({ min: 4 * 1_048_576, max: 5 * 1_048_576 })
  )
  const records = fc.array(
    fc
      .tuple(fc.constantFrom("a", "b"), fc.nat(20), sizes)
      .map(([stream, offset, size]) => toPark(stream, offset, size)),
    { maxLength: 20 }
  )

  it("come in parts of one stream, bounded, each place once in a part, and are answered in order", async () => {
    await fc.assert(
      fc.asyncProperty(records, async (asked) => {
        const { kept, parts, service } = keeping()
        const first = new Map<string, number>()
        const expected = asked.map(({ offset, stream, value }) => {
          const place = `${stream}/${offset}`
          const size = first.get(place)
          if (size === undefined) first.set(place, value?.length ?? 0)
          return size === undefined ? "Parked" : size === value?.length ? "AlreadyParked" : "Occupied"
        })
        const outcome = await Effect.runPromise(
          Effect.match(service.park(asked), {
            onSuccess: (answers) => answers,
            onFailure: (error) => (error._tag === "StoreError" ? error.message : error)
          })
        )
        const occupied = expected.indexOf("Occupied")
        if (occupied < 0) expect(outcome).toEqual(expected)
        else expect(outcome).toContain(`offset ${asked[occupied].offset} of stream ${asked[occupied].stream}`)
        expect(kept.size).toBe(first.size)
        for (const part of parts) {
          const total = part.records.reduce((sum, { content: held }) => sum + held.length, 0)
          expect(part.records.length === 1 || total <= 4 * 1_048_576).toBe(true)
          expect(new Set(part.records.map(({ offset }) => offset)).size).toBe(part.records.length)
        }
      }),
      { numRuns: 30 }
    )
  })

  it("are at most 1,000 in a part, and to be removed too", async () => {
    const { parts, service } = keeping()
    const many = Array.from({ length: 2_500 }, (_, offset) => toPark("a", offset, 1))
    await Effect.runPromise(service.park(many))
    expect(parts.map(({ records: part }) => part.length)).toEqual([1_000, 1_000, 500])
    expect(
      await Effect.runPromise(
        service.remove(
          "a",
          [...many, ...many].map(({ offset }) => offset)
        )
      )
    ).toBe(2_500)
  })
})
