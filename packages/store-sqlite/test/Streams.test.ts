import { describe, expect, it } from "@effect/vitest"
import { OffsetRanges, Protocol } from "@tidemark/core"
import * as fc from "fast-check"
import { pageSize } from "../src/internal/pages.ts"
import { type ClaimPlace, firstPlace, Streams } from "../src/internal/Streams.ts"
import { type Files, withFiles } from "./files.ts"

/** Around the borders of pages, and over many at once. */
const offset = fc.oneof(
  fc.integer({ min: 0, max: 40 }),
  fc
    .integer({ min: -3, max: 3 })
    .chain((near) => fc.integer({ min: 1, max: 6 }).map((page) => page * pageSize + near))
)
const range = fc.tuple(
  offset,
  fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 3 * pageSize }))
)
const ranges = fc
  .array(range, { minLength: 1, maxLength: 6 })
  .map((list) => OffsetRanges.fromRanges(list.map(([from, length]) => [from, from + length] as const)))
/** Every other offset of some: what makes a page a bitmap. */
const scattered = fc
  .tuple(offset, fc.integer({ min: 1, max: 300 }))
  .map(([from, count]) =>
    OffsetRanges.fromOffsets(Array.from({ length: count }, (_, index) => from + 2 * index))
  )
const some = fc.oneof({ weight: 3, arbitrary: ranges }, { weight: 1, arbitrary: scattered })
const asked = fc.oneof(
  { weight: 5, arbitrary: some },
  { weight: 1, arbitrary: offset.map(OffsetRanges.openEnded) }
)
const stream = fc.constantFrom("a", "b")
const id = fc.integer({ min: 0, max: 5 }).map((number) => `claim-${number}`)
const lease = fc.integer({ min: 1, max: 50 })

const command = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ verb: fc.constant("claim" as const), stream, id, ranges: asked, lease })
  },
  { weight: 8, arbitrary: fc.record({ verb: fc.constant("complete" as const), stream, id, ranges: some }) },
  {
    weight: 2,
    arbitrary: fc.record({
      verb: fc.constant("release" as const),
      stream,
      id,
      ranges: fc.option(some, { nil: undefined })
    })
  },
  { weight: 2, arbitrary: fc.record({ verb: fc.constant("renew" as const), stream, id, lease }) },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant("rewind" as const), stream, to: offset }) },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant("skip" as const), stream, ranges: some }) },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant("forget" as const), stream }) },
  {
    weight: 4,
    arbitrary: fc.record({ verb: fc.constant("wait" as const), millis: fc.integer({ min: 1, max: 120 }) })
  },
  { weight: 1, arbitrary: fc.constant({ verb: "sweep" as const }) },
  { weight: 1, arbitrary: fc.constant({ verb: "restart" as const }) },
  { weight: 2, arbitrary: fc.constant({ verb: "fail" as const }) }
)
type Command = typeof command extends fc.Arbitrary<infer C> ? C : never

/** The rules in memory, a state for each stream. */
class Model {
  readonly streams = new Map<string, Protocol.StreamState>()
  private floor = 0

  /** One that is not known answers as one of which nothing was ever claimed. */
  peek(name: string): Protocol.StreamState {
    return this.streams.get(name) ?? new Protocol.StreamState()
  }

  get(name: string): Protocol.StreamState {
    const state = this.streams.get(name) ?? new Protocol.StreamState(this.floor)
    this.streams.set(name, state)
    return state
  }

  forget(name: string): boolean {
    const state = this.streams.get(name)
    if (state?.progress(0) === undefined) return false
    this.floor = Math.max(this.floor, state.token)
    return this.streams.delete(name)
  }
}

const answerOf = (model: Model, command: Command, now: number): unknown => {
  switch (command.verb) {
    case "claim":
      return model
        .get(command.stream)
        .claim(command.ranges, { claimId: command.id, owner: "somebody", leaseMillis: command.lease }, now)
    case "complete":
      return model.peek(command.stream).complete(command.id, command.ranges, now)
    case "release":
      return model.peek(command.stream).release(command.id, command.ranges)
    case "renew":
      return model.peek(command.stream).renew(command.id, command.lease, now)
    case "rewind":
      return model.get(command.stream).rewind(command.to)
    case "skip":
      return model.get(command.stream).skip(command.ranges)
    case "forget":
      return model.forget(command.stream)
    default:
      return undefined
  }
}

const storedAnswer = (streams: Streams, command: Command, now: number): unknown => {
  switch (command.verb) {
    case "claim":
      return streams.claim(
        command.stream,
        command.ranges,
        { claimId: command.id, owner: "somebody", leaseMillis: command.lease },
        now
      )
    case "complete":
      return streams.complete(command.stream, command.id, command.ranges, now)
    case "release":
      return streams.release(command.stream, command.id, command.ranges, now)
    case "renew":
      return streams.renew(command.stream, command.id, command.lease, now)
    case "rewind":
      return streams.rewind(command.stream, command.to, now)
    case "skip":
      return streams.skip(command.stream, command.ranges, now)
    case "forget":
      return streams.forget(command.stream)
    case "sweep":
      for (let from: ClaimPlace | undefined = firstPlace; from !== undefined; ) {
        const { old, next } = streams.oldClaims(from, now, 2)
        for (const claim of old) streams.removeClaim(claim, now)
        from = next
      }
      return undefined
    default:
      return undefined
  }
}

/** Claims come in no particular order. */
const sorted = (progress: Protocol.Progress | undefined): unknown =>
  progress && {
    ...progress,
    claims: progress.claims.toSorted((a, b) => a.token - b.token)
  }

const sortedAnswer = (answer: unknown): unknown => {
  if (typeof answer !== "object" || answer === null || !("held" in answer)) return answer
  const { held, ...rest } = answer as Protocol.OffsetClaimAnswer
  return {
    ...rest,
    held: held.toSorted((a, b) => Number(OffsetRanges.first(a.ranges)) - Number(OffsetRanges.first(b.ranges)))
  }
}

const play = (files: Files<Streams>, commands: ReadonlyArray<readonly [Command, number]>): void => {
  const model = new Model()
  let now = 1_000
  for (const [command, process] of commands) {
    const { connection, part: streams } = files.process(process)
    if (command.verb === "wait") now += command.millis
    if (command.verb === "restart") {
      files.restart(process)
    } else if (command.verb === "fail") {
      // what is rolled back was never there
      const spoilt = (): void => {
        streams.skip("a", OffsetRanges.make(0, 3 * pageSize), now)
        streams.forget("b")
        throw new Error("rolled back")
      }
      expect(() => connection.write(spoilt)).toThrow("rolled back")
    } else {
      const answer = connection.write(() => storedAnswer(streams, command, now))
      expect(sortedAnswer(answer)).toEqual(sortedAnswer(answerOf(model, command, now)))
    }
    for (const name of ["a", "b"]) {
      for (const reader of [0, 1]) {
        const other = files.process(reader)
        expect(sorted(other.connection.read(() => other.part.progress(name, now)))).toEqual(
          sorted(model.streams.get(name)?.progress(now))
        )
      }
    }
  }
  files.checkIntegrity()
}

describe("Streams", () => {
  it.effect(
    "answer as the rules do, whatever is asked by whichever of two processes, also after restarts and rollbacks",
    () =>
      withFiles(
        (connection) => new Streams(connection),
        (files) => {
          fc.assert(
            fc
              .property(fc.array(fc.tuple(command, fc.nat(1)), { maxLength: 40 }), (commands) =>
                play(files, commands)
              )
              .beforeEach(() => files.clear()),
            { numRuns: 1500 }
          )
        }
      ),
    120_000
  )
})
