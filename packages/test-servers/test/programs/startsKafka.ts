/** Starts a broker, tells so, and waits to be killed. */
import { startOwnKafka } from "../../src/index.ts"

await startOwnKafka()
process.send?.("started")
setInterval(() => {}, 60_000)
