/**
 * A process that works on a store and appends each of its calls to a file, as lines of JSON: started, and perhaps
 * killed, by `historyOfProcesses`.
 */
import { openSync, writeSync } from "node:fs"
import { IdempotencyStore, OffsetStore } from "@tidemark/core"
import { Effect, type Layer } from "effect"
import {
  faultyIdempotencyStore,
  faultyOffsetStore,
  patientIdempotencyStore,
  patientOffsetStore
} from "../Faults.ts"
import { type RecordLine, recordIdempotencyStore, recordOffsetStore } from "./Recorder.ts"
import { keyWorkload, offsetWorkload, type WorkloadOptions } from "./workload.ts"

/** What a worker is told, as JSON in its first argument. */
export interface WorkerOrder {
  /** The module whose default export makes the store's layer from `storeOptions`. */
  readonly store: string
  readonly storeOptions: unknown
  readonly caller: string
  readonly file: string
  readonly withFaults: boolean
  readonly workload: WorkloadOptions
}

type MakeLayer = (options: unknown) => Layer.Layer<OffsetStore | IdempotencyStore, unknown>

const order = JSON.parse(process.argv[2]) as WorkerOrder
const { default: makeLayer } = (await import(order.store)) as { readonly default: MakeLayer }
const file = openSync(order.file, "a")
// at once, and not from memory: what was begun must be known also when this process is killed
const write = (line: RecordLine): void => {
  writeSync(file, `${JSON.stringify(line)}\n`)
}

const work = Effect.gen(function* () {
  const { seed } = order.workload
  const offsets = recordOffsetStore(yield* OffsetStore, { caller: `${order.caller} offsets`, write })
  const keys = recordIdempotencyStore(yield* IdempotencyStore, { caller: `${order.caller} keys`, write })
  yield* Effect.all(
    [
      offsetWorkload(
        order.withFaults ? patientOffsetStore(yield* faultyOffsetStore(offsets, { seed })) : offsets,
        order.workload
      ),
      keyWorkload(
        order.withFaults ? patientIdempotencyStore(yield* faultyIdempotencyStore(keys, { seed })) : keys,
        order.workload
      )
    ],
    { concurrency: 2, discard: true }
  )
})

await Effect.runPromise(Effect.scoped(Effect.provide(work, makeLayer(order.storeOptions))))
