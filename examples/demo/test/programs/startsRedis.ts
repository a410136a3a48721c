/** Starts a Redis server, tells its address, and waits to be killed. */
import { startRedisServer } from "../../src/stores/RedisServer.ts"

const server = await startRedisServer(process.env.PATH ?? "")
process.send?.(server?.url)
setInterval(() => {}, 60_000)
