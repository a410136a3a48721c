/**
 * The store in memory: all three services in one layer, within one process, for as long as it lives.
 */
import {
  IdempotencyStore,
  InvalidInput,
  Lock,
  OffsetStore,
  Policies,
  type Protocol,
  Settings,
  StoreError,
  Wakeups
} from "@tidemark/core"
import { Clock, type Config, Context, Effect, type Fiber, Latch, Layer } from "effect"
import { MemoryCore, type MemoryStats } from "./MemoryCore.ts"

/**
 * How many idempotency keys are remembered, how long, and what happens when there is no room. Positions have no
 * bound and need none.
 */
export interface MemoryStoreOptions extends Partial<Settings.Settings> {
  /**
   * At `maxTrackedOffsets` keys: `evict-oldest` (default) forgets the completed keys that were used longest ago, down
   * to 80 %; `reject` refuses new ones with `StoreError` `Full`. Live claims are never evicted.
   */
  readonly whenFull?: Policies.WhenFull
}

/** The counters of a memory store. */
export class MemoryStoreStats extends Context.Service<
  MemoryStoreStats,
  {
    /** The counters as they are now. */
    readonly current: Effect.Effect<MemoryStats>
    /** Removes what is expired, now: the same that happens by itself on the interval and near the bound. */
    readonly sweep: Effect.Effect<void>
  }
>()("@tidemark/store-memory/MemoryStoreStats") {}

export type MemoryStoreServices = OffsetStore | IdempotencyStore | Lock | MemoryStoreStats

/** `enabled` is a tracker's matter; it is among the options so that `Settings` can be given whole. */
const knownOptions: ReadonlyArray<string> = [
  "maxTrackedOffsets",
  "ttlSeconds",
  "cleanupIntervalSeconds",
  "enabled",
  "whenFull"
]

const storeName = "memory"
const warnEveryMillis = 60_000

const check = (options: MemoryStoreOptions): InvalidInput | undefined => {
  const unknown = Policies.unknownOption("MemoryStore", options, knownOptions)
  if (unknown !== undefined) return unknown
  const bounds = [
    ["maxTrackedOffsets", options.maxTrackedOffsets, 10_000_000],
    ["ttlSeconds", options.ttlSeconds, 31_536_000],
    ["cleanupIntervalSeconds", options.cleanupIntervalSeconds, 86_400]
  ] as const
  for (const [field, value, max] of bounds) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1 && value <= max)) {
      return new InvalidInput({ field, value: String(value), allowed: `an integer from 1 to ${max}` })
    }
  }
  if (options.whenFull !== undefined && !["evict-oldest", "reject"].includes(options.whenFull)) {
    return new InvalidInput({
      field: "whenFull",
      value: String(options.whenFull),
      allowed: "evict-oldest, reject"
    })
  }
  return undefined
}

const full = (core: MemoryCore): StoreError =>
  new StoreError({
    store: storeName,
    verb: "claim",
    reason: "Full",
    detail:
      `all ${core.table.bound} places are taken (${core.table.completed} by completed keys); ` +
      "raise maxTrackedOffsets, shorten ttlSeconds, or choose whenFull: evict-oldest",
    retriable: true
  })

/** The time by the caller's clock. */
const timeOf = (caller: Fiber.Fiber<unknown, unknown>): number =>
  caller.getRef(Clock.Clock).currentTimeMillisUnsafe()

/** Runs at the time by the caller's clock. */
const atNow = <A, E = never>(act: (now: number) => Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.withFiber((caller) => act(timeOf(caller)))

const offsetStore = (core: MemoryCore, wakeups: Wakeups) =>
  OffsetStore.make({
    name: storeName,
    durable: false,
    claim: (stream, ranges, terms) =>
      Effect.withFiberSucceed((caller) => core.claimOffsets(stream, ranges, terms, timeOf(caller))),
    complete: ({ stream, claimId }, ranges) =>
      Effect.withFiberSucceed((caller) => {
        const answer = core.completeOffsets(stream, claimId, ranges, timeOf(caller))
        if (wakeups.any) wakeups.wake(stream)
        return answer
      }),
    claimOffset: (stream, offset, terms) =>
      Effect.withFiberSucceed((caller) => core.claimOffset(stream, offset, terms, timeOf(caller))),
    completeOffset: ({ stream, claimId }, offset) =>
      Effect.withFiberSucceed((caller) => {
        const answer = core.completeOffset(stream, claimId, offset, timeOf(caller))
        if (wakeups.any) wakeups.wake(stream)
        return answer
      }),
    release: ({ stream, claimId }, ranges) =>
      Effect.sync(() => {
        core.stream(stream)?.release(claimId, ranges)
        if (wakeups.any) wakeups.wake(stream)
      }),
    renew: (claims) =>
      Effect.withFiberSucceed((caller) => {
        const now = timeOf(caller)
        return claims.map(({ stream, claimId, leaseMillis }) =>
          core.stream(stream)?.renew(claimId, leaseMillis, now)
        )
      }),
    annotate: (notes) =>
      Effect.withFiberSucceed((caller) => {
        const now = timeOf(caller)
        return notes.map(
          ({ stream, claimId, note }) => core.stream(stream)?.annotate(claimId, note, now) ?? false
        )
      }),
    progress: (stream) => Effect.withFiberSucceed((caller) => core.stream(stream)?.progress(timeOf(caller))),
    isCompleted: (stream, offset) => Effect.sync(() => core.stream(stream)?.isCompleted(offset) ?? false),
    rewind: (stream, to) =>
      Effect.sync(() => {
        core.streamOrNew(stream).rewind(to)
        wakeups.wake(stream)
      }),
    skip: (stream, ranges) =>
      Effect.sync(() => {
        core.streamOrNew(stream).skip(ranges)
        wakeups.wake(stream)
      }),
    forget: (stream) =>
      Effect.sync(() => {
        const known = core.forgetStream(stream)
        wakeups.wake(stream)
        return known
      }),
    copy: (from, to) =>
      atNow((now) => {
        const progress = core.stream(from)?.progress(now)
        if (progress === undefined) return Effect.succeed(true)
        if (core.stream(to)?.progress(now) !== undefined) return Effect.succeed(false)
        core.streamOrNew(to).adopt(progress)
        return Effect.succeed(true)
      }),
    awaitRelease: (stream) => wakeups.wait(stream, () => core.stream(stream) === undefined)
  })

const keyStore = (core: MemoryCore, wakeups: Wakeups, retentionMillis: number) => {
  const wakeKeys = (namespace: string, keys: Iterable<string>): void => {
    if (!wakeups.any) return
    for (const key of keys) wakeups.wake(keyName(namespace, key))
  }
  return IdempotencyStore.make({
    name: storeName,
    durable: false,
    retentionMillis,
    claim: (namespace, items, terms) =>
      atNow((now): Effect.Effect<ReadonlyArray<Protocol.KeyClaimAnswer> | undefined, StoreError> => {
        const outcome =
          items.length === 1
            ? core.claimKey(namespace, items[0], terms, now)
            : core.claimKeys(namespace, items, terms, now)
        switch (outcome._tag) {
          case "Answers":
            return Effect.succeed(outcome.answers)
          case "ClaimIdReused":
            return Effect.succeed(undefined)
          case "Full":
            return Effect.fail(full(core))
          default:
            return Effect.succeed([outcome])
        }
      }),
    complete: ({ namespace, claimId }, items, retention) =>
      Effect.withFiberSucceed((caller) => {
        const now = timeOf(caller)
        const answers =
          items.length === 1
            ? [core.completeKey(claimId, namespace, items[0], retention, now)]
            : core.completeKeys(claimId, namespace, items, retention, now)
        if (wakeups.any)
          wakeKeys(
            namespace,
            items.map(({ key }) => key)
          )
        return answers
      }),
    release: ({ namespace, claimId }, keys) =>
      Effect.sync(() => {
        const held = wakeups.any ? (keys ?? core.keys.keysOf(claimId)) : []
        core.keys.release(claimId, keys)
        wakeKeys(namespace, held)
      }),
    renew: (claims) =>
      Effect.withFiberSucceed((caller) => {
        const now = timeOf(caller)
        return claims.map(({ claimId, leaseMillis }) => core.keys.renew(claimId, leaseMillis, now))
      }),
    lookup: (namespace, keys) =>
      Effect.withFiberSucceed((caller) => core.lookupKeys(namespace, keys, timeOf(caller))),
    forget: (namespace, keys) =>
      Effect.sync(() => {
        let known = 0
        for (const key of keys) if (core.keys.forget(namespace, key)) known += 1
        wakeKeys(namespace, keys)
        return known
      }),
    awaitSettled: (namespace, key) =>
      atNow((now) =>
        wakeups.wait(keyName(namespace, key), () => core.keys.lookup(namespace, key, now)._tag !== "InFlight")
      )
  })
}

const keyName = (namespace: string, key: string): string => `${namespace}\u0000${key}`

/** Runs a slice at a time, and lets others run between two. */
const inSlices = (slices: Generator<void, void>): Effect.Effect<void> =>
  Effect.suspend(() =>
    slices.next().done ? Effect.void : Effect.flatMap(Effect.yieldNow, () => inSlices(slices))
  )

const sweepNow = (core: MemoryCore): Effect.Effect<void> => atNow((now) => inSlices(core.sweep(now)))

/** Sweeps on the interval and under pressure, finishes evictions, and warns of what was forgotten. */
const background = (core: MemoryCore, pressure: Latch.Latch, intervalMillis: number): Effect.Effect<void> => {
  let warnedAt = Number.NEGATIVE_INFINITY
  let warnedOf = 0
  const warn = atNow((now) => {
    const { evictions } = core.stats
    if (evictions === warnedOf || now - warnedAt < warnEveryMillis) return Effect.void
    const forgotten = evictions - warnedOf
    warnedAt = now
    warnedOf = evictions
    return Effect.logWarning(
      `tidemark: the memory store was full and forgot ${forgotten} completed keys before their time: ` +
        "their duplicates will take effect again. Raise MAX_TRACKED_OFFSETS or shorten OFFSET_CACHE_TTL_SECONDS"
    )
  })
  const round = Effect.raceFirst(Effect.sleep(intervalMillis), pressure.await).pipe(
    Effect.andThen(Effect.sync(() => pressure.closeUnsafe())),
    Effect.andThen(sweepNow(core)),
    Effect.andThen(atNow((now) => inSlices(core.evict(now)))),
    Effect.andThen(warn)
  )
  return Effect.forever(round)
}

const services = (options: MemoryStoreOptions) =>
  Effect.gen(function* () {
    const bad = check(options)
    if (bad !== undefined) return yield* bad
    // not by spreading: an option that is there and undefined would take the bound away
    const maxTrackedOffsets = options.maxTrackedOffsets ?? Settings.defaults.maxTrackedOffsets
    const ttlSeconds = options.ttlSeconds ?? Settings.defaults.ttlSeconds
    const cleanupIntervalSeconds = options.cleanupIntervalSeconds ?? Settings.defaults.cleanupIntervalSeconds
    const pressure = Latch.makeUnsafe(false)
    const core = new MemoryCore({
      maxSize: maxTrackedOffsets,
      whenFull: options.whenFull ?? "evict-oldest",
      now: yield* Clock.currentTimeMillis,
      onPressure: () => pressure.openUnsafe()
    })
    const wakeups = new Wakeups()
    yield* Effect.forkScoped(background(core, pressure, cleanupIntervalSeconds * 1_000))
    return Context.make(OffsetStore, yield* offsetStore(core, wakeups)).pipe(
      Context.add(IdempotencyStore, yield* keyStore(core, wakeups, ttlSeconds * 1_000)),
      Context.add(
        MemoryStoreStats,
        MemoryStoreStats.of({ current: Effect.sync(() => core.stats), sweep: sweepNow(core) })
      )
    )
  })

const withLock = <E>(
  stores: Layer.Layer<OffsetStore | IdempotencyStore | MemoryStoreStats, E>
): Layer.Layer<MemoryStoreServices, E> => Layer.provideMerge(Lock.layer, stores)

/**
 * The memory store: positions, idempotency keys and locks, for one process.
 *
 * By default it remembers 50,000 keys for 5 minutes each, which holds 166 new ids a second; `Settings.highThroughput`
 * and `Settings.memoryConstrained` are ready-made alternatives. Its clock is Effect's, so that `TestClock` drives it.
 *
 * Fails with `InvalidInput` for a bad or unknown option.
 *
 * @example
 * program.pipe(Effect.provide(MemoryStore.layer({ ...Settings.highThroughput, whenFull: "reject" })))
 */
export const layer = (options: MemoryStoreOptions = {}): Layer.Layer<MemoryStoreServices, InvalidInput> =>
  withLock(Layer.effectContext(services(options)))

/**
 * The memory store with `MAX_TRACKED_OFFSETS`, `OFFSET_CACHE_TTL_SECONDS` and `OFFSET_CLEANUP_INTERVAL` from the
 * environment (or any other `ConfigProvider`); where one is absent, from `base`.
 */
export const layerConfig = (
  base: MemoryStoreOptions = {}
): Layer.Layer<MemoryStoreServices, InvalidInput | Config.ConfigError> =>
  withLock(
    Layer.effectContext(
      Effect.gen(function* () {
        const settings = yield* Settings.config({ ...Settings.defaults, ...base })
        return yield* services({ ...base, ...settings })
      })
    )
  )
