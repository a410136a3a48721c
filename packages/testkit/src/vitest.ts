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
import { IdempotencyStore, Lock, OffsetStore } from "@tidemark/core"
import { Context, Effect, type Layer } from "effect"
import { describe, it } from "vitest"
import { type Check, type Invariant, invariants } from "./Check.ts"
import { idempotencyStoreChecks } from "./checks/idempotencyStore.ts"
import { type LockSubject, lockChecks } from "./checks/lock.ts"
import { offsetStoreChecks } from "./checks/offsetStore.ts"
import { idempotencyStoreModelCheck } from "./model/keyModel.ts"
import { offsetStoreModelCheck } from "./model/offsetModel.ts"
import type { RandomOptions } from "./model/sequences.ts"
import { type Described, makeRunner } from "./Runner.ts"
import { type Opening, openLayer, type StoreClock } from "./Subject.ts"

/** What a suite has to know of a store. */
export interface SuiteOptions {
  /**
   * Whose clock judges leases: `test`: Effect's `Clock`, which the suite drives by `TestClock`; `live`: a clock of
   * the store's own, such as a server's: then leases are short, and the suite waits for their end.
   */
  readonly clock: StoreClock
  /** For `live`: how far the store's clock may be from this machine's, in milliseconds. Default: 100. */
  readonly toleranceMillis?: number
  /** How much the random checks do, and from which seed: by default always the same. */
  readonly random?: RandomOptions
}

const numbers = Object.keys(invariants).map(Number) as ReadonlyArray<Invariant>

const suite = <Service extends Described, E>(
  title: string,
  checks: ReadonlyArray<Check<Service>>,
  opening: Opening<Service, E>
): void => {
  const runner = makeRunner(opening)
  describe(title, () => {
    for (const number of numbers) {
      const those = checks.filter((check) => check.invariant === number)
      if (those.length === 0) continue
      describe(`invariant ${number}: ${invariants[number]}`, () => {
        for (const check of those) {
          it(check.name, { timeout: 120_000 }, async (test) => {
            const outcome = await Effect.runPromise(runner.run(check))
            if (outcome._tag === "Skipped") test.skip(outcome.reason)
            if (outcome._tag === "Failed") throw new Error(outcome.message)
          })
        }
      })
    }
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
): void =>
  suite(`${name} as OffsetStore`, [...offsetStoreChecks, offsetStoreModelCheck(options.random)], {
    ...options,
    open: openLayer(layer, Context.get(OffsetStore))
  })

/** Registers the contract of `IdempotencyStore` as a vitest suite; `layer` as in {@link offsetStoreSuite}. */
export const idempotencyStoreSuite = <E>(
  name: string,
  layer: Layer.Layer<IdempotencyStore, E>,
  options: SuiteOptions
): void =>
  suite(
    `${name} as IdempotencyStore`,
    [...idempotencyStoreChecks, idempotencyStoreModelCheck(options.random)],
    {
      ...options,
      open: openLayer(layer, Context.get(IdempotencyStore))
    }
  )

/** Registers the contract of `Lock` as a vitest suite; `layer` as in {@link offsetStoreSuite}. */
export const lockSuite = <E>(
  name: string,
  layer: Layer.Layer<Lock | IdempotencyStore, E>,
  options: SuiteOptions
): void =>
  suite<LockSubject, E>(`${name} as Lock`, lockChecks, {
    ...options,
    open: openLayer(layer, (context) => {
      const keys = Context.get(context, IdempotencyStore)
      return { lock: Context.get(context, Lock), keys, durable: keys.durable }
    })
  })
