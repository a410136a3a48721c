import { commonConfig, startTimeoutMillis } from "./internal/RedisProcess.ts"
import { startRedisProgram } from "./internal/redisProgram.ts"
import { askRedis, eventually } from "./internal/redisReady.ts"
import { findRedisPrograms, hostAndPort, type OwnRedisOptions, type OwnRedisServer, own } from "./Redis.ts"
import { startTcpProxy, type TcpProxy } from "./TcpProxy.ts"

/** A primary and its replica, on which nobody else works. */
export interface RedisReplication extends AsyncDisposable {
  /** Who takes writes now; another one after `promote`. */
  readonly primary: OwnRedisServer
  /** Who follows it, and answers writes with READONLY. */
  readonly replica: OwnRedisServer
  /**
   * The network by which the replica follows the primary. What is written while it is cut, `promote` loses: that is
   * what asynchronous replication may do.
   */
  readonly link: TcpProxy
  /** Resolves when the replica has all that the primary had when this was called. */
  readonly caughtUp: () => Promise<void>
  /**
   * Makes the replica the primary. The old one becomes its replica, which empties it of what the new one has not
   * got; with `oldPrimary: "stays"` it goes on taking writes, as one does that is cut off from those who decide.
   */
  readonly promote: (options?: { readonly oldPrimary?: "follows" | "stays" }) => Promise<void>
  /** Ends both and removes their data. Idempotent. */
  readonly stop: () => Promise<void>
}

/** `["master", offset, ...]`, or `["slave", host, port, state, offset]` */
const roleOf = (server: OwnRedisServer): Promise<ReadonlyArray<unknown>> =>
  askRedis(server.url, (client) => client.role() as Promise<ReadonlyArray<unknown>>)

const follow = (server: OwnRedisServer, address: string): Promise<unknown> => {
  const { host, port } = hostAndPort(address)
  return askRedis(server.url, async (client) => {
    await client.replicaof(host, port)
    await client.config("REWRITE")
  })
}

const lead = (server: OwnRedisServer): Promise<unknown> =>
  askRedis(server.url, async (client) => {
    await client.replicaof("NO", "ONE")
    await client.config("REWRITE")
  })

const waitUntilCaughtUp = async (primary: OwnRedisServer, replica: OwnRedisServer): Promise<void> => {
  const [, written] = await roleOf(primary)
  await eventually({
    what: `${replica.address} has what ${primary.address} had`,
    condition: async () => {
      const role = await roleOf(replica)
      const [kind, , , state, received] = role
      if (kind !== "slave" || state !== "connected" || Number(received) < Number(written)) {
        throw new Error(`its role is ${JSON.stringify(role)}, and ${written} bytes were written`)
      }
    },
    timeoutMillis: startTimeoutMillis
  })
}

/**
 * Starts a primary and a replica, with `redis-server` or `valkey-server` from the path; ready in half a second, with
 * the replica caught up.
 *
 * Rejects with `ServerUnavailable` where there is no such program: `REDIS_URL` and Docker are not looked at.
 *
 * @example
 * await using redis = await startRedisReplication()
 * redis.link.cut()
 * await new Redis(redis.primary.url).set("order 1", "paid")
 * await redis.promote() // nobody knows of order 1 any more
 */
export const startRedisReplication = async (options: OwnRedisOptions = {}): Promise<RedisReplication> => {
  const program = await findRedisPrograms()
  const { appendonly = false, config = {} } = options
  const replicationConfig: Record<string, string> = {
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
    ...(config.requirepass === undefined ? {} : { masterauth: config.requirepass })
  }
  const startServer = async () =>
    own(
      "program",
      await startRedisProgram(program, {
        config: { ...replicationConfig, ...commonConfig({ appendonly, config }) }
      }),
      config
    )
  const servers: Array<OwnRedisServer> = []
  let link: TcpProxy | undefined
  const stop = async () => {
    link?.stop()
    await Promise.all(servers.map((server) => server.stop()))
  }
  try {
    let primary = await startServer()
    servers.push(primary)
    let replica = await startServer()
    servers.push(replica)
    const connectThem = async () => {
      link?.stop()
      link = await startTcpProxy(primary.address)
      await follow(replica, link.address)
      await waitUntilCaughtUp(primary, replica)
    }
    await connectThem()
    return {
      get primary() {
        return primary
      },
      get replica() {
        return replica
      },
      get link() {
        return link as TcpProxy
      },
      caughtUp: () => waitUntilCaughtUp(primary, replica),
      promote: async ({ oldPrimary = "follows" } = {}) => {
        await lead(replica)
        ;[primary, replica] = [replica, primary]
        if (oldPrimary === "follows") await connectThem()
      },
      stop,
      [Symbol.asyncDispose]: stop
    }
  } catch (error) {
    await stop()
    throw error
  }
}
