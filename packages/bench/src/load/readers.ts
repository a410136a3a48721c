/** 20 writers of 500 messages each, beside 10 readers who ask 1,000 times each. */
import { Key } from "@tidemark/core"
import { Effect } from "effect"
import { random32 } from "../Random.ts"
import { count, deliver, Ledger, type LoadTest, withTracker } from "./LoadTest.ts"

const writers = 20
const perWriter = 500
const readers = 10
const perReader = 1_000

export const test: LoadTest = {
  name: "readers",
  about:
    "20 writers x 500 beside 10 readers x 1,000; a read is consistent if it says processed only after the effect, " +
    "always once the writer was told so",
  run: () =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        const ledger = new Ledger()
        const told = new Set<string>()
        const name = (writer: number, index: number) => `writer-${writer}-${index}`
        const write = (writer: number) =>
          Effect.forEach(
            Array.from({ length: perWriter }, (_, index) => name(writer, index)),
            (message) =>
              Effect.map(deliver(tracker, ledger, Key.id(message), message), () => {
                told.add(message)
              }),
            { discard: true }
          )
        let reads = 0
        let inconsistent = 0
        const read = (reader: number) => {
          const next = random32(reader + 1)
          const ask = Effect.suspend(() => {
            const message = name(next() % writers, next() % perWriter)
            const mustBe = told.has(message)
            return Effect.andThen(
              Effect.yieldNow,
              Effect.map(tracker.isProcessed(Key.id(message)), (processed) => {
                reads += 1
                if (processed ? !ledger.has(message) : mustBe) inconsistent += 1
              })
            )
          })
          return Effect.forEach(Array.from({ length: perReader }), () => ask, { discard: true })
        }
        yield* Effect.all(
          [
            ...Array.from({ length: writers }, (_, writer) => write(writer)),
            ...Array.from({ length: readers }, (_, reader) => read(reader))
          ],
          { concurrency: "unbounded", discard: true }
        )
        return [
          count("processed", ledger.processed, writers * perWriter),
          count("processed twice", ledger.repeated, 0),
          count("reads", reads, readers * perReader),
          count("inconsistent reads", inconsistent, 0)
        ]
      })
    )
}
