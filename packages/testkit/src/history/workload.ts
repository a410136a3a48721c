/**
 * What many callers do to one store at once, for its history: they claim what others hold, ask again, renew, complete
 * and give back in part, die with a claim in hand, and come back when their lease is over. The same seed makes each
 * caller choose alike; how the callers meet is left to the machine.
 */
import {
  ClaimId,
  type IdempotencyStoreService,
  OffsetRanges,
  type OffsetStoreService,
  type Protocol,
  StoreError
} from "@tidemark/core"
import { Effect, Random } from "effect"

/** How much is done, and to what. */
export interface WorkloadOptions {
  readonly seed: number
  /** How many callers work at once. Default: 8. */
  readonly callers?: number
  /** How many claims each of them makes. Default: 40. */
  readonly rounds?: number
  /** Ends now and then while a caller works: an early end is what is looked for. Default: 40. */
  readonly leaseMillis?: number
  /** The names of the streams, or the namespaces, that all work on. */
  readonly names: ReadonlyArray<string>
}

/** A caller does one of a few things, by chance. */
const chance = (part: number): Effect.Effect<boolean> => Effect.map(Random.next, (number) => number < part)

const terms = (leaseMillis: number): Protocol.ClaimTerms => {
  const claimId = ClaimId.make()
  return { claimId, owner: claimId, leaseMillis }
}

/** Where a store fails, the call was not answered, and the caller goes on. */
const tolerated = (call: Effect.Effect<unknown, unknown>): Effect.Effect<void, unknown> =>
  Effect.catchIf(
    Effect.asVoid(call),
    (error) => error instanceof StoreError,
    () => Effect.void
  )

const runCallers = (
  { callers = 8, names, rounds = 40, seed }: WorkloadOptions,
  round: (name: string, number: number) => Effect.Effect<void, unknown>
): Effect.Effect<void, unknown> =>
  Effect.forEach(
    Array.from({ length: callers }, (_, caller) => caller),
    (caller) =>
      Effect.gen(function* () {
        for (let number = 0; number < rounds; number++) {
          const name = yield* Random.choice(names as [string, ...Array<string>])
          yield* tolerated(round(name, number))
          if (yield* chance(0.3)) yield* Effect.sleep(yield* Random.nextIntBetween(0, 5))
        }
      }).pipe(Random.withSeed(`${seed}/${caller}`)),
    { concurrency: "unbounded", discard: true }
  )

/** What follows a claim of either kind. */
const lifeOfClaim = (
  leaseMillis: number,
  verbs: {
    readonly askAgain: Effect.Effect<unknown, unknown>
    readonly renew: (leaseMillis: number) => Effect.Effect<unknown, unknown>
    readonly complete: Effect.Effect<unknown, unknown>
    readonly release: Effect.Effect<unknown, unknown>
    /** Of streams only. */
    readonly annotate?: Effect.Effect<unknown, unknown>
    readonly look: Effect.Effect<unknown, unknown>
  }
): Effect.Effect<void, unknown> =>
  Effect.gen(function* () {
    const renew = Effect.flatMap(Random.nextBetween(0.3, 1.5), (part) =>
      tolerated(verbs.renew(leaseMillis * part))
    )
    if (yield* chance(0.2)) yield* tolerated(verbs.askAgain)
    if (yield* chance(0.2)) yield* renew
    if (yield* chance(0.3)) yield* Effect.sleep(yield* Random.nextBetween(0, 5))
    if (yield* chance(0.2)) yield* tolerated(verbs.askAgain)
    if (yield* chance(0.15)) {
      yield* Effect.sleep(leaseMillis * (yield* Random.nextBetween(0.8, 1.5)))
      if (yield* chance(0.5)) yield* renew
    }
    if (yield* chance(0.6)) yield* tolerated(verbs.complete)
    if (verbs.annotate !== undefined && (yield* chance(0.2))) yield* tolerated(verbs.annotate)
    if (yield* chance(0.1)) yield* tolerated(verbs.look)
    // else it dies with the claim in its hands
    if (yield* chance(0.7)) yield* tolerated(verbs.release)
  })

/** Many callers on a few streams. */
export const offsetWorkload = (
  store: OffsetStoreService,
  options: WorkloadOptions
): Effect.Effect<void, unknown> => {
  const { leaseMillis = 40 } = options
  return runCallers(options, (stream, round) =>
    Effect.gen(function* () {
      const asked = terms(leaseMillis)
      const ref = { stream, claimId: asked.claimId }
      // where the callers are moves on, since what is completed stays so
      const from = round * 4 + (yield* Random.nextIntBetween(0, 12))
      const isOpen = yield* chance(0.08)
      const isOne = yield* chance(0.2)
      const size = isOne ? 1 : yield* Random.nextIntBetween(1, 9)
      const ranges = isOpen ? OffsetRanges.openEnded(from) : OffsetRanges.make(from, from + size)
      const claim =
        isOne && !isOpen ? store.claimOffset(stream, from, asked) : store.claim(stream, ranges, asked)
      yield* tolerated(claim)
      const done = OffsetRanges.make(from, from + (yield* Random.nextIntBetween(1, size + 2)))
      const part = yield* chance(0.3)
      yield* lifeOfClaim(leaseMillis, {
        askAgain: claim,
        renew: (millis) => store.renew([{ ...ref, leaseMillis: millis }]),
        complete: isOne ? store.completeOffset(ref, from) : store.complete(ref, done),
        release: part ? store.release(ref, done) : store.release(ref),
        annotate: store.annotate([{ ...ref, note: `by ${asked.claimId}` }]),
        look: store.progress(stream)
      })
    })
  )
}

/** Many callers on the keys of a few namespaces. */
export const keyWorkload = (
  store: IdempotencyStoreService,
  options: WorkloadOptions
): Effect.Effect<void, unknown> => {
  const { leaseMillis = 40 } = options
  return runCallers(options, (namespace, round) =>
    Effect.gen(function* () {
      const asked = terms(leaseMillis)
      const ref = { namespace, claimId: asked.claimId }
      const count = yield* Random.nextIntBetween(1, 4)
      const first = Math.floor(round / 3) + (yield* Random.nextIntBetween(0, 3))
      const keys = Array.from({ length: count }, (_, index) => `key-${first + index}`)
      const done = keys.map((key) => ({ key, result: `"by ${asked.claimId}"` }))
      const claim = store.claim(
        namespace,
        keys.map((key) => ({ key })),
        asked
      )
      const part = yield* chance(0.3)
      // a short retention makes keys new again while others work on them
      const retentionMillis = (yield* chance(0.3)) ? leaseMillis : 600_000
      yield* tolerated(claim)
      yield* lifeOfClaim(leaseMillis, {
        askAgain: claim,
        renew: (millis) => store.renew([{ ...ref, leaseMillis: millis }]),
        complete: store.complete(ref, part ? done.slice(0, 1) : done, { retentionMillis }),
        release: part ? store.release(ref, keys.slice(-1)) : store.release(ref),
        look: store.lookup(namespace, keys)
      })
    })
  )
}
