import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Schema } from "effect"
import * as Decoder from "../src/Decoder.ts"
import { failed } from "../src/internal/decoding.ts"
import type { KafkaRecord } from "../src/KafkaClient.ts"

const record = (parts: Partial<KafkaRecord>): KafkaRecord => ({
  topic: "orders",
  partition: 1,
  offset: 2,
  key: undefined,
  value: undefined,
  timestampMillis: 0,
  headers: {},
  ...parts
})

/** What it gives, or why it does not. */
const decode = <A>(decoder: Decoder.Decoder<A>, parts: Partial<KafkaRecord>) => {
  const given = record(parts)
  return Effect.runSync(
    Effect.match(decoder.decode(given.value, given), {
      onSuccess: (value): A | string => value,
      onFailure: (error) => failed(given, error).message
    })
  )
}

const value = (text: string) => ({ value: Buffer.from(text) })
const place = 'the record at offset 2 of partition 1 of topic "orders" can\'t be decoded: '

describe("Decoder", () => {
  it("bytes and text are what was sent, and nothing else", () => {
    expect(decode(Decoder.bytes, value("a"))).toEqual(Buffer.from("a"))
    expect(decode(Decoder.text, value("\ufeffπ"))).toBe("\ufeffπ")
    expect(decode(Decoder.text, value(""))).toBe("")
    expect(decode(Decoder.text, { value: Buffer.from([0xff]) })).toBe(`${place}the bytes are not UTF-8`)
    expect(decode(Decoder.text, {})).toContain("there are no bytes")
    expect(decode(Decoder.bytes, {})).toContain("there are no bytes")
  })

  it("json fits its schema, or says where it does not", () => {
    const decoder = Decoder.json(Schema.Struct({ when: Schema.DateFromString }))
    expect(decode(decoder, value('{"when":"2026-01-02T00:00:00Z"}'))).toEqual({
      when: new Date("2026-01-02")
    })
    expect(decode(decoder, value("{"))).toContain(`${place}it is not JSON in UTF-8`)
    expect(decode(decoder, { value: Buffer.from([0x22, 0xff, 0x22]) })).toContain("it is not JSON in UTF-8")
    expect(decode(decoder, value("{}"))).toContain("when")
    expect(decode(decoder, {})).toContain("there are no bytes")
  })

  it("optional allows that there are no bytes, not that they are wrong", () => {
    const decoder = Decoder.optional(Decoder.json(Schema.Number))
    expect(decode(decoder, {})).toBeUndefined()
    expect(decode(decoder, value("1"))).toBe(1)
    expect(decode(decoder, value("x"))).toContain("it is not JSON")
  })

  it("headers are text by name, the last of several", () => {
    const decoder = Decoder.headers(
      Schema.Struct({ tenant: Schema.String, attempt: Schema.optionalKey(Schema.NumberFromString) })
    )
    expect(
      decode(decoder, { headers: { tenant: ["a", Buffer.from("b")], other: "x", none: undefined } })
    ).toEqual({
      tenant: "b"
    })
    expect(decode(decoder, { headers: { tenant: Buffer.from("a"), attempt: "3" } })).toEqual({
      tenant: "a",
      attempt: 3
    })
    expect(decode(decoder, {})).toContain("tenant")
  })

  it("record decodes the parts that are given, and names the one that fails", () => {
    const decoder = Decoder.record({ key: Decoder.text, value: Decoder.json(Schema.Number) })
    expect(decode(decoder, { key: Buffer.from("k"), ...value("7") })).toEqual({ key: "k", value: 7 })
    expect(decode(decoder, value("7"))).toContain(`${place}its key: there are no bytes`)
    expect(decode(decoder, { key: Buffer.from("k"), ...value("x") })).toContain("its value: it is not JSON")
    const whole = Decoder.record({ headers: Decoder.headers(Schema.Struct({ a: Schema.String })) })
    expect(decode(whole, { headers: { a: "1" } })).toEqual({ headers: { a: "1" } })
  })

  it.effect("one of one's own may need services", () =>
    Effect.gen(function* () {
      class Registry extends Context.Service<Registry, { readonly prefix: string }>()("test/Registry") {}
      const decoder = Decoder.record({
        value: Decoder.make((bytes) => Effect.map(Registry, ({ prefix }) => `${prefix}${bytes}`))
      })
      const decoded = yield* Effect.provideService(decoder.decode(undefined, record(value("x"))), Registry, {
        prefix: "schema 1: "
      })
      expect(decoded).toEqual({ value: "schema 1: x" })
    })
  )

  it("is done at once where nothing is asked", () => {
    const given = record(value("1"))
    expect(Exit.isExit(Decoder.text.decode(given.value, given))).toBe(true)
    expect(Exit.isExit(Decoder.json(Schema.Number).decode(given.value, given))).toBe(true)
  })
})
