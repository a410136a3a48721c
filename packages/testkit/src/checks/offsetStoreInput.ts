/** What no store may take, and what every store must: invariant 9. */
import { OffsetRanges, type OffsetStoreService } from "@tidemark/core"
import { Effect } from "effect"
import type { Check } from "../Check.ts"
import { failsWith, same } from "../internal/expect.ts"
import { granted } from "./offsetStoreClaiming.ts"
import { allowedNames, refusedMillis, refusedNames, terms, treacherousNames } from "./shared.ts"

const { make, of, openEnded } = OffsetRanges
const highest = Number.MAX_SAFE_INTEGER

export const offsetStoreInput: ReadonlyArray<Check<OffsetStoreService>> = [
  {
    invariant: 9,
    name: "bad input is InvalidInput in every verb, and nothing is written",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const ref = { stream, claimId: name("claim") }
        const good = terms(ref.claimId, time.longMillis)
        for (const [what, bad] of refusedNames) {
          const calls = {
            "claim of a stream with": store.claim(bad, of(0), good),
            "claim with a claim id that is": store.claim(stream, of(0), { ...good, claimId: bad }),
            "claim with an owner that is": store.claim(stream, of(0), { ...good, owner: bad }),
            "complete in": store.complete({ ...ref, stream: bad }, of(0)),
            "complete by": store.complete({ ...ref, claimId: bad }, of(0)),
            "claimOffset in": store.claimOffset(bad, 0, good),
            "completeOffset in": store.completeOffset({ ...ref, stream: bad }, 0),
            "release in": store.release({ ...ref, stream: bad }),
            "release by": store.release({ ...ref, claimId: bad }),
            "renew in": store.renew([{ ...ref, stream: bad, leaseMillis: 1 }]),
            "renew by": store.renew([{ ...ref, claimId: bad, leaseMillis: 1 }]),
            "annotate in": store.annotate([{ ...ref, stream: bad, note: "n" }]),
            "annotate by": store.annotate([{ ...ref, claimId: bad, note: "n" }]),
            "progress of": store.progress(bad),
            "isCompleted in": store.isCompleted(bad, 0),
            "rewind of": store.rewind(bad, 0),
            "skip in": store.skip(bad, of(0)),
            "forget of": store.forget(bad),
            "copy from": store.copy(bad, stream),
            "copy to": store.copy(stream, bad)
          }
          for (const [verb, call] of Object.entries(calls)) {
            yield* failsWith(
              `${verb} ${what}`,
              call as Effect.Effect<unknown, { readonly _tag: string }>,
              "InvalidInput"
            )
          }
        }
        for (const millis of refusedMillis) {
          yield* failsWith(
            `claim for ${millis} ms`,
            store.claim(stream, of(0), { ...good, leaseMillis: millis }),
            "InvalidInput"
          )
          yield* failsWith(
            `renew for ${millis} ms`,
            store.renew([{ ...ref, leaseMillis: millis }]),
            "InvalidInput"
          )
        }
        for (const bad of [-1, 0.5, Number.NaN, highest + 1, Number.POSITIVE_INFINITY]) {
          yield* failsWith(`claimOffset ${bad}`, store.claimOffset(stream, bad, good), "InvalidInput")
          yield* failsWith(`completeOffset ${bad}`, store.completeOffset(ref, bad), "InvalidInput")
          yield* failsWith(`isCompleted ${bad}`, store.isCompleted(stream, bad), "InvalidInput")
          yield* failsWith(`rewind to ${bad}`, store.rewind(stream, bad), "InvalidInput")
        }
        for (const bad of ["", "x".repeat(257), "\u00e9".repeat(129), "a\ud800b"]) {
          yield* failsWith(
            `annotate with ${JSON.stringify(bad)}`,
            store.annotate([{ ...ref, note: bad }]),
            "InvalidInput"
          )
        }
        const nothing = OffsetRanges.empty
        yield* failsWith("claim of nothing", store.claim(stream, nothing, good), "InvalidInput")
        yield* failsWith("complete of nothing", store.complete(ref, nothing), "InvalidInput")
        yield* failsWith("complete without an end", store.complete(ref, openEnded(0)), "InvalidInput")
        yield* failsWith("release of nothing", store.release(ref, nothing), "InvalidInput")
        yield* failsWith("skip without an end", store.skip(stream, openEnded(0)), "InvalidInput")
        yield* same("progress after all of it", yield* store.progress(stream), undefined)
      })
  },
  {
    invariant: 9,
    name: "names of any characters, up to 1,024 bytes, are taken as they are, and kept apart",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const streams = allowedNames(name("stream"))
        for (const [index, [what, stream]] of streams.entries()) {
          const ref = { stream, claimId: name("claim") }
          const answer = yield* store.claim(stream, make(index, 100), terms(ref.claimId, time.longMillis))
          yield* granted(`a claim of a stream whose name is ${what}`, answer, make(index, 100))
          yield* store.complete(ref, of(index))
        }
        for (const [index, [what, stream]] of streams.entries()) {
          const completed = (yield* store.progress(stream))?.completed
          yield* same(`what is completed of the stream whose name is ${what}`, completed, of(index))
        }
        const stream = name("stream")
        const ids = [...allowedNames(name("id")), ...treacherousNames.map((id) => [id, id] as const)]
        for (const [index, [what, claimId]] of ids.entries()) {
          const answer = yield* store.claim(stream, of(index), terms(claimId, time.longMillis))
          yield* granted(`a claim whose id is ${what}`, answer, of(index))
        }
        for (const [index, [what, claimId]] of ids.entries()) {
          const answer = yield* store.complete({ stream, claimId }, make(0, ids.length))
          yield* same(`what the claim whose id is ${what} completes`, answer.completed, of(index))
        }
      })
  },
  {
    invariant: 9,
    name: "offsets up to the highest safe integer, and leases from a part of a millisecond to 100 years, are exact",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const ref = { stream, claimId: name("claim") }
        const top = make(highest - 2, highest)
        yield* granted(
          "the two offsets below the highest",
          yield* store.claim(stream, top, terms(ref.claimId, time.longMillis)),
          top
        )
        const last = { stream, claimId: name("last") }
        yield* granted(
          "the highest offset",
          yield* store.claim(stream, of(highest), terms(last.claimId, time.longMillis)),
          of(highest)
        )
        yield* same(
          "completed of the highest",
          (yield* store.complete(last, of(highest))).completed,
          of(highest)
        )
        yield* same("isCompleted of the highest", yield* store.isCompleted(stream, highest), true)
        yield* same("isCompleted of the one below", yield* store.isCompleted(stream, highest - 1), false)
        const low = { stream, claimId: name("low") }
        yield* granted(
          "offset 0",
          yield* store.claim(stream, of(0), terms(low.claimId, 100 * 365 * 86_400_000)),
          of(0)
        )
        yield* same("completed of 0", (yield* store.complete(low, of(0))).completed, of(0))
        const progress = yield* store.progress(stream)
        yield* same("gaps between 0 and the highest", progress?.gapCount, highest - 1)
        yield* same("all that is completed", progress?.completed, OffsetRanges.union(of(0), of(highest)))
        const rest = yield* store.claim(stream, openEnded(highest - 5), terms(name("rest"), time.longMillis))
        yield* same(
          "an open-ended claim over what is held there",
          rest.held.map(({ ranges }) => String(ranges)),
          [String(top)]
        )
        const brief = yield* store.claim(name("stream"), of(0), terms(name("brief"), 0.25))
        yield* granted("a claim for a quarter of a millisecond", brief, of(0))
      })
  }
]
