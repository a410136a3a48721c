import { once } from "node:events"
import { createServer } from "node:net"

/**
 * The range lies below the ephemeral ports of Linux (from 32768) and macOS (from 49152). A client that reconnects
 * to an ephemeral port of its own machine where nobody listens may be given that very port and so connect to
 * itself, which would hide a killed server.
 */
const firstPort = 15_000
const endPort = 32_000

const isFree = async (port: number): Promise<boolean> => {
  const server = createServer()
  try {
    server.listen(port, "127.0.0.1")
    await once(server, "listening")
    return true
  } catch {
    return false
  } finally {
    server.close()
  }
}

/** Ports of this machine on which nobody listens now, all different. */
export const freePorts = async (count: number): Promise<Array<number>> => {
  const ports = new Set<number>()
  for (let attempt = 0; ports.size < count; attempt++) {
    if (attempt === 1_000) throw new Error(`no ${count} free ports in ${firstPort}-${endPort - 1}`)
    const port = firstPort + Math.floor(Math.random() * (endPort - firstPort))
    if (!ports.has(port) && (await isFree(port))) ports.add(port)
  }
  return [...ports]
}

const clusterBusDistance = 10_000

/**
 * A free port for a node of a Redis Cluster, which listens on the port that is 10,000 above it too. Both lie below
 * the ephemeral ports of Linux.
 */
export const freeClusterPort = async (): Promise<number> => {
  const end = 32_768 - clusterBusDistance
  for (let attempt = 0; attempt < 1_000; attempt++) {
    const port = firstPort + Math.floor(Math.random() * (end - firstPort))
    if ((await isFree(port)) && (await isFree(port + clusterBusDistance))) return port
  }
  throw new Error(`no free port in ${firstPort}-${end - 1} with a free one ${clusterBusDistance} above it`)
}
