import fc from "fast-check"
import { expect, test } from "vitest"
import { Ledger } from "../src/Ledger.ts"
import type { OrderNote } from "../src/Notes.ts"
import { covered, marksWithinMillis, percentile, type Tally } from "../src/Tally.ts"

const killedAtMillis = 10_000
const [survivor, victim] = ["survivor", "victim"]

interface Told {
  readonly consumer: string
  readonly note: OrderNote
}

/** One run of an order: received, begun, perhaps with its effect, perhaps marked. */
interface RunPlan {
  readonly consumer: string
  readonly at: number
  readonly effectAt?: number
  readonly marks?: boolean
}

const told = (orderId: string, offset: number, { at, consumer, effectAt, marks }: RunPlan): Array<Told> => {
  const receipt = { orderId, partition: 0, offset }
  const notes: Array<OrderNote> = [
    { what: "received", atMillis: at, receipts: [receipt] },
    { what: "begun", atMillis: at + 1, receipt }
  ]
  if (effectAt !== undefined) notes.push({ what: "effect", atMillis: effectAt, orderId })
  if (effectAt !== undefined && marks === true)
    notes.push({ what: "marked", atMillis: effectAt + 1, orderIds: [orderId] })
  return notes.map((note) => ({ consumer, note }))
}

const before = (millis: number): number => killedAtMillis - millis
const rerun: RunPlan = { consumer: survivor, at: 16_000, effectAt: 16_005, marks: true }

/** What may happen to an order, and what the ledger is to call it. */
const fates = {
  "done once": { runs: [{ consumer: survivor, at: 50, effectAt: 60, marks: true }], verdict: "done" },
  "done by the victim": {
    runs: [{ consumer: victim, at: 50, effectAt: 60, marks: true }],
    verdict: "done"
  },
  "marked in the store, the answer cut off": {
    runs: [{ consumer: victim, at: before(8), effectAt: before(1) }],
    verdict: "done"
  },
  "begun by the victim, done by the survivor": {
    runs: [{ consumer: victim, at: before(3) }, rerun],
    verdict: "done"
  },
  "in flight at the kill": {
    runs: [{ consumer: victim, at: before(8), effectAt: before(1) }, rerun],
    verdict: "in flight"
  },
  "in flight, its mark slow": {
    runs: [
      { consumer: victim, at: before(marksWithinMillis + 9), effectAt: before(marksWithinMillis) },
      rerun
    ],
    verdict: "in flight"
  },
  "not marked for too long": {
    runs: [
      { consumer: victim, at: before(marksWithinMillis + 9), effectAt: before(marksWithinMillis + 1) },
      rerun
    ],
    verdict: "twice"
  },
  "marked, and forgotten by the store": {
    runs: [{ consumer: victim, at: before(8), effectAt: before(2), marks: true }, rerun],
    verdict: "twice"
  },
  "run elsewhere before the kill": {
    runs: [
      { consumer: victim, at: before(8), effectAt: before(2) },
      { consumer: survivor, at: before(7), effectAt: before(1) }
    ],
    verdict: "twice"
  },
  "once more than the kill explains": {
    runs: [
      { consumer: victim, at: before(8), effectAt: before(1) },
      rerun,
      { consumer: survivor, at: 17_000, effectAt: 17_005 }
    ],
    verdict: "twice"
  },
  "twice by the survivor, which lives": {
    runs: [{ consumer: survivor, at: before(8), effectAt: before(1) }, rerun],
    verdict: "twice"
  },
  "begun by the victim, and never again": { runs: [{ consumer: victim, at: before(3) }], verdict: "lost" },
  "never delivered": { runs: [], verdict: "lost" }
} satisfies Record<
  string,
  { readonly runs: ReadonlyArray<RunPlan>; readonly verdict: "done" | "in flight" | "twice" | "lost" }
>

type Fate = keyof typeof fates

const byTime = (one: Told, other: Told): number => one.note.atMillis - other.note.atMillis

/** Each consumer's notes in their order; those of the two as the pipes happen to be read. */
const interleave = (all: ReadonlyArray<Told>, turns: ReadonlyArray<boolean>): Array<Told> => {
  const queues = [survivor, victim].map((name) =>
    all.filter(({ consumer }) => consumer === name).sort(byTime)
  )
  const result: Array<Told> = []
  for (let turn = 0; queues.some((queue) => queue.length > 0); turn++) {
    const [first, second] = turns[turn % Math.max(1, turns.length)] === true ? [0, 1] : [1, 0]
    const next = queues[first]?.shift() ?? queues[second]?.shift()
    if (next !== undefined) result.push(next)
  }
  return result
}

const tallyOf = (orderIds: ReadonlyArray<string>, all: ReadonlyArray<Told>, killAfter: number): Tally => {
  const ledger = new Ledger(orderIds)
  for (const [index, { consumer, note }] of all.entries()) {
    if (index === killAfter % all.length) ledger.kill(victim, killedAtMillis)
    ledger.note(consumer, note)
  }
  if (all.length === 0) ledger.kill(victim, killedAtMillis)
  return ledger.tally()
}

test("each order is judged by who ran it and when, in whatever order the pipes are read", () => {
  const someFates = fc.array(fc.constantFrom(...(Object.keys(fates) as Array<Fate>)), { maxLength: 30 })
  fc.assert(
    fc.property(someFates, fc.array(fc.boolean()), fc.nat(), (chosen, turns, killAfter) => {
      const orders = chosen.map((fate, index) => ({ ...fates[fate], orderId: `${index}: ${fate}` }))
      const all = orders.flatMap(({ orderId, runs }, offset) =>
        (runs as ReadonlyArray<RunPlan>).flatMap((run) => told(orderId, offset, run))
      )
      const ids = (verdict: string) =>
        orders.filter((order) => order.verdict === verdict).map(({ orderId }) => orderId)
      const tally = tallyOf(
        orders.map(({ orderId }) => orderId),
        interleave(all, turns),
        killAfter
      )
      expect(tally.twice).toEqual(ids("twice"))
      expect(tally.inFlightAtKill.map(({ orderId }) => orderId)).toEqual(ids("in flight"))
      expect(tally.lost).toEqual(ids("lost"))
      expect(tally.done).toBe(orders.length - tally.lost.length)
      const runs: ReadonlyArray<RunPlan> = orders.flatMap((order): ReadonlyArray<RunPlan> => order.runs)
      expect(tally.effects).toBe(runs.filter(({ effectAt }) => effectAt !== undefined).length)
      expect(tally.inWorkAtKill).toBe(
        runs.filter(({ consumer, effectAt }) => consumer === victim && effectAt === undefined).length
      )
      // of the survivor's runs after the kill, those that the kill explains are nobody's fault
      expect(tally.redeliveries - tally.recognised).toBeGreaterThanOrEqual(tally.twice.length)
      expect(tally.handlingMillis.length).toBe(runs.filter(({ marks }) => marks === true).length)
    }),
    { numRuns: 300 }
  )
})

test("what was in flight at the kill does not count against the tracker", () => {
  const inFlight = fates["in flight at the kill"].runs.flatMap((run) => told("the order", 0, run))
  const tally = tallyOf(["the order"], inFlight, 0)
  expect(tally).toMatchObject({ redeliveries: 0, recognised: 0, done: 1, effects: 2 })
  expect(tally.inFlightAtKill).toEqual([{ orderId: "the order", beforeKillMillis: 1 }])
  const forgotten = fates["marked, and forgotten by the store"].runs.flatMap((run) =>
    told("the order", 0, run)
  )
  expect(tallyOf(["the order"], forgotten, 0)).toMatchObject({ redeliveries: 1, recognised: 0 })
})

/** The same count, by walking through time with everything that has happened so far. */
const countedOneByOne = (all: ReadonlyArray<Told>) => {
  const seen = new Set<number>()
  const begun: Array<{ readonly consumer: string; hasEffect: boolean }> = []
  const isDead = (consumer: string, now: number) => consumer === victim && now >= killedAtMillis
  let redeliveries = 0
  let repeats = 0
  for (const { consumer, note } of all.toSorted(byTime)) {
    const isTaken = begun.some((run) => run.hasEffect || !isDead(run.consumer, note.atMillis))
    if (note.what === "received") {
      const { offset } = note.receipts[0]
      if (seen.has(offset) ? isTaken : seen.size > 0) redeliveries++
      seen.add(offset)
    } else if (note.what === "begun") {
      if (isTaken) repeats++
      begun.push({ consumer, hasEffect: false })
    } else if (note.what === "effect") {
      const run = begun.find((run) => run.consumer === consumer && !run.hasEffect)
      if (run !== undefined) run.hasEffect = true
    }
  }
  return { redeliveries, recognised: Math.max(0, redeliveries - repeats) }
}

test("what came again, and what of it was not run again, is counted as one who watches would", () => {
  const plans = fc.uniqueArray(
    fc.record({
      offset: fc.nat(1),
      consumer: fc.constantFrom(survivor, victim),
      at: fc.nat(1_990).map((time) => time * 10),
      takes: fc.option(fc.nat(40), { nil: undefined }),
      isRun: fc.boolean()
    }),
    { selector: ({ at }) => at, maxLength: 8 }
  )
  fc.assert(
    fc.property(plans, fc.array(fc.boolean()), (chosen, turns) => {
      const all = chosen.flatMap(({ at, consumer, isRun, offset, takes }, turn) => {
        // no two notes at the same time
        const effectAt = takes === undefined ? undefined : at + 2 + takes * 10 + turn / 10
        const notes = told(
          "the order",
          offset,
          effectAt === undefined ? { at, consumer } : { at, consumer, effectAt }
        )
        const isAlive = ({ note }: Told) => consumer === survivor || note.atMillis < killedAtMillis
        return (isRun ? notes : notes.slice(0, 1)).filter(isAlive)
      })
      const tally = tallyOf(["the order"], interleave(all, turns), 0)
      // what the kill explains is left out of both
      fc.pre(tally.inFlightAtKill.length === 0)
      expect(tally).toMatchObject(countedOneByOne(all))
    }),
    { numRuns: 500 }
  )
})

test("time with work is counted once, however many are at work", () => {
  const spans = fc.array(
    fc.tuple(fc.nat(40), fc.nat(10)).map(([from, length]) => [from, from + length] as const)
  )
  fc.assert(
    fc.property(spans, (given) => {
      let moments = 0
      for (let moment = 0; moment < 50; moment++)
        if (given.some(([from, to]) => from <= moment && moment < to)) moments++
      expect(covered(given)).toBe(moments)
    })
  )
})

test("at least the share of the values is at most the percentile, and it is one of them", () => {
  const values = fc.array(fc.nat(100), { minLength: 1 })
  fc.assert(
    fc.property(values, fc.integer({ min: 1, max: 100 }), (given, hundredths) => {
      const sorted = Float64Array.from(given).sort()
      const value = percentile(sorted, hundredths / 100) as number
      expect(given).toContain(value)
      expect(given.filter((other) => other <= value).length).toBeGreaterThanOrEqual(
        (given.length * hundredths) / 100
      )
      expect(given.filter((other) => other < value).length).toBeLessThan((given.length * hundredths) / 100)
    })
  )
  expect(percentile(new Float64Array(0), 0.5)).toBeUndefined()
})

test("knows while the race goes on who is at work", () => {
  const ledger = new Ledger(["a", "b"])
  const receipt = { orderId: "a", partition: 3, offset: 7 }
  ledger.note(victim, { what: "received", atMillis: 1, receipts: [receipt] })
  expect([ledger.isIdle, ledger.receipts]).toEqual([true, 1])
  ledger.note(victim, { what: "begun", atMillis: 2, receipt })
  ledger.note(survivor, { what: "begun", atMillis: 2, receipt: { ...receipt, orderId: "b" } })
  expect([ledger.isIdle, ledger.inWork(victim)]).toEqual([false, 1])
  ledger.note(survivor, { what: "effect", atMillis: 3, orderId: "b" })
  expect([ledger.isIdle, ledger.done, ledger.effectsOf(survivor)]).toEqual([false, 1, 1])
  ledger.kill(victim, 4)
  expect(ledger.isIdle, "the dead are not at work").toBe(true)
  // written before the kill, read after it
  ledger.note(victim, { what: "effect", atMillis: 3.9, orderId: "a" })
  expect([ledger.done, ledger.effects, ledger.inWork(victim)]).toEqual([2, 2, 0])
  expect(() => ledger.note(survivor, { what: "effect", atMillis: 5, orderId: "b" })).toThrow(
    "without beginning"
  )
  expect(() => ledger.note(survivor, { what: "effect", atMillis: 5, orderId: "c" })).toThrow("never produced")
})
