/** Has a program supervised whose data are in a folder, tells so, and ends in the way that is asked for. */
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { supervise } from "../../src/internal/Supervisor.ts"

const [parent, end] = process.argv.slice(2) as [string, string]
const folder = join(parent, "data")
mkdirSync(folder)
const supervisor = await supervise({ folder })
const forever = { command: process.execPath, args: ["-e", "setInterval(() => {}, 60_000)", folder] }
await supervisor.run(forever, join(folder, "log"))
process.send?.("started")
if (end === "exception") throw new Error("a program's own mistake")
if (end === "signal") setInterval(() => {}, 60_000)
process.disconnect()
