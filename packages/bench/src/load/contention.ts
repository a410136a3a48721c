/** 50 tasks of 200 operations each, on 500 keys that they all want. */
import { Key } from "@tidemark/core"
import { Effect } from "effect"
import { random32 } from "../Random.ts"
import { count, deliver, Ledger, type LoadTest, withTracker } from "./LoadTest.ts"

const tasks = 50
const perTask = 200
const keys = 500

export const test: LoadTest = {
  name: "contention",
  about: "50 tasks x 200 operations on 500 contended keys",
  run: () =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        const ledger = new Ledger()
        const asked = new Set<string>()
        const millis: Array<number> = []
        const task = (number: number) => {
          const next = random32(number + 1)
          const operation = Effect.suspend(() => {
            const message = `contended-${next() % keys}`
            asked.add(message)
            const from = performance.now()
            return Effect.map(deliver(tracker, ledger, Key.id(message), message), () => {
              millis.push(performance.now() - from)
            })
          })
          return Effect.forEach(Array.from({ length: perTask }), () => operation, { discard: true })
        }
        const started = performance.now()
        yield* Effect.all(
          Array.from({ length: tasks }, (_, number) => task(number)),
          { concurrency: "unbounded", discard: true }
        )
        const seconds = (performance.now() - started) / 1_000
        millis.sort((a, b) => a - b)
        const mean = millis.reduce((sum, time) => sum + time, 0) / millis.length
        return [
          count("operations", millis.length, tasks * perTask),
          count("keys processed", ledger.processed, asked.size),
          count("processed twice", ledger.repeated, 0),
          { what: "mean", unit: "ms", measured: mean, threshold: { atMost: 10 }, kind: "time" },
          {
            what: "p99",
            unit: "ms",
            measured: millis[Math.floor(millis.length * 0.99)],
            threshold: { atMost: 50 },
            kind: "time"
          },
          {
            what: "rate",
            unit: "/s",
            measured: millis.length / seconds,
            threshold: { atLeast: 1_000 },
            kind: "time"
          }
        ]
      })
    )
}
