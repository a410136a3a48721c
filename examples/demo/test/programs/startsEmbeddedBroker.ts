/** Starts a broker, tells its address, and waits to be killed. */
import { startEmbeddedBroker } from "../../src/EmbeddedBroker.ts"

const broker = await startEmbeddedBroker()
if ("unavailable" in broker) throw new Error(broker.unavailable)
process.send?.(broker.brokers[0])
setInterval(() => {}, 60_000)
