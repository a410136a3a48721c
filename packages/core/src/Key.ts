/**
 * What a message is known by: a position in a stream, or an id in a namespace.
 */
import { InvalidInput } from "./Errors.ts"
import * as Input from "./internal/input.ts"

/** A position: `offset` of `stream`. Remembered for ever, at a few bits each. */
export interface OffsetKey {
  readonly _tag: "Offset"
  readonly stream: string
  readonly offset: number
}

/** A business or message id, remembered for a retention time. */
export interface IdKey {
  readonly _tag: "Id"
  readonly id: string
  /** `undefined`: the tracker's own namespace. */
  readonly namespace: string | undefined
}

export type Key = OffsetKey | IdKey

/**
 * The key of a position in a stream.
 *
 * @param stream - 1 to 1,024 bytes of UTF-8; see {@link stream} and {@link kafkaStream} for names made of parts.
 * @param offset - a safe integer >= 0.
 *
 * A bad value is reported by the call that uses the key, as `InvalidInput`.
 *
 * @example
 * Key.offset("orders/0", 42)
 */
export const offset = (stream: string, offset: number): OffsetKey => ({ _tag: "Offset", stream, offset })

/**
 * The key of an id: an order number, a message id, a webhook's event id.
 *
 * @param id - 1 to 1,024 bytes of UTF-8 without lone surrogates; compared as it is, never normalised.
 * @param options.namespace - keeps ids of different meaning apart; default: the tracker's.
 *
 * A bad value is reported by the call that uses the key, as `InvalidInput`.
 *
 * @example
 * Key.id("order-4711")
 */
export const id = (id: string, options?: { readonly namespace?: string }): IdKey => ({
  _tag: "Id",
  id,
  namespace: options?.namespace
})

/**
 * A stream's name from its parts, each of which may hold any character: `stream("a/b", "c")` and
 * `stream("a", "b/c")` differ.
 *
 * @throws InvalidInput when there is no part, a part is empty or holds a lone surrogate, or the whole is longer
 * than 1,024 bytes.
 */
export const stream = (...parts: ReadonlyArray<string>): string => {
  if (parts.length === 0)
    throw new InvalidInput({ field: "parts", value: "none", allowed: "at least one part" })
  const name = parts
    .map((part) => {
      const bad = Input.name("stream part", part)
      if (bad !== undefined) throw bad
      return encodeURIComponent(part)
    })
    .join("/")
  const bad = Input.name("stream", name)
  if (bad !== undefined) throw bad
  return name
}

/** The parts that a stream's name was made of by {@link stream}. */
export const streamParts = (stream: string): ReadonlyArray<string> =>
  stream.split("/").map(decodeURIComponent)

/** One partition of a topic as one consumer group sees it. */
export interface KafkaStream {
  /** Needed only where one store serves groups of the same name on several clusters. */
  readonly cluster?: string
  readonly group: string
  readonly topic: string
  readonly partition: number
}

/**
 * The name of the stream that a consumer group reads from one partition.
 *
 * @example
 * Key.kafkaStream({ group: "billing", topic: "orders", partition: 3 }) // "kafka/billing/orders/3"
 */
export const kafkaStream = ({ cluster, group, topic, partition }: KafkaStream): string =>
  cluster === undefined
    ? stream("kafka", group, topic, String(partition))
    : stream("kafka", group, topic, String(partition), cluster)

/** The key for people: in messages, logs and dead letters. */
export const format = (key: Key): string =>
  key._tag === "Offset"
    ? `${key.stream}@${key.offset}`
    : key.namespace === undefined
      ? key.id
      : `${key.namespace}:${key.id}`
