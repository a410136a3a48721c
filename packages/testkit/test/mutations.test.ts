/** A suite that lets a bad store pass proves nothing: each of these is bad in one way, and must be caught. */
import { IdempotencyStore, Lock, OffsetStore } from "@tidemark/core"
import {
  type Check,
  idempotencyStoreChecks,
  idempotencyStoreModelCheck,
  lockChecks,
  type Outcome,
  offsetStoreChecks,
  offsetStoreModelCheck,
  openLayer,
  runChecks
} from "@tidemark/testkit"
import { Context, Effect } from "effect"
import { describe, expect, it } from "vitest"
import { badKeyStores, badOffsetStores } from "./mutations.ts"
import { type Mutation, referenceStore } from "./referenceStore.ts"

/**
 * What answers in the right relation to each other, and in names or verbs that the random commands don't use, can't be
 * told.
 */
const unseenByModel = [
  "gives small tokens",
  "joins namespace and key",
  "grants a single offset that is held",
  "completes a single offset for whoever asks"
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

describe.each(Object.entries(badOffsetStores))("an OffsetStore that %s", (name, mutation) => {
  it("is caught by the examples", async () => {
    expect(await offsetFailures(mutation, offsetStoreChecks)).not.toEqual([])
  })
  it.skipIf(unseenByModel.includes(name))("is caught by random sequences", async () => {
    expect(await offsetFailures(mutation, [offsetStoreModelCheck()])).not.toEqual([])
  })
})

describe.each(Object.entries(badKeyStores))("an IdempotencyStore that %s", (name, mutation) => {
  it("is caught by the examples", async () => {
    expect(await keyFailures(mutation, idempotencyStoreChecks)).not.toEqual([])
  })
  it.skipIf(unseenByModel.includes(name))("is caught by random sequences", async () => {
    expect(await keyFailures(mutation, [idempotencyStoreModelCheck()])).not.toEqual([])
  })
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
