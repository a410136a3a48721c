/**
 * The contract of a store as vitest suites. A store's own contract test is a dozen lines.
 *
 * @example
 * import { offsetStoreSuite, idempotencyStoreSuite, lockSuite } from "@tidemark/testkit/vitest"
 *
 * offsetStoreSuite("MyStore", MyStore.layer(), { clock: "test" })
 * idempotencyStoreSuite("MyStore", MyStore.layer(), { clock: "test" })
 * lockSuite("MyStore", MyStore.layer(), { clock: "test" })
 */
import type { IdempotencyStore, Inspect, Lock, OffsetStore, ParkedRecords } from "@tidemark/core"
import { Effect, type Layer } from "effect"
import { describe, expect, it } from "vitest"
import { type Check, type Invariant, invariants } from "./Check.ts"
import {
  type ClaimingContract,
  type Contract,
  idempotencyStoreContract,
  inspectContract,
  lockContract,
  offsetStoreContract,
  parkedRecordsContract
} from "./contracts.ts"
import { checkHistory } from "./history/checkHistory.ts"
import { historyOfProcesses, type ProcessesOptions } from "./history/processes.ts"
import type { RandomOptions } from "./model/sequences.ts"
import { type Described, makeRunner } from "./Runner.ts"
import type { Opening, StoreClock } from "./Subject.ts"

/** What a suite has to know of a store. */
export interface SuiteOptions {
  /**
   * Whose clock judges leases: `test`: Effect's `Clock`, which the suite drives by `TestClock`; `live`: a clock of
   * the store's own, such as a server's: then leases are short, and the suite waits for their end.
   */
  readonly clock: StoreClock
  /** For `live`: how far the store's clock may be from this machine's, in milliseconds. Default: 100. */
  readonly toleranceMillis?: number
  /**
   * `false`: the store says of itself that its data does not outlive it, and is not asked for what only a durable one
   * can do. Default: true.
   */
  readonly durable?: boolean
  /** How much the random checks do, and from which seed: by default always the same. */
  readonly random?: RandomOptions
  /**
   * Whether all of it is asked once more behind a connection with faults. Default: true. Once is enough for a store that
   * is tried on several kinds of server.
   */
  readonly behindFaults?: boolean
}

const numbers = Object.keys(invariants).map(Number) as ReadonlyArray<Invariant>

const registerChecks = <Service extends Described, E>(
  checks: ReadonlyArray<Check<Service>>,
  opening: Opening<Service, E>
): void => {
  const runner = makeRunner(opening)
  const register = (check: Check<Service>) =>
    it(check.name, { timeout: 120_000 }, async (test) => {
      // a check whose time is over ends before the next begins, which would meet it on the same data
      const outcome = await Effect.runPromise(runner.run(check), { signal: test.signal })
      if (outcome._tag === "Skipped") throw new Error(`${outcome.reason}: give the suite \`durable: false\``)
      if (outcome._tag === "Failed") throw new Error(outcome.message)
    })
  const possible = checks.filter(({ onlyDurable = false }) => opening.durable !== false || !onlyDurable)
  possible.filter(({ invariant }) => invariant === undefined).forEach(register)
  for (const number of numbers) {
    const those = possible.filter(({ invariant }) => invariant === number)
    if (those.length === 0) continue
    describe(`invariant ${number}: ${invariants[number]}`, () => those.forEach(register))
  }
}

const suite = <Service extends Described, E>(
  title: string,
  { behindFaults, checks, opening }: Contract<Service, E> & Partial<ClaimingContract<Service, E>>,
  options: SuiteOptions
): void => {
  describe(title, () => {
    registerChecks(checks, opening)
    if (options.behindFaults === false || behindFaults === undefined) return
    describe("behind a connection with faults, for callers that ask again", () => {
      registerChecks(behindFaults.checks, behindFaults.opening)
    })
  })
}

/**
 * Registers the contract of `OffsetStore` as a vitest suite.
 *
 * @param layer - builds an instance; built again it reaches the same data where the store says that it is `durable`.
 * Names are random: the data may be shared with others, and nothing of theirs is touched.
 */
export const offsetStoreSuite = <E>(
  name: string,
  layer: Layer.Layer<OffsetStore, E>,
  options: SuiteOptions
): void => suite(`${name} as OffsetStore`, offsetStoreContract(layer, options), options)

/** Registers the contract of `IdempotencyStore` as a vitest suite; `layer` as in {@link offsetStoreSuite}. */
export const idempotencyStoreSuite = <E>(
  name: string,
  layer: Layer.Layer<IdempotencyStore, E>,
  options: SuiteOptions
): void => suite(`${name} as IdempotencyStore`, idempotencyStoreContract(layer, options), options)

/** Registers the contract of `Lock` as a vitest suite; `layer` as in {@link offsetStoreSuite}. */
export const lockSuite = <E>(
  name: string,
  layer: Layer.Layer<Lock | IdempotencyStore, E>,
  options: SuiteOptions
): void => suite(`${name} as Lock`, lockContract(layer, options), options)

/**
 * Registers the contract of `Inspect`, an optional ability of durable stores, as a vitest suite; `layer` as in
 * {@link offsetStoreSuite}.
 */
export const inspectSuite = <E>(
  name: string,
  layer: Layer.Layer<Inspect | OffsetStore | IdempotencyStore, E>,
  options: SuiteOptions
): void => suite(`${name} as Inspect`, inspectContract(layer, options), options)

/**
 * Registers the contract of `ParkedRecords`, an optional ability of durable stores, as a vitest suite; `layer` as in
 * {@link offsetStoreSuite}.
 */
export const parkedRecordsSuite = <E>(
  name: string,
  layer: Layer.Layer<ParkedRecords | OffsetStore, E>,
  options: SuiteOptions
): void => suite(`${name} as ParkedRecords`, parkedRecordsContract(layer, options), options)

/**
 * Registers tests in which several processes work on one store, with and without faults, and with processes that are
 * killed in the middle of their work: for a store that processes share. See `historyOfProcesses`.
 *
 * @example
 * processesSuite("MyStore", { store: new URL("./sharedStore.js", import.meta.url), storeOptions: { url } })
 */
export const processesSuite = (name: string, options: ProcessesOptions): void => {
  describe(`${name}, shared by several processes`, () => {
    const kinds: ReadonlyArray<readonly [string, Partial<ProcessesOptions>]> = [
      ["some order explains all answers that they got at once", {}],
      [
        "some order explains all answers that they got at once over connections with faults",
        { withFaults: true }
      ],
      ["some order explains all answers that they got when some were killed in the middle", { kills: 4 }]
    ]
    for (const [title, kind] of kinds) {
      it(title, { timeout: 120_000 }, async () => {
        const findings = checkHistory(await historyOfProcesses({ ...kind, ...options }))
        expect(findings.map(({ message }) => message)).toEqual([])
      })
    }
  })
}
