/**
 * Whatever happened one after the other must be explained, however vaguely it was noted when: with intervals that
 * overlap, and with answers that were lost.
 */
import { OffsetRanges, Protocol } from "@tidemark/core"
import { checkHistory, type History, type KeyCall, type StreamCall } from "@tidemark/testkit"
import * as fc from "fast-check"
import { expect, it } from "vitest"

const epoch = 1_800_000_000_000

/** How vaguely a call is noted: how long before and after it took effect, and whether its answer was lost. */
const vagueness = fc.record({
  before: fc.integer({ min: 0, max: 6 }),
  after: fc.integer({ min: 0, max: 6 }),
  isLost: fc.integer({ min: 0, max: 9 }).map((number) => number === 0)
})
type Vagueness = { readonly before: number; readonly after: number; readonly isLost: boolean }

const noted = (now: number, { after, before, isLost }: Vagueness) => ({
  caller: "test",
  start: now - before,
  from: now - before,
  end: isLost ? Number.POSITIVE_INFINITY : now + after,
  to: isLost ? Number.POSITIVE_INFINITY : now + after,
  isOptional: isLost
})

const id = fc.integer({ min: 0, max: 4 }).map((number) => `c${number}`)
const leaseMillis = fc.integer({ min: 1, max: 40 })
const passing = fc.oneof(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 60 }))
const ranges = fc
  .tuple(fc.integer({ min: 0, max: 12 }), fc.integer({ min: 1, max: 6 }))
  .map(([from, size]) => OffsetRanges.make(from, from + size))
const asked = fc.oneof(
  { weight: 4, arbitrary: ranges },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 12 }).map(OffsetRanges.openEnded) }
)

const verb = <Verb extends string>(name: Verb) => fc.constant(name)
const streamCommand = fc.record({
  passing,
  vagueness,
  command: fc.oneof(
    fc.record({ verb: verb("claim"), id, ranges: asked, leaseMillis }),
    fc.record({ verb: verb("complete"), id, ranges }),
    fc.record({ verb: verb("release"), id, ranges: fc.option(ranges, { nil: undefined }) }),
    fc.record({ verb: verb("renew"), id, leaseMillis }),
    fc.record({ verb: verb("progress") })
  )
})

const streamCall = (
  state: Protocol.StreamState,
  command: typeof streamCommand extends fc.Arbitrary<{ readonly command: infer Command }> ? Command : never,
  now: number
): StreamCall => {
  switch (command.verb) {
    case "claim": {
      const { id: claimId, leaseMillis: lease, ranges: wanted } = command
      const answer = state.claim(wanted, { claimId, owner: claimId, leaseMillis: lease }, now)
      return {
        verb: "claim",
        claimId,
        ranges: wanted.flat,
        leaseMillis: lease,
        answer:
          answer === undefined
            ? "ClaimIdReused"
            : {
                granted: answer.granted.flat,
                token: answer.token,
                until: answer.until,
                completed: answer.completed.flat,
                held: answer.held.map((part) => ({ ...part, ranges: part.ranges.flat }))
              }
      }
    }
    case "complete": {
      const answer = state.complete(command.id, command.ranges, now)
      return {
        verb: "complete",
        claimId: command.id,
        ranges: command.ranges.flat,
        answer: {
          completed: answer.completed.flat,
          alreadyCompleted: answer.alreadyCompleted.flat,
          leaseLost: answer.leaseLost.flat
        }
      }
    }
    case "release":
      state.release(command.id, command.ranges)
      return { verb: "release", claimId: command.id, ranges: command.ranges?.flat, answer: "released" }
    case "renew": {
      const answer = state.renew(command.id, command.leaseMillis, now) ?? "LeaseLost"
      return { verb: "renew", claimId: command.id, leaseMillis: command.leaseMillis, answer }
    }
    case "progress": {
      const progress = state.progress(now)
      return {
        verb: "progress",
        answer: progress === undefined ? "nothing" : { ...progress, completed: progress.completed.flat }
      }
    }
  }
}

const withoutAnswer = <Call extends { readonly answer?: unknown }>({ answer: _, ...call }: Call): Call =>
  call as Call

it("what happened to a stream one after the other is explained", () => {
  fc.assert(
    fc.property(fc.array(streamCommand, { maxLength: 60, size: "max" }), (steps) => {
      const state = new Protocol.StreamState()
      let now = epoch
      const history = steps.map((step): History[number] => {
        now += step.passing
        const call = streamCall(state, step.command, now)
        const times = noted(now, step.vagueness)
        return { ...times, service: "stream", name: "s", call: times.isOptional ? withoutAnswer(call) : call }
      })
      expect(checkHistory(history, { skewMillis: 0 })).toEqual([])
    }),
    { numRuns: 500 }
  )
})

const result = fc.option(fc.constantFrom("1", "2"), { nil: undefined })
const retentionMillis = fc.integer({ min: 1, max: 100 })
const keyCommand = fc.record({
  passing,
  vagueness,
  command: fc.oneof(
    fc.record({ verb: verb("claim"), id, leaseMillis }),
    fc.record({ verb: verb("complete"), id, result, retentionMillis }),
    fc.record({ verb: verb("release"), id }),
    fc.record({ verb: verb("renew"), id, leaseMillis }),
    fc.record({ verb: verb("lookup") })
  )
})

const keyCall = (
  state: Protocol.KeyState,
  command: typeof keyCommand extends fc.Arbitrary<{ readonly command: infer Command }> ? Command : never,
  now: number
): KeyCall => {
  switch (command.verb) {
    case "claim": {
      const { id: claimId, leaseMillis: lease } = command
      const outcome = state.claim("n", [{ key: "k" }], { claimId, owner: claimId, leaseMillis: lease }, now)
      const answer = outcome._tag === "Answers" ? outcome.answers[0] : "ClaimIdReused"
      if (typeof answer !== "string" && answer._tag === "Mismatch")
        throw new Error("no fingerprint was given")
      return { verb: "claim", claimId, leaseMillis: lease, answer }
    }
    case "complete": {
      const { id: claimId, ...rest } = command
      const [answer] = state.complete(
        claimId,
        "n",
        [{ key: "k", result: rest.result }],
        rest.retentionMillis,
        now
      )
      return { ...rest, claimId, answer }
    }
    case "release":
      state.release(command.id)
      return { verb: "release", claimId: command.id, answer: "released" }
    case "renew": {
      const answer = state.renew(command.id, command.leaseMillis, now) ?? "LeaseLost"
      return { verb: "renew", claimId: command.id, leaseMillis: command.leaseMillis, isAlone: true, answer }
    }
    case "lookup":
      return { verb: "lookup", answer: state.lookup("n", "k", now) }
  }
}

it("what happened to a key one after the other is explained", () => {
  fc.assert(
    fc.property(fc.array(keyCommand, { maxLength: 60, size: "max" }), (steps) => {
      const state = new Protocol.KeyState(new Protocol.MapKeyTable())
      let now = epoch
      const history = steps.map((step): History[number] => {
        now += step.passing
        const call = keyCall(state, step.command, now)
        const times = noted(now, step.vagueness)
        return { ...times, service: "key", name: "k", call: times.isOptional ? withoutAnswer(call) : call }
      })
      expect(checkHistory(history, { skewMillis: 0 })).toEqual([])
    }),
    { numRuns: 500 }
  )
})
