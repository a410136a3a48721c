import { mkdtemp } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createContainer } from "./docker.ts"
import { freePorts } from "./ports.ts"
import {
  commonConfig,
  type RedisProcess,
  type RedisProcessOptions,
  redisUrl,
  startTimeoutMillis
} from "./RedisProcess.ts"
import { answersPing, eventually } from "./redisReady.ts"

/** An image and its server's command. */
export interface RedisImage {
  readonly image: string
  readonly command: "redis-server" | "valkey-server"
}

/** `--save "" --appendonly no`: each value of a setting is a word of its own. */
const asWords = (config: Record<string, string>): Array<string> =>
  Object.entries(config).flatMap(([name, value]) => [
    `--${name}`,
    ...value.split(" ").map((word) => (word === '""' ? "" : word))
  ])

/** Starts Redis in a container, which the supervisor removes. */
export const dockerRedis = async (
  { command, image }: RedisImage,
  options: RedisProcessOptions
): Promise<RedisProcess> => {
  const [port] = await freePorts(1)
  const address = `127.0.0.1:${port}`
  const container = await createContainer({
    prefix: "tidemark-redis",
    folder: await mkdtemp(join(tmpdir(), "tidemark-redis-")),
    image,
    options: ["--publish", `${address}:6379`],
    args: [command, ...asWords(commonConfig(options))],
    startTimeoutMillis
  })
  const url = redisUrl(address, options.config)
  const start = async () => {
    const { exited } = await container.start()
    const what = `a server answers at ${address}`
    await eventually({ what, condition: () => answersPing(url), exited, timeoutMillis: startTimeoutMillis })
  }
  try {
    await start()
  } catch (error) {
    const log = await container.log()
    await container.end()
    throw new Error(`${image} did not start in Docker: ${String(error)}\n${log}`, { cause: error })
  }
  const { end, kill, pause, resume } = container
  return { address, kill, restart: start, pause, resume, stop: end }
}
