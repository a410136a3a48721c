import { startTimeoutMillis } from "./internal/RedisProcess.ts"
import { startRedisProgram } from "./internal/redisProgram.ts"
import { askRedis, eventually } from "./internal/redisReady.ts"
import { findRedisPrograms, hostAndPort, type OwnRedisServer } from "./Redis.ts"
import { startRedisReplication } from "./RedisReplication.ts"

/** A primary, its replica, and a Sentinel that puts one in the place of the other. */
export interface RedisSentinel extends AsyncDisposable {
  /** The two servers: at first the first is the primary. */
  readonly servers: readonly [OwnRedisServer, OwnRedisServer]
  /** What a client asks: `new Redis({ sentinels, name })`. */
  readonly sentinels: ReadonlyArray<{ readonly host: string; readonly port: number }>
  /** What the Sentinel calls the primary. */
  readonly name: string
  /** Ends all three and removes their data. Idempotent. */
  readonly stop: () => Promise<void>
}

const name = "tidemark"

/**
 * Starts a primary, a replica and one Sentinel, with `redis-server` or `valkey-server` from the path; ready when the
 * Sentinel knows both. When the primary does not answer for half a second, the replica takes its place, within some
 * 3 s.
 *
 * Rejects with `ServerUnavailable` where there is no such program: `REDIS_URL` and Docker are not looked at.
 *
 * @example
 * await using redis = await startRedisSentinel()
 * const client = new Redis({ sentinels: [...redis.sentinels], name: redis.name })
 * await redis.servers[0].kill()
 */
export const startRedisSentinel = async (): Promise<RedisSentinel> => {
  const program = await findRedisPrograms()
  const replication = await startRedisReplication()
  try {
    const { primary, replica } = replication
    const { host, port } = hostAndPort(primary.address)
    const sentinel = await startRedisProgram(program, {
      config: {
        [`sentinel monitor ${name}`]: `${host} ${port} 1`,
        [`sentinel down-after-milliseconds ${name}`]: "500",
        [`sentinel failover-timeout ${name}`]: "5000"
      },
      args: ["--sentinel"]
    })
    const stop = async () => {
      await Promise.all([sentinel.stop(), replication.stop()])
    }
    try {
      await eventually({
        what: "the Sentinel knows the replica",
        condition: async () => {
          const known = await askRedis(`redis://${sentinel.address}`, (client) =>
            client.call("SENTINEL", "REPLICAS", name)
          )
          if (!JSON.stringify(known).includes(replica.address)) throw new Error(JSON.stringify(known))
        },
        timeoutMillis: startTimeoutMillis
      })
    } catch (error) {
      await sentinel.stop()
      throw error
    }
    return {
      servers: [primary, replica],
      sentinels: [hostAndPort(sentinel.address)],
      name,
      stop,
      [Symbol.asyncDispose]: stop
    }
  } catch (error) {
    await replication.stop()
    throw error
  }
}
