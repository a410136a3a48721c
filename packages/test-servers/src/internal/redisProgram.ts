import { mkdtemp, readFile, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { exec, tail } from "./exec.ts"
import { freePorts } from "./ports.ts"
import { type RedisProcess, redisUrl, startTimeoutMillis } from "./RedisProcess.ts"
import { answersPing, eventually } from "./redisReady.ts"
import { supervise } from "./Supervisor.ts"

/** What `RedisStore` needs. */
const neededVersion = "6.2"

/** A program on the path that is a Redis server: `redis-server`, or `valkey-server`. */
export interface RedisProgram {
  readonly command: string
}

/** `Redis server v=7.0.15 sha=...` and `Valkey server v=8.1.1 sha=...` */
const versionOf = (output: string): string | undefined => / v=(\d+\.\d+)/.exec(output)?.[1]

const isEnough = (version: string): boolean =>
  neededVersion.localeCompare(version, "en", { numeric: true }) <= 0

/** The first of the commands that is there and new enough, or why there is none. */
export const findProgram = async (
  commands: ReadonlyArray<string>
): Promise<RedisProgram | { readonly missing: string }> => {
  let tooOld: string | undefined
  for (const command of commands) {
    const { succeeded, output } = await exec(command, ["--version"], 10_000)
    const version = succeeded ? versionOf(output) : undefined
    if (version === undefined) continue
    if (isEnough(version)) return { command }
    tooOld ??= `${command} is ${version}, ${neededVersion} is needed`
  }
  return { missing: tooOld ?? `no ${commands[0]}` }
}

/** `redis-server` or `valkey-server` on the path, whichever is there. */
export const findRedisProgram = () => findProgram(["redis-server", "valkey-server"])

const configFile = (config: Record<string, string>): string =>
  Object.entries(config)
    .map(([name, value]) => `${name} ${value}\n`)
    .join("")

const portsTaken = /Address already in use/

interface ProgramOptions {
  /** Lines of its configuration, besides those on where it lives. */
  readonly config: Readonly<Record<string, string>>
  /** Words behind the name of the configuration file. */
  readonly args?: ReadonlyArray<string>
  /** A free port. */
  readonly choosePort?: () => Promise<number>
}

const freePort = async (): Promise<number> => (await freePorts(1))[0] as number

/** Starts a program in a temporary folder. Another process may take the port first: then with another. */
export const startRedisProgram = async (
  program: RedisProgram,
  options: ProgramOptions,
  attemptsLeft = 3
): Promise<RedisProcess> => {
  const { args = [], choosePort = freePort, config } = options
  const folder = await mkdtemp(join(tmpdir(), "tidemark-redis-"))
  const supervisor = await supervise({ folder })
  const logFile = join(folder, "redis.log")
  try {
    const port = await choosePort()
    const address = `127.0.0.1:${port}`
    const file = join(folder, "redis.conf")
    const home = {
      bind: "127.0.0.1",
      port: String(port),
      dir: JSON.stringify(folder),
      // The command line keeps naming the folder, by which a person finds whose server it is.
      "set-proc-title": "no"
    }
    await writeFile(file, configFile({ ...home, ...config }))
    const url = redisUrl(address, config)
    const start = async () => {
      const { exited } = await supervisor.run({ command: program.command, args: [file, ...args] }, logFile)
      const what = `a server answers at ${address}`
      await eventually({ what, condition: () => answersPing(url), exited, timeoutMillis: startTimeoutMillis })
    }
    await start()
    const { end, kill, pause, resume } = supervisor
    return { address, kill, restart: start, pause, resume, stop: end }
  } catch (error) {
    const log = await readFile(logFile, "utf8").catch(() => "it wrote no log")
    await supervisor.end()
    if (portsTaken.test(log) && attemptsLeft > 1) return startRedisProgram(program, options, attemptsLeft - 1)
    throw new Error(`${program.command} did not start: ${String(error)}\n${tail(log, 10)}`, { cause: error })
  }
}
