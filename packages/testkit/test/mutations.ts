import { OffsetRanges, Protocol, StoreError } from "@tidemark/core"
import { Clock, Effect } from "effect"
import type { Data, Mutation } from "./referenceStore.ts"

const onOffsets =
  (
    change: (
      good: Parameters<Mutation>[0]["offsets"],
      data: Data
    ) => Partial<Parameters<Mutation>[0]["offsets"]>
  ): Mutation =>
  (good, data) => ({ ...good, offsets: { ...good.offsets, ...change(good.offsets, data) } })

const onKeys =
  (
    change: (good: Parameters<Mutation>[0]["keys"], data: Data) => Partial<Parameters<Mutation>[0]["keys"]>
  ): Mutation =>
  (good, data) => ({ ...good, keys: { ...good.keys, ...change(good.keys, data) } })

const shifted = <A, E>(millis: number, call: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.flatMap(Clock.Clock, (clock) => {
    const moved = { ...clock } as Clock.Clock
    const now = clock.currentTimeMillisUnsafe() + millis
    return Effect.provideService(
      call,
      Clock.Clock,
      Object.assign(Object.create(clock) as Clock.Clock, moved, {
        currentTimeMillisUnsafe: () => now,
        currentTimeMillis: Effect.succeed(now)
      })
    )
  })

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

const failure = (verb: string): StoreError =>
  new StoreError({ store: "bad", verb, reason: "Unavailable", detail: "a mutation", retriable: true })

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

const at = <A>(act: (now: number) => A): Effect.Effect<A> => Effect.map(Clock.currentTimeMillis, act)

const normalised = (normalise: (name: string) => string): Mutation =>
  onKeys((good) => ({
    claim: (namespace, items, terms) =>
      good.claim(
        namespace,
        items.map((item) => ({ ...item, key: normalise(item.key) })),
        terms
      ),
    complete: (claim, items, retention) =>
      good.complete(
        claim,
        items.map((item) => ({ ...item, key: normalise(item.key) })),
        retention
      ),
    lookup: (namespace, keys) => good.lookup(namespace, keys.map(normalise))
  }))

const changedClaim = (
  change: (
    answer: Protocol.KeyClaimAnswer,
    items: ReadonlyArray<Protocol.KeyItem>,
    index: number
  ) => Protocol.KeyClaimAnswer
): Mutation =>
  onKeys((good) => ({
    claim: (namespace, items, terms) =>
      Effect.map(good.claim(namespace, items, terms), (answers) =>
        answers?.map((answer, index) => change(answer, items, index))
      )
  }))

/** Stores of keys that each break the contract in one way. */
export const badKeyStores: Readonly<Record<string, Mutation>> = {
  "looks first, and then claims": onKeys((good, data) => ({
    claim: (namespace, items, terms) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const free = items.filter(({ key }) => data.keys.lookup(namespace, key, now)._tag === "Unknown")
        // whoever claims meanwhile is overlooked
        yield* Effect.yieldNow
        for (const { key } of free) {
          const entry = data.table.find(namespace, key)
          const holder = entry === -1 ? undefined : data.table.claimOf(entry)
          if (holder !== undefined && holder.claimId !== terms.claimId) data.keys.forget(namespace, key)
        }
        return yield* good.claim(namespace, items, terms)
      })
  })),
  "grants what is held": onKeys((good, data) => ({
    claim: (namespace, items, terms) =>
      Effect.suspend(() => {
        for (const { key } of items) {
          const entry = data.table.find(namespace, key)
          const holder = entry === -1 ? undefined : data.table.claimOf(entry)
          if (holder !== undefined && holder.claimId !== terms.claimId) data.keys.forget(namespace, key)
        }
        return good.claim(namespace, items, terms)
      })
  })),
  "grants equal keys twice": changedClaim((answer, items, index) => {
    const first = items.findIndex(({ key }) => key === items[index].key)
    return answer._tag === "InFlight" && first < index
      ? { _tag: "Claimed", token: answer.until * 1_000, until: answer.until }
      : answer
  }),
  "grants what is completed": onKeys((good, data) => ({
    claim: (namespace, items, terms) =>
      Effect.suspend(() => {
        for (const { key } of items) {
          const entry = data.table.find(namespace, key)
          if (entry !== -1 && data.table.claimOf(entry) === undefined) data.keys.forget(namespace, key)
        }
        return good.claim(namespace, items, terms)
      })
  })),
  "prolongs the lease when asked again": onKeys((good) => ({
    claim: (namespace, items, terms) =>
      Effect.tap(good.claim(namespace, items, terms), () =>
        good.renew([{ namespace, claimId: terms.claimId, leaseMillis: terms.leaseMillis }])
      )
  })),
  "gives the same token twice": onKeys((good) => ({
    claim: (namespace, items, terms) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const answers = yield* good.claim(namespace, items, terms)
        return answers?.map((answer) =>
          answer._tag === "Claimed" ? { ...answer, token: now * 1_000 } : answer
        )
      })
  })),
  "gives another token when asked again": onKeys((good) => {
    let more = 0
    return {
      claim: (namespace, items, terms) =>
        Effect.map(good.claim(namespace, items, terms), (answers) => {
          more += 1
          return answers?.map((answer) =>
            answer._tag === "Claimed" ? { ...answer, token: answer.token + more } : answer
          )
        })
    }
  }),
  "forgets a completion": onKeys((good) => ({
    complete: (claim, items, retention) =>
      Effect.gen(function* () {
        const answers = yield* good.complete(claim, items.slice(1), retention)
        return items.length === 1 ? yield* good.complete(claim, items, retention) : ["Completed", ...answers]
      })
  })),
  "accepts a complete after the claim was lost": onKeys((good) => ({
    complete: (claim, items, retention) =>
      Effect.map(good.complete(claim, items, retention), (answers) =>
        answers.map((answer) => (answer === "LeaseLost" ? "Completed" : answer))
      )
  })),
  "spoils a batch for one lost key": onKeys((good) => ({
    complete: (claim, items, retention) =>
      Effect.map(good.complete(claim, items, retention), (answers) =>
        answers.includes("LeaseLost") ? answers.map(() => "LeaseLost" as const) : answers
      )
  })),
  "spoils a batch for one bad key": onKeys((good) => ({
    claim: (namespace, items, terms) =>
      new Set(items.map(({ key }) => key)).size < items.length
        ? Effect.fail(failure("claim"))
        : good.claim(namespace, items, terms)
  })),
  "evicts a live claim": onKeys((good, data) => {
    const claims: Array<[string, string]> = []
    return {
      claim: (namespace, items, terms) =>
        Effect.suspend(() => {
          claims.push([namespace, items[0]?.key ?? ""])
          if (claims.length % 97 === 0) {
            for (const [space, key] of claims.splice(0, 96)) {
              const entry = data.table.find(space, key)
              if (entry !== -1 && data.table.claimOf(entry) !== undefined) data.keys.forget(space, key)
            }
          }
          return good.claim(namespace, items, terms)
        })
    }
  }),
  "takes over all of an expired claim": onKeys((good, data) => ({
    claim: (namespace, items, terms) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        for (const { key } of items) {
          const entry = data.table.find(namespace, key)
          const holder = entry === -1 ? undefined : data.table.claimOf(entry)
          if (holder !== undefined && holder.until <= now && holder.claimId !== terms.claimId)
            data.keys.release(holder.claimId)
        }
        return good.claim(namespace, items, terms)
      })
  })),
  "answers in another order": onKeys((good) => ({
    lookup: (namespace, keys) => Effect.map(good.lookup(namespace, keys), (answers) => answers.toReversed())
  })),
  "answers renewals in another order": onKeys((good) => ({
    renew: (claims) => Effect.map(good.renew(claims), (answers) => answers.toReversed())
  })),
  "remembers a millisecond too long": onKeys((good) => ({
    complete: (claim, items, retention) => good.complete(claim, items, retention + 1)
  })),
  "remembers a millisecond too short": onKeys((good) => ({
    complete: (claim, items, retention) => good.complete(claim, items, Math.max(0.5, retention - 1))
  })),
  "holds a millisecond too long": onKeys((good) => ({
    claim: (namespace, items, terms) => shifted(-1, good.claim(namespace, items, terms))
  })),
  "loses empty results": onKeys((good) => ({
    complete: (claim, items, retention) =>
      good.complete(
        claim,
        items.map((item) => ({ ...item, result: item.result || undefined })),
        retention
      )
  })),
  "overwrites a result": onKeys((good, data) => ({
    complete: (claim, items, retention) =>
      Effect.tap(good.complete(claim, items, retention), (answers) =>
        at((now) => {
          answers.forEach((answer, index) => {
            const entry = data.table.find(claim.namespace, items[index].key)
            if (answer === "AlreadyCompleted")
              data.table.complete(entry, now + retention, items[index].result)
          })
        })
      )
  })),
  "does not compare payloads": onKeys((good) => ({
    claim: (namespace, items, terms) =>
      good.claim(
        namespace,
        items.map(({ key }) => ({ key })),
        terms
      )
  })),
  "keeps a payload's fingerprint for ever": onKeys((good) => {
    const first = new Map<string, string | undefined>()
    return {
      claim: (namespace, items, terms) =>
        Effect.map(good.claim(namespace, items, terms), (answers) =>
          answers?.map((answer, index) => {
            const { fingerprint, key } = items[index]
            const name = JSON.stringify([namespace, key])
            const stored = first.get(name)
            if (stored !== undefined && fingerprint !== undefined && stored !== fingerprint)
              return { _tag: "Mismatch" as const, fingerprint: stored }
            first.set(name, stored ?? fingerprint)
            return answer
          })
        )
    }
  }),
  "takes a claim id for other keys": onKeys((good) => ({
    claim: (namespace, items, terms) =>
      Effect.flatMap(good.claim(namespace, items, terms), (answers) =>
        answers === undefined
          ? good.claim(namespace, items, { ...terms, claimId: `${terms.claimId}-other` })
          : Effect.succeed(answers)
      )
  })),
  "gives back what is completed": onKeys((good, data) => ({
    release: (claim, keys) =>
      Effect.andThen(
        Effect.sync(() => {
          for (const key of keys ?? []) {
            const entry = data.table.find(claim.namespace, key)
            if (entry !== -1 && data.table.claimOf(entry) === undefined) data.table.remove(entry)
          }
        }),
        good.release(claim, keys)
      )
  })),
  "gives back what another holds": onKeys((good, data) => ({
    release: (claim, keys) =>
      Effect.andThen(
        Effect.sync(() => {
          for (const key of keys ?? []) {
            const entry = data.table.find(claim.namespace, key)
            if (entry !== -1 && data.table.claimOf(entry) !== undefined)
              data.keys.forget(claim.namespace, key)
          }
        }),
        good.release(claim, keys)
      )
  })),
  "does not revive": onKeys((good, data) => ({
    renew: (claims) =>
      Effect.map(Clock.currentTimeMillis, (now) =>
        claims.map(({ claimId, leaseMillis }) => {
          const until = data.keys.renew(claimId, 0.001, now)
          return until === undefined || until <= now + 0.001
            ? undefined
            : data.keys.renew(claimId, leaseMillis, now)
        })
      ),
    claim: good.claim
  })),
  "normalises keys": normalised((key) => key.normalize("NFC")),
  "trims keys": normalised((key) => key.trim() || key),
  "ends keys at a NUL": normalised((key) => key.split("\u0000")[0] || key),
  "joins namespace and key": onKeys((good) => {
    const joined = (namespace: string, key: string): string => `${namespace}:${key}`
    return {
      claim: (namespace, items, terms) =>
        good.claim(
          "n",
          items.map((item) => ({ ...item, key: joined(namespace, item.key) })),
          terms
        ),
      complete: (claim, items, retention) =>
        good.complete(
          { ...claim, namespace: "n" },
          items.map((item) => ({ ...item, key: joined(claim.namespace, item.key) })),
          retention
        ),
      release: (claim, keys) =>
        good.release(
          claim,
          keys?.map((key) => joined(claim.namespace, key))
        ),
      lookup: (namespace, keys) =>
        good.lookup(
          "n",
          keys.map((key) => joined(namespace, key))
        ),
      forget: (namespace, keys) =>
        good.forget(
          "n",
          keys.map((key) => joined(namespace, key))
        )
    }
  }),
  "counts what it did not know": onKeys((good) => ({
    forget: (namespace, keys) => Effect.map(good.forget(namespace, keys), () => keys.length)
  })),
  "loses claims on a restart": (good, data) => {
    data.keys = new Protocol.KeyState(data.table)
    return good
  },
  "loses all on a restart": (good, data) => {
    data.keys = new Protocol.KeyState(new Protocol.MapKeyTable())
    return good
  }
}
