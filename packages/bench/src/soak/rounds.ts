/** What a soak does to a store, again and again, each time from another seed. */
import { IdempotencyStore, OffsetStore } from "@tidemark/core"
import {
  type Check,
  checkHistory,
  type Described,
  historyOfProcesses,
  idempotencyStoreContract,
  idempotencyStoreHistoryCheck,
  idempotencyStoreModelCheck,
  lockContract,
  type Opening,
  offsetStoreContract,
  offsetStoreHistoryCheck,
  offsetStoreModelCheck,
  openLayer,
  runChecks
} from "@tidemark/testkit"
import { Context, Effect } from "effect"
import type { SoakedStore } from "./stores.ts"

/** A part of a round; answers what failed, in words. */
export interface Part {
  readonly title: string
  readonly run: (store: SoakedStore, seed: number) => Promise<ReadonlyArray<string>>
  /** Only for stores that several processes can share. */
  readonly needsProcesses?: true
}

const failuresOf = async <Service extends Described, E>(
  checks: ReadonlyArray<Check<Service>>,
  opening: Opening<Service, E>
): Promise<ReadonlyArray<string>> => {
  const outcomes = await Effect.runPromise(runChecks(checks, opening))
  return outcomes.flatMap((outcome) =>
    outcome._tag === "Failed" ? [`${outcome.check}: ${outcome.message}`] : []
  )
}

const onOffsets = (
  { clock, layer }: SoakedStore,
  ...checks: ReadonlyArray<Check<OffsetStore["Service"]>>
): Promise<ReadonlyArray<string>> =>
  failuresOf(checks, { clock, open: openLayer(layer, Context.get(OffsetStore)) })

const onKeys = (
  { clock, layer }: SoakedStore,
  ...checks: ReadonlyArray<Check<IdempotencyStore["Service"]>>
): Promise<ReadonlyArray<string>> =>
  failuresOf(checks, { clock, open: openLayer(layer, Context.get(IdempotencyStore)) })

const onProcesses = async (
  { shared }: SoakedStore,
  seed: number,
  options: { readonly kills?: number; readonly withFaults?: boolean }
): Promise<ReadonlyArray<string>> => {
  const store = new URL("./stores.ts", import.meta.url)
  const history = await historyOfProcesses({ store, storeOptions: shared, seed, ...options })
  return checkHistory(history).map(({ message }) => message)
}

export const parts: ReadonlyArray<Part> = [
  {
    title: "random calls on streams, against the rules",
    run: (store, seed) => onOffsets(store, offsetStoreModelCheck({ seed }))
  },
  {
    title: "random calls on keys, against the rules",
    run: (store, seed) => onKeys(store, idempotencyStoreModelCheck({ seed }))
  },
  {
    title: "histories of streams",
    run: (store, seed) =>
      onOffsets(store, offsetStoreHistoryCheck({ seed }), offsetStoreHistoryCheck({ seed, withFaults: true }))
  },
  {
    title: "histories of keys",
    run: (store, seed) =>
      onKeys(
        store,
        idempotencyStoreHistoryCheck({ seed }),
        idempotencyStoreHistoryCheck({ seed, withFaults: true })
      )
  },
  {
    title: "the contract behind faults: streams",
    run: ({ clock, layer }, seed) => {
      const { checks, opening } = offsetStoreContract(layer, { clock, random: { seed } }).behindFaults
      return failuresOf(checks, opening)
    }
  },
  {
    title: "the contract behind faults: keys",
    run: ({ clock, layer }, seed) => {
      const { checks, opening } = idempotencyStoreContract(layer, { clock, random: { seed } }).behindFaults
      return failuresOf(checks, opening)
    }
  },
  {
    title: "the contract behind faults: locks",
    run: ({ clock, layer }, seed) => {
      const { checks, opening } = lockContract(layer, { clock, random: { seed } }).behindFaults
      return failuresOf(checks, opening)
    }
  },
  {
    title: "histories of several processes, with faults",
    needsProcesses: true,
    run: (store, seed) => onProcesses(store, seed, { withFaults: true })
  },
  {
    title: "histories of several processes, some of them killed",
    needsProcesses: true,
    run: (store, seed) => onProcesses(store, seed, { kills: 4 })
  }
]
