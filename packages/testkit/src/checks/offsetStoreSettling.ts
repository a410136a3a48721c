/** What becomes of a claim on a stream: invariants 3, 4, 6, 7 (release, renew). */
import { OffsetRanges, type OffsetStoreService, type Protocol } from "@tidemark/core"
import { Effect } from "effect"
import type { Check, ContractBroken } from "../Check.ts"
import { broken, ensure, same, textOf } from "../internal/expect.ts"
import { granted, heldOf, refused } from "./offsetStoreClaiming.ts"
import { endsAfter, renewsEachByItself, terms, timed } from "./shared.ts"

const { empty, make, of, openEnded } = OffsetRanges

const verdicts = (
  what: string,
  answer: Protocol.CompleteAnswer,
  completed: OffsetRanges.OffsetRanges,
  alreadyCompleted: OffsetRanges.OffsetRanges,
  leaseLost: OffsetRanges.OffsetRanges
): Effect.Effect<void, ContractBroken> =>
  same(what, { ...answer }, { completed, alreadyCompleted, leaseLost })

export const offsetStoreSettling: ReadonlyArray<Check<OffsetStoreService>> = [
  {
    invariant: 3,
    name: "one call tells what it completed, what was completed already, and what is not the claim's",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const a = { stream, claimId: name("a") }
        const b = { stream, claimId: name("b") }
        yield* store.claim(stream, make(0, 10), terms(a.claimId, time.longMillis))
        yield* store.claim(stream, make(10, 20), terms(b.claimId, time.longMillis))
        yield* verdicts("a's part of [0,5)", yield* store.complete(a, make(0, 5)), make(0, 5), empty, empty)
        yield* verdicts(
          "a's complete of [3,12) and 30",
          yield* store.complete(a, OffsetRanges.add(make(3, 12), 30, 31)),
          make(5, 10),
          make(3, 5),
          OffsetRanges.fromRanges([
            [10, 12],
            [30, 31]
          ])
        )
        yield* verdicts(
          "b's complete of what a completed",
          yield* store.complete(b, of(4)),
          empty,
          of(4),
          empty
        )
        const nobody = { stream, claimId: name("nobody") }
        yield* verdicts(
          "a complete by a claim that never was",
          yield* store.complete(nobody, make(9, 11)),
          empty,
          of(9),
          of(10)
        )
        yield* same("what is completed in the end", (yield* store.progress(stream))?.completed, make(0, 10))
        const elsewhere = { stream: name("stream"), claimId: b.claimId }
        yield* verdicts(
          "a complete in a stream that nothing was claimed of",
          yield* store.complete(elsewhere, of(0)),
          empty,
          empty,
          of(0)
        )
      })
  },
  {
    invariant: 3,
    name: "a claim whose lease is over, but that nobody took, still completes",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const ref = { stream, claimId: name("slow") }
        const { until } = yield* store.claim(stream, make(0, 10), terms(ref.claimId, time.shortMillis))
        yield* time.passTo(until as number)
        yield* verdicts(
          "complete after the lease",
          yield* store.complete(ref, make(0, 10)),
          make(0, 10),
          empty,
          empty
        )
      })
  },
  {
    invariant: 3,
    name: "overlapping an expired claim deletes it whole",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const slow = { stream, claimId: name("slow") }
        const quick = { stream, claimId: name("quick") }
        const { until } = yield* store.claim(stream, make(0, 10), terms(slow.claimId, time.shortMillis))
        yield* time.passTo(until as number)
        const answer = yield* store.claim(stream, make(9, 12), terms(quick.claimId, time.longMillis))
        yield* granted("a claim that overlaps one that is over", answer, make(9, 12))
        yield* verdicts(
          "complete by the claim that was overlapped",
          yield* store.complete(slow, make(0, 10)),
          empty,
          empty,
          make(0, 10)
        )
        const renewed = yield* store.renew([{ ...slow, leaseMillis: time.longMillis }])
        yield* same("renew of the claim that was overlapped", renewed, [undefined])
        const third = yield* store.claim(stream, openEnded(0), terms(name("third"), time.longMillis))
        yield* same("what is still held", heldOf(third), make(9, 12))
        const rest = yield* store.claim(stream, make(0, 9), terms(name("rest"), time.longMillis))
        yield* granted("the rest of what was overlapped", rest, make(0, 9))
      })
  },
  {
    invariant: 3,
    name: "overlapping only what is completed, or a claim that is refused, deletes no expired claim",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const slow = { stream, claimId: name("slow") }
        const { until } = yield* store.claim(stream, make(0, 10), terms(slow.claimId, time.shortMillis))
        yield* store.complete(slow, make(0, 5))
        yield* store.claim(stream, make(20, 30), terms(name("live"), time.longMillis))
        yield* time.passTo(until as number)
        const onDone = yield* store.claim(stream, make(3, 5), terms(name("other"), time.longMillis))
        yield* refused("a claim on what is completed", onDone)
        const whole = yield* store.claim(stream, openEnded(0), terms(name("owner"), time.longMillis))
        yield* refused("an open-ended claim over one that is live", whole)
        yield* same("what that is told is held: what is live", heldOf(whole), make(20, 30))
        yield* verdicts(
          "complete by the claim that is over",
          yield* store.complete(slow, make(4, 10)),
          make(5, 10),
          of(4),
          empty
        )
      })
  },
  {
    invariant: 3,
    name: "an expired claim that nobody overlapped is kept for 10 leases",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const lease = time.exact ? time.shortMillis : 20
        const claimed = Effect.gen(function* () {
          const ref = { stream: name("stream"), claimId: name("slow") }
          const answer = yield* store.claim(ref.stream, of(7), terms(ref.claimId, lease))
          return { ref, until: answer.until as number }
        })
        if (time.exact) {
          const kept = yield* claimed
          yield* time.passTo(kept.until + 10 * lease - 1)
          const answer = yield* store.complete(kept.ref, of(7))
          yield* verdicts("complete a millisecond before 10 leases are over", answer, of(7), empty, empty)
        }
        const lost = yield* claimed
        yield* time.passTo(lost.until + 10 * lease)
        const renewed = yield* store.renew([{ ...lost.ref, leaseMillis: lease }])
        yield* same("renew when 10 leases are over", renewed, [undefined])
        const answer = yield* store.complete(lost.ref, of(7))
        yield* verdicts("complete when 10 leases are over", answer, empty, empty, of(7))
      })
  },
  {
    invariant: 4,
    name: "what is completed is never granted again, however it is asked for and however late",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const ref = { stream, claimId: name("claim") }
        const { until } = yield* store.claim(stream, make(0, 10), terms(ref.claimId, time.shortMillis))
        yield* store.complete(ref, make(2, 6))
        yield* store.release(ref)
        const asked = [make(0, 10), of(3), openEnded(0), make(5, 7)]
        const look = (what: string) =>
          Effect.gen(function* () {
            for (const ranges of asked) {
              const claimId = name("claim")
              const answer = yield* store.claim(stream, ranges, terms(claimId, time.longMillis))
              const done = OffsetRanges.intersect(ranges, make(2, 6))
              yield* same(`${what}: completed of ${ranges}`, answer.completed, done)
              yield* same(
                `${what}: granted of ${ranges}`,
                answer.granted,
                OffsetRanges.subtract(ranges, done)
              )
              yield* store.release({ stream, claimId })
            }
            yield* same(`${what}: isCompleted 2`, yield* store.isCompleted(stream, 2), true)
            yield* same(`${what}: isCompleted 6`, yield* store.isCompleted(stream, 6), false)
          })
        yield* look("after the release")
        yield* time.passTo(until as number)
        yield* look("after the lease")
        yield* time.pass(time.exact ? 30 * 86_400_000 : 1)
        yield* look("much later")
      })
  },
  {
    invariant: 4,
    name: "what is completed is never granted again, also after a restart",
    onlyDurable: true,
    run: ({ name, restarted, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const ref = { stream, claimId: name("claim") }
        const odd = OffsetRanges.fromOffsets(Array.from({ length: 500 }, (_, index) => index * 2 + 1))
        yield* store.claim(stream, make(0, 1_000), terms(ref.claimId, time.longMillis))
        yield* store.complete(ref, odd)
        yield* store.release(ref)
        const anew = yield* restarted
        const answer = yield* anew.claim(stream, make(0, 1_002), terms(name("again"), time.longMillis))
        yield* same("completed", answer.completed, odd)
        yield* same("granted", answer.granted, OffsetRanges.subtract(make(0, 1_002), odd))
      })
  },
  {
    invariant: 4,
    name: "progress tells origin, watermark, highest, gaps and all that is completed",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const ref = { stream, claimId: name("claim") }
        const progress = Effect.map(store.progress(stream), (found) => {
          if (found === undefined) return undefined
          const { completed, epoch, gapCount, highest, origin, watermark } = found
          return { completed: String(completed), epoch, gapCount, highest, origin, watermark }
        })
        yield* store.claim(stream, openEnded(100), terms(ref.claimId, time.longMillis))
        const started = { completed: "", epoch: 0, gapCount: 0, highest: 100, origin: 100, watermark: 100 }
        yield* same("after the first claim", yield* progress, started)
        yield* store.complete(ref, OffsetRanges.add(make(100, 103), 110, 112))
        yield* same("with a gap", yield* progress, {
          ...started,
          completed: "[100,103) [110,112)",
          gapCount: 7,
          highest: 112,
          watermark: 103
        })
        yield* store.complete(ref, make(103, 110))
        const closed = { ...started, completed: "[100,112)", highest: 112, watermark: 112 }
        yield* same("with the gap closed", yield* progress, closed)
        yield* store.release(ref)
        yield* store.claim(stream, make(90, 95), terms(name("below"), time.longMillis))
        yield* same("after a claim below the origin", yield* progress, {
          ...closed,
          origin: 90,
          watermark: 90,
          gapCount: 10
        })
      })
  },
  {
    invariant: 6,
    name: "a thousand scattered offsets are claimed and completed each by itself",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const thirds = (rest: number) =>
          OffsetRanges.fromOffsets(Array.from({ length: 1_000 }, (_, index) => index * 3 + rest))
        const a = { stream, claimId: name("a") }
        const b = { stream, claimId: name("b") }
        yield* granted(
          "every third offset",
          yield* store.claim(stream, thirds(0), terms(a.claimId, time.longMillis)),
          thirds(0)
        )
        const others = yield* store.claim(stream, make(0, 3_000), terms(b.claimId, time.longMillis))
        yield* same("all, when every third is held: held", heldOf(others), thirds(0))
        yield* granted("all, when every third is held", others, OffsetRanges.union(thirds(1), thirds(2)))
        yield* verdicts(
          "complete of all by the holder of every third",
          yield* store.complete(a, make(0, 3_000)),
          thirds(0),
          empty,
          OffsetRanges.union(thirds(1), thirds(2))
        )
        yield* verdicts(
          "complete of all by the holder of the rest",
          yield* store.complete(b, make(0, 3_001)),
          OffsetRanges.union(thirds(1), thirds(2)),
          thirds(0),
          of(3_000)
        )
        const progress = yield* store.progress(stream)
        yield* same("watermark", progress?.watermark, 3_000)
        yield* same("live claims", progress?.claims, [])
      })
  },
  {
    invariant: 6,
    name: "renew answers claim by claim, in order; one that is lost spoils no other",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        yield* same("of no claims", yield* store.renew([]), [])
        const refs = Array.from({ length: 50 }, () => ({ stream: name("stream"), claimId: name("claim") }))
        yield* renewsEachByItself(
          time,
          refs,
          ({ claimId, stream }) => store.claim(stream, make(0, 10), terms(claimId, time.shortMillis)),
          store.renew
        )
      })
  },
  {
    invariant: 7,
    name: "release gives back a part or all, and of what is not held nothing",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const a = { stream, claimId: name("a") }
        const b = { stream, claimId: name("b") }
        yield* store.release(a)
        yield* store.release({ stream: name("stream"), claimId: a.claimId }, make(0, 10))
        yield* store.claim(stream, make(0, 10), terms(a.claimId, time.longMillis))
        yield* store.claim(stream, make(10, 20), terms(b.claimId, time.longMillis))
        yield* store.release(a, make(5, 15))
        const answer = yield* store.claim(stream, make(0, 20), terms(name("c"), time.longMillis))
        yield* granted("what a gave back of [5,15)", answer, make(5, 10))
        yield* same("what is held by a and b", heldOf(answer), OffsetRanges.union(make(0, 5), make(10, 20)))
        yield* verdicts("a's complete", yield* store.complete(a, make(0, 10)), make(0, 5), empty, make(5, 10))
        yield* store.release(b)
        yield* store.release(b)
        yield* same("renew after release", yield* store.renew([{ ...b, leaseMillis: 1_000 }]), [undefined])
        yield* verdicts("complete after release", yield* store.complete(b, of(10)), empty, empty, of(10))
        const again = yield* store.claim(stream, make(10, 20), terms(name("d"), time.longMillis))
        yield* granted("what b gave back", again, make(10, 20))
        yield* store.release(b)
        yield* refused(
          "another's claim after b released once more what is no longer its own",
          yield* store.claim(stream, make(10, 20), terms(name("e"), time.longMillis))
        )
      })
  },
  {
    invariant: 7,
    name: "complete asked again changes nothing and answers AlreadyCompleted",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const ref = { stream: name("stream"), claimId: name("claim") }
        yield* store.claim(ref.stream, make(0, 10), terms(ref.claimId, time.longMillis))
        yield* store.complete(ref, make(0, 10))
        const before = yield* store.progress(ref.stream)
        yield* verdicts("asked again", yield* store.complete(ref, make(0, 10)), empty, make(0, 10), empty)
        yield* same("progress", yield* store.progress(ref.stream), before)
      })
  },
  {
    invariant: 7,
    name: "renew prolongs from now and never shortens",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const ref = { stream: name("stream"), claimId: name("claim") }
        const first = yield* store.claim(ref.stream, make(0, 10), terms(ref.claimId, time.longMillis))
        const shorter = yield* store.renew([{ ...ref, leaseMillis: time.shortMillis }])
        yield* same("renewed for less than is left", shorter, [first.until])
        const { answer, ...span } = yield* timed(
          time,
          store.renew([{ ...ref, leaseMillis: time.longMillis * 2 }])
        )
        yield* endsAfter("the lease renewed for longer", answer[0], time.longMillis * 2, span)
        const claims = (yield* store.progress(ref.stream))?.claims
        yield* same("the end that progress tells", claims?.[0].until, answer[0])
        yield* same("the token, which stays", claims?.[0].token, first.token)
      })
  },
  {
    invariant: 7,
    name: "renew revives a claim that is over but that nobody overlapped, with the same token",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const ref = { stream: name("stream"), claimId: name("claim") }
        const ask = store.claim(ref.stream, make(0, 10), terms(ref.claimId, time.shortMillis))
        const first = yield* ask
        yield* time.passTo(first.until as number)
        const { answer, ...span } = yield* timed(
          time,
          store.renew([{ ...ref, leaseMillis: time.longMillis }])
        )
        yield* endsAfter("the revived lease", answer[0], time.longMillis, span)
        yield* same("asked again: the token", (yield* ask).token, first.token)
        const other = yield* store.claim(ref.stream, of(3), terms(name("other"), time.longMillis))
        yield* refused("another's claim on it", other)
        yield* ensure(
          OffsetRanges.equals((yield* store.complete(ref, make(0, 10))).completed, make(0, 10)),
          () => "the revived claim does not complete what it holds"
        )
      })
  },
  {
    invariant: 3,
    name: "one offset is claimed and completed by the rules of ranges, whichever of the two verbs is used",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const mine = { stream, claimId: name("mine") }
        const other = { stream, claimId: name("other") }
        const claim = ({ claimId }: typeof mine, offset: number, leaseMillis = time.longMillis) =>
          store.claimOffset(stream, offset, terms(claimId, leaseMillis))
        const first = yield* claim(mine, 7)
        if (first?._tag !== "Claimed") return yield* broken(`a new offset: ${textOf(first)}`)
        const { token, until } = first
        yield* same("asked again", yield* claim(mine, 7), first)
        yield* same("the claim id for another offset", yield* claim(mine, 8), undefined)
        const held = { _tag: "InFlight", until, owner: mine.claimId }
        yield* same("what another is told", yield* claim(other, 7), held)
        yield* refused(
          "another's claim by ranges",
          yield* store.claim(stream, of(7), terms(name("ranges"), 1))
        )
        yield* same("completed by another", yield* store.completeOffset(other, 7), "LeaseLost")
        yield* same("completed", yield* store.completeOffset(mine, 7), "Completed")
        yield* same("completed again", yield* store.completeOffset(mine, 7), "AlreadyCompleted")
        yield* same("claimed when completed", yield* claim(other, 7), { _tag: "Completed" })
        const batch = { stream, claimId: name("batch") }
        yield* store.claim(stream, make(20, 23), terms(batch.claimId, time.longMillis))
        yield* same("one of a batch", yield* store.completeOffset(batch, 21), "Completed")
        const slow = { stream, claimId: name("slow") }
        const second = yield* claim(slow, 30, time.shortMillis)
        if (second?._tag !== "Claimed") return yield* broken(`another new offset: ${textOf(second)}`)
        yield* ensure(second.token > token, () => `the token ${second.token} after ${token}`)
        yield* time.passTo(second.until)
        const taken = yield* claim(other, 30)
        yield* same("claimed when the lease was over", taken?._tag, "Claimed")
        yield* same("completed too late", yield* store.completeOffset(slow, 30), "LeaseLost")
        const completed = (yield* store.progress(stream))?.completed
        yield* same("progress", String(completed), "[7,8) [21,22)")
      })
  },
  {
    invariant: 3,
    name: "annotate takes the note of who has the claim, in the place of the one before, and of nobody else",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const mine = { stream, claimId: name("mine") }
        const other = { stream, claimId: name("other") }
        const noteOf = (of: string) => Effect.map(store.progress(of), (progress) => progress?.note)
        const annotate = (ref: typeof mine, note: string) => store.annotate([{ ...ref, note }])
        yield* same("a note on a stream that never was", yield* annotate(mine, "early"), [false])
        yield* same("its progress", yield* store.progress(stream), undefined)
        const first = yield* store.claim(stream, make(0, 10), terms(mine.claimId, time.shortMillis))
        yield* same("the note where nothing was noted", yield* noteOf(stream), undefined)
        yield* same("a note", yield* annotate(mine, "one"), [true])
        const long = "\u{1F30A}".repeat(64)
        yield* same("another note, of 256 bytes", yield* annotate(mine, long), [true])
        yield* same("the note", yield* noteOf(stream), long)
        yield* same("a note by who has no claim", yield* annotate(other, "other"), [false])
        yield* store.complete(mine, make(0, 5))
        yield* same("the note after a complete", yield* noteOf(stream), long)
        yield* time.passTo(first.until as number)
        yield* same("a note when the lease is over, and nobody took it", yield* annotate(mine, "late"), [
          true
        ])
        yield* store.claim(stream, openEnded(0), terms(other.claimId, time.longMillis))
        yield* same("the note that the next owner finds", yield* noteOf(stream), "late")
        yield* same("a note when the claim is lost", yield* annotate(mine, "too late"), [false])
        const far = { stream: name("stream"), claimId: name("far") }
        yield* store.claim(far.stream, of(3), terms(far.claimId, time.longMillis))
        const answers = yield* store.annotate([
          { ...far, note: "far" },
          { ...mine, note: "mine" },
          { ...other, note: "other" }
        ])
        yield* same("notes on several streams, one of them lost", answers, [true, false, true])
        yield* same("the notes", [yield* noteOf(far.stream), yield* noteOf(stream)], ["far", "other"])
        yield* store.release(other)
        yield* same("a note after release", yield* annotate(other, "gone"), [false])
        yield* same("the note after release", yield* noteOf(stream), "other")
      })
  }
]
