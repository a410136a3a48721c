/**
 * Claims and completes for ever, and says so line by line, after each answer. Made to be killed.
 *
 * node works.ts <file> <name> <first> <full|normal>
 */
import { writeSync } from "node:fs"
import { ClaimId, IdempotencyStore, OffsetRanges, OffsetStore } from "@tidemark/core"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { Effect } from "effect"

const [filename, name, first, synchronous] = process.argv.slice(2)

// not through a stream, which would say it later, or never
const say = (...words: ReadonlyArray<unknown>) =>
  Effect.sync(() => writeSync(1, `${JSON.stringify(words)}\n`))

const terms = (claimId: string) => ({ claimId, owner: name, leaseMillis: 60_000 })

/** Five keys in one claim and one completion. */
const keys = (round: number) =>
  Effect.gen(function* () {
    const store = yield* IdempotencyStore
    const items = [0, 1, 2, 3, 4].map((index) => ({ key: `${name}-${round}-${index}` }))
    const claimId = ClaimId.make()
    yield* say("claiming", "key", round)
    const [answer] = yield* store.claim("n", items, terms(claimId))
    yield* say("claimed", "key", round, answer._tag === "Claimed" ? answer.token : undefined)
    yield* store.complete({ namespace: "n", claimId }, items)
    yield* say("completed", "key", round)
  })

/** Every other offset of ten. */
const offsets = (round: number) =>
  Effect.gen(function* () {
    const store = yield* OffsetStore
    const ranges = OffsetRanges.fromOffsets([0, 2, 4, 6, 8].map((index) => round * 10 + index))
    const claimId = ClaimId.make()
    yield* say("claiming", "offset", round)
    const { token } = yield* store.claim(name, ranges, terms(claimId))
    yield* say("claimed", "offset", round, token)
    yield* store.complete({ stream: name, claimId }, ranges)
    yield* say("completed", "offset", round)
  })

/** Two rows and a key, in one transaction. */
const transaction = (round: number) =>
  Effect.gen(function* () {
    const sqlite = yield* SqliteDatabase
    const store = yield* IdempotencyStore
    const key = `${name}-${round}-entry`
    const claimId = ClaimId.make()
    yield* say("claiming", "entry", round)
    const [answer] = yield* store.claim("n", [{ key }], terms(claimId))
    yield* say("claimed", "entry", round, answer._tag === "Claimed" ? answer.token : undefined)
    yield* sqlite.completeWith({ namespace: "n", claimId }, [key], (db) => {
      const insert = db.prepare("INSERT INTO ledger VALUES (?, ?)")
      insert.run(key, 1)
      insert.run(key, -1)
    })
    yield* say("completed", "entry", round)
  })

const program = Effect.gen(function* () {
  yield* say("ready")
  for (let round = Number(first); ; round++) {
    yield* Effect.all([keys(round), offsets(round), transaction(round)], {
      concurrency: "unbounded",
      discard: true
    })
  }
})

await Effect.runPromise(
  Effect.provide(
    program,
    SqliteStore.layer({ filename, synchronous: synchronous as SqliteStore.Synchronous })
  )
)
