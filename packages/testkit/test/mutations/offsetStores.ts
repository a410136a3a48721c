import { OffsetRanges, Protocol } from "@tidemark/core"
import { Clock, Effect } from "effect"
import type { Mutation } from "../referenceStore.ts"
import { at, failure, onOffsets, shifted } from "./shared.ts"

/** As Redis' Lua writes a large number when it is not told how. */
const rounded = (ranges: OffsetRanges.OffsetRanges): OffsetRanges.OffsetRanges => {
  const flat = ranges.flat.map((offset) => Number(offset.toPrecision(14)))
  return OffsetRanges.fromRanges(
    Array.from({ length: flat.length / 2 }, (_, index) => {
      const from = Math.min(flat[index * 2], Number.MAX_SAFE_INTEGER)
      return [from, Math.max(from + 1, Math.min(flat[index * 2 + 1], OffsetRanges.END))] as const
    })
  )
}

/** Stores of positions that each break the contract in one way. */
export const badOffsetStores: Readonly<Record<string, Mutation>> = {
  "looks first, and then claims": onOffsets((good, data) => ({
    claim: (stream, ranges, terms) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const others = data.streams.get(stream)?.progress(now)?.claims ?? []
        const isFree = others.every(({ ranges: held }) => !OffsetRanges.overlaps(held, ranges))
        if (!isFree) return yield* good.claim(stream, ranges, terms)
        // whoever claims meanwhile is overlooked
        yield* Effect.yieldNow
        for (const claim of data.streams.get(stream)?.progress(now)?.claims ?? []) {
          if (claim.claimId !== terms.claimId) data.streams.get(stream)?.release(claim.claimId, ranges)
        }
        return yield* good.claim(stream, ranges, terms)
      })
  })),
  "grants what is held": onOffsets((good, data) => ({
    claim: (stream, ranges, terms) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        for (const claim of data.streams.get(stream)?.progress(now)?.claims ?? []) {
          if (claim.claimId !== terms.claimId && OffsetRanges.overlaps(claim.ranges, ranges)) {
            data.streams.get(stream)?.release(claim.claimId, ranges)
          }
        }
        return yield* good.claim(stream, ranges, terms)
      })
  })),
  "grants a single offset that is held": onOffsets((good) => ({
    claimOffset: (stream, offset, terms) =>
      Effect.map(good.claim(stream, OffsetRanges.of(offset), terms), (answer) =>
        answer === undefined ? undefined : { _tag: "Claimed", token: answer.token ?? 1, until: 1 }
      )
  })),
  "completes a single offset for whoever asks": onOffsets((good) => ({
    completeOffset: (ref, offset) =>
      Effect.map(good.complete(ref, OffsetRanges.of(offset)), () => "Completed")
  })),
  "grants an open-ended claim in part": onOffsets((good) => ({
    claim: (stream, ranges, terms) =>
      Effect.gen(function* () {
        const answer = yield* good.claim(stream, ranges, terms)
        if (!OffsetRanges.isOpenEnded(ranges) || answer === undefined || answer.held.length === 0)
          return answer
        const rest = answer.held.reduce(
          (all, part) => OffsetRanges.subtract(all, part.ranges),
          OffsetRanges.subtract(ranges, answer.completed)
        )
        return OffsetRanges.isEmpty(rest) ? answer : yield* good.claim(stream, rest, terms)
      })
  })),
  "prolongs the lease when asked again": onOffsets((good) => ({
    claim: (stream, ranges, terms) =>
      Effect.tap(good.claim(stream, ranges, terms), () =>
        good.renew([{ stream, claimId: terms.claimId, leaseMillis: terms.leaseMillis }])
      )
  })),
  "gives the same token twice": onOffsets((good) => ({
    claim: (stream, ranges, terms) =>
      Effect.gen(function* () {
        const answer = yield* good.claim(stream, ranges, terms)
        const now = yield* Clock.currentTimeMillis
        return answer?.token === undefined ? answer : { ...answer, token: now * 1_000 }
      })
  })),
  "gives small tokens": onOffsets((good, data) => ({
    claim: (stream, ranges, terms) =>
      Effect.map(good.claim(stream, ranges, terms), (answer) =>
        answer?.token === undefined ? answer : { ...answer, token: answer.token - 1_700_000_000_000_000 }
      ),
    progress: (stream) =>
      at((now) => {
        const progress = data.streams.get(stream)?.progress(now)
        return progress && { ...progress, lastToken: progress.lastToken - 1_700_000_000_000_000 }
      })
  })),
  "forgets a completion": onOffsets((good) => ({
    complete: (claim, ranges) =>
      Effect.gen(function* () {
        const first = OffsetRanges.of(OffsetRanges.first(ranges) as number)
        const rest = OffsetRanges.subtract(ranges, first)
        if (OffsetRanges.isEmpty(rest)) return yield* good.complete(claim, ranges)
        const answer = yield* good.complete(claim, rest)
        return { ...answer, completed: OffsetRanges.union(answer.completed, first) }
      })
  })),
  "accepts a complete after the claim was lost": onOffsets((good) => ({
    complete: (claim, ranges) =>
      Effect.map(good.complete(claim, ranges), (answer) => ({
        ...answer,
        completed: OffsetRanges.union(answer.completed, answer.leaseLost),
        leaseLost: OffsetRanges.empty
      }))
  })),
  "does not complete after the lease": onOffsets((good, data) => ({
    complete: (claim, ranges) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const live = data.streams.get(claim.stream)?.progress(now)?.claims ?? []
        const isLive = live.some((one) => one.claimId === claim.claimId)
        return yield* good.complete(isLive ? claim : { ...claim, claimId: "nobody" }, ranges)
      })
  })),
  "evicts a live claim": onOffsets((good, data) => {
    let count = 0
    return {
      claim: (stream, ranges, terms) =>
        Effect.gen(function* () {
          const now = yield* Clock.currentTimeMillis
          count += 1
          if (count % 31 === 0) {
            for (const name of [stream, ...data.streams.keys()]) {
              const claims = data.streams.get(name)?.progress(now)?.claims ?? []
              const victim = claims.find(({ claimId }) => claimId !== terms.claimId)
              if (victim === undefined) continue
              data.streams.get(name)?.release(victim.claimId)
              break
            }
          }
          return yield* good.claim(stream, ranges, terms)
        })
    }
  }),
  "takes a claim id for other ranges": onOffsets((good) => ({
    claim: (stream, ranges, terms) =>
      Effect.flatMap(good.claim(stream, ranges, terms), (answer) =>
        answer === undefined
          ? good.claim(stream, ranges, { ...terms, claimId: `${terms.claimId}-other` })
          : Effect.succeed(answer)
      )
  })),
  "refuses a claim id, but gives the claim up": onOffsets((good) => ({
    claim: (stream, ranges, terms) =>
      Effect.tap(good.claim(stream, ranges, terms), (answer) =>
        answer === undefined ? good.release({ stream, claimId: terms.claimId }) : Effect.void
      )
  })),
  "shortens a lease that is renewed": onOffsets((good, data) => ({
    renew: (claims) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const answers = yield* good.renew(claims)
        return answers.map((until, index) =>
          until === undefined || data === undefined ? until : Math.min(until, now + claims[index].leaseMillis)
        )
      })
  })),
  "does not revive": onOffsets((good, data) => ({
    renew: (claims) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        good.renew(
          claims.map((claim) => {
            const live = data.streams.get(claim.stream)?.progress(now)?.claims ?? []
            return live.some(({ claimId }) => claimId === claim.claimId)
              ? claim
              : { ...claim, claimId: "nobody" }
          })
        )
      )
  })),
  "answers renewals in another order": onOffsets((good) => ({
    renew: (claims) => Effect.map(good.renew(claims), (answers) => answers.toReversed())
  })),
  "fails to release what it does not know": onOffsets((good, data) => ({
    release: (claim, ranges) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        (data.streams.get(claim.stream)?.renew(claim.claimId, 0.001, now) ?? undefined) === undefined
          ? Effect.fail(failure("release"))
          : good.release(claim, ranges)
      )
  })),
  "releases all where a part is given back": onOffsets((good) => ({
    release: (claim) => good.release(claim)
  })),
  "releases nothing": onOffsets(() => ({ release: () => Effect.void })),
  "rewinds without superseding": onOffsets((_, data) => ({
    rewind: (stream, to) =>
      at((now) => {
        const state = data.streams.get(stream)
        const claims = state?.snapshot?.claims.slice() ?? []
        state?.rewind(to)
        const snapshot = state?.snapshot
        if (snapshot !== undefined && now > 0)
          data.streams.set(stream, Protocol.StreamState.restore({ ...snapshot, claims }))
      })
  })),
  "rewinds one too far": onOffsets((good) => ({
    rewind: (stream, to) => good.rewind(stream, Math.max(0, to - 1))
  })),
  "skips without a new epoch": onOffsets((_, data) => ({
    skip: (stream, ranges) =>
      Effect.sync(() => {
        const state = data.streams.get(stream) ?? new Protocol.StreamState()
        const epoch = state.snapshot?.epoch ?? 0
        state.skip(ranges)
        const snapshot = state.snapshot
        if (snapshot !== undefined)
          data.streams.set(stream, Protocol.StreamState.restore({ ...snapshot, epoch }))
      })
  })),
  "notes for whoever asks": onOffsets((good, data) => ({
    annotate: (notes) =>
      Effect.andThen(
        good.annotate(notes),
        Effect.sync(() =>
          notes.map(({ note, stream }) => {
            const snapshot = data.streams.get(stream)?.snapshot
            if (snapshot !== undefined)
              data.streams.set(stream, Protocol.StreamState.restore({ ...snapshot, note }))
            return snapshot !== undefined
          })
        )
      )
  })),
  "keeps the first note": onOffsets((good, data) => ({
    annotate: (notes) =>
      Effect.suspend(() => {
        const before = notes.map(({ stream }) => data.streams.get(stream)?.snapshot?.note)
        return good.annotate(notes.map((note, index) => ({ ...note, note: before[index] ?? note.note })))
      })
  })),
  "answers that a note was lost, and keeps it": onOffsets((good) => ({
    annotate: (notes) => Effect.map(good.annotate(notes), (answers) => answers.map(() => false))
  })),
  "rewinds the note away": onOffsets((good, data) => ({
    rewind: (stream, to) =>
      Effect.andThen(
        good.rewind(stream, to),
        Effect.sync(() => {
          const snapshot = data.streams.get(stream)?.snapshot
          if (snapshot !== undefined)
            data.streams.set(stream, Protocol.StreamState.restore({ ...snapshot, note: undefined }))
        })
      )
  })),
  "copies without the note": onOffsets((_, data) => ({
    copy: (from, to) =>
      at((now) => {
        const progress = data.streams.get(from)?.progress(now)
        if (progress === undefined) return true
        if (data.streams.get(to)?.progress(now) !== undefined) return false
        const target = new Protocol.StreamState()
        target.adopt({ ...progress, note: undefined })
        data.streams.set(to, target)
        return true
      })
  })),
  "copies over what is there": onOffsets((_, data) => ({
    copy: (from, to) =>
      at((now) => {
        const progress = data.streams.get(from)?.progress(now)
        if (progress === undefined) return true
        const target = new Protocol.StreamState()
        target.adopt(progress)
        data.streams.set(to, target)
        return true
      })
  })),
  "lets tokens fall when a stream is forgotten": onOffsets((_, data) => ({
    forget: (stream) =>
      Effect.sync(() => {
        const known = data.streams.delete(stream)
        data.tokenFloor = 0
        return known
      })
  })),
  "holds a millisecond too long": onOffsets((good) => ({
    claim: (stream, ranges, terms) => shifted(-1, good.claim(stream, ranges, terms))
  })),
  "rounds large numbers": onOffsets((good) => ({
    claim: (stream, ranges, terms) => good.claim(stream, rounded(ranges), terms),
    complete: (claim, ranges) => good.complete(claim, rounded(ranges))
  })),
  "counts the gaps wrong": onOffsets((good) => ({
    progress: (stream) =>
      Effect.map(
        good.progress(stream),
        (progress) => progress && { ...progress, gapCount: progress.highest - progress.watermark }
      )
  })),
  "loses claims on a restart": (good, data) => {
    for (const [name, state] of data.streams) {
      const snapshot = state.snapshot
      if (snapshot !== undefined)
        data.streams.set(name, Protocol.StreamState.restore({ ...snapshot, claims: [] }))
    }
    return good
  },
  "loses progress on a restart": (good, data) => {
    data.streams.clear()
    return good
  },
  "mixes up streams that differ in case": onOffsets((good) => ({
    claim: (stream, ranges, terms) => good.claim(stream.toLowerCase(), ranges, terms),
    complete: (claim, ranges) => good.complete({ ...claim, stream: claim.stream.toLowerCase() }, ranges),
    progress: (stream) => good.progress(stream.toLowerCase())
  }))
}
