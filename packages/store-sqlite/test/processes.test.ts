import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { statSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { text } from "node:stream/consumers"
import { describe, expect, it } from "@effect/vitest"
import { IdempotencyStore, OffsetRanges, OffsetStore } from "@tidemark/core"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { Effect } from "effect"
import { temporaryFolder } from "./files.ts"

const start = (program: string, ...words: ReadonlyArray<string | number>): ChildProcess =>
  spawn(
    process.execPath,
    [
      "--conditions=@tidemark/source",
      new URL(`programs/${program}.ts`, import.meta.url).pathname,
      ...words.map(String)
    ],
    { stdio: ["pipe", "pipe", "inherit"] }
  )

const withTables = (filename: string) =>
  Effect.provide(
    Effect.flatMap(SqliteDatabase, (sqlite) =>
      sqlite.transaction((db) =>
        db.exec(
          "CREATE TABLE ledger (entry TEXT, amount INTEGER); CREATE TABLE charge (number INTEGER, process INTEGER)"
        )
      )
    ),
    SqliteStore.layer({ filename })
  )

type Word = readonly [event: string, kind: string, round: number, token?: number]

/** Runs a worker, kills it when it has said so many words, and answers what it has said. */
const runAndKill = (filename: string, name: string, first: number, synchronous: string, words: number) =>
  Effect.promise(async (): Promise<ReadonlyArray<Word>> => {
    const child = start("works", filename, name, first, synchronous)
    let said = ""
    let lines = 0
    child.stdout?.on("data", (chunk: Buffer) => {
      said += chunk.toString()
      lines += chunk.toString().split("\n").length - 1
      if (lines >= words) child.kill("SIGKILL")
    })
    const [code, signal] = await once(child, "close")
    expect([code, signal]).toEqual([null, "SIGKILL"])
    // the last line may have been cut
    return said
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line))
  })

const roundsOf = (words: ReadonlyArray<Word>, event: string, kind: string): ReadonlySet<number> =>
  new Set(words.filter(([e, k]) => e === event && k === kind).map(([, , round]) => round))

/** All or none; and all, where it was acknowledged. */
const expectWhole = (what: string, parts: ReadonlyArray<boolean>, acknowledged: boolean): void => {
  expect([what, new Set(parts).size]).toEqual([what, 1])
  if (acknowledged) expect([what, parts[0]]).toEqual([what, true])
}

const check = (filename: string, name: string, words: ReadonlyArray<Word>) =>
  Effect.gen(function* () {
    const store = yield* IdempotencyStore
    const offsets = yield* OffsetStore
    const db = new DatabaseSync(filename, { readOnly: true })
    expect(db.prepare("PRAGMA integrity_check").all()).toEqual([{ integrity_check: "ok" }])
    const entries = db.prepare("SELECT count(*) AS count FROM ledger WHERE entry = ?")
    const completed = (yield* offsets.progress(name))?.completed ?? OffsetRanges.empty
    for (const round of roundsOf(words, "claiming", "key")) {
      const statuses = yield* store.lookup(
        "n",
        [0, 1, 2, 3, 4].map((index) => `${name}-${round}-${index}`)
      )
      const is = (tag: string) => statuses.map(({ _tag }) => _tag === tag)
      expectWhole(
        `keys of ${round} claimed`,
        is("Unknown").map((unknown) => !unknown),
        roundsOf(words, "claimed", "key").has(round)
      )
      expectWhole(
        `keys of ${round} completed`,
        is("Completed"),
        roundsOf(words, "completed", "key").has(round)
      )
    }
    for (const round of roundsOf(words, "claiming", "offset")) {
      const parts = [0, 2, 4, 6, 8].map((index) => OffsetRanges.contains(completed, round * 10 + index))
      expectWhole(`offsets of ${round}`, parts, roundsOf(words, "completed", "offset").has(round))
    }
    for (const round of roundsOf(words, "claiming", "entry")) {
      const key = `${name}-${round}-entry`
      const [status] = yield* store.lookup("n", [key])
      const { count } = entries.get(key) as { count: number }
      const both = [count === 2, status._tag === "Completed"]
      expect(count === 0 || count === 2).toBe(true)
      expectWhole(`entry of ${round} and its rows`, both, roundsOf(words, "completed", "entry").has(round))
    }
    db.close()
    const tokens = (kind: string) =>
      words
        .filter(([event, of]) => event === "claimed" && of === kind)
        .map(([, , , token]) => token as number)
    for (const kind of ["key", "offset", "entry"]) {
      expect(tokens(kind)).toEqual(tokens(kind).toSorted((a, b) => a - b))
      expect(new Set(tokens(kind)).size).toBe(tokens(kind).length)
    }
  })

describe("kill -9", () => {
  it.live.each([
    { synchronous: "full", lives: 4 },
    { synchronous: "normal", lives: 2 }
  ])(
    "$synchronous: what was acknowledged is there, what was not is there wholly or not at all",
    ({ lives, synchronous }) =>
      Effect.gen(function* () {
        const filename = join(yield* temporaryFolder, "killed.db")
        yield* withTables(filename)
        let said: Record<string, ReadonlyArray<Word>> = { a: [], b: [] }
        for (let life = 0; life < lives; life++) {
          // two at a time on one file, killed at different moments
          const [a, b] = yield* Effect.all(
            [
              runAndKill(filename, "a", life * 10_000, synchronous, 400 + life * 137),
              runAndKill(filename, "b", life * 10_000, synchronous, 300 + life * 153)
            ],
            { concurrency: 2 }
          )
          said = { a: [...said.a, ...a], b: [...said.b, ...b] }
          yield* Effect.provide(
            Effect.andThen(check(filename, "a", said.a), check(filename, "b", said.b)),
            SqliteStore.layer({ filename })
          )
        }
        expect(said.a.length).toBeGreaterThan(lives * 400)
      }),
    120_000
  )
})

describe("several processes on one file", () => {
  it.live(
    "keep its log short, though they write all the time and none of them sweeps",
    () =>
      Effect.gen(function* () {
        const filename = join(yield* temporaryFolder, "filled.db")
        yield* withTables(filename)
        let longest = 0
        yield* Effect.promise(async () => {
          const children = [0, 1, 2].map(() => start("fills", filename, 50))
          const ends = children.map((child) => once(child, "exit"))
          await Promise.all(children.map(({ stdout }) => once(stdout as NodeJS.ReadableStream, "data")))
          const looking = setInterval(() => {
            longest = Math.max(longest, statSync(`${filename}-wal`, { throwIfNoEntry: false })?.size ?? 0)
          }, 5)
          for (const { stdin } of children) stdin?.end()
          expect(await Promise.all(ends)).toEqual(children.map(() => [0, null]))
          clearInterval(looking)
        })
        // they write some 200 MB; the log is begun anew from 16 MB on, and each may add to it before it sees that
        expect(longest).toBeGreaterThan(1_000_000)
        expect(longest).toBeLessThan(40_000_000)
      }),
    60_000
  )

  it.live(
    "charge each order once",
    () =>
      Effect.gen(function* () {
        const filename = join(yield* temporaryFolder, "shared.db")
        yield* withTables(filename)
        const orders = 200
        const processed = yield* Effect.promise(async () => {
          const children = [0, 1, 2].map(() => start("charges", filename, orders))
          const ends = children.map((child) => once(child, "exit"))
          await Promise.all(children.map(({ stdout }) => once(stdout as NodeJS.ReadableStream, "data")))
          const said = children.map(({ stdout }) => text(stdout as NodeJS.ReadableStream))
          for (const { stdin } of children) stdin?.end()
          expect(await Promise.all(ends)).toEqual(children.map(() => [0, null]))
          return (await Promise.all(said)).map(Number)
        })
        const db = new DatabaseSync(filename)
        const rows = db.prepare("SELECT number, process FROM charge ORDER BY number").all()
        db.close()
        expect(rows.map(({ number }) => number)).toEqual(Array.from({ length: orders }, (_, index) => index))
        expect(processed.reduce((sum, count) => sum + count, 0)).toBe(orders)
        // they did work beside each other
        expect(new Set(rows.map(({ process }) => process)).size).toBeGreaterThan(1)
      }),
    60_000
  )
})
