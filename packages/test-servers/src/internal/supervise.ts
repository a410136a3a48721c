/**
 * The process between the tests and a server. It outlives whoever started it by a moment only: when the channel
 * to its parent closes, however the parent ended (`kill -9` too), it ends the server and removes its folder.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { closeSync, openSync, rmSync } from "node:fs"
import type { SupervisorOrder, SupervisorReport, Will } from "./Supervisor.ts"

const will = JSON.parse(process.argv[2] as string) as Will
let server: ChildProcess | undefined

const report = (event: SupervisorReport) => {
  if (process.connected) process.send?.(event)
}

const run = ({ command, args, logFile }: Extract<SupervisorOrder, { type: "run" }>) => {
  const log = openSync(logFile, "a")
  const child = spawn(command, args, { stdio: ["ignore", log, log] })
  closeSync(log)
  server = child
  const exited = (reason: string) => {
    server = undefined
    report({ type: "exited", reason })
  }
  child.once("spawn", () => report({ type: "started", pid: child.pid as number }))
  child.once("error", (error) => exited(error.message))
  child.once("exit", (code, signal) => exited(signal ?? `exit code ${code}`))
}

const end = () => {
  const finish = () => {
    if (will.farewell !== undefined) {
      spawnSync(will.farewell.command, will.farewell.args, { stdio: "ignore", timeout: 30_000 })
    }
    rmSync(will.folder, { recursive: true, force: true, maxRetries: 5 })
    process.exit(0)
  }
  if (server === undefined) return finish()
  server.once("exit", finish)
  server.kill("SIGKILL")
}

process.on("message", (order: SupervisorOrder) => {
  if (order.type === "run") return run(order)
  server?.kill(order.signal)
  report({ type: "signalled" })
})
process.once("disconnect", end)
process.once("SIGTERM", end)
process.once("SIGINT", end)
