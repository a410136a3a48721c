/**
 * The write-ahead log: what is committed is written to it, and has to be copied into the database (a checkpoint) before
 * the log can be begun anew. SQLite would do that within whichever commit makes the log long, at the expense of its
 * caller. Here it is done after the callers have their answers, and SQLite's own way is only the last resort.
 *
 * Copying alone does not bound the log: where several processes write all the time, one has always added to it before it
 * is begun anew. So a process that finds it too long writes nothing until it is, unless that takes too long in its turn:
 * somebody may be reading from it.
 */
import { statSync } from "node:fs"
import type { StatementSync } from "node:sqlite"
import type { StoreError } from "@tidemark/core"
import { Effect, Latch, type Scope } from "effect"
import type { Connection } from "./Connection.ts"
import { storeError } from "./failures.ts"

/** A log of this size is begun anew, however many processes write to it. */
const limitBytes = 16 * 1024 * 1024

/** A page in the log has a header. */
const frameBytes = 24

/** When so many pages of it are to be copied, they are. */
const pagesPerCheckpoint = 1_000

/** After so many items and commits of this process it is looked at how many there are: seldom more pages than that. */
const changesPerLook = 500
const changesPerCommit = 4

/** How often it is tried to begin it anew while others read from it, and how long while others write to it. */
const mostReadTries = 30
const pauseMillis = 1
const patienceMillis = 2_000

/** Where somebody reads from it for long, so many times longer before it is tried again. */
const growth = 1.5

export class Log {
  private readonly connection: Connection
  /** `undefined`: a database in memory, which has no log. */
  private readonly file: string | undefined
  private readonly pageBytes: number
  private readonly limitPages: number
  private readonly look: StatementSync
  private readonly passive: StatementSync
  private readonly truncate: StatementSync
  private readonly due = Latch.makeUnsafe(false)
  private readonly writable = Latch.makeUnsafe(true)
  /** Since the last look. */
  private changes = 0
  /** From how many pages on the log is too long. */
  private bound = 0

  private constructor(connection: Connection) {
    const { db } = connection
    const location = db.location()
    const { page_size: pageBytes } = db.prepare("PRAGMA page_size").get() as { page_size: number }
    this.connection = connection
    this.file = location === null || location === "" ? undefined : `${location}-wal`
    this.pageBytes = pageBytes
    this.limitPages = Math.floor(limitBytes / pageBytes)
    this.bound = this.limitPages
    // before SQLite 3.51, which Node 24 has, this is PASSIVE: then it is copied more often
    this.look = db.prepare("PRAGMA wal_checkpoint(NOOP)")
    this.passive = db.prepare("PRAGMA wal_checkpoint(PASSIVE)")
    this.truncate = db.prepare("PRAGMA wal_checkpoint(TRUNCATE)")
    db.exec(`PRAGMA journal_size_limit = ${limitBytes}`)
    this.setBound(this.limitPages)
  }

  /** Keeps the log short until the Scope closes. */
  static make(connection: Connection): Effect.Effect<Log, never, Scope.Scope> {
    return Effect.gen(function* () {
      const log = new Log(connection)
      if (log.file !== undefined) yield* Effect.forkScoped(Effect.forever(log.shortenedWhenDue))
      return log
    })
  }

  /** So many items are committed: each may change a page of its own. */
  note(items: number): void {
    this.changes += changesPerCommit + items
    if (this.changes >= changesPerLook) this.due.openUnsafe()
  }

  /** Does `write` when the log is not too long for it. */
  whenShort<A>(write: Effect.Effect<A>): Effect.Effect<A> {
    return this.writable.isOpen() ? write : Effect.andThen(this.writable.await, write)
  }

  /** SQLite's own checkpoint within a commit stays the last resort. */
  private setBound(pages: number): void {
    this.bound = pages
    this.connection.db.exec(`PRAGMA wal_autocheckpoint = ${2 * pages}`)
  }

  /** Copies what is committed into the database, where it is many pages; begins the log anew where it is too long and nobody is at it now. */
  get checkpoint(): Effect.Effect<void, StoreError> {
    return this.attempt(() => {
      if (this.copyIfMany() > this.limitPages || this.isLarger(this.limitPages)) this.beginAnew()
    })
  }

  /** @returns how long the log is, in pages; -1 where another process is copying it. */
  private copy(): number {
    return (this.passive.get() as { log: number }).log
  }

  /** The same, and copies only where that is worth it. */
  private copyIfMany(): number {
    this.changes = 0
    const { checkpointed, log } = this.look.get() as { checkpointed: number; log: number }
    return log - checkpointed < pagesPerCheckpoint ? log : this.copy()
  }

  /** @returns how long the log is, as above: 0, unless others read from it or write to it. */
  private beginAnew(): number {
    return (this.truncate.get() as { log: number }).log
  }

  /** Whether its file is larger; that keeps its size when it is begun anew, and is cut to the limit when it is written to. */
  private isLarger(pages: number): boolean {
    const log = this.file === undefined ? undefined : statSync(this.file, { throwIfNoEntry: false })
    return log !== undefined && log.size > pages * (this.pageBytes + frameBytes)
  }

  private attempt<const A>(act: () => A): Effect.Effect<A, StoreError> {
    return Effect.mapError(this.connection.attempt(act), (cause) => storeError("checkpoint", cause))
  }

  private get shortenedWhenDue(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      yield* this.due.await
      this.due.closeUnsafe()
      // those who wait for an answer get it first
      yield* Effect.yieldNow
      const pages = yield* this.attempt(() => this.copyIfMany())
      if (pages > this.bound || (pages < 0 && this.isLarger(this.bound))) yield* this.shortened
    }).pipe(
      Effect.catch((error) =>
        Effect.logWarning(`tidemark: the write-ahead log could not be shortened: ${error.message}`)
      )
    )
  }

  /** Begins the log anew while this process writes nothing, so that the others come to their end. */
  private get shortened(): Effect.Effect<void, StoreError> {
    return Effect.gen({ self: this }, function* () {
      this.writable.closeUnsafe()
      const deadline = performance.now() + patienceMillis
      // nobody writes, and it can't be begun anew: somebody reads from it
      for (let readTries = 0; performance.now() < deadline; ) {
        const [isFree, pages] = yield* this.attempt(() => [this.connection.isLockFree(), this.beginAnew()])
        if (pages >= 0 && pages <= this.limitPages) {
          this.setBound(this.limitPages)
          return
        }
        if (isFree && pages > 0) readTries += 1
        if (readTries === mostReadTries) {
          this.setBound(Math.ceil(pages * growth))
          return
        }
        yield* pause
      }
    }).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          this.writable.openUnsafe()
        })
      )
    )
  }
}

/** In real time, whatever clock judges leases: other processes are waited for. */
const pause = Effect.callback<void>((resume) => {
  const timer = setTimeout(() => resume(Effect.void), pauseMillis)
  return Effect.sync(() => clearTimeout(timer))
})
