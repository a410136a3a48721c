/** The whole contract of each service, as checks and how to open a store for them: for any runner. */
import {
  IdempotencyStore,
  type IdempotencyStoreService,
  Inspect,
  Lock,
  OffsetStore,
  type OffsetStoreService,
  ParkedRecords
} from "@tidemark/core"
import { Context, Effect, Layer, type Scope } from "effect"
import type { Check } from "./Check.ts"
import { idempotencyStoreChecks } from "./checks/idempotencyStore.ts"
import { type InspectSubject, inspectChecks } from "./checks/inspect.ts"
import { type LockSubject, lockChecks } from "./checks/lock.ts"
import { offsetStoreChecks } from "./checks/offsetStore.ts"
import { type ParkedRecordsSubject, parkedRecordsChecks } from "./checks/parkedRecords.ts"
import {
  type FaultOptions,
  faultyIdempotencyStore,
  faultyOffsetStore,
  harmlessFaults,
  patientIdempotencyStore,
  patientOffsetStore
} from "./Faults.ts"
import { idempotencyStoreHistoryCheck, offsetStoreHistoryCheck } from "./history/historyChecks.ts"
import { idempotencyStoreModelCheck } from "./model/keyModel.ts"
import { offsetStoreModelCheck } from "./model/offsetModel.ts"
import { defaultSeed, type RandomOptions } from "./model/sequences.ts"
import { type Opening, openLayer } from "./Subject.ts"

/** The checks of a service, and how to open a store for them. */
export interface Contract<Service, E> {
  readonly checks: ReadonlyArray<Check<Service>>
  readonly opening: Opening<Service, E>
}

/** The same of a service that claims: on a store as it is, and behind a connection with faults. */
export interface ClaimingContract<Service, E> extends Contract<Service, E> {
  readonly behindFaults: Contract<Service, E>
}

/** What a contract has to know of a store. */
export interface ContractOptions extends Omit<Opening<never, never>, "open"> {
  readonly random?: RandomOptions | undefined
}

const faultsOf = ({ random }: ContractOptions): FaultOptions => ({
  seed: random?.seed ?? defaultSeed,
  rate: 0.3,
  faults: harmlessFaults
})

/** The contract of `OffsetStore`. */
export const offsetStoreContract = <E>(
  layer: Layer.Layer<OffsetStore, E>,
  options: ContractOptions
): ClaimingContract<OffsetStoreService, E> => {
  const open = openLayer(layer, Context.get(OffsetStore))
  const { seed } = faultsOf(options)
  const openFaulty = Effect.flatMap(open, (store) =>
    Effect.map(faultyOffsetStore(store, faultsOf(options)), patientOffsetStore)
  )
  return {
    opening: { ...options, open },
    checks: [
      ...offsetStoreChecks,
      offsetStoreModelCheck(options.random),
      offsetStoreHistoryCheck({ seed }),
      offsetStoreHistoryCheck({ seed, withFaults: true })
    ],
    behindFaults: {
      opening: { ...options, open: openFaulty },
      checks: offsetStoreChecks
    }
  }
}

/** The contract of `IdempotencyStore`. */
export const idempotencyStoreContract = <E>(
  layer: Layer.Layer<IdempotencyStore, E>,
  options: ContractOptions
): ClaimingContract<IdempotencyStoreService, E> => {
  const open = openLayer(layer, Context.get(IdempotencyStore))
  const { seed } = faultsOf(options)
  const openFaulty = Effect.flatMap(open, (store) =>
    Effect.map(faultyIdempotencyStore(store, faultsOf(options)), patientIdempotencyStore)
  )
  return {
    opening: { ...options, open },
    checks: [
      ...idempotencyStoreChecks,
      idempotencyStoreModelCheck(options.random),
      idempotencyStoreHistoryCheck({ seed }),
      idempotencyStoreHistoryCheck({ seed, withFaults: true })
    ],
    behindFaults: {
      opening: { ...options, open: openFaulty },
      checks: idempotencyStoreChecks
    }
  }
}

const lockSubject = (lock: Lock["Service"], keys: IdempotencyStoreService): LockSubject => ({
  lock,
  keys,
  durable: keys.durable
})

/** Locks as the library makes them, on this store of keys. */
const locksOn = (keys: IdempotencyStoreService): Effect.Effect<LockSubject, never, Scope.Scope> =>
  openLayer(Layer.provide(Lock.layer, Layer.succeed(IdempotencyStore, keys)), (context) =>
    lockSubject(Context.get(context, Lock), keys)
  )

/** The contract of `Lock`. */
export const lockContract = <E>(
  layer: Layer.Layer<Lock | IdempotencyStore, E>,
  options: ContractOptions
): ClaimingContract<LockSubject, E> => {
  const open = openLayer(layer, (context) =>
    lockSubject(Context.get(context, Lock), Context.get(context, IdempotencyStore))
  )
  const openFaulty = Effect.gen(function* () {
    const { keys } = yield* open
    return yield* locksOn(patientIdempotencyStore(yield* faultyIdempotencyStore(keys, faultsOf(options))))
  })
  return {
    opening: { ...options, open },
    checks: lockChecks,
    behindFaults: { opening: { ...options, open: openFaulty }, checks: lockChecks }
  }
}

/** The contract of `Inspect`, with the services that it lists what is in. */
export const inspectContract = <E>(
  layer: Layer.Layer<Inspect | OffsetStore | IdempotencyStore, E>,
  options: ContractOptions
): Contract<InspectSubject, E> => {
  const open = openLayer(layer, (context): InspectSubject => {
    const offsets = Context.get(context, OffsetStore)
    const keys = Context.get(context, IdempotencyStore)
    return { inspect: Context.get(context, Inspect), offsets, keys, durable: offsets.durable }
  })
  return { opening: { ...options, open }, checks: inspectChecks }
}

/** The contract of `ParkedRecords`, beside the positions of the same store. */
export const parkedRecordsContract = <E>(
  layer: Layer.Layer<ParkedRecords | OffsetStore, E>,
  options: ContractOptions
): Contract<ParkedRecordsSubject, E> => {
  const open = openLayer(layer, (context): ParkedRecordsSubject => {
    const offsets = Context.get(context, OffsetStore)
    return { parked: Context.get(context, ParkedRecords), offsets, durable: offsets.durable }
  })
  return { opening: { ...options, open }, checks: parkedRecordsChecks }
}
