/**
 * Records on their way through a retry topic or to a dead-letter topic: the original bytes, key and headers, and in
 * headers of our own where they come from and why they are there.
 */
import { InvalidInput, Key } from "@tidemark/core"
import { Cause } from "effect"
import type { HeaderValue, KafkaRecord, ProducerRecord } from "../KafkaClient.ts"
import { headersOf } from "./decoding.ts"

/** What the names of our headers begin with. */
export const headerPrefix = "tidemark."

const name = <N extends string>(end: N): `tidemark.${N}` => `tidemark.${end}`

const idHeader = name("id")
const topicHeader = name("topic")
const partitionHeader = name("partition")
const offsetHeader = name("offset")
const timestampHeader = name("timestamp")
const groupHeader = name("group")
const attemptsHeader = name("attempts")
const epochHeader = name("epoch")
const errorTagHeader = name("error-tag")
const errorMessageHeader = name("error-message")
const notBeforeHeader = name("not-before")
const redrivenHeader = name("redriven")

/** The longest error message in a header, in characters; a record's headers count against its greatest size. */
const mostCharacters = 1_000

/** Where a record was read from the first time. */
export interface Origin {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  /** Milliseconds since the epoch, as the producer or the broker set it. */
  readonly timestampMillis: number
  /** How often its handler was tried before this delivery. */
  readonly attempts: number
  /**
   * How often an operator had moved the stream that it was read from, with the retry topics' in which it has waited since
   * (their epochs together): what fails again after a rewind is not what failed before.
   */
  readonly epoch: number
}

/** Why a record was set aside. */
export interface Failure {
  readonly tag: string
  readonly message: string
}

/** A record that was set aside, as its headers tell. */
export interface Letter extends Omit<Origin, "epoch"> {
  /**
   * Equal for copies of the same letter: made of the group, of the record's place and time, and of the epoch where that
   * is not 0; at most 1,024 bytes.
   */
  readonly id: string
  readonly groupId: string
  readonly errorTag: string
  readonly errorMessage: string
}

const tagOf = (error: unknown): string => {
  if (typeof error === "object" && error !== null) {
    if ("_tag" in error && typeof error._tag === "string" && error._tag !== "") return error._tag
    if (error instanceof Error && error.name !== "") return error.name
  }
  return "Error"
}

const messageOf = (error: unknown): string => {
  if (error instanceof Error) return error.message === "" ? tagOf(error) : error.message
  if (typeof error === "object" && error !== null) {
    try {
      return JSON.stringify(error)
    } catch {
      // not all that can be thrown can be written down
    }
  }
  return String(error)
}

const shortened = (text: string): string =>
  (text.length > mostCharacters ? `${text.slice(0, mostCharacters)}...` : text).toWellFormed()

/** What a cause says, for headers and messages. */
export const failureOf = (cause: Cause.Cause<unknown>): Failure => {
  const error = Cause.squash(cause)
  return { tag: shortened(tagOf(error)), message: shortened(messageOf(error)) }
}

const wholeNumber = (text: string | undefined): number | undefined => {
  if (text === undefined || !/^-?\d{1,16}$/.test(text)) return undefined
  const number = Number(text)
  return Number.isSafeInteger(number) ? number : undefined
}

/** A record's place and time. */
type Place = Omit<Origin, "attempts" | "epoch">

/** A header that counts; 0 where there is none. */
const countOf = (text: string | undefined): number => Math.max(0, wholeNumber(text) ?? 0)

const placeOf = (texts: Readonly<Record<string, string>>): Place | undefined => {
  const topic = texts[topicHeader]
  const partition = wholeNumber(texts[partitionHeader])
  const offset = wholeNumber(texts[offsetHeader])
  const timestampMillis = wholeNumber(texts[timestampHeader])
  if (topic === undefined || partition === undefined || offset === undefined || timestampMillis === undefined)
    return undefined
  return partition < 0 || offset < 0 ? undefined : { topic, partition, offset, timestampMillis }
}

/**
 * Where a record of a retry topic comes from; one that nobody sent there to wait comes from where it is. `epoch`: of the
 * stream that it was read from now.
 */
export const originOf = (record: KafkaRecord, isRetry: boolean, epoch: number): Origin => {
  if (isRetry) {
    const texts = headersOf(record)
    const place = placeOf(texts)
    if (place !== undefined)
      return {
        ...place,
        attempts: countOf(texts[attemptsHeader]),
        epoch: countOf(texts[epochHeader]) + epoch
      }
  }
  const { offset, partition, timestampMillis, topic } = record
  return { topic, partition, offset, timestampMillis, attempts: 0, epoch }
}

/** Whether another group sent this record to a retry topic, to try it again itself. */
export const isOfAnotherGroup = ({ headers }: KafkaRecord, groupId: string): boolean => {
  const value = headers[groupHeader]
  return value !== undefined && String(value) !== groupId
}

/** When a record of a retry topic may be tried, in milliseconds since the epoch; 0: at once. */
export const notBeforeOf = (record: KafkaRecord, groupId: string): number => {
  const value = record.headers[notBeforeHeader]
  if (value === undefined || Array.isArray(value) || isOfAnotherGroup(record, groupId)) return 0
  return wholeNumber(String(value)) ?? 0
}

const withEpoch = (id: string, epoch: number): string => (epoch > 0 ? `${id}/${epoch}` : id)

/** A letter's id, from the stream that it comes from. */
export const idIn = (stream: string, offset: number, timestampMillis: number, epoch: number): string =>
  withEpoch(`${stream}/${offset}/${timestampMillis}`, epoch)

/** @throws InvalidInput where that is longer than an id may be. */
export const letterId = (
  groupId: string,
  cluster: string | undefined,
  { epoch, offset, partition, timestampMillis, topic }: Omit<Origin, "attempts">
): string => {
  const place = { group: groupId, topic, partition }
  const stream = Key.kafkaStream(cluster === undefined ? place : { ...place, cluster })
  const id = idIn(stream, offset, timestampMillis, epoch)
  if (Buffer.byteLength(id) > 1_024)
    throw new InvalidInput({
      field: "group, topic and cluster",
      value: `${Buffer.byteLength(id)} bytes together`,
      allowed: "so much that the id of a dead letter is at most 1,024 bytes"
    })
  return id
}

/** A record's own headers, without ours. */
export const ownHeaders = ({ headers }: KafkaRecord): Record<string, HeaderValue> => {
  const own: Record<string, HeaderValue> = {}
  for (const header of Object.keys(headers)) {
    const value = headers[header]
    if (value !== undefined && !header.startsWith(headerPrefix)) own[header] = value
  }
  return own
}

/** How a record is sent on to wait, or to rest. */
export interface Envelope {
  readonly target: string
  readonly groupId: string
  readonly cluster: string | undefined
  readonly origin: Origin
  /** How often its handler was tried, in all. */
  readonly attempts: number
  readonly failure: Failure
  /** Only for a retry topic. */
  readonly notBefore: number | undefined
}

/** The record as it goes to a retry topic or a dead-letter topic. Its key decides the partition. */
export const toLetter = (
  record: KafkaRecord,
  { attempts, cluster, failure, groupId, notBefore, origin, target }: Envelope
): ProducerRecord => ({
  topic: target,
  ...(record.key === undefined ? {} : { key: record.key }),
  value: record.value ?? null,
  headers: {
    ...ownHeaders(record),
    // one that waits keeps the id with which it was sent back: a dead letter is a new one each time
    [idHeader]: (notBefore === undefined ? undefined : idOf(record)) ?? letterId(groupId, cluster, origin),
    [topicHeader]: origin.topic,
    [partitionHeader]: String(origin.partition),
    [offsetHeader]: String(origin.offset),
    [timestampHeader]: String(origin.timestampMillis),
    [groupHeader]: groupId,
    [attemptsHeader]: String(attempts),
    ...(origin.epoch > 0 ? { [epochHeader]: String(origin.epoch) } : {}),
    [errorTagHeader]: failure.tag,
    [errorMessageHeader]: failure.message,
    ...(notBefore === undefined ? {} : { [notBeforeHeader]: String(notBefore) })
  }
})

/** What the headers of a dead letter say; `undefined` for a record that tidemark did not set aside. */
export const readLetter = (record: KafkaRecord): Letter | undefined => {
  const texts = headersOf(record)
  const place = placeOf(texts)
  const id = texts[idHeader]
  if (place === undefined || id === undefined) return undefined
  return {
    ...place,
    id,
    groupId: texts[groupHeader] ?? "",
    attempts: countOf(texts[attemptsHeader]),
    errorTag: texts[errorTagHeader] ?? "",
    errorMessage: texts[errorMessageHeader] ?? ""
  }
}

/**
 * The id that a record got when it was set aside; `undefined` for one that never was, and for one of another topic whose
 * producer copied the headers of what it read.
 */
export const idOf = ({ headers, topic }: KafkaRecord): string | undefined => {
  const value = headers[idHeader]
  if (value === undefined || Array.isArray(value)) return undefined
  const id = String(value)
  const [, , encoded] = id.split("/", 3)
  if (encoded === undefined) return undefined
  const of = encodeURIComponent(topic)
  return of === encoded || of.startsWith(`${encoded}.retry.`) ? id : undefined
}

/**
 * By which a record of a retry topic takes effect once that has no id of its own; `epoch`: of the topic's stream. What
 * keeps its id when it fails again after a rewind, and what waits in a topic that was rewound, is known by the epochs.
 */
export const idWhileWaiting = (record: KafkaRecord, epoch: number): string | undefined => {
  const id = idOf(record)
  return id && withEpoch(id, originOf(record, true, epoch).epoch)
}

/** What is sent back of a letter. */
export interface Content {
  readonly key: Buffer | undefined
  readonly value: Buffer | undefined
  readonly headers: Readonly<Record<string, HeaderValue>>
}

/** A dead letter on its way back: as it was, with its id. Without a partition its key decides. */
export const toOriginal = (
  { headers, id, key, value }: Content & Pick<Letter, "id">,
  topic: string,
  partition: number | undefined
): ProducerRecord => ({
  topic,
  ...(partition === undefined ? {} : { partition }),
  ...(key === undefined ? {} : { key }),
  value: value ?? null,
  headers: { ...headers, [idHeader]: id }
})

/** Notes in the dead-letter topic that a letter was sent back; in one transaction with that. */
export const toNote = (topic: string, partition: number, id: string): ProducerRecord => ({
  topic,
  partition,
  key: id,
  // no tombstone: where the topic is compacted, that would be forgotten
  value: "",
  headers: { [redrivenHeader]: id }
})

/** The id of the letter that was sent back; `undefined` where the record is no note of that. */
export const readNote = ({ headers }: KafkaRecord): string | undefined => {
  const value = headers[redrivenHeader]
  return value === undefined ? undefined : String(value)
}
