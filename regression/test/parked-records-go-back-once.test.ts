import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { OffsetStore, ParkedRecords } from "@tidemark/core"
import { DeadLetters, KafkaClient, type KafkaRecord } from "@tidemark/kafka"
import { SqliteStore } from "@tidemark/store-sqlite"
import { Effect, Exit, Layer, Stream } from "effect"
import { expect } from "vitest"
import { Ledger, messages, onEveryCluster, start, until } from "./consumers.ts"

const count = 500
const isBad = ({ value }: KafkaRecord): boolean => Number(String(value)) % 10 === 3
const bad = count / 10

/** A SQLite file, and stores on it, each with a connection of its own, as other processes have. */
const sqliteFile = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "tidemark-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
  ),
  (folder) =>
    Layer.build(Layer.fresh(SqliteStore.layer({ filename: join(folder, "store.db"), synchronous: "normal" })))
)

await onEveryCluster(
  "records are parked in SQLite, survive the process, and go back once, by runs that are killed",
  (cluster) =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const open = yield* sqliteFile
      const ledger = new Ledger()
      const options = {
        whenPoison: "park",
        identify: DeadLetters.idOf
      } as const
      yield* client.produce(messages(cluster.topic, count))
      yield* Effect.scoped(
        Effect.gen(function* () {
          const handler = (record: KafkaRecord) =>
            isBad(record) ? Effect.fail("bad") : Effect.sync(() => ledger.note(record))
          const consumer = yield* start(cluster, { ...options, handler })
          yield* until(
            "all done or parked",
            () => ledger.times.size === count - bad && consumer.status().counters.parked === bad,
            () => [ledger.times.size, consumer.status()]
          )
          yield* consumer.stop
        }).pipe(Effect.provideContext(yield* open))
      )

      const again = yield* open
      const parked = yield* Effect.provideContext(ParkedRecords, again)
      const summaries = yield* Stream.runCollect(parked.list())
      expect(summaries.length).toBe(bad)
      const [some] = summaries
      expect(some).toMatchObject({
        topic: cluster.topic,
        errorTag: "Error",
        errorMessage: "bad",
        attempts: 1
      })
      const whole = yield* parked.get(some.stream, some.offset)
      expect(whole && DeadLetters.readParked(whole)?.groupId).toBe(cluster.groupId)

      // written to Kafka, and then it is gone, before the store knows: at its third record, and at its ninth
      for (const last of [3, 9]) {
        const { client: own } = yield* cluster.connect
        let produced = 0
        const dying: typeof own = {
          ...own,
          produce: (records) =>
            Effect.andThen(own.produce(records), () =>
              ++produced < last ? Effect.void : Effect.die("killed")
            )
        }
        const exit = yield* DeadLetters.redriveParked().pipe(
          Effect.provideService(KafkaClient, dying),
          Effect.provideContext(yield* open),
          Effect.exit
        )
        expect(Exit.isFailure(exit)).toBe(true)
      }
      const rest = yield* Effect.provideContext(DeadLetters.redriveParked(), again)
      expect(rest.sent).toBeGreaterThan(0)
      expect(yield* Stream.runCollect(parked.list())).toEqual([])
      expect(yield* Effect.provideContext(DeadLetters.redriveParked(), again)).toEqual({
        sent: 0,
        alreadySent: 0,
        passedOver: 0,
        unreadable: 0
      })

      const healed = yield* start(cluster, {
        ...options,
        handler: (record) => Effect.sync(() => ledger.note(record))
      }).pipe(Effect.provideContext(again))
      yield* until(
        "all done",
        () =>
          ledger.times.size === count &&
          healed.status().counters.received >= bad &&
          healed.status().partitions.every(({ lag, unfinished }) => unfinished === 0 && (lag ?? 0) === 0),
        () => [ledger.times.size, healed.status()]
      )
      // two of them were sent twice, since a run died at them, and identify took them once
      expect(ledger.twice).toEqual([])
      expect(healed.status().counters).toMatchObject({ processed: bad, duplicatesByKey: 2 })
    })
)

await onEveryCluster("a record that is parked anew after a rewind goes back again", (cluster) =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const open = yield* sqliteFile
    yield* client.produce([{ topic: cluster.topic, key: "k", value: "bad" }])
    yield* Effect.gen(function* () {
      const store = yield* OffsetStore
      const parked = yield* ParkedRecords
      // the copy that was sent back is parked too, at an offset of its own
      for (const count of [1, 2]) {
        const consumer = yield* start(cluster, { whenPoison: "park", handler: () => Effect.fail("bad") })
        yield* until(
          "parked",
          () => consumer.status().counters.parked === count,
          () => consumer.status()
        )
        yield* consumer.stop
        const [{ stream }] = yield* Stream.runCollect(parked.list())
        expect(yield* DeadLetters.redriveParked()).toMatchObject({ sent: count, alreadySent: 0 })
        expect(yield* parked.count(stream)).toBe(0)
        yield* store.rewind(stream, 0)
      }
    }).pipe(Effect.provideContext(yield* open))
  })
)
