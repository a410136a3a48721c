/**
 * What happens to one record in its lane: it is decoded, handled, tried again, and in the end set aside, where the
 * options say so. A record that is set aside is stored elsewhere first, durably, and counts as done only then.
 */
import { InFlightElsewhere, type ParkedRecordsService, Patience } from "@tidemark/core"
import {
  Cause,
  Clock,
  Config,
  ConfigProvider,
  type Context,
  Duration,
  Effect,
  Exit,
  Pull,
  Schedule
} from "effect"
import { DecodeFailed, SetAsideFailed } from "../../ConsumerErrors.ts"
import type { KafkaClient, KafkaRecord } from "../../KafkaClient.ts"
import type { RecordClaim } from "../../KafkaConsumer.ts"
import type { KafkaError } from "../../KafkaErrors.ts"
import { failed } from "../decoding.ts"
import {
  type Failure,
  failureOf,
  idWhileWaiting,
  isOfAnotherGroup,
  type Origin,
  originOf,
  toLetter
} from "../letters.ts"
import type { Claims } from "./Claims.ts"
import type { Counters } from "./counters.ts"
import type { ConsumerFailure } from "./environment.ts"
import { toParked } from "./parking.ts"
import { ensureTopics, type Route } from "./routes.ts"
import type { Handler, SettingsAndHandler } from "./settings.ts"
import { setAside, undone } from "./verdicts.ts"

/** What the engine tells of a record's claim, besides what the handler may know. */
export interface EngineClaim extends RecordClaim {
  /** Another owner has the record's id at work, until then: the handler must not run. */
  readonly heldUntil?: number
}

export interface ProcessingServices<R> {
  readonly client: KafkaClient["Service"]
  readonly parked: ParkedRecordsService | undefined
  readonly counters: Counters
  readonly claims: Claims
  readonly context: Context.Context<R>
}

/** How the last of several attempts ended. */
export interface Attempts<A, E> {
  readonly exit: Exit.Exit<A, E>
  readonly count: number
}

/** The typed failure that another attempt may not meet; `undefined` for a defect, an interruption, a bad record. */
const worthRetrying = <E>(cause: Cause.Cause<E>): Cause.Fail<E> | undefined => {
  const failure = cause.reasons.every(Cause.isFailReason) ? cause.reasons[0] : undefined
  return failure?.error instanceof DecodeFailed && !failure.error.retriable ? undefined : failure
}

/** A record that is to be stored elsewhere. */
interface Departure {
  readonly record: KafkaRecord
  readonly claimId: string
  readonly origin: Origin
  readonly attempts: number
  readonly failure: Failure
}

const setAsideAs = {
  retried: "sent to a retry topic",
  deadLettered: "dead-lettered",
  parked: "parked"
} as const satisfies Partial<Record<keyof Counters, string>>

export class Processing<E, R> {
  /** Decodes, handles and settles one record: the handler's value, or a verdict. */
  readonly handler: Handler<E | ConsumerFailure, R>
  /** The record's id, in a stream of this epoch; asked after `prepare`. */
  readonly identify: ((record: KafkaRecord, epoch: number) => string | undefined) | undefined
  /**
   * Decodes records before their ids are asked for; `undefined` where that needs no decoding. Answers `false` where the
   * claim they were received under has ended meanwhile.
   */
  readonly prepare:
    | ((records: ReadonlyArray<KafkaRecord>, claimId: string) => Effect.Effect<boolean>)
    | undefined
  /** Whether records go to their handlers as they are, and what those answer counts. */
  readonly isPlain: boolean
  private readonly settings: SettingsAndHandler<E, R>
  private readonly services: ProcessingServices<R>
  private readonly decoded = new WeakMap<KafkaRecord, Exit.Exit<unknown, DecodeFailed>>()

  constructor(settings: SettingsAndHandler<E, R>, services: ProcessingServices<R>) {
    this.settings = settings
    this.services = services
    const { decoding, identify, retry, routes, whenInFlight, whenPoison } = settings
    const hasRetryTopics = routes.size > settings.sources.length
    this.isPlain =
      decoding === undefined &&
      retry === undefined &&
      whenPoison === "stop" &&
      whenInFlight === "wait" &&
      !hasRetryTopics
    this.handler = this.isPlain ? settings.handler : (record, claim) => this.process(record, claim)
    const identifyDecoded = decoding?.identify
    this.prepare =
      identifyDecoded === undefined ? undefined : (records, claimId) => this.decodeAll(records, claimId)
    const idOfRecord =
      identifyDecoded === undefined
        ? identify
        : (record: KafkaRecord) => {
            const exit = this.decoded.get(record)
            return exit !== undefined && Exit.isSuccess(exit)
              ? identifyDecoded(exit.value, record)
              : undefined
          }
    this.identify = hasRetryTopics
      ? (record, epoch) =>
          this.isOfAnotherGroup(record)
            ? undefined
            : (idOfRecord?.(record) ?? this.idInRetryTopic(record, epoch))
      : idOfRecord
  }

  /** What must be there before the first record comes: topics to send records to, a store that can park them. */
  readonly ready = Effect.suspend((): Effect.Effect<void, KafkaError | Config.ConfigError> => {
    const { client, parked } = this.services
    const { createTopics, routes, whenPoison } = this.settings
    if (whenPoison === "park" && parked === undefined) {
      const message =
        'whenPoison is "park", and the store can\'t park records: provide ParkedRecords (the layers of @tidemark/store-redis ' +
        'and @tidemark/store-sqlite do), or choose "dead-letter" or "stop"'
      return Effect.fail(new Config.ConfigError(new ConfigProvider.SourceError({ message })))
    }
    return ensureTopics(client, routes, createTopics)
  })

  private routeOf({ topic }: KafkaRecord): Route {
    return this.settings.routes.get(topic) as Route
  }

  private isOfAnotherGroup(record: KafkaRecord): boolean {
    return this.routeOf(record).delayMillis > 0 && isOfAnotherGroup(record, this.settings.groupId)
  }

  /** Whether the record is for others to handle: another group has sent it to a retry topic. */
  passesOver(record: KafkaRecord): boolean {
    if (!this.isOfAnotherGroup(record)) return false
    this.services.counters.ofOtherGroups++
    return true
  }

  /** A record may have been sent to a retry topic twice. */
  private idInRetryTopic(record: KafkaRecord, epoch: number): string | undefined {
    return this.routeOf(record).delayMillis > 0 ? idWhileWaiting(record, epoch) : undefined
  }

  /** Whether these records, which were given out under this claim, are no longer ours to process. */
  isOver(claimId: string, records: ReadonlyArray<KafkaRecord>): boolean {
    return this.services.claims.isOver(claimId, records)
  }

  // --- decoding

  private decode(record: KafkaRecord): Effect.Effect<unknown, DecodeFailed, R> {
    const decoder = this.settings.decoding?.decode
    if (decoder === undefined) return Effect.succeed(record)
    return Effect.mapErrorEager(decoder.decode(record.value, record), (error) => failed(record, error))
  }

  private decodeAll(records: ReadonlyArray<KafkaRecord>, claimId: string): Effect.Effect<boolean> {
    const pending: Array<Effect.Effect<boolean, never, R>> = []
    for (const record of records) {
      // almost always done at once; an Effect for each record of a batch would cost more than decoding it
      const decoding = this.decode(record)
      if (Exit.isExit(decoding) && (Exit.isSuccess(decoding) || worthRetrying(decoding.cause) === undefined))
        this.decoded.set(record, decoding as Exit.Exit<unknown, DecodeFailed>)
      else pending.push(this.decodePatiently(record, decoding, claimId))
    }
    if (pending.length === 0) return Effect.succeed(true)
    const all = Effect.all(pending, { concurrency: this.settings.concurrency })
    return Effect.provideContext(
      Effect.map(all, (answers) => answers.every((isDecoded) => isDecoded)),
      this.services.context
    )
  }

  private decodePatiently(
    record: KafkaRecord,
    decoding: Effect.Effect<unknown, DecodeFailed, R>,
    claimId: string
  ): Effect.Effect<boolean, never, R> {
    return Effect.map(this.decodeUntil(record, decoding, claimId), (attempts) => {
      if (attempts === undone) return false
      this.decoded.set(record, attempts.exit)
      return true
    })
  }

  private decodeUntil(
    record: KafkaRecord,
    decoding: Effect.Effect<unknown, DecodeFailed, R>,
    claimId: string
  ): Effect.Effect<Attempts<unknown, DecodeFailed> | typeof undone, never, R> {
    if (Exit.isExit(decoding) && Exit.isSuccess(decoding))
      return Effect.succeed({ exit: decoding as Exit.Exit<unknown, DecodeFailed>, count: 1 })
    return Effect.flatMap(Effect.exit(decoding), (exit) =>
      Exit.isSuccess(exit)
        ? Effect.succeed({ exit, count: 1 })
        : this.persist(
            exit,
            Effect.suspend(() => this.decode(record)),
            claimId,
            () => [record]
          )
    )
  }

  /** What the record is decoded to: as `prepare` found, or else now. */
  decoding(
    record: KafkaRecord,
    claimId: string
  ): Effect.Effect<Attempts<unknown, DecodeFailed> | typeof undone, never, R> {
    const exit = this.decoded.get(record)
    return exit === undefined
      ? this.decodeUntil(record, this.decode(record), claimId)
      : Effect.succeed({ exit, count: 1 })
  }

  // --- handling

  private process(record: KafkaRecord, claim: EngineClaim): Effect.Effect<unknown, E | ConsumerFailure, R> {
    if (this.passesOver(record)) return Effect.succeed(setAside)
    if (claim.heldUntil !== undefined) return this.deadLetterInFlight(record, claim, claim.heldUntil)
    const attempt = Effect.suspend(() => this.attempt(record, claim))
    return Effect.catchCause(attempt, (cause) => this.onFailure(record, claim, cause, attempt))
  }

  private attempt(record: KafkaRecord, claim: RecordClaim): Effect.Effect<unknown, E | DecodeFailed, R> {
    const { decoding, handler } = this.settings
    if (decoding === undefined) return handler(record, claim)
    return Effect.flatMap(this.decoded.get(record) ?? this.decode(record), (value) =>
      decoding.handler(value, record, claim)
    )
  }

  private onFailure(
    record: KafkaRecord,
    claim: RecordClaim,
    cause: Cause.Cause<E | DecodeFailed>,
    attempt: Effect.Effect<unknown, E | DecodeFailed, R>
  ): Effect.Effect<unknown, E | ConsumerFailure, R> {
    return Effect.flatMap(
      this.persist(Exit.failCause(cause), attempt, claim.claimId, () => [record]),
      (attempts): Effect.Effect<unknown, E | ConsumerFailure> => {
        if (attempts === undone) return Effect.succeed(undone)
        const { count, exit } = attempts
        return Exit.isSuccess(exit) ? exit : this.giveUp(record, claim, exit.cause, count)
      }
    )
  }

  /** Tries again, while that may help and the schedule says so, and the records are ours to process. */
  persist<A, E2>(
    first: Exit.Exit<A, E2>,
    attempt: Effect.Effect<A, E2, R>,
    claimId: string,
    records: () => ReadonlyArray<KafkaRecord>
  ): Effect.Effect<Attempts<A, E2> | typeof undone, never, R> {
    const { claims, counters } = this.services
    const { retry } = this.settings
    if (retry === undefined) return Effect.succeed({ exit: first, count: 1 })
    return Effect.gen(function* () {
      const clock = yield* Clock.Clock
      const step = yield* Schedule.toStep(retry)
      let exit = first
      for (let count = 1; ; count++) {
        const failure = Exit.isFailure(exit) ? worthRetrying(exit.cause) : undefined
        if (failure === undefined) return { exit, count }
        const pause = yield* Pull.matchEffect(step(clock.currentTimeMillisUnsafe(), failure.error), {
          onSuccess: ([, duration]) => Effect.succeed(Duration.toMillis(duration)),
          onFailure: (cause) => Effect.failCause(cause),
          onDone: () => Effect.succeed(undefined)
        })
        if (pause === undefined) return { exit, count }
        if (!(yield* claims.sleep(claimId, pause)) || claims.isOver(claimId, records())) return undone
        counters.retries++
        exit = yield* Effect.exit(attempt)
      }
    })
  }

  // --- setting aside

  /** Whether such a failure stops the consumer: nothing says where else the record could go. */
  stopsAt(record: KafkaRecord, cause: Cause.Cause<unknown>): boolean {
    if (Cause.hasInterrupts(cause)) return true
    const canWait = this.routeOf(record).next !== undefined && worthRetrying(cause) !== undefined
    return this.settings.whenPoison === "stop" && !canWait
  }

  /**
   * Sends the record on, or sets it aside; fails where that is not wanted, or does not work. A record that is no longer ours
   * is left to its next owner: it may have failed just because of that.
   */
  giveUp(
    record: KafkaRecord,
    { claimId, epoch }: Pick<RecordClaim, "claimId" | "epoch">,
    cause: Cause.Cause<E | DecodeFailed>,
    count: number
  ): Effect.Effect<typeof setAside | typeof undone, E | ConsumerFailure> {
    if (this.isOver(claimId, [record])) return this.leave(record, cause)
    const { next, delayMillis } = this.routeOf(record)
    // an interruption says nothing of the record, whatever its finalizers say
    if (Cause.hasInterrupts(cause)) return Effect.failCause(cause)
    const origin = originOf(record, delayMillis > 0, epoch)
    const departure = {
      record,
      claimId,
      origin,
      attempts: origin.attempts + count,
      failure: failureOf(cause)
    }
    if (next !== undefined && worthRetrying(cause) !== undefined) return this.send(departure, next, "retried")
    switch (this.settings.whenPoison) {
      case "stop":
        return Effect.failCause(cause)
      case "dead-letter":
        return this.deadLetter(departure)
      case "park":
        return this.park(departure)
    }
  }

  /** Leaves a record undone that failed when it was no longer ours to process. */
  leave(
    { offset, partition, topic }: KafkaRecord,
    cause: Cause.Cause<unknown>
  ): Effect.Effect<typeof undone> {
    if (Cause.hasInterruptsOnly(cause)) return Effect.succeed(undone)
    const place = `offset ${offset} of partition ${partition} of topic "${topic}"`
    return Effect.as(
      Effect.logWarning(
        `tidemark: the handler at ${place} failed when its record was no longer ours to process: it is left undone`,
        cause
      ),
      undone
    )
  }

  private deadLetterInFlight(
    record: KafkaRecord,
    { claimId, epoch }: RecordClaim,
    until: number
  ): Effect.Effect<typeof setAside | typeof undone, ConsumerFailure> {
    if (this.isOver(claimId, [record])) return Effect.succeed(undone)
    const what = `the id ${JSON.stringify(this.identify?.(record, epoch))}`
    const failure = failureOf(Cause.fail(new InFlightElsewhere({ what, until })))
    const origin = originOf(record, this.routeOf(record).delayMillis > 0, epoch)
    return this.deadLetter({ record, claimId, origin, attempts: origin.attempts, failure })
  }

  private deadLetter(departure: Departure) {
    const topic = this.routeOf(departure.record).deadLetterTopic as string
    return this.send(departure, { topic, delayMillis: undefined }, "deadLettered")
  }

  private send(
    departure: Departure,
    { delayMillis, topic }: { readonly topic: string; readonly delayMillis: number | undefined },
    how: "retried" | "deadLettered"
  ): Effect.Effect<typeof setAside | typeof undone, ConsumerFailure> {
    const { cluster, groupId } = this.settings
    const { attempts, failure, origin, record } = departure
    const produce = Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const notBefore = delayMillis === undefined ? undefined : now + delayMillis
      const letter = toLetter(record, {
        target: topic,
        groupId,
        cluster,
        origin,
        attempts,
        failure,
        notBefore
      })
      return this.services.client.produce([letter])
    })
    return this.store(departure, `topic "${topic}"`, how, produce)
  }

  private park(departure: Departure) {
    const { parked } = this.services
    const { attempts, failure, origin, record } = departure
    const toPark = toParked(record, origin, failure, attempts, this.settings)
    const parking = (parked as ParkedRecordsService).park([toPark])
    return this.store(departure, "the store's parked records", "parked", parking)
  }

  /** Stores the record elsewhere; for a lease's time, if that fails for a while, and for as long as it is ours. */
  private store(
    { attempts, claimId, failure, record }: Departure,
    target: string,
    how: keyof typeof setAsideAs,
    store: Effect.Effect<unknown, Error & { readonly retriable: boolean }>
  ): Effect.Effect<typeof setAside | typeof undone, SetAsideFailed> {
    const { counters } = this.services
    const { offset, partition, topic } = record
    // on one line, also what a schema says on several
    const why = `${failure.tag}: ${failure.message}`.replaceAll(/\s*\n\s*/g, " ")
    const isOver = (): boolean => this.isOver(claimId, [record])
    // interrupted between the pauses only: what was stored must not be stored once more
    const storing: Effect.Effect<typeof setAside | typeof undone, Error & { readonly retriable: boolean }> =
      Effect.uninterruptible(Effect.as(store, setAside))
    return Effect.gen({ self: this }, function* () {
      const giveUpAt = Patience.monotonicMillis(yield* Clock.Clock) + this.settings.leaseMillis
      const answer = yield* Effect.catch(
        Patience.retryUntil(
          () => (isOver() ? Effect.succeed(undone) : storing),
          () => giveUpAt
        ),
        (cause) => {
          if (isOver()) return Effect.succeed(undone)
          const { retriable } = cause
          return Effect.fail(
            new SetAsideFailed({ topic, partition, offset, target, failure: why, retriable, cause })
          )
        }
      )
      if (answer === undone) return undone
      counters[how]++
      yield* Effect.annotateCurrentSpan({ "error.type": failure.tag, "tidemark.set_aside": setAsideAs[how] })
      yield* Effect.logWarning(
        `tidemark: the record at offset ${offset} of partition ${partition} of topic "${topic}" was ${setAsideAs[how]} ` +
          `after ${attempts} attempts, to ${target}: ${why}`
      )
      return answer
    })
  }
}
