/** The table of positions on whole worlds: a log, a store and a commit, with what is decided done to them, step by step. */
import { OffsetRanges, Protocol } from "@tidemark/core"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  beginAnew,
  type Decision,
  decide,
  epochOf,
  metadata,
  readNote,
  writeNote
} from "../src/PositionRules.ts"

type Begin = Extract<Decision, { readonly _tag: "Begin" }>

interface World {
  /** `undefined` where the store knows nothing. */
  readonly store: Protocol.StreamState
  commit: { readonly offset: number; readonly metadata: string } | undefined
  readonly log: { readonly low: number; readonly high: number }
  /** The timestamp of every record of the log. */
  readonly timestampMillis: number
  readonly durable: boolean
}

const stream = (plan: Plan): Protocol.StreamState => {
  const store = new Protocol.StreamState()
  if (plan.completed === undefined) return store
  const terms = { claimId: "before", owner: "before", leaseMillis: 1_000 }
  for (let epoch = 0; epoch < plan.epoch; epoch++) store.rewind(plan.origin)
  store.claim(OffsetRanges.openEnded(plan.origin), terms, 0)
  for (const offset of plan.completed) store.complete("before", OffsetRanges.of(plan.origin + offset), 0)
  if (plan.note !== undefined) store.annotate("before", plan.note, 0)
  store.release("before")
  return store
}

/** One step of an owner; the outcome once nothing is left to do. */
const step = (world: World, seen: number | undefined): Decision => {
  const { durable, log, store, timestampMillis } = world
  const found = {
    progress: store.progress(0),
    commit: world.commit,
    log,
    durable,
    start: "earliest" as const,
    seen: seen === undefined ? undefined : { offset: seen, timestampMillis }
  }
  const decided = decide(found)
  const decision = decided._tag === "LogWentBack" ? beginAnew(found) : decided
  if (decision._tag === "Commit") {
    world.commit = { offset: decision.position, metadata: metadata(decision.epoch) }
  } else if (decision._tag === "AdoptEpoch") {
    const { act, position } = decision
    // one act at a time: an owner may die after each
    if (act === "rewind") store.rewind(position)
    else {
      const from = Math.min(store.progress(0)?.watermark ?? position, position - 1)
      store.skip(OffsetRanges.make(from, position))
    }
  }
  return decision
}

/** Steps of one owner after the other: each is gone after so many, and the next begins from what is there. */
const settle = (world: World, lives: ReadonlyArray<number>): Decision => {
  let seen: number | undefined
  for (let count = 0, life = 0, index = 0; count < 60; count++, life++) {
    if (index < lives.length && life >= lives[index]) {
      index++
      life = 0
      seen = undefined
    }
    const decision = step(world, seen)
    if (decision._tag === "Look") seen = decision.offset
    else if (decision._tag === "Begin" || decision._tag === "StoreLost") return decision
  }
  throw new Error("it does not come to an end")
}

const positionOf = ({ claimFrom, passed }: Begin, { store }: World): number => {
  const from = passed.at(-1)?.to ?? claimFrom
  const completed = store.progress(0)?.completed ?? OffsetRanges.empty
  return OffsetRanges.first(OffsetRanges.subtract(OffsetRanges.openEnded(from), completed)) as number
}

interface Plan {
  readonly origin: number
  readonly completed: ReadonlyArray<number> | undefined
  readonly epoch: number
  readonly note: string | undefined
  readonly commit: { readonly offset: number; readonly metadata: string } | undefined
  readonly low: number
  readonly size: number
  readonly timestampMillis: number
  readonly durable: boolean
}

const offset = fc.nat(30)
const plans: fc.Arbitrary<Plan> = fc.record({
  origin: fc.nat(10),
  completed: fc.option(fc.array(fc.nat(20), { maxLength: 12 }), { nil: undefined }),
  epoch: fc.nat(2),
  note: fc.option(
    fc
      .record({
        replaces: fc.option(offset, { nil: undefined }),
        landmark: fc.option(fc.record({ offset, timestampMillis: fc.nat(1) }), { nil: undefined })
      })
      .map(writeNote),
    { nil: undefined }
  ),
  commit: fc.option(
    fc.record({ offset, metadata: fc.constantFrom("", metadata(0), metadata(1), metadata(3)) }),
    { nil: undefined }
  ),
  low: fc.nat(20),
  size: fc.nat(30),
  timestampMillis: fc.nat(1),
  durable: fc.boolean()
})

const worldOf = (plan: Plan): World => ({
  store: stream(plan),
  commit: plan.commit,
  log: { low: plan.low, high: plan.low + plan.size },
  timestampMillis: plan.timestampMillis,
  durable: plan.durable
})

const lives = fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 5 })
const many = { numRuns: 2_000 }

describe("PositionRules on whole worlds", () => {
  it("come to an end, and to the same one however often an owner dies on the way", () => {
    fc.assert(
      fc.property(plans, lives, (plan, deaths) => {
        const calm = worldOf(plan)
        const stormy = worldOf(plan)
        const [one, other] = [settle(calm, []), settle(stormy, deaths)]
        expect(other._tag).toBe(one._tag)
        if (one._tag !== "Begin" || other._tag !== "Begin") return
        expect(positionOf(other, stormy)).toBe(positionOf(one, calm))
        expect(stormy.store.progress(0)?.epoch).toBe(calm.store.progress(0)?.epoch)
      }),
      many
    )
  })

  it("follow an operator's reset to where it says, and commit before anything runs", () => {
    fc.assert(
      fc.property(plans, offset, lives, (plan, commit, deaths) => {
        const world = worldOf({ ...plan, commit: { offset: commit, metadata: "" } })
        const before = world.store.progress(0)
        const history = readNote(before?.note)
        fc.pre(before !== undefined && history !== undefined && history.replaces !== commit)
        fc.pre(commit <= world.log.high && before.highest <= world.log.high)
        const decision = settle(world, deaths)
        if (decision._tag !== "Begin") throw new Error(`${decision._tag} after a reset`)
        const islands = commit < before.watermark ? OffsetRanges.empty : before.completed
        const from = OffsetRanges.openEnded(Math.max(commit, world.log.low))
        expect(positionOf(decision, world)).toBe(OffsetRanges.first(OffsetRanges.subtract(from, islands)))
        expect(epochOf(world.commit?.metadata)).toBe(world.store.progress(0)?.epoch)
      }),
      many
    )
  })

  it("begin another log at its first record, and count nothing of it as completed", () => {
    fc.assert(
      fc.property(plans, lives, (plan, deaths) => {
        const world = worldOf(plan)
        const before = world.store.progress(0)
        fc.pre(before !== undefined && before.highest > world.log.high)
        // an operator's act that the store lacks comes first
        fc.pre(plan.commit?.metadata !== "" && (epochOf(plan.commit?.metadata) ?? 0) <= plan.epoch)
        const decision = settle(world, deaths)
        if (decision._tag !== "Begin") throw new Error(`${decision._tag} in another log`)
        expect(positionOf(decision, world)).toBe(world.log.low)
        expect(world.store.progress(0)?.highest).toBeLessThanOrEqual(world.log.low)
        expect(world.store.progress(0)?.epoch).toBeGreaterThan(plan.epoch)
      }),
      many
    )
  })
})
