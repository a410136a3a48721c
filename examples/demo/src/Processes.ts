/**
 * Consumers with a process each. They share nothing but the broker and the store; what they do to orders they write to
 * a pipe, which outlives them; and they are killed with SIGKILL.
 */
import { type ChildProcess, fork } from "node:child_process"
import type { Readable } from "node:stream"
import { fileURLToPath } from "node:url"
import { Effect, type Scope } from "effect"
import type { BrokerAddress } from "./Cluster.ts"
import { type Consumer, RaceFailed, type StartConsumer } from "./Consumers.ts"
import type { Job } from "./Contestants.ts"
import type { Instructions } from "./internal/consumerProgram.ts"
import type { Ledger } from "./Ledger.ts"
import { makeNoteReader, monotonicMillis, type Note, notesDescriptor } from "./Notes.ts"
import type { StorePlace } from "./stores/openStore.ts"

const stopTimeoutMillis = 10_000

/** How much of what a process complains about is kept, for the error that ends the race. */
const keptComplaints = 4_000

const launch = (): ChildProcess =>
  fork(fileURLToPath(new URL("./internal/consumerProgram.ts", import.meta.url)), [], {
    // A group of its own, so that Ctrl-C reaches the demo first.
    detached: true,
    execArgv: [
      "--conditions=@tidemark/source",
      "--disable-warning=ExperimentalWarning",
      "--disable-warning=TimeoutNegativeWarning"
    ],
    stdio: ["ignore", "ignore", "pipe", "ipc", "pipe"]
  })

class ProcessConsumer implements Consumer {
  readonly name: string
  assigned = -1
  private readonly child: ChildProcess
  private readonly ledger: Ledger
  /** Resolves when it has ended, and all that it wrote is in the ledger. */
  private readonly gone: Promise<string>
  private ending = false
  private reason: string | undefined
  private complaints = ""

  constructor(name: string, child: ChildProcess, ledger: Ledger) {
    this.name = name
    this.child = child
    this.ledger = ledger
    const notes = child.stdio[notesDescriptor] as Readable
    notes.setEncoding("utf8").on("data", makeNoteReader(this.onNote))
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.complaints = (this.complaints + text).slice(-keptComplaints)
    })
    this.gone = new Promise((resolve) => {
      child.once("error", (error) => resolve(error.message))
      child.once("close", (code, signal) => resolve(signal ?? `exit code ${code}`))
    })
  }

  private readonly onNote = (note: Note): void => {
    if (note.what === "assigned") this.assigned = note.partitions
    else if (note.what === "failed") this.reason = note.message
    else this.ledger.note(this.name, note)
  }

  readonly kill = Effect.promise(async () => {
    this.ending = true
    this.ledger.kill(this.name, monotonicMillis())
    this.child.kill("SIGKILL")
    await this.gone
  })

  readonly stop = Effect.promise(async () => {
    this.ending = true
    this.child.kill("SIGTERM")
    const timer = setTimeout(() => this.child.kill("SIGKILL"), stopTimeoutMillis)
    await this.gone
    clearTimeout(timer)
  })

  readonly failure = Effect.flatMap(
    Effect.promise(() => this.gone),
    (how): Effect.Effect<never, RaceFailed> => {
      if (this.ending) return Effect.never
      const why = this.reason ?? (this.complaints.trim() || "it did not say why")
      return Effect.fail(new RaceFailed(`the process of ${this.name} ended (${how}): ${why}`))
    }
  )

  /** Where it has not ended by then. */
  readonly end = Effect.promise(async () => {
    this.ending = true
    this.child.kill("SIGKILL")
    await this.gone
  })
}

/** Starts consumers on a broker and a store that other processes can reach. */
export const inProcesses =
  (kafka: BrokerAddress, store: StorePlace): StartConsumer =>
  (job: Job, ledger: Ledger): Effect.Effect<Consumer, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const child = launch()
        const consumer = new ProcessConsumer(job.name, child, ledger)
        // Not on the command line: a store's address may hold a password.
        child.send({ job, kafka, store } satisfies Instructions, () => {
          // what can't be sent has ended, and says so by its end
        })
        return consumer
      }),
      (consumer) => consumer.end
    )
