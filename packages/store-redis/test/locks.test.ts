/** Locks between processes. */
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { it } from "@effect/vitest"
import { uniqueName } from "@tidemark/test-servers"
import { describeWithRedis } from "@tidemark/test-servers/vitest"
import { Effect, Fiber, type Scope } from "effect"
import { expect } from "vitest"
import { openStore } from "./harness.ts"
import type { Order, Report } from "./programs/locks.ts"

const program = fileURLToPath(new URL("programs/locks.ts", import.meta.url))

interface Process {
  readonly child: ChildProcess
  readonly tell: (order: Order) => void
  /** What it reports next. */
  readonly next: <What extends Report["what"]>(
    what: What
  ) => Promise<Extract<Report, { readonly what: What }>>
}

const startProcess = (url: string, prefix: string): Effect.Effect<Process, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const child = fork(program, [url, prefix], {
        execArgv: ["--conditions=@tidemark/source", "--disable-warning=ExperimentalWarning"]
      })
      const process: Process = {
        child,
        tell: (order) => child.send(order),
        next: async (what) => {
          const [report] = (await Promise.race([
            once(child, "message"),
            once(child, "exit").then(([code, signal]) => {
              throw new Error(`the process ended (${code ?? signal}) instead of reporting: ${what}`)
            })
          ])) as [Report]
          expect(report.what).toBe(what)
          return report as Extract<Report, { readonly what: typeof what }>
        }
      }
      await process.next("ready")
      return process
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
  )

await describeWithRedis("locks between processes", ({ url }) => {
  it.live(
    "never let two in at once, and each who enters has a greater token: 50 tasks, 200 times each",
    () =>
      Effect.gen(function* () {
        const prefix = uniqueName("locks")
        const processes = yield* Effect.replicateEffect(startProcess(url, prefix), 2, {
          concurrency: "unbounded"
        })
        const names = Array.from({ length: 10 }, (_, index) => `lock ${index}`)
        const reports = processes.map((process) => process.next("contended"))
        for (const process of processes) process.tell({ what: "contend", names, tasks: 25, rounds: 200 })
        for (const report of reports) {
          const { broken, entries } = yield* Effect.promise(() => report)
          expect(broken).toEqual([])
          expect(entries).toBe(5_000)
        }
      }),
    60_000
  )

  it.live("a holder that is killed is succeeded after its lease, by a greater token", () =>
    Effect.gen(function* () {
      const prefix = uniqueName("locks")
      const holder = yield* startProcess(url, prefix)
      const { keys, lock } = yield* openStore({ url, prefix })
      const leaseMillis = 1_000
      const held = holder.next("held")
      holder.tell({ what: "hold", name: "report", leaseMillis })
      const { token } = yield* Effect.promise(() => held)
      const waiting = yield* Effect.forkChild(
        lock.withLock("report")((mine) => Effect.succeed({ token: mine.token, at: Date.now() })),
        { startImmediately: true }
      )
      // it is renewed for as long as its holder lives, and outlasts its lease
      const first = yield* keys.lookup("lock", ["report"])
      let last = first
      while (JSON.stringify(last) === JSON.stringify(first)) {
        yield* Effect.sleep("20 millis")
        last = yield* keys.lookup("lock", ["report"])
      }
      holder.child.kill("SIGKILL")
      yield* Effect.promise(() => once(holder.child, "exit"))
      const [left] = yield* keys.lookup("lock", ["report"])
      expect(left).toMatchObject({ _tag: "InFlight" })
      const { until } = left as { readonly until: number }
      const successor = yield* Fiber.join(waiting)
      expect(successor.token).toBeGreaterThan(token)
      // Redis runs on this machine's clock
      expect(successor.at).toBeGreaterThanOrEqual(until - 5)
      expect(successor.at).toBeLessThan(until + 3_000)
    })
  )

  it.live("a waiter in another process is woken by a message, well before it would ask again", () =>
    Effect.gen(function* () {
      const prefix = uniqueName("locks")
      const holder = yield* startProcess(url, prefix)
      const { lock } = yield* openStore({ url, prefix })
      const delays: Array<number> = []
      for (let round = 0; round < 5; round++) {
        const held = holder.next("held")
        holder.tell({ what: "hold", name: "report", leaseMillis: 30_000 })
        yield* Effect.promise(() => held)
        const waiting = yield* Effect.forkChild(
          lock.withLock("report")(() => Effect.sync(() => performance.now())),
          { startImmediately: true }
        )
        // by now it asks again after 0.4 to 0.8 s, and later
        yield* Effect.sleep("500 millis")
        const from = performance.now()
        holder.tell({ what: "let go" })
        delays.push((yield* Fiber.join(waiting)) - from)
      }
      // by its timer it would be some 0.3 s on the average
      expect(delays.sort((a, b) => a - b)[2], String(delays)).toBeLessThan(100)
    })
  )
})
