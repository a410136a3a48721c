/**
 * Charges each of many orders once, beside others that do the same. Says when it is ready, begins at the end of its
 * input, and says how many it has charged.
 *
 * node charges.ts <file> <orders>
 */
import { buffer } from "node:stream/consumers"
import { Key, Tracker } from "@tidemark/core"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { Effect, Layer } from "effect"

const [filename, orders] = process.argv.slice(2)

const program = Effect.gen(function* () {
  const tracker = yield* Tracker
  const sqlite = yield* SqliteDatabase
  const numbers = Array.from({ length: Number(orders) }, (_, index) => index)
  console.log("ready")
  yield* Effect.promise(() => buffer(process.stdin))
  // each process in an order of its own
  const shuffled = numbers.toSorted(() => Math.random() - 0.5)
  const outcomes = yield* Effect.forEach(
    shuffled,
    (number) =>
      tracker.once(Key.id(`order-${number}`), (claim) =>
        sqlite.completeWith(claim, (db) =>
          db.prepare("INSERT INTO charge VALUES (?, ?)").run(number, process.pid)
        )
      ),
    { concurrency: 8 }
  )
  console.log(outcomes.filter(({ _tag }) => _tag === "Processed").length)
})

await Effect.runPromise(
  Effect.provide(
    program,
    Tracker.layer({ namespace: "orders" }).pipe(
      Layer.provideMerge(SqliteStore.layer({ filename, synchronous: "normal", lockTimeout: "30 seconds" }))
    )
  )
)
