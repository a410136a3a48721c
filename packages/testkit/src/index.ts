/**
 * The contract of a tidemark store as data, for any test runner; `@tidemark/testkit/vitest` has it as vitest suites.
 */
export {
  type Check,
  ContractBroken,
  type Invariant,
  invariants,
  type Outcome
} from "./Check.ts"
export { idempotencyStoreChecks } from "./checks/idempotencyStore.ts"
export { type InspectSubject, inspectChecks } from "./checks/inspect.ts"
export { type LockSubject, lockChecks } from "./checks/lock.ts"
export { offsetStoreChecks } from "./checks/offsetStore.ts"
export { type ParkedRecordsSubject, parkedRecordsChecks } from "./checks/parkedRecords.ts"
export {
  type ClaimingContract,
  type Contract,
  type ContractOptions,
  idempotencyStoreContract,
  inspectContract,
  lockContract,
  offsetStoreContract,
  parkedRecordsContract
} from "./contracts.ts"
export {
  type Fault,
  type FaultOptions,
  faultyIdempotencyStore,
  faultyOffsetStore,
  harmlessFaults,
  patientIdempotencyStore,
  patientOffsetStore,
  withFaults
} from "./Faults.ts"
export { checkHistory, type Finding, type HistoryOptions } from "./history/checkHistory.ts"
export type { History, KeyCall, RecordedCall, StreamCall, Times } from "./history/History.ts"
export {
  type HistoryCheckOptions,
  idempotencyStoreHistoryCheck,
  offsetStoreHistoryCheck
} from "./history/historyChecks.ts"
export { historyOfProcesses, type ProcessesOptions } from "./history/processes.ts"
export {
  type Begun,
  historyOf,
  type Recorder,
  type RecordLine,
  recordIdempotencyStore,
  recordOffsetStore
} from "./history/Recorder.ts"
export { idempotencyStoreModelCheck } from "./model/keyModel.ts"
export { offsetStoreModelCheck } from "./model/offsetModel.ts"
export type { RandomOptions } from "./model/sequences.ts"
export { type Described, makeRunner, type Runner, runChecks } from "./Runner.ts"
export { type Opening, openLayer, type StoreClock, type StoreTime, type Subject } from "./Subject.ts"
