import { describe, expect, it } from "@effect/vitest"
import { Tracer } from "effect"
import fc from "fast-check"
import * as TraceContext from "../src/TraceContext.ts"

const hex = (length: number) =>
  fc
    .array(fc.constantFrom(..."0123456789abcdef"), { minLength: length, maxLength: length })
    .map((digits) => digits.join(""))
    .filter((digits) => !/^0+$/.test(digits))
const simpleKey = fc.stringMatching(/^[a-z][_0-9a-z\-*/]{0,20}$/)
const tenantKey = fc.stringMatching(/^[a-z0-9][_0-9a-z\-*/]{0,20}@[a-z][_0-9a-z\-*/]{0,13}$/)
const value = fc.stringMatching(/^[!-+\--<>-~]([ -+\--<>-~]{0,20}[!-+\--<>-~])?$/)
const contexts: fc.Arbitrary<TraceContext.TraceContext> = fc.record({
  traceId: hex(32),
  spanId: hex(16),
  sampled: fc.boolean(),
  state: fc.uniqueArray(fc.tuple(fc.oneof(simpleKey, tenantKey), value), {
    selector: ([key]) => key,
    maxLength: 32
  })
})

const traceId = "0af7651916cd43dd8448eb211c80319c"
const spanId = "b7ad6b7169203331"
const traceparent = `00-${traceId}-${spanId}-01`

describe("TraceContext", () => {
  it("reads what it has written", () => {
    fc.assert(
      fc.property(contexts, (context) => {
        const headers = TraceContext.format(context)
        expect(TraceContext.parse(headers.traceparent, headers.tracestate)).toEqual(context)
        expect(TraceContext.fromHeaders({ ...headers })).toEqual(context)
        expect(TraceContext.ofSpan(TraceContext.toSpan(context), context.state)).toEqual(context)
      })
    )
  })

  it("takes no text for a context that it would not write, but for versions and flags", () => {
    const almost = fc
      .tuple(contexts, fc.nat(60), fc.constantFrom("", "-", "0", "g", "A", "00"))
      .map(([context, at, instead]) => {
        const { traceparent } = TraceContext.format(context)
        return traceparent.slice(0, at) + instead + traceparent.slice(at + 1)
      })
    fc.assert(
      fc.property(fc.oneof(fc.string(), almost), (text) => {
        const context = TraceContext.parse(text)
        if (context === undefined) return
        const written = TraceContext.format(context).traceparent
        expect(written.slice(2, 53)).toBe(text.slice(2, 53))
        expect(text.startsWith("ff")).toBe(false)
      }),
      { numRuns: 500 }
    )
  })

  it.each([
    ["another version", `cc-${traceId}-${spanId}-01`, true],
    ["another version with more", `cc-${traceId}-${spanId}-01-what-will-be`, true],
    ["another version with more, not apart", `cc-${traceId}-${spanId}-01.what`, false],
    ["this version with more", `${traceparent}-what`, false],
    ["the version that is forbidden", `ff-${traceId}-${spanId}-01`, false],
    ["no trace", `00-${"0".repeat(32)}-${spanId}-01`, false],
    ["no span", `00-${traceId}-${"0".repeat(16)}-01`, false],
    ["capitals", traceparent.toUpperCase(), false],
    ["too short", traceparent.slice(1), false],
    ["nothing", "", false]
  ])("%s", (_, text, valid) => {
    expect(TraceContext.parse(text) !== undefined).toBe(valid)
  })

  it.each([
    ["01", true],
    ["03", true],
    ["00", false],
    ["fe", false]
  ])("of the flags %s only the first bit counts", (flags, sampled) => {
    expect(TraceContext.parse(`00-${traceId}-${spanId}-${flags}`)?.sampled).toBe(sampled)
  })

  it.each([
    ["a=1,b=2", ["a=1", "b=2"]],
    [" a=1\t, ,b=2 ,", ["a=1", "b=2"]],
    ["1tenant@vendor=x y", ["1tenant@vendor=x y"]],
    ["a=1,a=2", []],
    ["a=1,B=2", []],
    ["a=1,b", []],
    ["a=", []],
    ["a=1=2", []],
    [Array.from({ length: 33 }, (_, index) => `k${index}=1`).join(","), []]
  ])("tracestate %s", (text, entries) => {
    const state = TraceContext.parse(traceparent, text)?.state
    expect(state?.map(([key, value]) => `${key}=${value}`)).toEqual(entries)
  })

  it("reads bytes, and headers that were sent more than once", () => {
    const headers = { traceparent: Buffer.from(traceparent), tracestate: [Buffer.from("a=1"), "b=2"] }
    expect(TraceContext.fromHeaders(headers)?.state).toEqual([
      ["a", "1"],
      ["b", "2"]
    ])
    expect(TraceContext.fromHeaders({ traceparent: [traceparent, traceparent] })).toBeUndefined()
    expect(TraceContext.fromHeaders({ tracestate: "a=1" })).toBeUndefined()
  })

  it("sends nothing of a span whose ids have another form", () => {
    const of = (traceId: string, spanId: string) =>
      TraceContext.ofSpan(Tracer.externalSpan({ traceId, spanId }))
    expect(of("trace", spanId)).toBeUndefined()
    expect(of(traceId, "span")).toBeUndefined()
    expect(of("0".repeat(32), spanId)).toBeUndefined()
    expect(of("8448eb211c80319c", spanId)?.traceId).toBe("00000000000000008448eb211c80319c")
  })
})
