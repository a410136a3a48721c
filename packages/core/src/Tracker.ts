/**
 * Makes a message take effect once: claims its key in one atomic step, runs the handler, marks it completed.
 *
 * @example
 * const program = Effect.gen(function* () {
 *   const tracker = yield* Tracker
 *   const outcome = yield* tracker.once(Key.id("order-4711"), charge(order))
 *   // { _tag: "Processed", value } the first time, { _tag: "Duplicate" } ever after
 * })
 * program.pipe(Effect.provide(Tracker.layer({ namespace: "billing" })), Effect.provide(MemoryStore.layer()))
 */
import { hostname } from "node:os"
import { Clock, type Config, Context, type Duration, Effect, Layer, Metric, type Schema } from "effect"
import type {
  ClaimIdReused,
  InFlightElsewhere,
  InvalidInput,
  LeaseLost,
  PayloadMismatch,
  StoreError
} from "./Errors.ts"
import { IdempotencyStore, type KeyClaimRef } from "./IdempotencyStore.ts"
import type { Stores } from "./internal/claiming.ts"
import * as Input from "./internal/input.ts"
import { lookup, mark } from "./internal/marking.ts"
import { runOnce } from "./internal/once.ts"
import { runOnceAll } from "./internal/onceAll.ts"
import type { Key } from "./Key.ts"
import * as Metrics from "./Metrics.ts"
import { type OffsetClaimRef, OffsetStore } from "./OffsetStore.ts"
import * as Policies from "./Policies.ts"
import * as Settings from "./Settings.ts"

/** The handler ran, and its key is marked. */
export interface Processed<A> {
  readonly _tag: "Processed"
  readonly value: A
}

/** The key was completed before; the handler did not run. `value`: the stored result, where one was kept. */
export interface Duplicate<A> {
  readonly _tag: "Duplicate"
  readonly value: A | undefined
}

/** Another owner is at work on the key; the handler did not run. Only under `whenInFlight: "skip"`. */
export interface InFlight {
  readonly _tag: "InFlight"
  /** When its lease ends unless renewed: milliseconds since the epoch, by the store's clock. */
  readonly until: number
}

export type Outcome<A> = Processed<A> | Duplicate<A> | InFlight

/** An item of a batch that failed; the others of the batch went their way. Its claim was given back. */
export interface Failed<E> {
  readonly _tag: "Failed"
  readonly error: E
}

/** What a handler may know of its claim. */
export interface HandlerClaim {
  readonly key: Key
  readonly claimId: string
  /**
   * The fencing token: greater than that of every earlier claim on this key. A database that keeps the greatest
   * token it has seen, and refuses smaller ones, turns a late writer away (Kleppmann, "How to do distributed
   * locking", 2016). `undefined` where the handler runs unprotected.
   */
  readonly token: number | undefined
  /** The claim as the verbs of its store name it. Where the handler runs unprotected, none that a store knows. */
  readonly ref: OffsetClaimRef | KeyClaimRef
  /**
   * To be called by whoever has completed the key under this claim, in one transaction with the handler's own writes,
   * say: then there is nothing left to complete when the handler succeeds, and no lease to lose while it goes on.
   */
  readonly noteCompleted: () => void
}

/** An effect, or a function from the claim to one. */
export type Handler<A, E, R> = Effect.Effect<A, E, R> | ((claim: HandlerClaim) => Effect.Effect<A, E, R>)

/** Defaults for all calls of a tracker. */
export interface TrackerOptions {
  /** Where ids without a namespace of their own belong: keeps ids of different meaning apart. */
  readonly namespace?: string
  /** A label for people, in messages and listings. Default: host and process id. */
  readonly owner?: string
  /** How long a claim lasts unless renewed; renewed at a third while the handler runs. Default: 30 s. */
  readonly lease?: Duration.Input
  /** How long a completed id is remembered. Default: the store's (5 min in memory). Positions need none. */
  readonly retention?: Duration.Input
  readonly whenInFlight?: Policies.WhenInFlight
  /** How long `wait` waits before it fails with `InFlightElsewhere`. Default: for ever. */
  readonly waitAtMost?: Duration.Input
  readonly whenStoreFails?: Policies.WhenStoreFails
  /** `false`: handlers run unguarded; said once in the log, and counted. Default: true. */
  readonly enabled?: boolean
}

/** Options of one call; where one is absent, the tracker's own counts. */
export interface OnceOptions<A> extends Omit<TrackerOptions, "namespace" | "owner" | "enabled"> {
  /** Keeps the handler's value, encoded by this schema, for later askers. Ids only: positions store no results. */
  readonly result?: Schema.Codec<A, unknown>
  /** A digest of the payload: the same id with another digest fails with `PayloadMismatch`. Ids only. */
  readonly fingerprint?: string
}

export interface OnceAllOptions<A> extends Omit<OnceOptions<A>, "fingerprint"> {
  /** How many handlers run at once. Default: 1, in the order of the items. */
  readonly concurrency?: number
}

/** What a tracker's verbs can fail with, besides the handler's own errors. */
export type TrackerError =
  | StoreError
  | InvalidInput
  | ClaimIdReused
  | LeaseLost
  | InFlightElsewhere
  | PayloadMismatch

export interface TrackerService {
  /**
   * Runs the handler unless the key is completed or being processed.
   *
   * A handler that fails or is interrupted gives its claim back at once, so that the message can be tried again. One
   * that comes to its end although it was interrupted, since that part of it was uninterruptible, is marked.
   * A crash between the effect and the mark lets it run again after the lease.
   */
  readonly once: <A, E, R>(
    key: Key,
    handler: Handler<A, E, R>,
    options?: OnceOptions<A>
  ) => Effect.Effect<Outcome<A>, E | TrackerError, R>
  /**
   * The same for many: one claim and one completion per stream and namespace, outcomes item by item, in order.
   * An item that can't be done is `Failed`; the others go their way. Only a store that fails fails the whole.
   *
   * Of equal keys in the batch the first runs. The others are `Duplicate`, at once and by any policy; where the
   * first failed, they fail with the same error, without another attempt.
   */
  readonly onceAll: <T, A, E, R>(
    items: ReadonlyArray<T>,
    keyOf: (item: T) => Key,
    handler: (item: T, claim: HandlerClaim) => Effect.Effect<A, E, R>,
    options?: OnceAllOptions<A>
  ) => Effect.Effect<
    ReadonlyArray<Outcome<A> | Failed<E | TrackerError>>,
    StoreError | InvalidInput | ClaimIdReused,
    R
  >
  /** Whether the key is completed now. A question, never a gate: use `once` to decide who processes. */
  readonly isProcessed: (key: Key) => Effect.Effect<boolean, StoreError | InvalidInput>
  /**
   * Marks the key completed without running anything: for what was done elsewhere. Answers whether it was new.
   * Fails with `InFlightElsewhere` while another holds it.
   */
  readonly markProcessed: (
    key: Key,
    options?: { readonly retention?: Duration.Input }
  ) => Effect.Effect<boolean, StoreError | InvalidInput | ClaimIdReused | InFlightElsewhere | LeaseLost>
}

/** Makes a message take effect once. */
export class Tracker extends Context.Service<Tracker, TrackerService>()("@tidemark/core/Tracker") {
  /**
   * A tracker on the stores in the context.
   *
   * Fails with `InvalidInput` for a bad or unknown option, before anything is asked of a store.
   */
  static make(
    options: TrackerOptions = {}
  ): Effect.Effect<TrackerService, InvalidInput, OffsetStore | IdempotencyStore> {
    return makeService(options)
  }

  /**
   * The tracker as a layer on any store's layer.
   *
   * @example
   * const live = Tracker.layer({ namespace: "billing" }).pipe(Layer.provide(MemoryStore.layer()))
   */
  static layer(
    options: TrackerOptions = {}
  ): Layer.Layer<Tracker, InvalidInput, OffsetStore | IdempotencyStore> {
    return Layer.effect(Tracker, makeService(options))
  }

  /** The same, switched on or off by `OFFSET_TRACKING_ENABLED` (or any other `ConfigProvider`). */
  static layerConfig(
    options: Omit<TrackerOptions, "enabled"> = {}
  ): Layer.Layer<Tracker, InvalidInput | Config.ConfigError, OffsetStore | IdempotencyStore> {
    return Layer.effect(
      Tracker,
      Effect.gen(function* () {
        const { enabled } = yield* Settings.config()
        return yield* makeService({ ...options, enabled })
      })
    )
  }
}

const trackerOptions: ReadonlyArray<keyof TrackerOptions> = [
  "namespace",
  "owner",
  "lease",
  "retention",
  "whenInFlight",
  "waitAtMost",
  "whenStoreFails",
  "enabled"
]
const onceOptions: ReadonlyArray<keyof OnceOptions<unknown>> = [
  "lease",
  "retention",
  "whenInFlight",
  "waitAtMost",
  "whenStoreFails",
  "result",
  "fingerprint"
]
const onceAllOptions: ReadonlyArray<string> = [
  ...onceOptions.filter((option) => option !== "fingerprint"),
  "concurrency"
]

/** A call's options, checked and in milliseconds. */
export interface Terms {
  readonly leaseMillis: number
  readonly retentionMillis: number | undefined
  readonly whenInFlight: Policies.WhenInFlight
  readonly waitAtMostMillis: number
  readonly whenStoreFails: Policies.WhenStoreFails
}

const readTerms = (
  given: Omit<TrackerOptions, "namespace" | "owner" | "enabled">,
  defaults: Terms
): Terms | InvalidInput => {
  const leaseMillis =
    given.lease === undefined ? defaults.leaseMillis : Policies.duration("lease", given.lease)
  if (typeof leaseMillis !== "number") return leaseMillis
  const retentionMillis =
    given.retention === undefined ? defaults.retentionMillis : Policies.duration("retention", given.retention)
  if (typeof retentionMillis === "object") return retentionMillis
  const waitAtMostMillis =
    given.waitAtMost === undefined
      ? defaults.waitAtMostMillis
      : Policies.duration("waitAtMost", given.waitAtMost)
  if (typeof waitAtMostMillis !== "number") return waitAtMostMillis
  const whenInFlight = given.whenInFlight ?? defaults.whenInFlight
  const whenStoreFails = given.whenStoreFails ?? defaults.whenStoreFails
  return (
    Input.oneOf("whenInFlight", whenInFlight, Policies.whenInFlightWords) ??
    Input.oneOf("whenStoreFails", whenStoreFails, Policies.whenStoreFailsWords) ?? {
      leaseMillis,
      retentionMillis,
      waitAtMostMillis,
      whenInFlight,
      whenStoreFails
    }
  )
}

const defaultTerms: Terms = {
  leaseMillis: Policies.defaultLeaseMillis,
  retentionMillis: undefined,
  whenInFlight: "wait",
  waitAtMostMillis: Number.POSITIVE_INFINITY,
  whenStoreFails: "fail"
}

const isInvalid = (value: Terms | InvalidInput): value is InvalidInput => "_tag" in value

const makeService = (
  options: TrackerOptions
): Effect.Effect<TrackerService, InvalidInput, OffsetStore | IdempotencyStore> =>
  Effect.gen(function* () {
    const bad =
      Input.unknownOption("the tracker", options, trackerOptions) ??
      (options.namespace === undefined ? undefined : Input.name("namespace", options.namespace)) ??
      (options.owner === undefined ? undefined : Input.name("owner", options.owner)) ??
      (options.enabled === undefined ? undefined : Input.oneOf("enabled", options.enabled, [true, false]))
    if (bad !== undefined) return yield* bad
    const defaults = readTerms(options, defaultTerms)
    if (isInvalid(defaults)) return yield* defaults
    const stores: Stores = {
      offsets: yield* OffsetStore,
      keys: yield* IdempotencyStore,
      namespace: options.namespace,
      owner: options.owner ?? `${hostname()}:${process.pid}`,
      clock: yield* Clock.Clock
    }
    if (options.enabled === false) return yield* unguarded(stores)
    return Tracker.of({
      once: (key, handler, given) => {
        const terms = given === undefined ? defaults : termsOf(given, onceOptions, defaults)
        return isInvalid(terms) ? Effect.fail(terms) : runOnce(stores, key, handler, terms, given)
      },
      onceAll: (items, keyOf, handler, given = {}) => {
        const terms = termsOf(given, onceAllOptions, defaults)
        if (isInvalid(terms)) return Effect.fail(terms)
        const badCount =
          given.concurrency === undefined ? undefined : Input.count("concurrency", given.concurrency, 100_000)
        if (badCount !== undefined) return Effect.fail(badCount)
        return runOnceAll(stores, items, keyOf, handler, terms, given.concurrency ?? 1, given.result)
      },
      isProcessed: (key) => lookup(stores, key),
      markProcessed: (key, given = {}) => {
        const terms = termsOf(given, ["retention"], defaults)
        return isInvalid(terms) ? Effect.fail(terms) : mark(stores, key, terms)
      }
    })
  })

const termsOf = (
  given: Omit<TrackerOptions, "namespace" | "owner" | "enabled">,
  known: ReadonlyArray<string>,
  defaults: Terms
): Terms | InvalidInput => Input.unknownOption("this call", given, known) ?? readTerms(given, defaults)

/** What `enabled: false` asks for: handlers run unguarded, said once, each run counted. */
const unguarded = (stores: Stores): Effect.Effect<TrackerService> =>
  Effect.as(
    Effect.logWarning(
      "tidemark: tracking is switched off (OFFSET_TRACKING_ENABLED=false): handlers run unguarded, duplicates take effect"
    ),
    Tracker.of({
      once: (key, handler) =>
        Effect.andThen(
          Metric.update(Metrics.unprotectedRuns, 1),
          Effect.map(runUnprotected(key, handler), (value) => ({ _tag: "Processed", value }) as const)
        ),
      onceAll: (items, keyOf, handler, given = {}) =>
        Effect.forEach(
          items,
          (item) =>
            Effect.andThen(
              Metric.update(Metrics.unprotectedRuns, 1),
              Effect.match(handler(item, unprotectedClaim(keyOf(item))), {
                onFailure: (error) => ({ _tag: "Failed", error }) as const,
                onSuccess: (value) => ({ _tag: "Processed", value }) as const
              })
            ),
          { concurrency: given.concurrency ?? 1 }
        ),
      isProcessed: (key) => lookup(stores, key),
      markProcessed: () => Effect.succeed(true)
    })
  )

const unprotectedClaim = (key: Key): HandlerClaim => {
  const claimId = "unprotected"
  return {
    key,
    claimId,
    token: undefined,
    ref:
      key._tag === "Offset" ? { stream: key.stream, claimId } : { namespace: key.namespace ?? "", claimId },
    noteCompleted: () => {}
  }
}

/** The handler, without a claim. */
export const runUnprotected = <A, E, R>(key: Key, handler: Handler<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.isEffect(handler) ? handler : handler(unprotectedClaim(key))
