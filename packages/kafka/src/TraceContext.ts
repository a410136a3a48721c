/**
 * Trace context in the headers of records, as W3C's Trace Context has it (https://www.w3.org/TR/trace-context/): the
 * header `traceparent` names the span that sent the record, `tracestate` carries what tracing systems add to it.
 */
import { Tracer } from "effect"
import type { HeaderValue } from "./KafkaClient.ts"

/** The span that a record comes from. */
export interface TraceContext {
  /** 32 lower-case hexadecimal digits, not all of them 0. */
  readonly traceId: string
  /** 16 lower-case hexadecimal digits, not all of them 0. */
  readonly spanId: string
  /** Whether whoever sent it records its trace. */
  readonly sampled: boolean
  /** The entries of `tracestate`, in their order; at most 32, each key once. */
  readonly state: ReadonlyArray<readonly [key: string, value: string]>
}

/** The headers that carry a trace context. */
export interface TraceHeaders {
  readonly traceparent: string
  /** Missing where there are no entries. */
  readonly tracestate?: string
}

const traceparentPattern =
  /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/
const keyPattern = /^(?:[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})$/
const valuePattern = /^[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]$/
const idPattern = /^(?!0+$)[0-9a-f]+$/

/** By the specification one bad entry voids all of them, and not the `traceparent`. */
const parseState = (tracestate: string): TraceContext["state"] => {
  const state = new Map<string, string>()
  for (const member of tracestate.split(",")) {
    const entry = member.replace(/^[ \t]+|[ \t]+$/g, "")
    if (entry === "") continue
    const equals = entry.indexOf("=")
    const key = entry.slice(0, Math.max(0, equals))
    const value = entry.slice(equals + 1)
    if (!keyPattern.test(key) || !valuePattern.test(value) || state.has(key)) return []
    state.set(key, value)
  }
  return state.size > 32 ? [] : [...state]
}

/**
 * Reads the two headers; `undefined` where `traceparent` is none. Versions to come are read as far as this one goes.
 *
 * @example
 * TraceContext.parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "vendor=opaque")
 * // { traceId: "0af7...", spanId: "b7ad...", sampled: true, state: [["vendor", "opaque"]] }
 */
export const parse = (traceparent: string, tracestate = ""): TraceContext | undefined => {
  const match = traceparentPattern.exec(traceparent)
  if (match === null) return undefined
  const [, version, traceId, spanId, flags, more] = match
  if (version === "00" && more !== undefined) return undefined
  const sampled = (Number.parseInt(flags as string, 16) & 1) === 1
  return { traceId: traceId as string, spanId: spanId as string, sampled, state: parseState(tracestate) }
}

/** The two headers of a trace context. */
export const format = ({ sampled, spanId, state, traceId }: TraceContext): TraceHeaders => {
  const traceparent = `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`
  if (state.length === 0) return { traceparent }
  return { traceparent, tracestate: state.map(([key, value]) => `${key}=${value}`).join(",") }
}

const textOf = (value: HeaderValue | undefined): string => {
  if (value === undefined) return ""
  if (typeof value === "string") return value
  return Buffer.isBuffer(value) ? value.toString("latin1") : value.map(textOf).join(",")
}

/** The trace context of a record; `undefined` where its headers have none, or a `traceparent` that is none. */
export const fromHeaders = (
  headers: Readonly<Record<string, HeaderValue | undefined>>
): TraceContext | undefined => {
  const { traceparent } = headers
  return traceparent === undefined ? undefined : parse(textOf(traceparent), textOf(headers.tracestate))
}

/** The sender's span, to be the parent of spans in this process. */
export const toSpan = ({ sampled, spanId, traceId }: TraceContext): Tracer.ExternalSpan =>
  Tracer.externalSpan({ traceId, spanId, sampled })

/**
 * The trace context of a span, to be sent along; `state` is that of the record which the span is about. `undefined`
 * where the tracer gives ids of another form than W3C's.
 */
export const ofSpan = (
  { sampled, spanId, traceId }: Tracer.AnySpan,
  state: TraceContext["state"] = []
): TraceContext | undefined => {
  const id = traceId.padStart(32, "0")
  const fits = id.length === 32 && spanId.length === 16 && idPattern.test(id) && idPattern.test(spanId)
  return fits ? { traceId: id, spanId, sampled, state } : undefined
}
