import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { OffsetRanges } from "@tidemark/core"
import { KafkaClient, type KafkaConsumer, type KafkaRecord } from "@tidemark/kafka"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { Context, Effect, Layer } from "effect"
import { expect } from "vitest"
import { messages, onEveryCluster, start, until } from "./consumers.ts"

/** A database with a ledger, and what stands in it as somebody else sees it. */
const ledgerFile = Effect.gen(function* () {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "tidemark-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
  )
  const filename = join(folder, "ledger.db")
  const db = yield* Effect.acquireRelease(
    Effect.sync(() => new DatabaseSync(filename)),
    (opened) => Effect.sync(() => opened.close())
  )
  db.exec("CREATE TABLE ledger (value INTEGER)")
  const count = db.prepare("SELECT count(*) AS count FROM ledger")
  const all = db.prepare("SELECT value FROM ledger ORDER BY value")
  return {
    filename,
    count: () => Number(count.get()?.count),
    values: () => all.all().map(({ value }) => Number(value))
  }
})

await onEveryCluster("a handler's writes and their mark are one transaction: exactly once", (cluster) =>
  Effect.gen(function* () {
    const { count, filename, values } = yield* ledgerFile
    const client = yield* KafkaClient
    const sent = 1_500
    yield* client.produce(messages(cluster.topic, sent))

    /** A consumer with a connection of its own to everything, as another process has. */
    const consume = Effect.gen(function* () {
      const store = yield* Layer.build(
        Layer.fresh(SqliteStore.layer({ filename, synchronous: "normal", lockTimeout: "30 seconds" }))
      )
      const sqlite = Context.get(store, SqliteDatabase)
      const handler = (record: KafkaRecord, claim: KafkaConsumer.RecordClaim) =>
        sqlite
          .completeWith(claim, OffsetRanges.of(record.offset), (db) =>
            db.prepare("INSERT INTO ledger VALUES (?)").run(Number(String(record.value)))
          )
          // who is cut off now has written, and has told nobody
          .pipe(Effect.andThen(Effect.sleep(Math.random() * 4)))
      const connection = yield* cluster.connect
      const running = yield* Effect.provideContext(start(cluster, { handler }, connection.client), store)
      return { cut: connection.cut, status: running.status }
    })

    const first = yield* consume
    yield* until("under way", () => count() > 200)
    const second = yield* consume
    yield* until("shared", () => second.status().partitions.length > 0 && count() > 500)
    first.cut()
    yield* until(
      "all done",
      () => count() >= sent,
      () => [count(), second.status()]
    )
    expect(values()).toEqual(Array.from({ length: sent }, (_, index) => index))
  })
)
