/**
 * Memory before a slower store: answers *completed* for keys that this process completed itself, so that a duplicate
 * costs no round trip. It never grants: whatever it does not know is the store's to decide.
 */
import {
  type ClaimIdReused,
  IdempotencyStore,
  type IdempotencyStoreService,
  InvalidInput,
  type InvalidKey,
  type KeyClaimRef,
  Patience,
  Policies,
  type Protocol,
  type StoreError
} from "@tidemark/core"
import { Clock, Context, type Duration, Effect, Layer } from "effect"
import { CompletedKeys } from "./CompletedKeys.ts"
import { GrantedKeys } from "./GrantedKeys.ts"

/** How much a near cache may hold, and how old that may be. */
export interface NearCacheOptions {
  /** Keys at most, from 1 to 10,000,000; at the bound those are dropped that were used longest ago. Default: 50,000. */
  readonly maxEntries?: number
  /**
   * Characters at most, of keys, results and fingerprints together, from 1,024; a result that does not fit is not kept.
   * Default: 16,777,216.
   */
  readonly maxCharacters?: number
  /**
   * How long it answers for a key without asking the store again; never longer than the key's retention. It is how long
   * a `forget` in another process may go unnoticed. Default: 5 minutes.
   */
  readonly maxAge?: Duration.Input
}

/** What a near cache has counted since it was made. */
export interface NearCacheFigures {
  /** Keys of claims that were answered here. */
  readonly hits: number
  /** Keys of claims that were handed to the store. */
  readonly misses: number
  /** `hits / (hits + misses)`; 0 before the first. */
  readonly hitRate: number
  /** Keys at present, never more than `maxEntries`. */
  readonly size: number
  /** Keys that were dropped before their time, for want of room. */
  readonly evictions: number
  readonly estimatedBytes: number
}

/** The counters of a near cache. */
export class NearCacheStats extends Context.Service<
  NearCacheStats,
  {
    /** The counters as they are now. */
    readonly current: Effect.Effect<NearCacheFigures>
  }
>()("@tidemark/store-memory/NearCacheStats") {}

interface Bounds {
  readonly maxEntries: number
  readonly maxCharacters: number
  readonly maxAgeMillis: number
}

const knownOptions: ReadonlyArray<string> = ["maxEntries", "maxCharacters", "maxAge"]

const boundsOf = (options: NearCacheOptions): Bounds | InvalidInput => {
  const { maxAge = "5 minutes", maxCharacters = 16_777_216, maxEntries = 50_000 } = options
  const unknown = Policies.unknownOption("NearCache", options, knownOptions)
  if (unknown !== undefined) return unknown
  for (const [field, value, min, max] of [
    ["maxEntries", maxEntries, 1, 10_000_000],
    ["maxCharacters", maxCharacters, 1_024, Number.MAX_SAFE_INTEGER]
  ] as const) {
    if (!(Number.isSafeInteger(value) && value >= min && value <= max)) {
      return new InvalidInput({ field, value: String(value), allowed: `an integer from ${min} to ${max}` })
    }
  }
  const maxAgeMillis = Policies.duration("maxAge", maxAge)
  return typeof maxAgeMillis === "number" ? { maxEntries, maxCharacters, maxAgeMillis } : maxAgeMillis
}

/** Runs at the time by the monotonic clock of the caller: no change of the time of day makes an entry live longer. */
const atNow = <A, E>(act: (now: number) => Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.withFiber((fiber) => act(Patience.monotonicMillis(fiber.getRef(Clock.Clock))))

/** Invalid input has been answered before an implementation is called: of the store behind it there is no such answer. */
const wasChecked = <A, E>(
  effect: Effect.Effect<A, E | InvalidInput>
): Effect.Effect<A, Exclude<E, InvalidInput>> =>
  Effect.catchIf(
    effect,
    (error): error is E & InvalidInput => error instanceof InvalidInput,
    Effect.die
  ) as Effect.Effect<A, Exclude<E, InvalidInput>>

/** The same for verbs that answer item by item. */
const eachWasChecked = <A, E>(effect: Effect.Effect<ReadonlyArray<A | InvalidKey>, E | InvalidInput>) =>
  wasChecked(effect) as Effect.Effect<ReadonlyArray<A>, Exclude<E, InvalidInput>>

const services = (store: IdempotencyStoreService, bounds: Bounds) =>
  Effect.gen(function* () {
    const { maxAgeMillis, maxCharacters, maxEntries } = bounds
    const now = yield* atNow(Effect.succeed)
    const known = new CompletedKeys({ maxEntries, maxCharacters, now })
    const grants = new GrantedKeys(maxEntries)
    let hits = 0
    let misses = 0
    // Which of two requests that are under way together the store took first can't be told: a completion is not learnt
    // where a `forget` ended meanwhile.
    let forgets = 0

    const learn = (
      { claimId, namespace }: KeyClaimRef,
      completed: ReadonlyArray<Protocol.KeyCompletion>,
      until: number,
      now: number
    ): void => {
      const fingerprints = grants.of(namespace, claimId)
      for (const { key, result } of completed) {
        // what is not known to be granted here has a fingerprint that is not known either
        if (!fingerprints?.has(key)) continue
        known.add(namespace, { key, result, fingerprint: fingerprints.get(key) }, until, now)
      }
    }

    const near = yield* IdempotencyStore.make({
      name: store.name,
      durable: store.durable,
      retentionMillis: store.retentionMillis,
      shardOf: store.shardOf,
      claim: (namespace, items, terms) =>
        atNow((now) => {
          // A claim that holds something is answered by the store, which knows what it was asked for.
          const mayAnswer = items.length > 0 && !grants.has(terms.claimId)
          const answers = mayAnswer ? known.answer(namespace, items, now) : undefined
          if (answers !== undefined) {
            hits += items.length
            return Effect.succeed(answers)
          }
          misses += items.length
          // Whole, also where some are known: asked again with the same claim id, the store must see the same items.
          return eachWasChecked<Protocol.KeyClaimAnswer, StoreError | ClaimIdReused>(
            store.claim(namespace, items, terms)
          ).pipe(
            Effect.tap((answers) =>
              Effect.sync(() => grants.granted(namespace, terms.claimId, items, answers))
            ),
            Effect.catchTag("ClaimIdReused", () => Effect.succeed(undefined))
          )
        }),
      complete: (claim, items, retentionMillis) =>
        atNow((now) => {
          const forgetsBefore = forgets
          // From before the question, so that the store, which counts from when it is asked, remembers for longer.
          const until = now + Math.min(maxAgeMillis, retentionMillis)
          const asked = eachWasChecked<Protocol.KeyCompleteAnswer, StoreError>(
            store.complete(claim, items, { retentionMillis })
          )
          return Effect.flatMap(asked, (answers) =>
            atNow((now) => {
              const completed = items.filter((_, index) => answers[index] === "Completed")
              if (forgets === forgetsBefore) learn(claim, completed, until, now)
              grants.settled(
                claim.claimId,
                completed.map(({ key }) => key)
              )
              return Effect.succeed(answers)
            })
          )
        }),
      release: (claim, keys) =>
        Effect.tap(wasChecked(store.release(claim, keys)), () =>
          Effect.sync(() => grants.settled(claim.claimId, keys))
        ),
      renew: (claims) => wasChecked(store.renew(claims)),
      lookup: (namespace, keys) =>
        eachWasChecked<Protocol.KeyStatus, StoreError>(store.lookup(namespace, keys)),
      forget: (namespace, keys) =>
        Effect.ensuring(
          wasChecked(store.forget(namespace, keys)),
          Effect.sync(() => {
            forgets += 1
            for (const key of keys) known.remove(namespace, key)
          })
        ),
      awaitSettled: store.awaitSettled
    })
    const current = Effect.sync((): NearCacheFigures => {
      const asked = hits + misses
      return {
        hits,
        misses,
        hitRate: asked === 0 ? 0 : hits / asked,
        size: known.size,
        evictions: known.evictions,
        estimatedBytes: known.estimatedBytes
      }
    })
    return Context.make(IdempotencyStore, near).pipe(
      Context.add(NearCacheStats, NearCacheStats.of({ current }))
    )
  })

/**
 * Puts a near cache before the idempotency keys of a store, which is otherwise left as it is; its counters are
 * `NearCacheStats`.
 *
 * It knows what this process completed, with result and fingerprint, and answers a claim when it knows every key of it.
 * For what others completed the store is asked, as it is for every look-up. The answers are those that the store would
 * give, save for one case: keys that were forgotten by an operator elsewhere are taken for completed until they are
 * `maxAge` old here.
 *
 * Fails with `InvalidInput` for a bad or unknown option.
 *
 * @example
 * const store = RedisStore.layer({ url }).pipe(NearCache.around({ maxEntries: 50_000 }))
 */
export const around =
  (options: NearCacheOptions = {}) =>
  <A, E, R>(
    layer: Layer.Layer<A | IdempotencyStore, E, R>
  ): Layer.Layer<A | IdempotencyStore | NearCacheStats, E | InvalidInput, R> =>
    Layer.effectContext(
      Effect.gen(function* () {
        const bounds = boundsOf(options)
        if (bounds instanceof InvalidInput) return yield* bounds
        return yield* services(yield* IdempotencyStore, bounds)
      })
    ).pipe(Layer.provideMerge(layer))
