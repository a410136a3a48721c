import { dockerAnswers } from "./internal/docker.ts"
import { dockerRedis, type RedisImage } from "./internal/dockerRedis.ts"
import {
  commonConfig,
  type RedisProcess,
  type RedisProcessOptions,
  redisUrl
} from "./internal/RedisProcess.ts"
import { findRedisProgram, type RedisProgram, startRedisProgram } from "./internal/redisProgram.ts"
import { answersPing } from "./internal/redisReady.ts"
import { findValkeyProgram } from "./internal/valkeyDistribution.ts"
import { ServerUnavailable } from "./ServerUnavailable.ts"

/** A Redis that answers. */
export interface RedisServer extends AsyncDisposable {
  /** `redis://127.0.0.1:15731`, with the password if it asks for one. */
  readonly url: string
  /** Whose it is: of `REDIS_URL`, or our own, as a program of this machine or in Docker. */
  readonly kind: "given" | "program" | "docker"
  /** Ends a server of our own and removes its data; leaves a given one alone. Idempotent. */
  readonly stop: () => Promise<void>
}

/** How a server of a test's own is started. */
export interface OwnRedisOptions {
  /**
   * Keeps what was acknowledged through `kill` and `restart`. By default a server that is restarted is empty.
   */
  readonly appendonly?: boolean
  /** Lines of `redis.conf`: `{ requirepass: "secret", maxmemory: "20mb", "maxmemory-policy": "allkeys-lru" }`. */
  readonly config?: Readonly<Record<string, string>>
}

/** A server of our own that nobody else uses, with nothing on it. */
export interface OwnRedisServer extends RedisServer, RedisProcess {
  readonly kind: "program" | "docker"
}

/** A process of ours as a server of a test's own. */
export const own = (
  kind: "program" | "docker",
  process: RedisProcess,
  config: RedisProcessOptions["config"]
): OwnRedisServer => ({
  ...process,
  url: redisUrl(process.address, config),
  kind,
  [Symbol.asyncDispose]: process.stop
})

/** `host:port` in two, as clients and commands want it. */
export const hostAndPort = (address: string): { readonly host: string; readonly port: number } => {
  const [host, port] = address.split(":") as [string, string]
  return { host, port: Number(port) }
}

const withoutPassword = (url: string): string => url.replace(/\/\/.*@/, "//***@")

/** What differs between Redis and Valkey, which speak the same protocol. */
interface Flavour {
  /** In capitals, as a run names it that could not have it. */
  readonly name: "REDIS" | "VALKEY"
  readonly variable: "REDIS_URL" | "VALKEY_URL"
  readonly findProgram: typeof findRedisProgram
  readonly image: RedisImage
}

const redisFlavour: Flavour = {
  name: "REDIS",
  variable: "REDIS_URL",
  findProgram: findRedisProgram,
  image: { image: "redis:7.2-alpine", command: "redis-server" }
}

const valkeyFlavour: Flavour = {
  name: "VALKEY",
  variable: "VALKEY_URL",
  findProgram: findValkeyProgram,
  image: { image: "valkey/valkey:8.1-alpine", command: "valkey-server" }
}

const given = async (variable: string, url: string): Promise<RedisServer> => {
  try {
    await answersPing(url)
  } catch (error) {
    const message = `${variable} is "${withoutPassword(url)}", but no server answers there: unset it, or start that server`
    throw new Error(message, { cause: error })
  }
  const stop = () => Promise.resolve()
  return { url, kind: "given", stop, [Symbol.asyncDispose]: stop }
}

type Start = (options?: OwnRedisOptions) => Promise<OwnRedisServer>

/** Finds the way to a server of our own, without starting one. */
const findOwn = async (flavour: Flavour, name: string, reasons: ReadonlyArray<string>): Promise<Start> => {
  const program = await flavour.findProgram()
  if ("command" in program) {
    return async ({ appendonly = false, config = {} } = {}) => {
      const settings = commonConfig({ appendonly, config })
      return own("program", await startRedisProgram(program, { config: settings }), config)
    }
  }
  if (await dockerAnswers()) {
    return async ({ appendonly = false, config = {} } = {}) =>
      own("docker", await dockerRedis(flavour.image, { appendonly, config }), config)
  }
  throw new ServerUnavailable(name, [program.missing, "no Docker engine", ...reasons])
}

const start = async (flavour: Flavour): Promise<RedisServer> => {
  const url = process.env[flavour.variable]
  if (url) return given(flavour.variable, url)
  const startOwn = await findOwn(flavour, flavour.name, [`${flavour.variable} not set`])
  return startOwn()
}

/**
 * Finds or starts a Redis for tests, benchmarks and load tests: the server of `REDIS_URL` if that is set; else
 * `redis-server` or `valkey-server` on the path; else Redis' image in Docker. One of our own keeps nothing on disk,
 * is ready in a fifth of a second and ends with this process, however that ends; it keeps no event loop alive.
 *
 * Rejects with `ServerUnavailable` where no way leads to a server, and with a plain error where one should have
 * started and did not.
 *
 * @example
 * await using redis = await startRedis()
 * const client = new Redis(redis.url)
 */
export const startRedis = (): Promise<RedisServer> => start(redisFlavour)

/**
 * As `startRedis`, with Valkey: the server of `VALKEY_URL`; else `valkey-server` on the path; else from Debian's
 * packages, fetched once into `.tools/`; else its image in Docker.
 */
export const startValkey = (): Promise<RedisServer> => start(valkeyFlavour)

/** Rejects with `ServerUnavailable` where `startOwnRedis` would. */
export const findOwnRedis = () => findOwn(redisFlavour, "REDIS of a test's own", [])

/**
 * Starts a server that nobody else uses, for a test that kills, pauses, fills or configures it; `REDIS_URL` is not
 * looked at. Rejects as `startRedis` does.
 *
 * @example
 * await using redis = await startOwnRedis({ appendonly: true, config: { maxmemory: "20mb" } })
 * await redis.kill()
 * await redis.restart()
 */
export const startOwnRedis = async (options?: OwnRedisOptions): Promise<OwnRedisServer> => {
  const startOwn = await findOwnRedis()
  return startOwn(options)
}

/** For servers that know each other, which are not started in Docker. Rejects with `ServerUnavailable`. */
export const findRedisPrograms = async (): Promise<RedisProgram> => {
  const program = await findRedisProgram()
  if ("command" in program) return program
  throw new ServerUnavailable("REDIS-CLUSTER", [program.missing])
}
