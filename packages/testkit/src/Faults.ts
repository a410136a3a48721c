/**
 * Faults on demand, around any store: what networks and servers do to requests and answers. The same seed gives the
 * same faults to the same calls.
 *
 * What fails, fails with a retriable `StoreError` `Unavailable`, as a broken connection does: the caller can't tell
 * whether the call took effect, and asks again with the same claim id (see {@link patiently}).
 */
import {
  ClaimIdReused,
  IdempotencyStore,
  type IdempotencyStoreService,
  InvalidInput,
  type InvalidKey,
  Lock,
  OffsetRanges,
  OffsetStore,
  type OffsetStoreService,
  StoreError
} from "@tidemark/core"
import { Context, Effect, Layer, Random, Schedule, type Scope } from "effect"

/**
 * What may happen to a call:
 * - `lost`: it fails before it takes effect;
 * - `unanswered`: it takes effect, and the answer is lost;
 * - `twice`: it is delivered twice, one after the other, and the second answer is given, as by a client that resends
 *   what was not answered;
 * - `late`: it is answered, and delivered once more later, perhaps much later;
 * - `slow`: it takes effect after a delay;
 * - `cut`: the connection dies in the middle of a batch: a part of it takes effect, and the call fails. Claims are
 *   never in parts: a part of a claim would be another claim.
 */
export type Fault = "lost" | "unanswered" | "twice" | "late" | "slow" | "cut"

/** Which faults happen, and how often. */
export interface FaultOptions {
  readonly seed: number
  /** How many of the calls are faulty, from 0 to 1. Default: 0.2. */
  readonly rate?: number
  /** Of all calls, or of each verb. Default: all. */
  readonly faults?: ReadonlyArray<Fault> | ((verb: string) => ReadonlyArray<Fault>)
  /** The longest delay of what is slow or late, in milliseconds. Default: 200. */
  readonly longestMillis?: number
}

const everyFault: ReadonlyArray<Fault> = ["lost", "unanswered", "twice", "late", "slow", "cut"]

/** The connection broke: nobody knows whether the call took effect. */
const broken = (verb: string, fault: Fault): StoreError =>
  new StoreError({
    store: "faults",
    verb,
    reason: "Unavailable",
    detail: `the connection broke (fault injected: ${fault})`,
    retriable: true
  })

/**
 * The faults after which a caller that asks again gets the same answer as without them. (What is completed again
 * answers that it was completed already.)
 */
export const harmlessFaults = (verb: string): ReadonlyArray<Fault> =>
  verb.startsWith("complete") ? ["lost"] : ["lost", "unanswered", "twice"]

type Call = <A, E>(
  verb: string,
  call: Effect.Effect<A, E>,
  part?: Effect.Effect<unknown, unknown>
) => Effect.Effect<A, E | StoreError>

/** Draws a fault for each call, in the order in which calls are made. */
const makeCall = ({
  faults = everyFault,
  longestMillis = 200,
  rate = 0.2,
  seed
}: FaultOptions): Effect.Effect<Call, never, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope
    const random = yield* Random.withSeed(Random.Random, seed)
    return (verb, call, part) =>
      Effect.suspend(() => {
        const isFaulty = random.nextDoubleUnsafe() < rate
        const possible = typeof faults === "function" ? faults(verb) : faults
        const fault = possible[Math.floor(random.nextDoubleUnsafe() * possible.length)]
        const delayMillis = random.nextDoubleUnsafe() ** 3 * longestMillis
        if (!isFaulty) return call
        switch (fault) {
          case "lost":
            return Effect.fail(broken(verb, fault))
          case "unanswered":
            return Effect.andThen(call, Effect.fail(broken(verb, fault)))
          case "twice":
            return Effect.andThen(call, call)
          case "late":
            return Effect.tap(call, () =>
              Effect.forkIn(Effect.ignore(Effect.delay(call, delayMillis)), scope)
            )
          case "slow":
            return Effect.delay(call, delayMillis)
          case "cut":
            return Effect.andThen(part ?? call, Effect.fail(broken(verb, fault))) as Effect.Effect<
              never,
              StoreError
            >
        }
      })
  })

const halfOf = <A>(items: ReadonlyArray<A>): ReadonlyArray<A> => items.slice(0, Math.ceil(items.length / 2))

/** A part of the ranges: up to the middle of the first one, where it is long enough. */
const partOf = (ranges: OffsetRanges.OffsetRanges): OffsetRanges.OffsetRanges => {
  const [from, to] = ranges.flat
  return OffsetRanges.make(from, Math.max(from + 1, Math.floor((from + to) / 2)))
}

/** The input was checked on this side of the connection already. */
const unchecked = <A, E>(
  call: Effect.Effect<A, E | InvalidInput>
): Effect.Effect<A, Exclude<E, InvalidInput>> =>
  Effect.catchIf(
    call as Effect.Effect<A, Exclude<E, InvalidInput> | InvalidInput>,
    (error) => error instanceof InvalidInput,
    Effect.die
  ) as Effect.Effect<A, Exclude<E, InvalidInput>>

/** Keys that can't be any were answered for on this side too. */
const answered = <A>(answers: ReadonlyArray<A>): ReadonlyArray<Exclude<A, InvalidKey>> =>
  answers as ReadonlyArray<Exclude<A, InvalidKey>>

const unlessReused = <A, E>(
  call: Effect.Effect<A, E | ClaimIdReused>
): Effect.Effect<A | undefined, Exclude<E, ClaimIdReused>> =>
  Effect.catchIf(
    call as Effect.Effect<A | undefined, Exclude<E, ClaimIdReused> | ClaimIdReused>,
    (error) => error instanceof ClaimIdReused,
    () => Effect.succeed(undefined)
  ) as Effect.Effect<A | undefined, Exclude<E, ClaimIdReused>>

/** The same store, behind a connection with faults, which the renewals of its leases meet too. Operators' verbs have none. */
export const faultyOffsetStore = (
  store: OffsetStoreService,
  options: FaultOptions
): Effect.Effect<OffsetStoreService, never, Scope.Scope> =>
  Effect.flatMap(makeCall(options), (call) =>
    OffsetStore.make({
      name: store.name,
      durable: store.durable,
      awaitRelease: store.awaitRelease,
      claim: (stream, ranges, terms) =>
        call("claim", unlessReused(unchecked(store.claim(stream, ranges, terms)))),
      claimOffset: (stream, offset, terms) =>
        call("claimOffset", unchecked(store.claimOffset(stream, offset, terms))),
      complete: (claim, ranges) =>
        call("complete", unchecked(store.complete(claim, ranges)), store.complete(claim, partOf(ranges))),
      completeOffset: (claim, offset) =>
        call("completeOffset", unchecked(store.completeOffset(claim, offset))),
      release: (claim, ranges) =>
        call(
          "release",
          unchecked(store.release(claim, ranges)),
          ranges && store.release(claim, partOf(ranges))
        ),
      renew: (claims) => call("renew", unchecked(store.renew(claims)), store.renew(halfOf(claims))),
      annotate: (notes) => call("annotate", unchecked(store.annotate(notes)), store.annotate(halfOf(notes))),
      progress: (stream) => call("progress", unchecked(store.progress(stream))),
      isCompleted: (stream, offset) => call("isCompleted", unchecked(store.isCompleted(stream, offset))),
      rewind: (stream, to) => unchecked(store.rewind(stream, to)),
      skip: (stream, ranges) => unchecked(store.skip(stream, ranges)),
      forget: (stream) => unchecked(store.forget(stream)),
      copy: (from, to) => Effect.as(unchecked(store.copy(from, to)), true)
    })
  )

/** The same store, behind a connection with faults, which the renewals of its leases meet too. Operators' verbs have none. */
export const faultyIdempotencyStore = (
  store: IdempotencyStoreService,
  options: FaultOptions
): Effect.Effect<IdempotencyStoreService, never, Scope.Scope> =>
  Effect.flatMap(makeCall(options), (call) =>
    IdempotencyStore.make({
      name: store.name,
      durable: store.durable,
      retentionMillis: store.retentionMillis,
      shardOf: store.shardOf,
      awaitSettled: store.awaitSettled,
      claim: (namespace, items, terms) =>
        call(
          "claim",
          Effect.map(
            unlessReused(unchecked(store.claim(namespace, items, terms))),
            (answers) => answers && answered(answers)
          )
        ),
      complete: (claim, items, retentionMillis) =>
        call(
          "complete",
          Effect.map(unchecked(store.complete(claim, items, { retentionMillis })), answered),
          store.complete(claim, halfOf(items), { retentionMillis })
        ),
      release: (claim, keys) =>
        call("release", unchecked(store.release(claim, keys)), keys && store.release(claim, halfOf(keys))),
      renew: (claims) => call("renew", unchecked(store.renew(claims)), store.renew(halfOf(claims))),
      lookup: (namespace, keys) =>
        call("lookup", Effect.map(unchecked(store.lookup(namespace, keys)), answered)),
      forget: (namespace, keys) => unchecked(store.forget(namespace, keys))
    })
  )

const isRetriable = (error: unknown): boolean => error instanceof StoreError && error.retriable

const askAgain = <A, E>(call: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.retry(call, { while: isRetriable, schedule: Schedule.recurs(50) })

/** The same store for a caller that asks again, with the same claim id, whenever the store may answer later. */
export const patientOffsetStore = (store: OffsetStoreService): OffsetStoreService => ({
  ...store,
  claim: (...words) => askAgain(store.claim(...words)),
  claimOffset: (...words) => askAgain(store.claimOffset(...words)),
  complete: (...words) => askAgain(store.complete(...words)),
  completeOffset: (...words) => askAgain(store.completeOffset(...words)),
  release: (...words) => askAgain(store.release(...words)),
  renew: (...words) => askAgain(store.renew(...words)),
  annotate: (...words) => askAgain(store.annotate(...words)),
  progress: (...words) => askAgain(store.progress(...words)),
  isCompleted: (...words) => askAgain(store.isCompleted(...words))
})

/** The same store for a caller that asks again, with the same claim id, whenever the store may answer later. */
export const patientIdempotencyStore = (store: IdempotencyStoreService): IdempotencyStoreService => ({
  ...store,
  claim: (...words) => askAgain(store.claim(...words)),
  complete: (...words) => askAgain(store.complete(...words)),
  release: (...words) => askAgain(store.release(...words)),
  renew: (...words) => askAgain(store.renew(...words)),
  lookup: (...words) => askAgain(store.lookup(...words))
})

/**
 * Any store, behind a connection with faults. Locks on it meet them too.
 *
 * @example
 * const layer = withFaults(MyStore.layer(), { seed: 1, rate: 0.3, faults: ["unanswered", "late"] })
 */
export const withFaults = <E>(
  layer: Layer.Layer<OffsetStore | IdempotencyStore, E>,
  options: FaultOptions
): Layer.Layer<OffsetStore | IdempotencyStore | Lock, E> =>
  Layer.provideMerge(
    Lock.layer,
    Layer.effectContext(
      Effect.gen(function* () {
        const offsets = yield* faultyOffsetStore(yield* OffsetStore, options)
        const keys = yield* faultyIdempotencyStore(yield* IdempotencyStore, options)
        return Context.make(OffsetStore, offsets).pipe(Context.add(IdempotencyStore, keys))
      })
    ).pipe(Layer.provide(layer))
  )
