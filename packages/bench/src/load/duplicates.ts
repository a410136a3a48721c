/** 1,000 messages, each delivered five times, in an order of chance. */
import { Key } from "@tidemark/core"
import { Effect } from "effect"
import { shuffled } from "../Random.ts"
import { count, deliver, Ledger, type LoadTest, withTracker } from "./LoadTest.ts"

const unique = 1_000
const times = 5

export const test: LoadTest = {
  name: "duplicates",
  about: "1,000 messages x 5, shuffled, 50 at once",
  run: () =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        const ledger = new Ledger()
        const deliveries = shuffled(
          Array.from({ length: unique * times }, (_, index) => `message-${index % unique}`),
          3
        )
        const fresh = yield* Effect.forEach(
          deliveries,
          (message) => deliver(tracker, ledger, Key.id(message), message),
          { concurrency: 50 }
        )
        return [
          count("processed", ledger.processed, unique),
          count("processed twice", ledger.repeated, 0),
          count("duplicates found", fresh.filter((isFresh) => !isFresh).length, unique * (times - 1))
        ]
      })
    )
}
