/** Starts a cluster, tells so, and waits to be killed. */
import { startRedisCluster } from "../../src/index.ts"

await startRedisCluster()
process.send?.("started")
setInterval(() => {}, 60_000)
