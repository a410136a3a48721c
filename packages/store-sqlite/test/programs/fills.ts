/**
 * Claims and completes many keys in batches, without ever sweeping. Says when it is ready, begins at the end of its input.
 *
 * node fills.ts <file> <batches>
 */
import { randomUUID } from "node:crypto"
import { buffer } from "node:stream/consumers"
import { ClaimId, IdempotencyStore } from "@tidemark/core"
import { SqliteStore } from "@tidemark/store-sqlite"
import { Effect } from "effect"

const [filename, batches] = process.argv.slice(2)

const program = Effect.gen(function* () {
  const store = yield* IdempotencyStore
  console.log("ready")
  yield* Effect.promise(() => buffer(process.stdin))
  for (let batch = 0; batch < Number(batches); batch++) {
    const items = Array.from({ length: 500 }, () => ({ key: randomUUID() }))
    const claimId = ClaimId.make()
    yield* store.claim("n", items, { claimId, owner: "fills", leaseMillis: 60_000 })
    yield* store.complete({ namespace: "n", claimId }, items)
  }
})

await Effect.runPromise(
  Effect.provide(
    program,
    SqliteStore.layer({
      filename,
      synchronous: "normal",
      lockTimeout: "30 seconds",
      sweepInterval: "30 days"
    })
  )
)
