import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { describeWhere } from "@tidemark/test-servers/vitest"
import { expect } from "vitest"
import type { startEmbeddedBroker } from "../src/EmbeddedBroker.ts"

/** Enough for a busy machine; a run takes about a minute, most of it spent waiting for joins and for sessions to end. */
export const timeout = 300_000

/** A load that is done soon. */
export const few = ["--orders", "400", "--seed", "7"]

/** A `describe` for tests on an embedded broker, of which this is one: not every machine has a build of its library. */
export const describeWhereEmbedded = (broker: Awaited<ReturnType<typeof startEmbeddedBroker>>) =>
  "unavailable" in broker
    ? describeWhere(false, "embedded-broker", broker.unavailable)
    : describeWhere(true, "embedded-broker", "")

interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

interface Options {
  /** Over those of this process; the user's brokers and Redis are never taken by themselves. */
  readonly env?: Readonly<Record<string, string>>
  /** Called with each line that it says on the way, while it runs. */
  readonly onLine?: (line: string, demo: ChildProcess) => void
}

/** Runs the demo as `./dev demo` does, to its end. */
export const run = (args: ReadonlyArray<string>, { env, onLine }: Options = {}): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const main = fileURLToPath(new URL("../src/main.ts", import.meta.url))
    const demo = spawn(process.execPath, ["--conditions=@tidemark/source", main, ...args], {
      env: { ...process.env, KAFKA_BROKERS: "", REDIS_URL: "", ...env },
      stdio: ["ignore", "pipe", "pipe"]
    })
    const said = { stdout: "", stderr: "" }
    let lines = 0
    demo.stdout.setEncoding("utf8").on("data", (text: string) => {
      said.stdout += text
    })
    demo.stderr.setEncoding("utf8").on("data", (text: string) => {
      said.stderr += text
      const whole = said.stderr.split("\n").slice(0, -1)
      for (const line of whole.slice(lines)) onLine?.(line, demo)
      lines = whole.length
    })
    demo.once("error", reject)
    demo.once("close", (code) => resolve({ code, ...said }))
  })

/** Runs it with these arguments, and expects of its result what the demo is there to show. */
export const expectShown = async (args: ReadonlyArray<string>, options: Options = {}) => {
  const ended = await run([...args, "--json"], options)
  expect(ended.code, ended.stderr).toBe(0)
  const { contestants, kept, store } = JSON.parse(ended.stdout)
  expect(kept).toBe(true)
  expect(contestants.map((row: { contestant: string }) => row.contestant)).toEqual([
    "check-process-add",
    "claim without a lease",
    "tidemark"
  ])
  const [racy, leaseless, tidemark] = contestants
  expect(tidemark).toMatchObject({ lost: [], twice: 0 })
  expect(tidemark.inWorkAtKill, "the kill came in the midst of handlers").toBeGreaterThan(0)
  // the other two don't keep it
  expect(racy.twice).toBeGreaterThan(0)
  expect(leaseless.lost.length).toBeGreaterThan(0)
  return { ...ended, store, tidemark }
}
