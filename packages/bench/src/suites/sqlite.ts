/** Keys and offsets in SQLite: ours beside raw inserts into a table of their own. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Key } from "@tidemark/core"
import { SqliteStore } from "@tidemark/store-sqlite"
import { Effect } from "effect"
import { type Contestant, contest, type Work } from "../Contest.ts"
import { type Figure, rateAgainst, type Suite } from "../Figure.ts"
import { inFlight } from "../InFlight.ts"
import { uuids } from "../Random.ts"
import { completeKeys, completeRange, openServices } from "../Subjects.ts"

type Keys = ReadonlyArray<string>
type Synchronous = "full" | "normal"

const batch = 500
const perSlice = 1_000
const callers = 64
/** Offsets take so much less that a slice of them would be over before it is warm. */
const offsetTimes = 10
const stream = "kafka/billing/orders/0"

const input = (slice: number): Keys => Array.from({ length: perSlice }, uuids(slice + 1))

const names = {
  rawBatches: "raw INSERT OR IGNORE, 500 a transaction, NORMAL",
  keys: "tidemark, keys in batches of 500, NORMAL",
  offsets: "tidemark, offsets in batches of 500, NORMAL",
  rawOne: "raw INSERT OR IGNORE, one a transaction, FULL",
  once: "tidemark, Tracker.once, 64 callers, FULL",
  onceAlone: "tidemark, Tracker.once, one caller, FULL"
}

export const suite: Suite = {
  name: "sqlite",
  about: "all new, in files of their own: claimed and completed (ours) against one raw insert (the others)",
  run: async (progress) => {
    const folder = mkdtempSync(join(tmpdir(), "tidemark-bench-"))
    const closing: Array<() => unknown> = []
    let files = 0
    const newFile = (): string => join(folder, `${files++}.db`)

    const raw = (synchronous: Synchronous, perTransaction: number) => (): Work<Keys> => {
      const database = new DatabaseSync(newFile())
      closing.push(() => database.close())
      database.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = ${synchronous}`)
      database.exec("CREATE TABLE seen (id TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID")
      const insert = database.prepare("INSERT OR IGNORE INTO seen VALUES (?, ?)")
      return (keys) => {
        for (let from = 0; from < keys.length; from += perTransaction) {
          database.exec("BEGIN IMMEDIATE")
          for (const key of keys.slice(from, from + perTransaction)) insert.run(key, Date.now())
          database.exec("COMMIT")
        }
      }
    }
    const open = async (synchronous: Synchronous) => {
      const services = await openServices(SqliteStore.layer({ filename: newFile(), synchronous }))
      closing.push(services.close)
      return services
    }
    const inBatches = async (): Promise<Work<Keys>> => {
      const { keys: store } = await open("normal")
      return async (keys) => {
        for (let from = 0; from < keys.length; from += batch) {
          await Effect.runPromise(completeKeys(store, keys.slice(from, from + batch)))
        }
      }
    }
    const offsets = async (): Promise<Work<Keys>> => {
      const { offsets: store } = await open("normal")
      let next = 0
      return async () => {
        for (let count = 0; count < offsetTimes * perSlice; count += batch, next += batch) {
          await Effect.runPromise(completeRange(store, stream, next, next + batch))
        }
      }
    }
    const once = (count: number) => async (): Promise<Work<Keys>> => {
      const { tracker } = await open("full")
      return (keys) =>
        inFlight(keys, count, (key) => Effect.runPromise(tracker.once(Key.id(key), Effect.void)))
    }
    const contestants: ReadonlyArray<Contestant<Keys>> = [
      { name: names.rawBatches, start: raw("normal", batch), input },
      { name: names.keys, start: inBatches, input },
      { name: names.offsets, times: offsetTimes, start: offsets, input },
      { name: names.rawOne, start: raw("full", 1), input },
      { name: names.once, start: once(callers), input },
      { name: names.onceAlone, everySlices: 5, start: once(1), input }
    ]
    try {
      const times = await contest({
        contestants,
        slices: 20,
        operationsPerSlice: perSlice,
        passes: 7,
        warmups: 1,
        onPass: (pass, of) => progress(`pass ${pass} of ${of}`)
      })
      return [
        ...contestants.map(
          ({ name }): Figure => ({ what: name, unit: "ns per item", measured: times.nanos(name) })
        ),
        rateAgainst(times, names.keys, names.rawBatches, 0.35),
        rateAgainst(times, names.offsets, names.rawBatches, 10),
        rateAgainst(times, names.once, names.rawOne, 5),
        rateAgainst(times, names.onceAlone, names.rawOne)
      ]
    } finally {
      for (const close of closing) await close()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
