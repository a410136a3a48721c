/** 10,000 messages at 1,000 a second, in batches of 100 at once, each delivered five times more. */
import { Key } from "@tidemark/core"
import { Effect } from "effect"
import { count, deliver, Ledger, type LoadTest, withTracker } from "./LoadTest.ts"

const messages = 10_000
const batch = 100
const perSecond = 1_000
const redeliveries = 5

export const test: LoadTest = {
  name: "throughput",
  about:
    "10,000 messages at 1,000/s in batches of 100 at once, each delivered again with the five batches after its " +
    "own; hit rate: deliveries that were answered as known, of all deliveries",
  run: ({ paced = true, progress } = {}) =>
    withTracker((tracker) =>
      Effect.gen(function* () {
        const ledger = new Ledger()
        const batches = messages / batch
        let known = 0
        let deliveries = 0
        const started = performance.now()
        for (let number = 0; number < batches + redeliveries; number++) {
          const due: Array<string> = []
          for (let past = Math.max(0, number - redeliveries); past <= Math.min(number, batches - 1); past++) {
            for (let index = 0; index < batch; index++) due.push(`message-${past * batch + index}`)
          }
          const fresh = yield* Effect.forEach(
            due,
            (message) => deliver(tracker, ledger, Key.id(message), message),
            { concurrency: "unbounded" }
          )
          deliveries += fresh.length
          known += fresh.filter((isFresh) => !isFresh).length
          const next = started + ((number + 1) * batch * 1_000) / perSecond
          if (paced && number + 1 < batches) yield* Effect.sleep(Math.max(0, next - performance.now()))
          progress?.(`${ledger.processed.toLocaleString("en-US")} of 10,000`)
        }
        const seconds = (performance.now() - started) / 1_000
        return [
          count("processed", ledger.processed, messages),
          count("processed twice", ledger.repeated, 0),
          count("redeliveries recognised", known, messages * redeliveries),
          {
            what: "hit rate",
            unit: "%",
            measured: (100 * known) / deliveries,
            threshold: { atLeast: 80 },
            kind: "count"
          },
          {
            what: "rate of new messages",
            unit: "/s",
            measured: messages / seconds,
            threshold: { atLeast: 900 },
            kind: "time"
          }
        ]
      })
    )
}
