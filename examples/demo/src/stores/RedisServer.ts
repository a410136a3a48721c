/** A Redis server that the demo starts for itself. */
import { fork } from "node:child_process"
import { accessSync, constants, mkdtempSync } from "node:fs"
import { type AddressInfo, createServer } from "node:net"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { createInterface } from "node:readline"
import type { Readable } from "node:stream"
import { fileURLToPath } from "node:url"

const startTimeoutMillis = 10_000

interface RedisServer {
  readonly url: string
  /** The program. */
  readonly command: string
  /** Ends it, and removes its folder; both end with this process anyway. Idempotent. */
  readonly stop: () => Promise<void>
}

const isExecutable = (file: string): boolean => {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** The first of these programs on the path; `undefined` where none is. */
const findProgram = (names: ReadonlyArray<string>, path: string): string | undefined =>
  names
    .flatMap((name) =>
      path
        .split(delimiter)
        .filter(Boolean)
        .map((folder) => join(folder, name))
    )
    .find((file) => isExecutable(file))

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once("error", reject)
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })

/**
 * Starts `redis-server` or `valkey-server` of the `PATH` on a free port of 127.0.0.1, with nothing kept on disk.
 * `undefined` where there is neither. Rejects with what the server said where it does not come up.
 */
export const startRedisServer = async (path: string): Promise<RedisServer | undefined> => {
  const command = findProgram(["redis-server", "valkey-server"], path)
  if (command === undefined) return undefined
  const folder = mkdtempSync(join(tmpdir(), "tidemark-demo-redis-"))
  const port = await freePort()
  const settings = { bind: "127.0.0.1", port, dir: folder, save: "", appendonly: "no" }
  const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)])
  const child = fork(
    fileURLToPath(new URL("../internal/redisProgram.ts", import.meta.url)),
    [command, folder, ...args],
    {
      // A group of its own, so that Ctrl-C reaches the demo first.
      detached: true,
      execArgv: ["--disable-warning=ExperimentalWarning"],
      stdio: ["ignore", "pipe", "pipe", "ipc"]
    }
  )
  const ended = new Promise<void>((resolve) => {
    // not `close`, which never comes after a `disconnect` from this side
    child.once("exit", () => resolve())
    child.once("error", () => resolve())
  })
  const said: Array<string> = []
  const ready = new Promise<boolean>((resolve) => {
    for (const output of [child.stdout, child.stderr] as ReadonlyArray<Readable>)
      createInterface({ input: output }).on("line", (line) => {
        if (said.length < 100) said.push(line)
        if (line.includes("eady to accept connections")) resolve(true)
      })
    ended.then(() => resolve(false))
    setTimeout(() => resolve(false), startTimeoutMillis).unref()
  })
  const stop = async () => {
    if (child.connected) child.disconnect()
    await ended
  }
  if (await ready) return { url: `redis://127.0.0.1:${port}`, command, stop }
  await stop()
  throw new Error(
    `${command} did not come up within ${startTimeoutMillis / 1_000} s; it said:\n${said.join("\n")}`
  )
}
