/** The guard as promises: from kafkajs's payloads to deliveries, and back again. */
import {
  type IdempotencyStore,
  Key,
  Metrics,
  OffsetRanges,
  OffsetStore,
  Patience,
  type Policies,
  StoreError
} from "@tidemark/core"
import { Cause, Effect, Exit, type ManagedRuntime, Metric } from "effect"
import type { Batch, EachBatchPayload, EachMessagePayload } from "kafkajs"
import type {
  Guard,
  GuardClaim,
  GuardCounts,
  GuardedMessage,
  GuardedPayload,
  GuardOptions,
  GuardReport,
  PartitionReport
} from "../guard.ts"
import {
  type Delivery,
  type GuardFailure,
  type GuardTerms,
  guarded,
  type RunNew,
  type Seen,
  type Settled,
  watched
} from "./guarding.ts"

/** How often heartbeats are offered to kafkajs while a message waits; kafkajs sends those that are due. */
const heartbeatMillis = 500
/** Deliveries that a shadow has not decided on yet: beyond, a slow store would take the memory. */
const mostUndecided = 1_000
/** How long closing waits for a shadow's last decisions. */
const closeTimeoutMillis = 5_000

type Services = OffsetStore | IdempotencyStore
type Counts = { -readonly [Name in keyof GuardCounts]: GuardCounts[Name] }

/** Messages of one partition, as they were delivered: what they cover is `[from, to)`. */
interface Given {
  readonly topic: string
  readonly partition: number
  readonly messages: ReadonlyArray<GuardedMessage>
  readonly from: number
  readonly to: number
}

/** One call of a handler. */
interface Handling {
  /** Calls it for the messages at these places. */
  readonly handle: (places: ReadonlyArray<number>, claim: GuardClaim) => Promise<unknown>
  /** How far it came, once it has ended: everything below took effect. */
  readonly through: (succeeded: boolean) => number
}

interface Place {
  readonly topic: string
  readonly partition: number
  readonly stream: string
}

/** What a handler has thrown, whatever it is; it goes through Effect as it was. */
interface Thrown {
  readonly thrown: unknown
}

/** A failure, and whether asking again may help. */
interface Retriable {
  readonly failure: GuardFailure
  readonly retriable: boolean
}

const neverAborted: GuardClaim = { token: undefined, signal: new AbortController().signal }

const closed = (): StoreError =>
  new StoreError({
    store: "guard",
    verb: "claim",
    reason: "Closed",
    detail: "the guard was closed; disconnect the consumer first",
    retriable: false
  })

/** A batch as kafkajs has it, with fewer messages: its bounds and its lag stay those of the whole. */
const withMessages = (batch: Batch, places: ReadonlyArray<number>): Batch => {
  const messages = places.map((place) => batch.messages[place])
  return Object.create(batch, {
    messages: { value: messages, enumerable: true },
    isEmpty: { value: () => messages.length === 0 }
  })
}

/** Where kafkajs fetched the batch from, which its types leave out: what lies before the first message is no message. */
const fetchedFrom = (batch: Batch, first: number): number => {
  const { fetchedOffset } = batch as { readonly fetchedOffset?: unknown }
  const from = fetchedOffset === undefined ? Number.NaN : Number(String(fetchedOffset))
  return Number.isSafeInteger(from) && from >= 0 && from < first ? from : first
}

export class PlainGuard implements Guard {
  readonly #options: GuardOptions
  readonly #terms: GuardTerms
  readonly #whenStoreFails: Policies.WhenStoreFails
  readonly #runtime: ManagedRuntime.ManagedRuntime<Services, unknown>
  readonly #places = new Map<string, Place>()
  readonly #deciding = new Set<Promise<void>>()
  #toldUndecided = false
  #closing: Promise<void> | undefined
  readonly #counts: Counts = {
    seen: 0,
    processed: 0,
    duplicatesByPosition: 0,
    duplicatesById: 0,
    inFlightElsewhere: 0,
    failed: 0,
    unprotected: 0,
    undecided: 0
  }

  constructor(
    options: GuardOptions,
    terms: GuardTerms,
    whenStoreFails: Policies.WhenStoreFails,
    runtime: ManagedRuntime.ManagedRuntime<Services, unknown>
  ) {
    this.#options = options
    this.#terms = terms
    this.#whenStoreFails = whenStoreFails
    this.#runtime = runtime
  }

  readonly eachMessage =
    <Payload extends GuardedPayload = EachMessagePayload>(
      handler: (payload: Payload, claim: GuardClaim) => Promise<unknown> | unknown
    ) =>
    async (payload: Payload): Promise<void> => {
      const { message, partition, topic } = payload
      const offset = Number(message.offset)
      const given: Given = { topic, partition, messages: [message], from: offset, to: offset + 1 }
      await this.#deliver(given, payload.heartbeat, {
        handle: async (_, claim) => handler(payload, claim),
        through: (succeeded) => (succeeded ? offset + 1 : offset)
      })
    }

  readonly eachBatch =
    (
      handler: (payload: EachBatchPayload, claim: GuardClaim) => Promise<unknown> | unknown,
      { autoResolve = true }: { readonly autoResolve?: boolean } = {}
    ) =>
    async (payload: EachBatchPayload): Promise<void> => {
      const { batch } = payload
      const { messages, partition, topic } = batch
      if (messages.length === 0) {
        await handler(payload, neverAborted)
        return
      }
      const first = Number(messages[0]?.offset)
      const lastMessage = Number(messages.at(-1)?.offset)
      const to = Math.max(lastMessage, Number(batch.lastOffset())) + 1
      let resolved = -1
      const resolveOffset = (offset: string): void => {
        resolved = Math.max(resolved, Number(offset))
        payload.resolveOffset(offset)
      }
      let fresh: ReadonlyArray<number> = []
      // As kafkajs has it: with its last message, the markers behind it are done.
      const reached = () => (resolved >= lastMessage ? to : resolved + 1)
      const through = (succeeded: boolean): number => (succeeded && autoResolve ? to : reached())
      const given: Given = { topic, partition, messages, from: fetchedFrom(batch, first), to }
      await this.#deliver(given, payload.heartbeat, {
        handle: async (places, claim) => {
          fresh = places
          const part = places.length === messages.length ? batch : withMessages(batch, places)
          await handler({ ...payload, batch: part, resolveOffset }, claim)
        },
        through
      })
      if (autoResolve || this.#options.shadow === true) return
      // The handler has not seen the duplicates, and could not resolve those behind the last that it did.
      const undone = fresh.find((place) => Number(messages[place]?.offset) >= reached())
      const last = undone === undefined ? messages.at(-1) : messages[undone - 1]
      if (last !== undefined && Number(last.offset) > resolved) payload.resolveOffset(last.offset)
    }

  readonly counts = (): GuardCounts => ({ ...this.#counts })

  readonly report = async (): Promise<GuardReport> => {
    const partitions: Array<PartitionReport> = []
    for (const { partition, stream, topic } of this.#places.values()) {
      const progress = await this.#runtime.runPromise(
        Effect.flatMap(OffsetStore, (offsets) => offsets.progress(stream))
      )
      if (progress === undefined) continue
      const { gapCount: gaps, highest, watermark } = progress
      partitions.push({ topic, partition, watermark, highest, gaps })
    }
    return { ...this.#counts, shadow: this.#options.shadow === true, partitions }
  }

  readonly close = (): Promise<void> => {
    this.#closing ??= this.#close()
    return this.#closing
  };

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  [Symbol.dispose](): void {
    void this.close()
  }

  async #close(): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const tooLong = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, closeTimeoutMillis)
    })
    await Promise.race([Promise.allSettled(this.#deciding), tooLong])
    clearTimeout(timer)
    await this.#runtime.dispose()
  }

  /** Throws where `identify` does, and for what can't be an offset. */
  #delivery({ from, messages, partition, to, topic }: Given): Delivery {
    const { stream } = this.#place(topic, partition)
    const { identify } = this.#options
    const items = messages.map((message) => ({
      offset: Number(message.offset),
      id: identify?.(message, { topic, partition })
    }))
    return { stream, items, ranges: OffsetRanges.make(from, to), from, to }
  }

  #place(topic: string, partition: number): Place {
    const key = `${partition}/${topic}`
    const known = this.#places.get(key)
    if (known !== undefined) return known
    const { cluster, groupId } = this.#options
    const stream = Key.kafkaStream({
      ...(cluster === undefined ? {} : { cluster }),
      group: groupId,
      topic,
      partition
    })
    const place = { topic, partition, stream }
    this.#places.set(key, place)
    return place
  }

  async #deliver(
    given: Given,
    heartbeat: (() => Promise<void>) | undefined,
    handling: Handling
  ): Promise<void> {
    const counts = this.#counts
    counts.seen += given.messages.length
    if (this.#options.shadow === true) return this.#watch(given, handling)
    if (this.#closing !== undefined) throw closed()
    const delivery = this.#delivery(given)
    let started = false
    const run: RunNew<unknown> = (places, token) =>
      Effect.match(
        Effect.tryPromise({
          try: (signal) => {
            started = true
            return handling.handle(places, { token, signal })
          },
          catch: (thrown): Thrown => ({ thrown })
        }),
        {
          onFailure: ({ thrown }) => ({ through: handling.through(false), failure: { error: thrown } }),
          onSuccess: () => ({ through: handling.through(true), failure: undefined })
        }
      )
    const whole = this.#whenStoreFails
    const once = guarded(delivery, this.#terms, run, () => counts.inFlightElsewhere++)
    const settling = Effect.catch(
      whole === "wait" ? askingOn(once, () => started) : once,
      (failure): Effect.Effect<Settled<unknown>, GuardFailure> =>
        failure._tag === "StoreError" && !started && whole === "run"
          ? this.#unprotected(delivery, run, failure)
          : Effect.fail(failure)
    )
    const settled = await this.#run(settling, heartbeat, () => started)
    counts.duplicatesByPosition += settled.duplicatesByPosition
    counts.duplicatesById += settled.duplicatesById
    counts.processed += settled.processed
    const { failure } = settled.ran
    if (failure === undefined) return
    counts.failed++
    throw failure.error
  }

  /** Runs it, and rejects with what went wrong; until the handler has begun, heartbeats go on. */
  async #run<A>(
    effect: Effect.Effect<A, unknown, Services>,
    heartbeat: (() => Promise<void>) | undefined,
    hasBegun: () => boolean
  ): Promise<A> {
    const stop = new AbortController()
    let outOfGroup: Thrown | undefined
    const beat = async (): Promise<void> => {
      if (hasBegun()) return
      try {
        await heartbeat?.()
      } catch (thrown) {
        // A rebalance: kafkajs learns of it by our rejecting with it.
        if (hasBegun()) return
        outOfGroup ??= { thrown }
        stop.abort()
      }
    }
    const timer = heartbeat === undefined ? undefined : setInterval(beat, heartbeatMillis)
    try {
      const exit = await this.#runtime.runPromiseExit(effect, { signal: stop.signal })
      if (Exit.isSuccess(exit)) return exit.value
      throw outOfGroup === undefined ? Cause.squash(exit.cause) : outOfGroup.thrown
    } finally {
      clearInterval(timer)
    }
  }

  #unprotected(delivery: Delivery, run: RunNew<unknown>, cause: Error): Effect.Effect<Settled<unknown>> {
    const places = delivery.items.map((_, place) => place)
    this.#counts.unprotected += places.length
    return Effect.logWarning(
      `tidemark: ${places.length} messages of ${delivery.stream} run unprotected, the store failed: ${cause.message}`
    ).pipe(
      Effect.andThen(Metric.update(Metrics.unprotectedRuns, places.length)),
      Effect.andThen(run(places, undefined)),
      Effect.map((ran) => ({
        _tag: "Settled" as const,
        duplicatesByPosition: 0,
        duplicatesById: 0,
        processed: delivery.items.filter(({ offset }) => offset < ran.through).length,
        ran
      }))
    )
  }

  /** Shadow mode: the handler runs at once and on everything; the decision is made beside it. */
  async #watch(given: Given, handling: Handling): Promise<void> {
    const counts = this.#counts
    const handled = Promise.withResolvers<number>()
    this.#decide(given, handled.promise)
    try {
      const places = given.messages.map((_, place) => place)
      await handling.handle(places, neverAborted)
    } catch (error) {
      counts.failed++
      handled.resolve(handling.through(false))
      throw error
    }
    const through = handling.through(true)
    counts.processed += given.messages.filter(({ offset }) => Number(offset) < through).length
    handled.resolve(through)
  }

  #decide(given: Given, handled: Promise<number>): void {
    const counts = this.#counts
    if (this.#closing !== undefined || this.#deciding.size >= mostUndecided) {
      counts.undecided += given.messages.length
      return
    }
    const watching = Effect.suspend(() =>
      watched(
        this.#delivery(given),
        this.#terms,
        Effect.promise(() => handled)
      )
    )
    const decided = (exit: Exit.Exit<Seen, unknown>): void => {
      this.#deciding.delete(deciding)
      if (Exit.isSuccess(exit)) {
        counts.duplicatesByPosition += exit.value.duplicatesByPosition
        counts.duplicatesById += exit.value.duplicatesById
        counts.inFlightElsewhere += exit.value.inFlight
      } else this.#undecided(given, exit.cause)
    }
    const deciding = this.#runtime.runPromiseExit(watching).then(decided)
    this.#deciding.add(deciding)
  }

  /** Counts it, and says why, the first time. */
  #undecided({ messages, partition, topic }: Given, cause: Cause.Cause<unknown>): void {
    this.#counts.undecided += messages.length
    if (this.#toldUndecided || this.#closing !== undefined) return
    this.#toldUndecided = true
    const why = `partition ${partition} of topic "${topic}": ${String(Cause.squash(cause))}`
    this.#runtime.runFork(
      Effect.logWarning(`tidemark: a shadow could not decide about ${why}; later ones are only counted`)
    )
  }
}

/** Asks again until the store answers, for as long as that may help and the handler has not begun. */
const askingOn = <A, R>(
  effect: Effect.Effect<A, GuardFailure, R>,
  hasBegun: () => boolean
): Effect.Effect<A, GuardFailure, R> => {
  const ask = Effect.mapError(
    effect,
    (failure): Retriable => ({
      failure,
      retriable: failure._tag === "StoreError" && failure.retriable && !hasBegun()
    })
  )
  return Effect.mapError(
    Patience.retryUntil(
      () => ask,
      () => Number.POSITIVE_INFINITY
    ),
    ({ failure }) => failure
  )
}
