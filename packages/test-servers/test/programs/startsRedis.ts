/** Starts a server, tells so, and waits to be killed. */
import { startOwnRedis } from "../../src/index.ts"

await startOwnRedis()
process.send?.("started")
setInterval(() => {}, 60_000)
