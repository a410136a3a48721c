import { OffsetRanges, OffsetSet, Protocol } from "@tidemark/core"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type NaiveAnswer, NaiveStream, tail } from "./naiveStream.ts"

const toRanges = (offsets: ReadonlyArray<number>): OffsetRanges.OffsetRanges => {
  const below = OffsetRanges.fromOffsets(offsets.filter((offset) => offset < tail))
  return offsets.includes(tail) ? OffsetRanges.union(below, OffsetRanges.openEnded(tail)) : below
}

const toOffsets = (ranges: OffsetRanges.OffsetRanges): ReadonlyArray<number> =>
  Array.from({ length: tail + 1 }, (_, offset) => offset).filter((offset) =>
    OffsetRanges.contains(ranges, offset)
  )

const unionOf = (parts: ReadonlyArray<Protocol.HeldRanges>): ReadonlyArray<number> =>
  toOffsets(parts.reduce((all, part) => OffsetRanges.union(all, part.ranges), OffsetRanges.empty))

const claimId = fc.integer({ min: 0, max: 5 }).map((number) => `claim-${number}`)
const lease = fc.integer({ min: 1, max: 50 })
const closed = fc
  .uniqueArray(fc.integer({ min: 0, max: tail - 1 }), { minLength: 1, maxLength: 12 })
  .map((offsets) => offsets.sort((a, b) => a - b))
const openEnded = fc
  .integer({ min: 0, max: tail })
  .map((from) => Array.from({ length: tail + 1 - from }, (_, index) => from + index))
const asked = fc.oneof({ weight: 4, arbitrary: closed }, { weight: 1, arbitrary: openEnded })

/** So few that they meet often. */
const single = fc.integer({ min: 10, max: 16 })

type Command =
  | {
      readonly verb: "claim"
      readonly id: string
      readonly offsets: ReadonlyArray<number>
      readonly lease: number
    }
  | { readonly verb: "complete"; readonly id: string; readonly offsets: ReadonlyArray<number> }
  | { readonly verb: "claimOffset"; readonly id: string; readonly offset: number; readonly lease: number }
  | { readonly verb: "completeOffset"; readonly id: string; readonly offset: number }
  | { readonly verb: "release"; readonly id: string; readonly offsets: ReadonlyArray<number> | undefined }
  | { readonly verb: "renew"; readonly id: string; readonly lease: number }
  | { readonly verb: "annotate"; readonly id: string; readonly note: string }
  | { readonly verb: "rewind"; readonly to: number }
  | { readonly verb: "skip"; readonly offsets: ReadonlyArray<number> }
  | { readonly verb: "wait"; readonly millis: number }
  | { readonly verb: "restore" }

const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ verb: fc.constant("claim" as const), id: claimId, offsets: asked, lease })
  },
  {
    weight: 6,
    arbitrary: fc.record({ verb: fc.constant("complete" as const), id: claimId, offsets: closed })
  },
  {
    weight: 6,
    arbitrary: fc.record({ verb: fc.constant("claimOffset" as const), id: claimId, offset: single, lease })
  },
  {
    weight: 6,
    arbitrary: fc.record({ verb: fc.constant("completeOffset" as const), id: claimId, offset: single })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      verb: fc.constant("release" as const),
      id: claimId,
      offsets: fc.option(closed, { nil: undefined })
    })
  },
  { weight: 2, arbitrary: fc.record({ verb: fc.constant("renew" as const), id: claimId, lease }) },
  {
    weight: 2,
    arbitrary: fc.record({
      verb: fc.constant("annotate" as const),
      id: claimId,
      note: fc.constantFrom("one", "two", "three")
    })
  },
  {
    weight: 1,
    arbitrary: fc.record({ verb: fc.constant("rewind" as const), to: fc.integer({ min: 0, max: tail - 1 }) })
  },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant("skip" as const), offsets: closed }) },
  {
    weight: 4,
    arbitrary: fc.record({ verb: fc.constant("wait" as const), millis: fc.integer({ min: 1, max: 120 }) })
  },
  { weight: 2, arbitrary: fc.constant({ verb: "restore" as const }) }
)

/** The stream as a store would read it again. */
const restored = (state: Protocol.StreamState): Protocol.StreamState => {
  const { snapshot } = state
  if (snapshot === undefined) return new Protocol.StreamState(state.token)
  const completed = OffsetSet.fromRanges(snapshot.completed.toRanges(), snapshot.completed.origin)
  return Protocol.StreamState.restore({ ...snapshot, completed })
}

/** What the model says of one offset, in the words of the short way. */
const answerOfModel = (
  answer: NaiveAnswer | undefined,
  heldUntil: number | undefined
): Protocol.OneOffsetAnswer | undefined => {
  if (answer === undefined) return undefined
  const { granted, held, token, until } = answer
  if (granted.length > 0) return { _tag: "Claimed", token: token as number, until: until as number }
  return held.length > 0
    ? { _tag: "InFlight", until: heldUntil as number, owner: "somebody" }
    : { _tag: "Completed" }
}

type Way = "short" | "long"

/** Does one command, those on one offset in the short way or in the long one. */
const done = (state: Protocol.StreamState, way: Way, command: Command, now: number): unknown => {
  switch (command.verb) {
    case "claim":
    case "claimOffset": {
      const terms = { claimId: command.id, owner: command.id, leaseMillis: command.lease }
      if (command.verb === "claim") return state.claim(toRanges(command.offsets), terms, now)
      return way === "short"
        ? state.claimOffset(command.offset, terms, now)
        : Protocol.answerOfOne(state.claim(OffsetRanges.of(command.offset), terms, now))
    }
    case "complete":
      return state.complete(command.id, toRanges(command.offsets), now)
    case "completeOffset":
      return way === "short"
        ? state.completeOffset(command.id, command.offset, now)
        : Protocol.completionOfOne(state.complete(command.id, OffsetRanges.of(command.offset), now))
    case "release":
      return state.release(command.id, command.offsets && toRanges(command.offsets))
    case "renew":
      return state.renew(command.id, command.lease, now)
    case "annotate":
      return state.annotate(command.id, command.note, now)
    case "rewind":
      return state.rewind(command.to)
    case "skip":
      return state.skip(toRanges(command.offsets))
    case "wait":
    case "restore":
  }
}

/** All that a stream knows, claims in order, as plain values. */
const spelledOut = (state: Protocol.StreamState, now: number): unknown => ({
  progress: JSON.stringify(state.progress(now)),
  claims: state.snapshot?.claims.map(({ claimId, owner, token, leaseMillis, until, requested, held }) => ({
    ...{ claimId, owner, token, leaseMillis, until },
    requested: String(requested),
    held: String(held)
  }))
})

/** Does one command on both, and compares what they answer. */
const step = (real: Protocol.StreamState, model: NaiveStream, command: Command, now: number): void => {
  switch (command.verb) {
    case "claim": {
      const terms = { claimId: command.id, owner: "somebody", leaseMillis: command.lease }
      const expected = model.claim(command.id, command.offsets, terms, now)
      const answer = real.claim(toRanges(command.offsets), terms, now)
      expect(
        answer && {
          granted: toOffsets(answer.granted),
          completed: toOffsets(answer.completed),
          held: unionOf(answer.held),
          token: answer.token,
          until: answer.until
        }
      ).toEqual(expected)
      return
    }
    case "complete": {
      const expected = model.complete(command.id, command.offsets, now)
      const answer = real.complete(command.id, toRanges(command.offsets), now)
      expect({
        completed: toOffsets(answer.completed),
        already: toOffsets(answer.alreadyCompleted),
        lost: toOffsets(answer.leaseLost)
      }).toEqual(expected)
      return
    }
    case "claimOffset": {
      const terms = { claimId: command.id, owner: "somebody", leaseMillis: command.lease }
      const holder = model.liveHolder(command.offset, now)
      const expected = model.claim(command.id, [command.offset], terms, now)
      expect(real.claimOffset(command.offset, terms, now)).toEqual(answerOfModel(expected, holder?.until))
      return
    }
    case "completeOffset": {
      const { completed, already } = model.complete(command.id, [command.offset], now)
      const expected =
        completed.length > 0 ? "Completed" : already.length > 0 ? "AlreadyCompleted" : "LeaseLost"
      expect(real.completeOffset(command.id, command.offset, now)).toBe(expected)
      return
    }
    case "release":
      model.release(command.id, command.offsets)
      real.release(command.id, command.offsets && toRanges(command.offsets))
      return
    case "renew":
      expect(real.renew(command.id, command.lease, now)).toBe(model.renew(command.id, command.lease, now))
      return
    case "annotate":
      expect(real.annotate(command.id, command.note, now)).toBe(model.annotate(command.id, command.note, now))
      return
    case "rewind":
      model.rewind(command.to)
      real.rewind(command.to)
      return
    case "skip":
      model.skip(command.offsets)
      real.skip(toRanges(command.offsets))
      return
    case "wait":
    case "restore":
  }
}

const compareState = (real: Protocol.StreamState, model: NaiveStream, now: number): void => {
  const progress = real.progress(now)
  expect(progress === undefined).toBe(model.origin === undefined)
  if (progress === undefined) return
  expect(progress.origin).toBe(model.origin)
  expect(toOffsets(progress.completed)).toEqual([...model.completed].sort((a, b) => a - b))
  expect(progress.watermark).toBe(model.watermark())
  expect(progress.epoch).toBe(model.epoch)
  expect(progress.lastToken).toBe(model.lastToken)
  expect(progress.note).toBe(model.note)
  const live = new Set<number>()
  for (const claim of progress.claims) {
    for (const offset of toOffsets(claim.ranges)) {
      expect(live.has(offset), `two live claims cover offset ${offset}`).toBe(false)
      live.add(offset)
      expect(model.liveHolder(offset, now)?.id).toBe(claim.claimId)
    }
  }
}

describe("StreamState", () => {
  it("answers as the words of the invariants say, whatever is asked in whatever order", () => {
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
        let real = new Protocol.StreamState()
        const model = new NaiveStream()
        let now = 1_000
        for (const next of commands) {
          if (next.verb === "wait") now += next.millis
          if (next.verb === "restore") real = restored(real)
          step(real, model, next, now)
          compareState(real, model, now)
        }
      }),
      { numRuns: 400 }
    )
  })

  it("does for one offset in the short way exactly what it does in the long one", () => {
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
        let short = new Protocol.StreamState()
        let long = new Protocol.StreamState()
        let now = 1_000
        for (const next of commands) {
          if (next.verb === "wait") now += next.millis
          if (next.verb === "restore") {
            short = restored(short)
            long = restored(long)
          }
          expect(done(short, "short", next, now)).toEqual(done(long, "long", next, now))
          expect(spelledOut(short, now)).toEqual(spelledOut(long, now))
        }
      }),
      { numRuns: 400 }
    )
  })

  const terms = (claimId: string, leaseMillis = 100): Protocol.ClaimTerms => ({
    claimId,
    owner: claimId,
    leaseMillis
  })

  it("gives tokens that grow with every claim, also when the clock stands still or steps back", () => {
    const state = new Protocol.StreamState()
    const tokens = [5_000, 5_000, 4_000, 9_000].map(
      (now, index) => state.claim(OffsetRanges.of(index), terms(`c${index}`), now)?.token as number
    )
    expect(tokens).toEqual([5_000_000, 5_000_001, 5_000_002, 9_000_000])
  })

  it("judges a lease to the millisecond: held one before its end, free at its end", () => {
    const state = new Protocol.StreamState()
    state.claim(OffsetRanges.of(7), terms("first", 100), 0)
    expect(state.claim(OffsetRanges.of(7), terms("early"), 99)?.token).toBeUndefined()
    expect(state.claimOffset(7, terms("early"), 99)).toEqual({ _tag: "InFlight", until: 100, owner: "first" })
    expect(state.claim(OffsetRanges.of(7), terms("late"), 100)?.token).toBeDefined()
    expect(OffsetRanges.isEmpty(state.complete("first", OffsetRanges.of(7), 100).completed)).toBe(true)
  })

  it("keeps a claim that is over for 10 leases: completed up to then, lost from then on", () => {
    for (const [now, completes] of [
      [1_099, true],
      [1_100, false]
    ] as const) {
      const state = new Protocol.StreamState()
      state.claim(OffsetRanges.of(7), terms("slow", 100), 0)
      expect(OffsetRanges.isEmpty(state.complete("slow", OffsetRanges.of(7), now).completed)).toBe(!completes)
      const short = new Protocol.StreamState()
      short.claimOffset(7, terms("slow", 100), 0)
      expect(short.completeOffset("slow", 7, now)).toBe(completes ? "Completed" : "LeaseLost")
    }
  })

  it("grants an open-ended claim whole or not at all, completed parts excepted", () => {
    const state = new Protocol.StreamState()
    state.claim(OffsetRanges.make(0, 20), terms("batch"), 0)
    state.complete("batch", OffsetRanges.make(5, 10), 0)
    expect(state.claim(OffsetRanges.openEnded(5), terms("owner"), 0)?.token).toBeUndefined()
    expect(String(state.claim(OffsetRanges.openEnded(20), terms("other"), 0)?.granted)).toBe(
      `[20,${OffsetRanges.END})`
    )
    state.release("batch")
    state.release("other")
    expect(String(state.claim(OffsetRanges.openEnded(0), terms("again"), 0)?.granted)).toBe(
      `[0,5) [10,${OffsetRanges.END})`
    )
  })

  it("refuses an open-ended claim without touching the claims that are over", () => {
    const state = new Protocol.StreamState()
    state.claim(OffsetRanges.of(1), terms("over", 10), 0)
    state.claim(OffsetRanges.of(2), terms("live", 1_000), 0)
    expect(state.claim(OffsetRanges.openEnded(0), terms("owner"), 50)?.token).toBeUndefined()
    expect(state.renew("over", 10, 50)).toBe(60)
  })
})
