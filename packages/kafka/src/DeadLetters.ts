/**
 * What was set aside: reading dead letters, and sending them back, once each.
 *
 * @example
 * // what the bank refused on its bad day, back to the topics that it came from
 * const { sent } = yield* DeadLetters.redrive({
 *   topic: "orders.dead-letter",
 *   where: ({ errorTag }) => errorTag === "BankUnreachable"
 * })
 */
import {
  type IdempotencyStore,
  type InvalidInput,
  Key,
  type OffsetStore,
  type ParkedRecord,
  ParkedRecords,
  type StoreError,
  Tracker,
  type TrackerError
} from "@tidemark/core"
import { type Duration, Effect, Stream } from "effect"
import * as letters from "./internal/letters.ts"
import { checkTopics } from "./internal/optionChecks.ts"
import { makeTopicReader } from "./internal/topicReader.ts"
import { type HeaderValue, KafkaClient, type KafkaRecord, type ProducerRecord } from "./KafkaClient.ts"
import type { KafkaError } from "./KafkaErrors.ts"

/** What the names of the headers begin with that tidemark gives to records it sets aside. */
export const headerPrefix: string = letters.headerPrefix

/** A record that was set aside: as it was, where it came from, and why. */
export interface Letter extends letters.Letter, letters.Content {}

/** Which letters go back, and where. */
export interface RedriveOptions {
  /** Default: all. */
  readonly where?: ((letter: Letter) => boolean) | undefined
  /** The topic to send it to, where its key decides the partition. Default: the one that it came from, in its partition. */
  readonly to?: ((letter: Letter) => string) | undefined
}

/** What became of the letters that were looked at. */
export interface Redriven {
  /** Sent back now. */
  readonly sent: number
  /** Sent back before, or copies of such. */
  readonly alreadySent: number
  /** Not wanted by `where`. */
  readonly passedOver: number
  /** Records that no consumer of tidemark has set aside. */
  readonly unreadable: number
}

/**
 * Reads a record of a dead-letter topic, or of a retry topic.
 *
 * @returns `undefined` for one that no consumer of tidemark has set aside.
 */
export const read = (record: KafkaRecord): Letter | undefined => {
  const letter = letters.readLetter(record)
  return letter && { ...letter, key: record.key, value: record.value, headers: letters.ownHeaders(record) }
}

/**
 * For `identify`: the id of a record that was sent back from a dead-letter topic, or to a retry topic, and of its copies.
 * `undefined` for others, also for records of another topic whose producer has copied the headers of what it read.
 *
 * @example
 * identify: (order, record) => order.id ?? DeadLetters.idOf(record)
 */
export const idOf = (record: KafkaRecord): string | undefined => letters.idOf(record)

/** How long a transaction may stay open: one batch of letters is read, sent and committed much faster. */
const transactionMillis = 60_000

/** Gives each letter its way back. */
const makeSender = ({ to }: RedriveOptions) =>
  Effect.map(KafkaClient, (client) => {
    const counts = new Map<string, number>()
    return (letter: Letter): Effect.Effect<ProducerRecord, KafkaError> =>
      Effect.gen(function* () {
        const topic = to?.(letter) ?? letter.topic
        let count = counts.get(topic)
        if (count === undefined) {
          count = (yield* client.partitionCounts([topic])).get(topic) ?? 0
          counts.set(topic, count)
        }
        const isBack = topic === letter.topic && letter.partition < count
        return letters.toOriginal(letter, topic, isBack ? letter.partition : undefined)
      })
  })

const topicOf = (topic: string): Effect.Effect<string, InvalidInput> =>
  Effect.try({ try: () => checkTopics("topic", [topic])[0], catch: (error) => error as InvalidInput })

/**
 * Sends letters of a dead-letter topic back, each once: those that are in the topic when it begins, and perhaps some that
 * come meanwhile. What is sent and the note in the dead-letter topic that it was (a record with the header `tidemark.redriven`) are one transaction of Kafka, so
 * that after a crash the next run goes on where this one ended, and nothing comes twice for readers with
 * `read_committed`, which tidemark's consumers are.
 *
 * Of several runs on one topic the latest goes on, and the earlier ones fail with `Fenced`. What fails again becomes a new
 * letter. Needs the right to transactional ids that begin with `tidemark.redrive/`, and to groups that begin with the
 * topic's name and `.redrive.`.
 *
 * @example
 * yield* DeadLetters.redrive({ topic: "orders.dead-letter", where: ({ groupId }) => groupId === "billing" })
 */
export const redrive = (
  options: RedriveOptions & { readonly topic: string }
): Effect.Effect<Redriven, KafkaError | InvalidInput, KafkaClient> =>
  Effect.scoped(
    Effect.gen(function* () {
      const topic = yield* topicOf(options.topic)
      const client = yield* KafkaClient
      const sender = yield* makeSender(options)
      // first of all: it settles what an earlier run has left, so that its notes are read
      const producer = yield* client.transactionalProducer({
        transactionalId: `tidemark.redrive/${topic}`,
        timeoutMillis: transactionMillis
      })
      const reader = yield* makeTopicReader(topic)
      const known = new Set<string>()
      yield* reader.readAll((records) =>
        Effect.sync(() => {
          for (const record of records) {
            const id = letters.readNote(record)
            if (id !== undefined) known.add(id)
          }
        })
      )
      const counts = { sent: 0, alreadySent: 0, passedOver: 0, unreadable: 0 }
      yield* reader.readAll((records) =>
        Effect.gen(function* () {
          const toSend: Array<ProducerRecord> = []
          let sent = 0
          for (const record of records) {
            if (letters.readNote(record) !== undefined) continue
            const letter = read(record)
            if (letter === undefined) counts.unreadable++
            else if (known.has(letter.id)) counts.alreadySent++
            else if (options.where?.(letter) === false) counts.passedOver++
            else {
              known.add(letter.id)
              toSend.push(yield* sender(letter), letters.toNote(topic, record.partition, letter.id))
              sent++
            }
          }
          if (sent === 0) return
          yield* producer.begin
          yield* producer.send(toSend)
          yield* producer.commit
          counts.sent += sent
        })
      )
      return counts
    })
  )

const headersOf = ({ headers }: ParkedRecord): Record<string, HeaderValue> => {
  const byName = new Map<string, Array<Buffer>>()
  for (const { name, value } of headers) {
    if (value === undefined) continue
    const values = byName.get(name)
    if (values === undefined) byName.set(name, [Buffer.from(value)])
    else values.push(Buffer.from(value))
  }
  return Object.fromEntries(
    [...byName].map(([name, values]) => [name, values.length === 1 ? values[0] : values])
  )
}

/** The stream's group, where it is that of a Kafka partition. */
const groupOf = (stream: string): string | undefined => {
  try {
    const [kind, group, topic, partition] = Key.streamParts(stream)
    return kind === "kafka" && topic !== undefined && partition !== undefined ? group : undefined
  } catch {
    // a name that is not made of encoded parts
    return undefined
  }
}

/** Reads a parked record; `undefined` for one that no Kafka consumer has parked. */
export const readParked = (parked: ParkedRecord): Letter | undefined => {
  const { attempts, errorMessage, errorTag, key, offset, partition, stream, timestampMillis, topic, value } =
    parked
  const groupId = groupOf(stream)
  if (groupId === undefined) return undefined
  return {
    id: letters.idIn(stream, offset, timestampMillis, 0),
    groupId,
    topic,
    partition,
    offset,
    timestampMillis,
    attempts,
    errorTag,
    errorMessage,
    key: key && Buffer.from(key),
    value: value && Buffer.from(value),
    headers: headersOf(parked)
  }
}

interface ParkedLetter extends Letter {
  readonly parkedAt: number
}

/** How many parked records are claimed together. */
const parkedTogether = 100

/**
 * Sends parked records back, each once, and removes each from the store when it was sent: of one stream, or of all. May be
 * run again after a crash, and by several at once.
 *
 * The store has no part in a transaction of Kafka: a record that was written to Kafka when this process died, and not
 * noted in the store, is sent once more, with the same `tidemark.id`: a consumer whose `identify` gives a business id, or
 * {@link idOf}, takes it once.
 *
 * @param options.stream - as `Key.kafkaStream` names it. Default: all.
 * @param options.retention - how long it is remembered that a record was sent, should removing it fail; 30 days by default.
 *
 * @example
 * yield* DeadLetters.redriveParked({ where: ({ topic }) => topic === "orders" })
 */
export const redriveParked = (
  options: RedriveOptions & {
    readonly stream?: string | undefined
    readonly retention?: Duration.Input | undefined
  } = {}
): Effect.Effect<
  Redriven,
  KafkaError | StoreError | InvalidInput | TrackerError,
  KafkaClient | OffsetStore | IdempotencyStore | ParkedRecords
> =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const parked = yield* ParkedRecords
    const sender = yield* makeSender(options)
    const tracker = yield* Tracker.make({
      namespace: "tidemark.redrive",
      retention: options.retention ?? "30 days"
    })
    const counts = { sent: 0, alreadySent: 0, passedOver: 0, unreadable: 0 }
    const send = (letter: Letter) => Effect.flatMap(sender(letter), (record) => client.produce([record]))

    const sendAll = Effect.fnUntraced(function* (stream: string, chosen: ReadonlyArray<ParkedLetter>) {
      // what was sent, and is parked anew after a rewind, is another letter: it is the only copy
      const keyOf = ({ id, parkedAt }: ParkedLetter) => Key.id(`${id}/${parkedAt}`)
      const outcomes = yield* tracker.onceAll(chosen, keyOf, send)
      const done: Array<number> = []
      outcomes.forEach((outcome, index) => {
        if (outcome._tag === "Processed") counts.sent++
        else if (outcome._tag === "Duplicate") counts.alreadySent++
        else return
        done.push(chosen[index].offset)
      })
      if (done.length > 0) yield* parked.remove(stream, done)
      for (const outcome of outcomes) if (outcome._tag === "Failed") return yield* Effect.fail(outcome.error)
    })

    const summaries = parked.list(options.stream === undefined ? {} : { stream: options.stream })
    yield* summaries.pipe(
      Stream.grouped(parkedTogether),
      Stream.runForEach((page) =>
        Effect.gen(function* () {
          const byStream = new Map<string, Array<ParkedLetter>>()
          for (const { offset, stream } of page) {
            const record = yield* parked.get(stream, offset)
            // another run has sent it meanwhile
            if (record === undefined) continue
            const letter = readParked(record)
            if (letter === undefined) counts.unreadable++
            else if (options.where?.(letter) === false) counts.passedOver++
            else {
              const { parkedAt } = record
              byStream.set(stream, [...(byStream.get(stream) ?? []), { ...letter, parkedAt }])
            }
          }
          for (const [stream, chosen] of byStream) yield* sendAll(stream, chosen)
        })
      )
    )
    return counts
  })
