/**
 * From a record's bytes to what its handler works with.
 *
 * A record that a decoder fails for goes the way of `whenPoison`, without retries; a failure that says `retriable: true`
 * (a schema registry does not answer) is tried again as the handler's failures are.
 *
 * @example
 * const Order = Schema.Struct({ id: Schema.String, amount: Schema.Number })
 * KafkaConsumer.run({
 *   topics: ["orders"],
 *   groupId: "billing",
 *   decode: Decoder.json(Order),
 *   identify: (order) => order.id,
 *   handler: (order, record, claim) => charge(order, claim.token)
 * })
 */
import { Effect, Schema } from "effect"
import { describe, failed, headersOf } from "./internal/decoding.ts"
import type { KafkaRecord } from "./KafkaClient.ts"

/** Makes an `A` of bytes, with the services `R`. */
// An object, since TypeScript infers nothing from a call that answers a function, beside a handler without types.
export interface Decoder<out A, out R = never> {
  /**
   * Reads the bytes of a record's value, or of its key where {@link record} says so; `undefined` where there are none: a
   * tombstone has no value. Whatever it fails with becomes `DecodeFailed`.
   */
  readonly decode: (bytes: Buffer | undefined, record: KafkaRecord) => Effect.Effect<A, unknown, R>
}

/**
 * A decoder of one's own, which may ask a schema registry, say.
 *
 * @param decode - gets `undefined` for bytes that are not there.
 *
 * @example
 * Decoder.make((bytes) => Effect.tryPromise(() => registry.decode(bytes)))
 */
export const make = <A, R = never>(decode: Decoder<A, R>["decode"]): Decoder<A, R> => ({ decode })

const present = <A, R>(
  decode: (bytes: Buffer, record: KafkaRecord) => Effect.Effect<A, unknown, R>
): Decoder<A, R> => ({
  decode: (bytes, record) =>
    bytes === undefined
      ? Effect.fail("there are no bytes: it is a tombstone, or has no key; Decoder.optional allows that")
      : decode(bytes, record)
})

/** The bytes as they are. Fails where there are none. */
export const bytes: Decoder<Buffer> = present((bytes) => Effect.succeed(bytes))

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Text in UTF-8. Fails for other bytes, and where there are none. */
export const text: Decoder<string> = present((bytes) => {
  try {
    return Effect.succeed(utf8.decode(bytes))
  } catch {
    return Effect.fail("the bytes are not UTF-8")
  }
})

/**
 * JSON in UTF-8, checked by a schema. Fails for what is not JSON or does not fit, and where there are no bytes.
 *
 * @example
 * Decoder.json(Schema.Struct({ id: Schema.String, amount: Schema.Number }))
 */
export const json = <A, R>(schema: Schema.ConstraintDecoder<A, R>): Decoder<A, R> => {
  const check = Schema.decodeUnknownEffect(schema)
  return present((bytes) => {
    let value: unknown
    try {
      value = JSON.parse(utf8.decode(bytes))
    } catch (error) {
      return Effect.fail(`it is not JSON in UTF-8: ${describe(error)}`)
    }
    return check(value)
  })
}

/** `undefined` where there are no bytes (a tombstone, a record without a key); else as `decoder` says. */
export const optional = <A, R>(decoder: Decoder<A, R>): Decoder<A | undefined, R> => ({
  decode: (bytes, record) => (bytes === undefined ? Effect.succeed(undefined) : decoder.decode(bytes, record))
})

/**
 * Headers as text, checked by a schema; of a header that was sent more than once the last counts.
 *
 * @example
 * Decoder.headers(Schema.Struct({ "content-type": Schema.String, attempt: Schema.optionalKey(Schema.NumberFromString) }))
 */
export const headers = <A, R>(schema: Schema.ConstraintDecoder<A, R>): Decoder<A, R> => {
  const check = Schema.decodeUnknownEffect(schema)
  return { decode: (_, record) => check(headersOf(record)) }
}

/** The parts of a record that {@link record} decodes. */
interface Parts {
  readonly key?: Decoder<unknown, unknown>
  readonly value?: Decoder<unknown, unknown>
  readonly headers?: Decoder<unknown, unknown>
}

type Decoded<P> = { readonly [Part in keyof P]: P[Part] extends Decoder<infer A, unknown> ? A : never }

type Needed<P> = { [Part in keyof P]: P[Part] extends Decoder<unknown, infer R> ? R : never }[keyof P]

/**
 * Several parts of a record at once: those that are given.
 *
 * @example
 * const decode = Decoder.record({
 *   key: Decoder.text,
 *   value: Decoder.json(Order),
 *   headers: Decoder.headers(Schema.Struct({ tenant: Schema.String }))
 * })
 * // a handler gets { key: string, value: Order, headers: { tenant: string } }
 */
export const record = <P extends Parts>(parts: P): Decoder<Decoded<P>, Needed<P>> => ({
  decode: (_, record) => {
    const decoded: Record<string, unknown> = {}
    const decode = (part: keyof Parts, bytes: Buffer | undefined) => {
      const decoder = parts[part]
      if (decoder === undefined) return Effect.void
      return Effect.mapBoth(decoder.decode(bytes, record), {
        onSuccess: (value) => void (decoded[part] = value),
        onFailure: (error) => failed(record, error, `its ${part}: `)
      })
    }
    const all = decode("key", record.key).pipe(
      Effect.andThen(decode("value", record.value)),
      Effect.andThen(decode("headers", undefined)),
      Effect.as(decoded)
    )
    return all as Effect.Effect<Decoded<P>, unknown, Needed<P>>
  }
})
