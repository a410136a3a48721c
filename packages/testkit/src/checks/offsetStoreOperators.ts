/** What operators do to a stream: invariants 2, 4. */
import { OffsetRanges, type OffsetStoreService } from "@tidemark/core"
import { Effect } from "effect"
import type { Check } from "../Check.ts"
import { failsWith, same } from "../internal/expect.ts"
import { granted } from "./offsetStoreClaiming.ts"
import { terms } from "./shared.ts"

const { make, of, openEnded } = OffsetRanges

const started = (store: OffsetStoreService, name: (what: string) => string, leaseMillis: number) =>
  Effect.gen(function* () {
    const ref = { stream: name("stream"), claimId: name("claim") }
    yield* store.claim(ref.stream, openEnded(10), terms(ref.claimId, leaseMillis))
    yield* store.complete(ref, make(10, 30))
    return ref
  })

const told = (store: OffsetStoreService, stream: string) =>
  Effect.map(store.progress(stream), (progress) =>
    progress === undefined
      ? undefined
      : `origin ${progress.origin}, completed ${progress.completed}, watermark ${progress.watermark}, ` +
        `epoch ${progress.epoch}, ${progress.claims.length} claims`
  )

export const offsetStoreOperators: ReadonlyArray<Check<OffsetStoreService>> = [
  {
    invariant: 4,
    name: "rewind makes undone what is at the position and above, raises the epoch and supersedes claims",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const ref = yield* started(store, name, time.longMillis)
        yield* store.rewind(ref.stream, 20)
        yield* same(
          "progress",
          yield* told(store, ref.stream),
          "origin 10, completed [10,20), watermark 20, epoch 1, 0 claims"
        )
        const late = yield* store.complete(ref, of(25))
        yield* same("complete by the superseded claim", late.leaseLost, of(25))
        yield* same("renew of it", yield* store.renew([{ ...ref, leaseMillis: 1_000 }]), [undefined])
        yield* store.rewind(ref.stream, 50)
        yield* same(
          "progress after a rewind above all",
          yield* told(store, ref.stream),
          "origin 10, completed [10,20), watermark 20, epoch 2, 0 claims"
        )
        const again = yield* store.claim(ref.stream, openEnded(10), terms(name("again"), time.longMillis))
        yield* granted("a claim after it", again, openEnded(20))
        yield* store.rewind(ref.stream, 5)
        yield* same(
          "progress after a rewind below the origin",
          yield* told(store, ref.stream),
          "origin 5, completed , watermark 5, epoch 3, 0 claims"
        )
        const fresh = name("stream")
        yield* store.rewind(fresh, 7)
        yield* same(
          "progress of a stream that begins with a rewind",
          yield* told(store, fresh),
          "origin 7, completed , watermark 7, epoch 1, 0 claims"
        )
      })
  },
  {
    invariant: 4,
    name: "skip counts as completed, raises the epoch and supersedes claims",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const ref = yield* started(store, name, time.longMillis)
        yield* store.skip(ref.stream, OffsetRanges.add(make(30, 32), 40, 41))
        yield* same(
          "progress",
          yield* told(store, ref.stream),
          "origin 10, completed [10,32) [40,41), watermark 32, epoch 1, 0 claims"
        )
        const late = yield* store.complete(ref, make(31, 34))
        yield* same("complete by the superseded claim: already completed", late.alreadyCompleted, of(31))
        yield* same("complete by the superseded claim: lost", late.leaseLost, make(32, 34))
        yield* store.skip(ref.stream, make(5, 8))
        yield* same(
          "progress after a skip below the origin",
          yield* told(store, ref.stream),
          "origin 5, completed [5,8) [10,32) [40,41), watermark 8, epoch 2, 0 claims"
        )
        const fresh = name("stream")
        yield* store.skip(fresh, make(3, 5))
        yield* same(
          "progress of a stream that begins with a skip",
          yield* told(store, fresh),
          "origin 3, completed [3,5), watermark 5, epoch 1, 0 claims"
        )
      })
  },
  {
    invariant: 4,
    name: "forget removes all that is known, and tells whether there was any",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const ref = yield* started(store, name, time.longMillis)
        const other = yield* started(store, name, time.longMillis)
        yield* same("forget", yield* store.forget(ref.stream), true)
        yield* same("forget again", yield* store.forget(ref.stream), false)
        yield* same("forget of a stream that never was", yield* store.forget(name("stream")), false)
        yield* same("progress", yield* store.progress(ref.stream), undefined)
        yield* same("isCompleted", yield* store.isCompleted(ref.stream, 10), false)
        yield* same(
          "complete by a claim that was forgotten",
          (yield* store.complete(ref, of(40))).leaseLost,
          of(40)
        )
        const anew = yield* store.claim(ref.stream, make(0, 20), terms(name("anew"), time.longMillis))
        yield* granted("a claim after it", anew, make(0, 20))
        yield* same(
          "another stream's progress",
          yield* told(store, other.stream),
          `origin 10, completed [10,30), watermark 30, epoch 0, 1 claims`
        )
      })
  },
  {
    invariant: 4,
    name: "copy takes over progress and epoch, not claims, and only where there is none",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const ref = yield* started(store, name, time.longMillis)
        yield* store.skip(ref.stream, make(40, 50))
        const before = yield* told(store, ref.stream)
        const target = name("stream")
        yield* store.copy(ref.stream, target)
        yield* same(
          "the copy's progress",
          yield* told(store, target),
          "origin 10, completed [10,30) [40,50), watermark 30, epoch 1, 0 claims"
        )
        yield* same("the source's progress", yield* told(store, ref.stream), before)
        const other = yield* started(store, name, time.longMillis)
        const error = yield* failsWith(
          "copy onto a stream with progress",
          store.copy(ref.stream, other.stream),
          "StoreError"
        )
        yield* same("its reason", error._tag === "StoreError" && error.reason, "NotEmpty")
        yield* same(
          "the target's progress",
          yield* told(store, other.stream),
          "origin 10, completed [10,30), watermark 30, epoch 0, 1 claims"
        )
        const nothing = name("stream")
        yield* store.copy(name("stream"), nothing)
        yield* same("the copy of a stream that never was", yield* store.progress(nothing), undefined)
        const claimed = yield* store.claim(target, openEnded(0), terms(name("owner"), time.longMillis))
        yield* same(
          "what the copy's claimant is told is completed",
          String(claimed.completed),
          "[10,30) [40,50)"
        )
      })
  },
  {
    invariant: 4,
    name: "a note stays through rewind and skip, goes along with copy, and ends with forget",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const ref = yield* started(store, name, time.longMillis)
        const noteOf = (of: string) => Effect.map(store.progress(of), (progress) => progress?.note)
        yield* store.annotate([{ ...ref, note: "noted" }])
        yield* store.rewind(ref.stream, 20)
        yield* same("the note after rewind", yield* noteOf(ref.stream), "noted")
        yield* same("a note by the superseded claim", yield* store.annotate([{ ...ref, note: "late" }]), [
          false
        ])
        yield* store.rewind(ref.stream, 5)
        yield* store.skip(ref.stream, make(5, 8))
        yield* same("the note after skip", yield* noteOf(ref.stream), "noted")
        const target = name("stream")
        yield* store.copy(ref.stream, target)
        yield* same("the copy's note", yield* noteOf(target), "noted")
        yield* store.forget(ref.stream)
        yield* store.claim(ref.stream, openEnded(0), terms(name("anew"), time.longMillis))
        yield* same("the note after forget", yield* noteOf(ref.stream), undefined)
        yield* same("the copy's note then", yield* noteOf(target), "noted")
      })
  }
]
