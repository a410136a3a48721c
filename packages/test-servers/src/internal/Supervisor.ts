import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"

/** A program and its arguments; no shell is involved. */
export interface Program {
  readonly command: string
  readonly args: ReadonlyArray<string>
}

/** What is done when the server ends for good, or when its starter has died. */
export interface Will {
  /** Removed with all that is in it. */
  readonly folder: string
  /** Run before the folder is removed. */
  readonly farewell?: Program
}

/** Ends the program as a power cut would; stops it where it stands; lets it go on. */
type ServerSignal = "SIGKILL" | "SIGSTOP" | "SIGCONT"

export type SupervisorOrder =
  | { readonly type: "run"; readonly command: string; readonly args: Array<string>; readonly logFile: string }
  | { readonly type: "signal"; readonly signal: ServerSignal }

export type SupervisorReport =
  | { readonly type: "started"; readonly pid: number }
  | { readonly type: "signalled" }
  | { readonly type: "exited"; readonly reason: string }

/** A running program. */
interface Running {
  readonly pid: number
  /** Resolves with the signal or the exit code, in words, when the program has ended. */
  readonly exited: Promise<string>
}

export interface Supervisor {
  /** Its own process id: gone once everything is cleaned up. */
  readonly pid: number
  /** Starts the program; only one runs at a time. Its output is appended to `logFile`. */
  readonly run: (program: Program, logFile: string) => Promise<Running>
  /** Runs the program to its end, and resolves as `exited` does. */
  readonly runToEnd: (program: Program, logFile: string) => Promise<string>
  /** Kills the program with SIGKILL, and resolves when it has ended. */
  readonly kill: () => Promise<void>
  /** Stops the program where it stands, as a machine that hangs would: its connections stay open. */
  readonly pause: () => Promise<void>
  /** Lets a paused program go on. */
  readonly resume: () => Promise<void>
  /** Kills the program, carries out the will, and resolves when the supervisor itself is gone. Idempotent. */
  readonly end: () => Promise<void>
}

/** Starts a supervisor; it keeps no event loop alive, so a script may end without calling `end`. */
export const supervise = async (will: Will): Promise<Supervisor> => {
  const child = fork(fileURLToPath(new URL("./supervise.ts", import.meta.url)), [JSON.stringify(will)], {
    // A group of its own: Ctrl-C in a terminal must reach the tests, not the server under them.
    detached: true,
    execArgv: ["--disable-warning=ExperimentalWarning"],
    stdio: ["ignore", "ignore", "inherit", "ipc"]
  })
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()))
  let running: Running | undefined
  let holds = 0
  const hold = async <A>(promise: Promise<A>): Promise<A> => {
    if (holds++ === 0) {
      child.ref()
      child.channel?.ref()
    }
    try {
      return await promise
    } finally {
      if (--holds === 0) {
        child.unref()
        child.channel?.unref()
      }
    }
  }
  await hold(
    new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve)
      child.once("error", reject)
    })
  )
  const run = (program: Program, logFile: string) =>
    hold(
      new Promise<Running>((resolve, reject) => {
        const exited = Promise.withResolvers<string>()
        const onReport = (report: SupervisorReport) => {
          if (report.type === "started") {
            running = { pid: report.pid, exited: exited.promise }
            return resolve(running)
          }
          if (report.type === "signalled") return
          child.off("message", onReport)
          running = undefined
          exited.resolve(report.reason)
          reject(new Error(`${program.command} did not start: ${report.reason}`))
        }
        child.on("message", onReport)
        gone.then(() => onReport({ type: "exited", reason: "its supervisor ended" }))
        const order: SupervisorOrder = {
          type: "run",
          command: program.command,
          args: [...program.args],
          logFile
        }
        child.send(order, (error) => {
          if (error !== null) reject(error)
        })
      })
    )
  const signal = (name: ServerSignal) =>
    hold(
      new Promise<void>((resolve, reject) => {
        const onReport = (report: SupervisorReport) => {
          if (report.type !== "signalled") return
          child.off("message", onReport)
          resolve()
        }
        child.on("message", onReport)
        gone.then(() => resolve())
        const order: SupervisorOrder = { type: "signal", signal: name }
        child.send(order, (error) => {
          if (error !== null) reject(error)
        })
      })
    )
  return {
    pid: child.pid as number,
    run,
    runToEnd: (program, logFile) => hold(run(program, logFile).then(({ exited }) => exited)),
    kill: async () => {
      const current = running
      if (current === undefined) return
      await signal("SIGKILL")
      await hold(current.exited)
    },
    pause: () => signal("SIGSTOP"),
    resume: () => signal("SIGCONT"),
    end: () => {
      if (child.connected) child.disconnect()
      return hold(gone)
    }
  }
}
