import { freeClusterPort } from "./internal/ports.ts"
import { commonConfig, startTimeoutMillis } from "./internal/RedisProcess.ts"
import { startRedisProgram } from "./internal/redisProgram.ts"
import { askRedis, eventually } from "./internal/redisReady.ts"
import { findRedisPrograms, hostAndPort, type OwnRedisOptions, type OwnRedisServer, own } from "./Redis.ts"

const size = 3
const slots = 16_384

/** A slot on its way from one node to another. */
interface SlotMove {
  /** The slot's number. */
  readonly slot: number
  /** Moves its keys, and tells all nodes whose it is now. */
  readonly finish: () => Promise<void>
}

/** A Redis Cluster of three primaries, each with a third of the slots, on which nobody else works. */
export interface RedisCluster extends AsyncDisposable {
  /** The nodes; each can be killed, paused and restarted. */
  readonly nodes: ReadonlyArray<OwnRedisServer>
  /** Resolves when every node says that all slots are served: after a node was restarted, say. */
  readonly ready: () => Promise<void>
  /**
   * Begins to move the slot of `key` to a node, by its index. Until it is finished, the old node answers for the
   * keys that it has, and sends who asks for others on (ASK; TRYAGAIN for scripts on both kinds).
   */
  readonly beginSlotMove: (key: string, to: number) => Promise<SlotMove>
  /** Ends all nodes and removes their data. Idempotent. */
  readonly stop: () => Promise<void>
}

/** The nodes' own names for themselves. */
const idOf = (node: OwnRedisServer): Promise<string> =>
  askRedis(node.url, async (client) => (await client.cluster("MYID")) as string)

const thirds = (index: number): Array<number> => {
  const from = Math.floor((index * slots) / size)
  const end = Math.floor(((index + 1) * slots) / size)
  return Array.from({ length: end - from }, (_, at) => from + at)
}

/** Gives each node its slots and makes them know each other; epochs of their own spare them a vote. */
const join = async (nodes: ReadonlyArray<OwnRedisServer>): Promise<void> => {
  const first = hostAndPort(nodes[0]!.address)
  for (const [index, node] of nodes.entries()) {
    await askRedis(node.url, async (client) => {
      await client.cluster("SET-CONFIG-EPOCH", index + 1)
      await client.cluster("ADDSLOTS", ...thirds(index))
      if (index > 0) await client.cluster("MEET", first.host, first.port)
    })
  }
}

const servesAllSlots = async (node: OwnRedisServer): Promise<void> => {
  const info = await askRedis(node.url, (client) => client.cluster("INFO") as Promise<string>)
  for (const line of ["cluster_state:ok", `cluster_slots_ok:${slots}`, `cluster_known_nodes:${size}`]) {
    if (!info.includes(`${line}\r\n`)) throw new Error(`${node.address} does not say ${line}:\n${info}`)
  }
}

const beginSlotMove = async (
  nodes: ReadonlyArray<OwnRedisServer>,
  key: string,
  to: number
): Promise<SlotMove> => {
  const target = nodes[to]!
  const slot = await askRedis(target.url, (client) => client.cluster("KEYSLOT", key))
  const ids = await Promise.all(nodes.map(idOf))
  const owners = await askRedis(target.url, (client) => client.cluster("SLOTS"))
  const ownerId = owners.find(([from, last]) => from <= slot && slot <= last)?.[2][2]
  const source = nodes[ids.indexOf(ownerId as string)]
  if (source === undefined) throw new Error(`slot ${slot} is served by none of the nodes: ${ownerId}`)
  if (source === target) throw new Error(`slot ${slot} of ${key} is at node ${to} already`)
  await askRedis(target.url, (client) => client.cluster("SETSLOT", slot, "IMPORTING", ownerId as string))
  await askRedis(source.url, (client) => client.cluster("SETSLOT", slot, "MIGRATING", ids[to] as string))
  const { host, port } = hostAndPort(target.address)
  const moveKeys = () =>
    askRedis(source.url, async (client) => {
      for (;;) {
        const keys = (await client.cluster("GETKEYSINSLOT", slot, 100)) as Array<string>
        if (keys.length === 0) return
        await client.call("MIGRATE", host, port, "", 0, 5_000, "KEYS", ...keys)
      }
    })
  const finish = async () => {
    await moveKeys()
    // The new owner first: so that at no time nobody answers for the slot.
    for (const node of [target, source, ...nodes.filter((other) => other !== target && other !== source)]) {
      await askRedis(node.url, (client) => client.cluster("SETSLOT", slot, "NODE", ids[to] as string))
    }
  }
  return { slot, finish }
}

/**
 * Starts a Redis Cluster of three nodes without replicas, with `redis-server` or `valkey-server` from the path; ready
 * in about 2 s. A node that is killed takes the whole cluster down after a second, until it is restarted.
 *
 * Rejects with `ServerUnavailable` where there is no such program: `REDIS_URL` and Docker are not looked at.
 *
 * @example
 * await using cluster = await startRedisCluster()
 * const client = new Cluster(cluster.nodes.map(({ url }) => url))
 */
export const startRedisCluster = async (options: OwnRedisOptions = {}): Promise<RedisCluster> => {
  const program = await findRedisPrograms()
  const { appendonly = false, config = {} } = options
  const clusterConfig = {
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    "cluster-node-timeout": "1000"
  }
  const startNode = async () =>
    own(
      "program",
      await startRedisProgram(program, {
        config: { ...clusterConfig, ...commonConfig({ appendonly, config }) },
        choosePort: freeClusterPort
      }),
      config
    )
  const starting = await Promise.allSettled(Array.from({ length: size }, startNode))
  const nodes = starting.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []))
  const stop = async () => {
    await Promise.all(nodes.map((node) => node.stop()))
  }
  const ready = () =>
    eventually({
      what: "every node serves all slots",
      condition: () => Promise.all(nodes.map(servesAllSlots)),
      timeoutMillis: startTimeoutMillis
    })
  try {
    for (const result of starting) if (result.status === "rejected") throw result.reason
    await join(nodes)
    await ready()
  } catch (error) {
    await stop()
    throw error
  }
  return {
    nodes,
    ready,
    beginSlotMove: (key, to) => beginSlotMove(nodes, key, to),
    stop,
    [Symbol.asyncDispose]: stop
  }
}
