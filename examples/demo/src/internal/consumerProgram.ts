/**
 * One consumer, in a process of its own; started by `Processes.ts`, which sends the first message. SIGTERM stops it as
 * one stops a consumer; it ends with the process that started it, however that ended.
 */
import { Cause, Effect, Exit, type Fiber, Logger } from "effect"
import { type BrokerAddress, clientLayer } from "../Cluster.ts"
import { type Job, runTidemark, runUsual } from "../Contestants.ts"
import { notesDescriptor, tellThrough } from "../Notes.ts"
import { openKeys, type StorePlace, storeLayer } from "../stores/openStore.ts"

/** The first message. */
export interface Instructions {
  readonly job: Job
  readonly kafka: BrokerAddress
  readonly store: StorePlace
}

const tell = tellThrough(notesDescriptor)

const consume = ({ job, kafka, store }: Instructions): Effect.Effect<unknown, unknown> => {
  const { contestant } = job
  const work =
    contestant === "tidemark"
      ? Effect.provide(runTidemark(job, tell), storeLayer(store))
      : Effect.flatMap(openKeys(store), (keys) => runUsual({ ...job, contestant }, keys, tell))
  // What goes wrong for good is told at the end; the rest is no news in a demo that kills.
  return Effect.provide(Effect.scoped(work), [clientLayer(kafka, job.name), Logger.layer([])])
}

const end = (exit: Exit.Exit<unknown, unknown>): void => {
  if (Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)) {
    const error = Cause.squash(exit.cause)
    tell({ what: "failed", message: error instanceof Error ? error.message : String(error) })
    process.exit(1)
  }
  process.exit(0)
}

let fiber: Fiber.Fiber<unknown, unknown> | undefined
process.once("disconnect", () => process.exit(1))
process.once("SIGTERM", () => (fiber === undefined ? process.exit(0) : fiber.interruptUnsafe()))
process.once("message", (instructions: Instructions) => {
  fiber = Effect.runFork(consume(instructions))
  fiber.addObserver(end)
})
