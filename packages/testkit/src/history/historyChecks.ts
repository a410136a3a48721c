/** Histories of many callers on one store, as checks. */
import type { IdempotencyStoreService, OffsetStoreService } from "@tidemark/core"
import { Effect, type Scope } from "effect"
import type { Check } from "../Check.ts"
import {
  faultyIdempotencyStore,
  faultyOffsetStore,
  patientIdempotencyStore,
  patientOffsetStore
} from "../Faults.ts"
import { broken } from "../internal/expect.ts"
import type { Subject } from "../Subject.ts"
import { checkHistory } from "./checkHistory.ts"
import {
  historyOf,
  type Recorder,
  type RecordLine,
  recordIdempotencyStore,
  recordOffsetStore
} from "./Recorder.ts"
import { keyWorkload, offsetWorkload, type WorkloadOptions } from "./workload.ts"

/** How much the histories do. */
export interface HistoryCheckOptions extends Partial<Omit<WorkloadOptions, "names">> {
  /** Behind connections with faults, to callers that ask again. Default: without. */
  readonly withFaults?: boolean
}

/** How many instances of a durable store work on its data at once. */
const instanceCount = 3

interface Work<Service> {
  readonly subject: Subject<Service>
  readonly isDurable: boolean
  /** The store, each call on it noted. */
  readonly recorded: (store: Service, recorder: Recorder) => Service
  /** Behind a connection with faults, for a caller that asks again. */
  readonly faulty: (store: Service, seed: number) => Effect.Effect<Service, never, Scope.Scope>
  readonly work: (store: Service, options: WorkloadOptions) => Effect.Effect<void, unknown>
}

const historyCheck = <Service>(
  { faulty, isDurable, recorded, subject, work }: Work<Service>,
  { seed = 1, withFaults = false, ...options }: HistoryCheckOptions
) =>
  Effect.gen(function* () {
    const { time } = subject
    const lines: Array<RecordLine> = []
    const names = [subject.name("a"), subject.name("b"), subject.name("c")]
    const instances = isDurable
      ? [subject.store, ...(yield* Effect.replicateEffect(subject.another, instanceCount - 1))]
      : [subject.store]
    const { callers = 9 } = options
    yield* Effect.forEach(
      instances,
      (store, number) =>
        Effect.gen(function* () {
          const noted = recorded(store, {
            caller: `instance ${number}`,
            write: (line) => lines.push(line)
          })
          const used = withFaults ? yield* faulty(noted, seed * 100 + number) : noted
          const own = { ...options, names, seed: seed * 100 + number }
          yield* work(used, { ...own, callers: Math.ceil(callers / instances.length) })
        }),
      { concurrency: "unbounded", discard: true }
    )
    const findings = checkHistory(historyOf(lines), { skewMillis: Math.max(5, time.toleranceMillis) })
    if (findings.length === 0) return
    return yield* broken(
      `seed ${seed}, ${lines.length} lines, ${findings.length} of the streams or keys at fault. ${findings[0].message}`
    )
  })

const nameOf = ({ withFaults = false }: HistoryCheckOptions): string =>
  withFaults
    ? "some order explains all answers that many callers got at once over connections with faults"
    : "some order explains all answers that many callers got at once"

/** Many callers, on several instances of a durable store: some order of their calls must explain all answers. */
export const offsetStoreHistoryCheck = (options: HistoryCheckOptions = {}): Check<OffsetStoreService> => ({
  invariant: 1,
  name: nameOf(options),
  liveClock: true,
  run: (subject) =>
    historyCheck(
      {
        subject,
        isDurable: subject.store.durable,
        recorded: recordOffsetStore,
        faulty: (store, seed) => Effect.map(faultyOffsetStore(store, { seed }), patientOffsetStore),
        work: offsetWorkload
      },
      options
    )
})

/** Many callers, on several instances of a durable store: some order of their calls must explain all answers. */
export const idempotencyStoreHistoryCheck = (
  options: HistoryCheckOptions = {}
): Check<IdempotencyStoreService> => ({
  invariant: 1,
  name: nameOf(options),
  liveClock: true,
  run: (subject) =>
    historyCheck(
      {
        subject,
        isDurable: subject.store.durable,
        recorded: recordIdempotencyStore,
        faulty: (store, seed) => Effect.map(faultyIdempotencyStore(store, { seed }), patientIdempotencyStore),
        work: keyWorkload
      },
      options
    )
})
