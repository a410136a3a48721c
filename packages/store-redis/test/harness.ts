/** Servers, networks and stores for tests, each ended with its test, and what every test of bad days asks. */
import {
  ClaimId,
  IdempotencyStore,
  type InvalidInput,
  Lock,
  OffsetRanges,
  OffsetStore,
  StoreError,
  type StoreErrorReason
} from "@tidemark/core"
import { type OwnRedisOptions, startOwnRedis, startTcpProxy, uniqueName } from "@tidemark/test-servers"
import { Context, Effect, Layer, Schedule, type Scope } from "effect"
import { Redis, type RedisOptions } from "ioredis"
import { expect } from "vitest"
import { RedisStore } from "../src/index.ts"

/** Ends with the test what it started. */
export const ending = <A extends AsyncDisposable | Disposable>(start: () => Promise<A>) =>
  Effect.acquireRelease(Effect.promise(start), (one) =>
    Effect.promise(async () => {
      if (Symbol.asyncDispose in one) await one[Symbol.asyncDispose]()
      else one[Symbol.dispose]()
    })
  )

export const ownRedis = (options?: OwnRedisOptions) => ending(() => startOwnRedis(options))

export const networkBefore = (address: string) => ending(() => startTcpProxy(address))

/** A client of the test's own, to look and to spoil. */
export const clientOf = (url: string, options: RedisOptions = {}) =>
  Effect.acquireRelease(
    Effect.sync(() => new Redis(url, { ...options, replyMapping: "legacy" }).on("error", () => {})),
    (client) => Effect.sync(() => client.disconnect())
  )

/** All services of a store. */
export interface Store {
  readonly offsets: OffsetStore["Service"]
  readonly keys: IdempotencyStore["Service"]
  readonly lock: Lock["Service"]
}

type StoreLayer = ReturnType<typeof RedisStore.layer>

export const open = (layer: StoreLayer): Effect.Effect<Store, StoreError | InvalidInput, Scope.Scope> =>
  Effect.map(Layer.build(layer), (context) => ({
    offsets: Context.get(context, OffsetStore),
    keys: Context.get(context, IdempotencyStore),
    lock: Context.get(context, Lock)
  }))

export const openStore = (options: RedisStore.RedisConnectionOptions) => open(RedisStore.layer(options))

export const termsOf = (leaseMillis = 30_000, claimId = ClaimId.make()) => ({
  claimId,
  owner: "a test",
  leaseMillis
})

/** Claims one key; answers the token. */
export const claimKey = (
  { keys }: Store,
  namespace: string,
  key: string,
  terms = termsOf()
): Effect.Effect<number, StoreError> =>
  Effect.map(onlyStoreErrors(keys.claim(namespace, [{ key }], terms)), ([answer]) => {
    expect(answer).toMatchObject({ _tag: "Claimed" })
    return (answer as { readonly token: number }).token
  })

/** Errors of a store pass; any other is a defect of the test. */
const onlyStoreErrors = <A, E>(call: Effect.Effect<A, E | StoreError>): Effect.Effect<A, StoreError> =>
  Effect.catch(call, (error) => (error instanceof StoreError ? Effect.fail(error) : Effect.die(error)))

type Calls = Readonly<Record<string, Effect.Effect<unknown, unknown>>>

/** What a claim holds that was made when all was well, and what may be asked about it on a bad day. */
export interface Held {
  /** Calls that ask for something new. */
  readonly asking: Calls
  /** Calls by which something that is held is settled or kept. */
  readonly settling: Calls
  /** Questions, which write nothing. */
  readonly reading: Calls
  /** What operators do. */
  readonly operating: Calls
  readonly completed: Effect.Effect<void, unknown>
}

/** Claims keys and offsets on names that nobody else uses. */
export const holding = (store: Store): Effect.Effect<Held, unknown> =>
  Effect.gen(function* () {
    const { keys, lock, offsets } = store
    const [stream, namespace] = [uniqueName("stream"), uniqueName("namespace")]
    const ranges = OffsetRanges.make(0, 10)
    const [one, other, another] = [termsOf(), termsOf(), termsOf()]
    yield* offsets.claim(stream, ranges, one)
    yield* offsets.claim(stream, OffsetRanges.make(10, 20), other)
    yield* offsets.claim(stream, OffsetRanges.make(20, 30), another)
    yield* claimKey(store, namespace, "one", one)
    yield* claimKey(store, namespace, "other", other)
    yield* claimKey(store, namespace, "another", another)
    const of = ({ claimId }: { readonly claimId: string }) => ({ stream, namespace, claimId })
    return {
      asking: {
        "claim of offsets": offsets.claim(uniqueName("stream"), ranges, termsOf()),
        "claim of keys": keys.claim(uniqueName("namespace"), [{ key: "new" }], termsOf()),
        lock: lock.withLock(uniqueName("lock"))(Effect.void)
      },
      settling: {
        "complete of offsets": offsets.complete(of(one), ranges),
        "complete of keys": keys.complete(of(one), [{ key: "one", result: '"done"' }]),
        "release of offsets": offsets.release(of(other)),
        "release of keys": keys.release(of(other)),
        "renew of offsets": offsets.renew([{ ...of(another), leaseMillis: 30_000 }]),
        "renew of keys": keys.renew([{ ...of(another), leaseMillis: 30_000 }])
      },
      reading: {
        progress: offsets.progress(stream),
        isCompleted: offsets.isCompleted(stream, 5),
        lookup: keys.lookup(namespace, ["one"])
      },
      operating: {
        rewind: offsets.rewind(uniqueName("stream"), 0),
        skip: offsets.skip(uniqueName("stream"), ranges),
        copy: offsets.copy(stream, uniqueName("stream")),
        "forget of a stream": offsets.forget(stream),
        "forget of keys": keys.forget(namespace, ["one"])
      },
      completed: Effect.gen(function* () {
        expect(yield* offsets.isCompleted(stream, 5)).toBe(true)
        expect(yield* keys.lookup(namespace, ["one"])).toMatchObject([
          { _tag: "Completed", result: '"done"' }
        ])
      })
    }
  })

/** What a call ends with, and how long it took. */
const timed = (call: Effect.Effect<unknown, unknown>) =>
  Effect.suspend(() => {
    const began = performance.now()
    return Effect.map(
      Effect.match(call, {
        onFailure: (error) => error,
        onSuccess: (answer) => ({ answer })
      }),
      (outcome) => ({ outcome, millis: performance.now() - began })
    )
  })

export interface Failing {
  readonly reason: StoreErrorReason
  readonly retriable: boolean
  /** What the message has to name. */
  readonly naming?: string | RegExp
  /** A busy machine's delay included, in milliseconds. */
  readonly withinMillis?: number
}

/** Checks that an error is the store's, of this kind. */
export const expectFailure = (error: unknown, { naming, reason, retriable }: Failing, what = ""): void => {
  expect(error, what).toBeInstanceOf(StoreError)
  const failed = error as StoreError
  expect(failed, `${what}: ${failed.message}`).toMatchObject({ store: "redis", reason, retriable })
  if (naming !== undefined) expect(failed.message).toMatch(naming)
}

/** All calls at once: each fails in this way, in time. */
export const eachFails = (calls: Calls, failing: Failing) =>
  Effect.forEach(
    Object.entries(calls),
    ([name, call]) =>
      Effect.map(timed(call), ({ millis, outcome }) => {
        expectFailure(outcome, failing, name)
        expect(millis, name).toBeLessThan(failing.withinMillis ?? 3_000)
      }),
    { concurrency: "unbounded", discard: true }
  )

/** All calls, one after the other, get an answer. */
export const eachSucceeds = (calls: Calls) =>
  Effect.forEach(
    Object.entries(calls),
    ([name, call]) =>
      Effect.map(timed(call), ({ outcome }) =>
        expect(outcome, `${name}: ${String(outcome)}`).toHaveProperty("answer")
      ),
    { discard: true }
  )

/** How opening a store fails. */
export const refusalOf = (options: RedisStore.RedisConnectionOptions) =>
  Effect.scoped(Effect.flip(openStore(options)))

/** Asks again, with the same claim id, until an answer arrives, as a client does that must know. */
export const insist = <A, E, R>(call: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.retry(call, {
    while: (error) => error instanceof StoreError && error.retriable,
    schedule: Schedule.spaced("20 millis")
  })

/** Until the check passes; after 25 seconds, what it found wrong last. */
export const eventually = (check: () => Promise<void>): Effect.Effect<void> =>
  Effect.suspend(() => {
    const giveUpAt = performance.now() + 25_000
    return Effect.orDie(
      Effect.retry(Effect.tryPromise({ try: check, catch: (error) => error }), {
        schedule: Schedule.spaced("20 millis"),
        while: () => performance.now() < giveUpAt
      })
    )
  })
