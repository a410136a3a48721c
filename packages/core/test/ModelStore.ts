import { IdempotencyStore, Lock, type OffsetRanges, OffsetStore, Protocol, StoreError } from "@tidemark/core"
import { Clock, Context, Effect, Layer } from "effect"

/** What a test can do to a store: let calls fail, or hang. */
export class Faults extends Context.Service<
  Faults,
  {
    /** How many of the next calls of a verb fail before they take effect. */
    readonly failBefore: Map<string, number>
    /** How many of the next calls of a verb take effect, and their answer is lost. */
    readonly failAfter: Map<string, number>
    /** Calls so far, by verb. */
    readonly calls: Map<string, number>
  }
>()("@tidemark/core/test/Faults") {}

const unavailable = (verb: string): StoreError =>
  new StoreError({
    store: "model",
    verb,
    reason: "Unavailable",
    detail: "switched off by a test",
    retriable: true
  })

/** The rules themselves as a store: what other stores are compared with, with faults on demand. */
export const layer: Layer.Layer<OffsetStore | IdempotencyStore | Lock | Faults> = Layer.provideMerge(
  Lock.layer,
  Layer.effectContext(
    Effect.gen(function* () {
      const faults = Faults.of({ failBefore: new Map(), failAfter: new Map(), calls: new Map() })
      const streams = new Map<string, Protocol.StreamState>()
      const keys = new Protocol.KeyState(new Protocol.MapKeyTable())
      const stream = (name: string): Protocol.StreamState => {
        const known = streams.get(name) ?? new Protocol.StreamState()
        streams.set(name, known)
        return known
      }
      const due = (map: Map<string, number>, verb: string): boolean => {
        const left = map.get(verb) ?? 0
        if (left > 0) map.set(verb, left - 1)
        return left > 0
      }
      const call = <A>(verb: string, act: (now: number) => A): Effect.Effect<A, StoreError> =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          faults.calls.set(verb, (faults.calls.get(verb) ?? 0) + 1)
          if (due(faults.failBefore, verb)) return Effect.fail(unavailable(verb))
          const answer = act(now)
          return due(faults.failAfter, verb) ? Effect.fail(unavailable(verb)) : Effect.succeed(answer)
        })
      const offsets = yield* OffsetStore.make({
        name: "model",
        durable: false,
        claim: (name, ranges, terms) => call("claim", (now) => stream(name).claim(ranges, terms, now)),
        complete: (ref, ranges) =>
          call("complete", (now) => stream(ref.stream).complete(ref.claimId, ranges, now)),
        release: (ref, ranges) => call("release", () => stream(ref.stream).release(ref.claimId, ranges)),
        renew: (claims) =>
          call("renew", (now) =>
            claims.map((claim) => stream(claim.stream).renew(claim.claimId, claim.leaseMillis, now))
          ),
        annotate: (notes) =>
          call("annotate", (now) =>
            notes.map((note) => stream(note.stream).annotate(note.claimId, note.note, now))
          ),
        progress: (name) => call("progress", (now) => stream(name).progress(now)),
        isCompleted: (name, offset) => call("isCompleted", () => stream(name).isCompleted(offset)),
        rewind: (name, to) => call("rewind", () => stream(name).rewind(to)),
        skip: (name, ranges: OffsetRanges.OffsetRanges) => call("skip", () => stream(name).skip(ranges)),
        forget: (name) => call("forget", () => streams.delete(name)),
        copy: (from, to) =>
          call("copy", (now) => {
            const progress = stream(from).progress(now)
            if (progress !== undefined) stream(to).adopt(progress)
            return true
          }),
        awaitRelease: () => Effect.never
      })
      const idempotency = yield* IdempotencyStore.make({
        name: "model",
        durable: false,
        retentionMillis: 60_000,
        claim: (namespace, items, terms) =>
          call("claim", (now) => {
            const outcome = keys.claim(namespace, items, terms, now)
            return outcome._tag === "Answers" ? outcome.answers : undefined
          }),
        complete: (ref, items, retention) =>
          call("complete", (now) => keys.complete(ref.claimId, ref.namespace, items, retention, now)),
        release: (ref, released) => call("release", () => keys.release(ref.claimId, released)),
        renew: (claims) =>
          call("renew", (now) => claims.map((claim) => keys.renew(claim.claimId, claim.leaseMillis, now))),
        lookup: (namespace, names) =>
          call("lookup", (now) => names.map((key) => keys.lookup(namespace, key, now))),
        forget: (namespace, names) =>
          call("forget", () => names.filter((key) => keys.forget(namespace, key)).length),
        awaitSettled: () => Effect.never
      })
      return Context.make(OffsetStore, offsets).pipe(
        Context.add(IdempotencyStore, idempotency),
        Context.add(Faults, faults)
      )
    })
  )
)
