/**
 * A broker for the demo that needs neither Java nor Docker: librdkafka's mock cluster, which speaks Kafka's protocol
 * over TCP. Good for showing how consumers behave; transactions and idempotent producers prove nothing on it.
 */
import { type ChildProcess, fork } from "node:child_process"
import type { Socket } from "node:net"
import { createInterface } from "node:readline"
import type { Readable } from "node:stream"
import { fileURLToPath } from "node:url"
import type { ISocketFactory } from "kafkajs"
import type { ProgramReport } from "./internal/embeddedBrokerProgram.ts"
import { leaderLast } from "./internal/leaderLast.ts"
import { connectPlainly } from "./MortalSockets.ts"

/** How many partitions a topic gets; they are created when it is first written or read, and only so. */
export const embeddedPartitions = 4

/** How its group members must connect, or some of their joins fail. */
export const embeddedSockets: ISocketFactory = leaderLast(connectPlainly)

interface EmbeddedBroker {
  /** One address, as `host:port`. */
  readonly brokers: ReadonlyArray<string>
  /** Ends the broker; it ends with this process anyway. Idempotent. */
  readonly stop: () => Promise<void>
}

const startTimeoutMillis = 10_000

const launch = (): ChildProcess =>
  fork(fileURLToPath(new URL("./internal/embeddedBrokerProgram.ts", import.meta.url)), [], {
    // A group of its own, so that Ctrl-C reaches the demo first.
    detached: true,
    execArgv: ["--disable-warning=ExperimentalWarning"],
    stdio: ["ignore", "pipe", "ignore", "ipc"]
  })

const exitOf = (child: ChildProcess): Promise<string> =>
  new Promise((resolve) => {
    child.once("error", (error) => resolve(error.message))
    child.once("exit", (code, signal) => resolve(`its process ended: ${signal ?? `exit code ${code}`}`))
  })

const addressIn = (log: Readable): Promise<string> =>
  new Promise((resolve) => {
    createInterface({ input: log }).on("line", (line) => {
      const address = /replaced with ([\w.]+:\d+)/.exec(line)?.[1]
      if (address !== undefined) resolve(address)
    })
  })

const complaintOf = (child: ChildProcess): Promise<string> =>
  new Promise((resolve) => child.once("message", (report: ProgramReport) => resolve(report.unavailable)))

/**
 * Starts the broker on a free port of 127.0.0.1, in a process of its own; it takes about a quarter of a second.
 * Answers `unavailable` and why where there is no build of the library for this machine.
 *
 * Its groups are slow: the first member joins in 3 s, a further one in `sessionTimeout - 1 s`, and what a dead member
 * had is given to others after about twice the session timeout. A partition keeps its latest 5 MiB, at most 100,000
 * batches.
 */
export const startEmbeddedBroker = async (): Promise<EmbeddedBroker | { readonly unavailable: string }> => {
  const child = launch()
  const log = child.stdout as Socket
  const exited = exitOf(child)
  const stop = async () => {
    child.ref()
    child.kill("SIGKILL")
    await exited
  }
  let timer: NodeJS.Timeout | undefined
  const overdue = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`no address within ${startTimeoutMillis} ms`), startTimeoutMillis)
  })
  const result = await Promise.race([
    addressIn(log).then((address) => ({ address })),
    Promise.race([complaintOf(child), exited, overdue]).then((unavailable) => ({ unavailable }))
  ])
  clearTimeout(timer)
  if ("unavailable" in result) {
    await stop()
    return result
  }
  // The broker must not keep a demo alive that has ended without `stop`.
  child.unref()
  child.channel?.unref()
  log.unref()
  return { brokers: [result.address], stop }
}
