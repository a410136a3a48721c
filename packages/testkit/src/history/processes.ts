/** Histories of several processes on one store, some of which may be killed in the middle of their work. */
import { type ChildProcess, spawn } from "node:child_process"
import { randomUUID } from "node:crypto"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { History } from "./History.ts"
import { historyOf, type RecordLine } from "./Recorder.ts"
import type { WorkerOrder } from "./worker.ts"
import type { WorkloadOptions } from "./workload.ts"

/** What the processes do, and on which store. */
export interface ProcessesOptions extends Partial<WorkloadOptions> {
  /**
   * The module whose default export makes the store's layer: `(storeOptions) => Layer<OffsetStore | IdempotencyStore>`.
   * Each process imports it for itself.
   *
   * @example
   * new URL("./sharedStore.js", import.meta.url)
   */
  readonly store: URL
  /** For the module; must survive JSON. */
  readonly storeOptions?: unknown
  /** How many work at once. Default: 3. */
  readonly processes?: number
  /** How many are killed (`SIGKILL`) while they work, each succeeded by a new one. Default: 0. */
  readonly kills?: number
  /** Behind connections with faults, to callers that ask again. Default: without. */
  readonly withFaults?: boolean
}

const isSource = import.meta.url.endsWith(".ts")
const program = fileURLToPath(new URL(isSource ? "./worker.ts" : "./worker.js", import.meta.url))
const nodeOptions = isSource ? ["--conditions=@tidemark/source", "--disable-warning=ExperimentalWarning"] : []

interface Worker {
  readonly child: ChildProcess
  /** Settles when the process has ended; fails where it did so by itself, and not well. */
  readonly ended: Promise<void>
  wasKilled: boolean
}

const start = (order: WorkerOrder): Worker => {
  const child = spawn(process.execPath, [...nodeOptions, program, JSON.stringify(order)], {
    stdio: ["ignore", "ignore", "pipe"]
  })
  let complaint = ""
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    complaint += text
  })
  const ended = new Promise<void>((settle, fail) => {
    child.on("error", fail)
    child.on("close", (code) => {
      if (code === 0 || worker.wasKilled) settle()
      else fail(new Error(`the worker ${order.caller} ended with exit code ${code}:\n${complaint}`))
    })
  })
  const worker: Worker = { child, ended, wasKilled: false }
  return worker
}

/** The lines that are whole: of a process that was killed the last one may not be. */
const linesOf = (folder: string): ReadonlyArray<RecordLine> =>
  readdirSync(folder).flatMap((file) => {
    const text = readFileSync(join(folder, file), "utf8")
    return text
      .slice(0, text.lastIndexOf("\n") + 1)
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as RecordLine)
  })

const hasBegun = async (file: string, ended: () => boolean): Promise<void> => {
  while (!ended()) {
    try {
      if (readFileSync(file, "utf8").includes("\n")) return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error
    }
    await pause(10)
  }
}

const pause = (millis: number): Promise<void> => new Promise((settle) => setTimeout(settle, millis))

/**
 * Lets several processes work on one store, and answers the history of all their calls; check it with `checkHistory`.
 *
 * The processes must be on one machine: the order of their calls is told by its monotonic clock.
 *
 * @example
 * const history = await historyOfProcesses({ store: new URL("./sharedStore.js", import.meta.url), kills: 2 })
 * expect(checkHistory(history)).toEqual([])
 */
export const historyOfProcesses = async (options: ProcessesOptions): Promise<History> => {
  const { kills = 0, processes = 3, seed = 1, store, storeOptions, withFaults = false, ...workload } = options
  const folder = mkdtempSync(join(tmpdir(), "tidemark-history-"))
  const unique = randomUUID().slice(0, 8)
  const names = workload.names ?? ["a", "b", "c"].map((name) => `${name}-${unique}`)
  const running = new Map<string, Worker>()
  let started = 0
  const startOne = (): Promise<void> => {
    const caller = `process ${++started}`
    const file = join(folder, `${caller}.jsonl`)
    const own = { callers: 3, ...workload, names, seed: seed * 1_000 + started }
    const worker = start({ store: store.href, storeOptions, caller, file, withFaults, workload: own })
    running.set(file, worker)
    return worker.ended.finally(() => running.delete(file))
  }
  try {
    const all = Array.from({ length: processes }, startOne)
    for (let kill = 0; kill < kills; kill++) {
      const [file, victim] = [...running][kill % Math.max(1, running.size)] ?? []
      if (victim === undefined || file === undefined) break
      await hasBegun(file, () => !running.has(file))
      // some way into its work, a different one each time
      await pause(20 + ((kill * 67 + seed * 31) % 150))
      victim.wasKilled = true
      victim.child.kill("SIGKILL")
      all.push(startOne())
    }
    await Promise.all(all)
    return historyOf(linesOf(folder))
  } finally {
    for (const { child } of running.values()) child.kill("SIGKILL")
    rmSync(folder, { recursive: true, force: true })
  }
}
