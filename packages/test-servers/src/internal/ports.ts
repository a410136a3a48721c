import { once } from "node:events"
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"

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

/** A file for each port that a process of the tests has chosen, with the process's number. */
const folder = join(import.meta.dirname, "../../../../.tools/ports")

const reserved: Array<string> = []
process.once("exit", () => {
  for (const file of reserved) rmSync(file, { force: true })
})

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

/**
 * Keeps a port for this process, as long as it lives: a server that is killed, or a network that is cut, leaves its port
 * free for a while and wants it back, and another file of tests, in a process of its own, must not choose it meanwhile.
 */
const reserve = (port: number): boolean => {
  const file = join(folder, String(port))
  mkdirSync(folder, { recursive: true })
  try {
    writeFileSync(file, String(process.pid), { flag: "wx" })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error
    let owner = Number.NaN
    try {
      owner = Number(readFileSync(file, "utf8"))
    } catch {
      return false
    }
    // empty while its owner writes it
    if (!(owner > 0) || isAlive(owner)) return false
    // left behind by one that was killed: free from the next time on
    rmSync(file, { force: true })
    return false
  }
  reserved.push(file)
  return true
}

/** Ports of this machine on which nobody listens now, all different, and which no other process of the tests chooses. */
export const freePorts = async (count: number): Promise<Array<number>> => {
  const ports = new Set<number>()
  for (let attempt = 0; ports.size < count; attempt++) {
    if (attempt === 1_000) throw new Error(`no ${count} free ports in ${firstPort}-${endPort - 1}`)
    const port = firstPort + Math.floor(Math.random() * (endPort - firstPort))
    if (!ports.has(port) && reserve(port) && (await isFree(port))) ports.add(port)
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
    if (!reserve(port) || !reserve(port + clusterBusDistance)) continue
    if ((await isFree(port)) && (await isFree(port + clusterBusDistance))) return port
  }
  throw new Error(`no free port in ${firstPort}-${end - 1} with a free one ${clusterBusDistance} above it`)
}
