import { Key, Tracker } from "@tidemark/core"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { Effect, Layer } from "effect"

const live = Tracker.layer({ namespace: "billing" }).pipe(
  Layer.provideMerge(SqliteStore.layer({ filename: "billing.db" }))
)

const program = Effect.gen(function* () {
  const tracker = yield* Tracker
  const sqlite = yield* SqliteDatabase
  yield* sqlite.transaction((db) =>
    db.exec("CREATE TABLE IF NOT EXISTS charge (order_id TEXT, cents INTEGER)")
  )

  // At-least-once delivery: the second message is the first one again.
  for (const order of ["order-4711", "order-4711", "order-4712"]) {
    yield* tracker.once(Key.id(order), (claim) =>
      sqlite.completeWith(claim, (db) => db.prepare("INSERT INTO charge VALUES (?, 995)").run(order))
    )
  }

  const charges = yield* sqlite.transaction((db) => db.prepare("SELECT order_id FROM charge").all())
  console.log(charges.map(({ order_id }) => order_id).join(" "))
})

// Run it as often as you like, and kill it where you like: order-4711 order-4712
await Effect.runPromise(Effect.provide(program, live))
