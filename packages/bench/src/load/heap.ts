/** Five rounds of 2,000 messages, and what the heap holds after each. */
import { Key } from "@tidemark/core"
import { Effect } from "effect"
import { count, deliver, Ledger, type LoadTest, withTracker } from "./LoadTest.ts"

const rounds = 5
const perRound = 2_000
const megabyte = 1_048_576

/** Only with `--expose-gc`, which `./dev load` and the tests give. */
const heapBytes = (): number => {
  if (globalThis.gc === undefined) throw new Error("the heap test needs node --expose-gc")
  for (let i = 0; i < 3; i++) globalThis.gc()
  return process.memoryUsage().heapUsed
}

export const test: LoadTest = {
  name: "heap",
  about: "5 rounds of 2,000 messages, known by their positions; the heap after a collection",
  run: ({ progress } = {}) =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        let processed = 0
        let repeated = 0
        const heaps: Array<number> = []
        for (let round = 0; round < rounds; round++) {
          const ledger = new Ledger()
          yield* Effect.forEach(
            Array.from({ length: perRound }, (_, index) => round * perRound + index),
            (offset) => deliver(tracker, ledger, Key.offset("load/orders/0", offset), String(offset)),
            { concurrency: 100, discard: true }
          )
          processed += ledger.processed
          repeated += ledger.repeated
          heaps.push(heapBytes())
          progress?.(`round ${round + 1} of ${rounds}`)
        }
        return [
          count("processed", processed, rounds * perRound),
          count("processed twice", repeated, 0),
          {
            what: "heap after the last round",
            unit: "MB",
            measured: heaps[rounds - 1] / megabyte,
            threshold: { atMost: 100 },
            kind: "memory"
          },
          {
            what: "growth from round 2 to 5",
            unit: "MB",
            measured: (heaps[4] - heaps[1]) / megabyte,
            threshold: { atMost: 1 },
            kind: "memory"
          }
        ]
      })
    )
}
