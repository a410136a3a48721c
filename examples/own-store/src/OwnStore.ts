/**
 * A store of one's own, in a page: the rules of the protocol as they are, in the memory of one process. Where this one
 * calls `Protocol`, yours has a transaction or a script that decides by the same rules.
 */
import {
  IdempotencyStore,
  type IdempotencyStoreImplementation,
  Lock,
  OffsetStore,
  type OffsetStoreImplementation,
  Protocol
} from "@tidemark/core"
import { Clock, Context, Effect, Layer } from "effect"

const name = "own"

/** Leases are judged by Effect's clock, so that `TestClock` drives this store. */
const atNow = <A>(decide: (now: number) => A): Effect.Effect<A> => Effect.map(Clock.currentTimeMillis, decide)

const offsetStore = (): OffsetStoreImplementation => {
  const streams = new Map<string, Protocol.StreamState>()
  let tokenFloor = 0
  const streamOf = (stream: string): Protocol.StreamState => {
    const state = streams.get(stream) ?? new Protocol.StreamState(tokenFloor)
    streams.set(stream, state)
    return state
  }
  return {
    name,
    durable: false,
    claim: (stream, ranges, terms) => atNow((now) => streamOf(stream).claim(ranges, terms, now)),
    complete: ({ claimId, stream }, ranges) =>
      atNow((now) => streamOf(stream).complete(claimId, ranges, now)),
    release: ({ claimId, stream }, ranges) => Effect.sync(() => streamOf(stream).release(claimId, ranges)),
    renew: (claims) =>
      atNow((now) =>
        claims.map(({ claimId, leaseMillis, stream }) => streamOf(stream).renew(claimId, leaseMillis, now))
      ),
    annotate: (notes) =>
      atNow((now) => notes.map(({ claimId, note, stream }) => streamOf(stream).annotate(claimId, note, now))),
    progress: (stream) => atNow((now) => streamOf(stream).progress(now)),
    isCompleted: (stream, offset) => Effect.sync(() => streamOf(stream).isCompleted(offset)),
    rewind: (stream, to) => Effect.sync(() => streamOf(stream).rewind(to)),
    skip: (stream, ranges) => Effect.sync(() => streamOf(stream).skip(ranges)),
    forget: (stream) =>
      atNow((now) => {
        const state = streamOf(stream)
        tokenFloor = Math.max(tokenFloor, state.token)
        streams.delete(stream)
        return state.progress(now) !== undefined
      }),
    copy: (from, to) =>
      atNow((now) => {
        const progress = streamOf(from).progress(now)
        if (progress === undefined) return true
        if (streamOf(to).progress(now) !== undefined) return false
        streamOf(to).adopt(progress)
        return true
      }),
    // no hints: whoever waits asks again by a timer
    awaitRelease: () => Effect.never
  }
}

const keyStore = (): IdempotencyStoreImplementation => {
  const keys = new Protocol.KeyState(new Protocol.MapKeyTable())
  return {
    name,
    durable: false,
    retentionMillis: 86_400_000,
    claim: (namespace, items, terms) =>
      atNow((now) => {
        const outcome = keys.claim(namespace, items, terms, now)
        return outcome._tag === "Answers" ? outcome.answers : undefined
      }),
    complete: ({ claimId, namespace }, items, retentionMillis) =>
      atNow((now) => keys.complete(claimId, namespace, items, retentionMillis, now)),
    release: ({ claimId }, released) => Effect.sync(() => keys.release(claimId, released)),
    renew: (claims) =>
      atNow((now) => claims.map(({ claimId, leaseMillis }) => keys.renew(claimId, leaseMillis, now))),
    lookup: (namespace, asked) => atNow((now) => asked.map((key) => keys.lookup(namespace, key, now))),
    forget: (namespace, forgotten) =>
      Effect.sync(() => forgotten.filter((key) => keys.forget(namespace, key)).length),
    awaitSettled: () => Effect.never
  }
}

/** All of tidemark's services on this store: changing the store is changing one line. */
export const layer: Layer.Layer<OffsetStore | IdempotencyStore | Lock> = Layer.provideMerge(
  Lock.layer,
  Layer.effectContext(
    Effect.gen(function* () {
      return Context.make(OffsetStore, yield* OffsetStore.make(offsetStore())).pipe(
        Context.add(IdempotencyStore, yield* IdempotencyStore.make(keyStore()))
      )
    })
  )
)
