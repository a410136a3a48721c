/** A suite that lets a bad store pass proves nothing: each of these is bad in one way, and must be caught. */
import { IdempotencyStore, Inspect, Lock, OffsetStore, ParkedRecords } from "@tidemark/core"
import {
  type Check,
  idempotencyStoreChecks,
  idempotencyStoreHistoryCheck,
  idempotencyStoreModelCheck,
  inspectChecks,
  lockChecks,
  type Outcome,
  offsetStoreChecks,
  offsetStoreHistoryCheck,
  offsetStoreModelCheck,
  openLayer,
  parkedRecordsChecks,
  runChecks
} from "@tidemark/testkit"
import { Context, Effect } from "effect"
import { describe, expect, it } from "vitest"
import { badInspects } from "./mutations/inspecting.ts"
import { badKeyStores } from "./mutations/keyStores.ts"
import { badOffsetStores } from "./mutations/offsetStores.ts"
import { badParkings } from "./mutations/parking.ts"
import { type Mutation, referenceStore } from "./referenceStore.ts"

/**
 * What answers in the right relation to each other, and in names that the random commands don't use, can't be told; and
 * a stream with a note is seldom copied to where nothing is.
 */
const unseenByModel = [
  "gives small tokens",
  "joins namespace and key",
  "looks first, and then claims",
  "copies without the note"
]

/** What shows when many call at once, and not only in what operators do, in names, or at a restart. */
const seenInHistories = [
  "looks first, and then claims",
  "grants what is held",
  "prolongs the lease when asked again",
  "gives the same token twice",
  "forgets a completion",
  "accepts a complete after the claim was lost",
  "does not complete after the lease",
  "evicts a live claim",
  "shortens a lease that is renewed",
  "does not revive",
  "releases all where a part is given back",
  "releases nothing",
  "grants what is completed",
  "gives another token when asked again",
  "answers in another order",
  "gives back what is completed",
  "gives back what another holds"
]

/** What the contract says is broken counts, and the store's own error; not a mutation that is itself broken. */
const failures = (outcomes: ReadonlyArray<Outcome>): ReadonlyArray<string> =>
  outcomes.flatMap((outcome) =>
    outcome._tag === "Failed" && !/could not go on: (?!StoreError)/.test(outcome.message)
      ? [`${outcome.check}: ${outcome.message}`]
      : []
  )

const offsetFailures = (mutation: Mutation, checks: ReadonlyArray<Check<OffsetStore["Service"]>>) => {
  const open = openLayer(referenceStore(mutation), Context.get(OffsetStore))
  return Effect.runPromise(Effect.map(runChecks(checks, { open, clock: "test" }), failures))
}

const keyFailures = (mutation: Mutation, checks: ReadonlyArray<Check<IdempotencyStore["Service"]>>) => {
  const open = openLayer(referenceStore(mutation), Context.get(IdempotencyStore))
  return Effect.runPromise(Effect.map(runChecks(checks, { open, clock: "test" }), failures))
}

/**
 * Histories depend on how callers meet: most often the first seed shows it, and beside much else that runs it may take
 * many. What shows in none of these does not show.
 */
const seeds = Array.from({ length: 40 }, (_, index) => index + 1)
const untilSeenMillis = 120_000
const rounds = 25
const unshortened = { shortenMillis: 0 }

const firstFailures = async (
  failuresOf: (seed: number) => Promise<ReadonlyArray<string>>
): Promise<ReadonlyArray<string>> => {
  for (const seed of seeds) {
    const found = await failuresOf(seed)
    if (found.length > 0) return found
  }
  return []
}

describe.concurrent.each(Object.entries(badOffsetStores))("an OffsetStore that %s", (name, mutation) => {
  it("is caught by the examples", { timeout: untilSeenMillis }, async ({ expect }) => {
    expect(await offsetFailures(mutation, offsetStoreChecks)).not.toEqual([])
  })
  if (!unseenByModel.includes(name)) {
    it("is caught by random sequences", { timeout: untilSeenMillis }, async ({ expect }) => {
      expect(await offsetFailures(mutation, [offsetStoreModelCheck(unshortened)])).not.toEqual([])
    })
  }
  if (seenInHistories.includes(name)) {
    it("is caught by a history", { timeout: untilSeenMillis }, async ({ expect }) => {
      const found = await firstFailures((seed) =>
        offsetFailures(mutation, [offsetStoreHistoryCheck({ seed, rounds })])
      )
      expect(found).not.toEqual([])
    })
  }
})

describe.concurrent.each(Object.entries(badKeyStores))("an IdempotencyStore that %s", (name, mutation) => {
  it("is caught by the examples", { timeout: untilSeenMillis }, async ({ expect }) => {
    expect(await keyFailures(mutation, idempotencyStoreChecks)).not.toEqual([])
  })
  if (!unseenByModel.includes(name)) {
    it("is caught by random sequences", { timeout: untilSeenMillis }, async ({ expect }) => {
      expect(await keyFailures(mutation, [idempotencyStoreModelCheck(unshortened)])).not.toEqual([])
    })
  }
  if (seenInHistories.includes(name)) {
    it("is caught by a history", { timeout: untilSeenMillis }, async ({ expect }) => {
      const found = await firstFailures((seed) =>
        keyFailures(mutation, [idempotencyStoreHistoryCheck({ seed, rounds })])
      )
      expect(found).not.toEqual([])
    })
  }
})

const lockFailures = (mutation: Mutation) => {
  const open = openLayer(referenceStore(mutation), (context) => {
    const keys = Context.get(context, IdempotencyStore)
    return { lock: Context.get(context, Lock), keys, durable: keys.durable }
  })
  return Effect.runPromise(Effect.map(runChecks(lockChecks, { open, clock: "test" }), failures))
}

describe("a Lock", () => {
  it.each(["grants what is held", "gives the same token twice"])(
    "on a store that %s is caught",
    async (name) => {
      expect(await lockFailures(badKeyStores[name])).not.toEqual([])
    }
  )
})

const inspectFailures = (mutation: Mutation) => {
  const open = openLayer(referenceStore(mutation), (context) => {
    const offsets = Context.get(context, OffsetStore)
    const keys = Context.get(context, IdempotencyStore)
    return { inspect: Context.get(context, Inspect), offsets, keys, durable: offsets.durable }
  })
  return Effect.runPromise(Effect.map(runChecks(inspectChecks, { open, clock: "test" }), failures))
}

const parkedFailures = (mutation: Mutation) => {
  const open = openLayer(referenceStore(mutation), (context) => {
    const offsets = Context.get(context, OffsetStore)
    return { parked: Context.get(context, ParkedRecords), offsets, durable: offsets.durable }
  })
  return Effect.runPromise(Effect.map(runChecks(parkedRecordsChecks, { open, clock: "test" }), failures))
}

describe("Inspect", () => {
  it.each(Object.entries(badInspects))("that %s is caught", async (_, mutation) => {
    expect(await inspectFailures(mutation)).not.toEqual([])
  })
})

describe("ParkedRecords", () => {
  it.each(Object.entries(badParkings))("of a store that %s are caught", async (_, mutation) => {
    expect(await parkedFailures(mutation)).not.toEqual([])
  })
})

it("a failed check says what was expected, what was found, and how to come there again", async () => {
  const [message] = await offsetFailures(badOffsetStores["grants what is held"], [
    offsetStoreModelCheck({ seed: 1 })
  ])
  expect(message).toMatch(/seed 1, run \d+, shortened \d+ times/)
  expect(message.split("\n").length).toBeLessThan(8)
  expect(message).toMatch(
    /1\. instance \d: claim .*\n.*2\. instance \d: claim .*\nclaim: expected .*, found .*/s
  )
})
