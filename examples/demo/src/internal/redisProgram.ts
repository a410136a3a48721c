/**
 * Runs a Redis server for as long as the process that started this one lives, however that ends, and removes its
 * folder then.
 */
import { spawn } from "node:child_process"
import { rmSync } from "node:fs"

const [command, folder, ...args] = process.argv.slice(2) as [string, string, ...Array<string>]
const server = spawn(command, args, { stdio: ["ignore", "inherit", "inherit"] })
server.once("error", (error) => {
  process.stderr.write(`${error.message}\n`)
})
server.once("close", (code) => {
  rmSync(folder, { recursive: true, force: true })
  process.exit(code ?? 1)
})
process.once("disconnect", () => server.kill("SIGKILL"))
