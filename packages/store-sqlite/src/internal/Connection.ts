/**
 * One connection to the file: transactions, and the wait for a lock that another process holds.
 *
 * SQLite's own busy handler would block the thread, and with it timers and heartbeats: here whoever finds the database
 * locked sleeps on a fiber, for a moment that grows and depends on chance, and asks again until `lockTimeout` is over.
 */
import type { StatementSync } from "node:sqlite"
import { Patience } from "@tidemark/core"
import { Clock, Effect, Random } from "effect"
import type { Database } from "./Database.ts"
import { isBusy, isSqliteFailure, OtherVersion, Replaced } from "./failures.ts"
import type { Place } from "./Place.ts"

const shortestPauseMillis = 0.5
const longestPauseMillis = 20

/** What takes part in transactions. */
export interface Part {
  /** What was put off has to be written now; perhaps several times in a transaction. */
  readonly flush: () => void
  /** The transaction has come to its end; unless it was committed, what is in memory of it is not true. */
  readonly ended: (committed: boolean) => void
}

/** What has to be so at the beginning of each transaction. */
export interface Expected {
  readonly version: number
  /** `undefined`: a database in memory. */
  readonly place: Place | undefined
}

export class Connection {
  readonly db: Database
  private readonly lockTimeoutMillis: number
  private readonly synchronous: "full" | "normal"
  private readonly begin: StatementSync
  private readonly beginReading: StatementSync
  private readonly commit: StatementSync
  private readonly rollback: StatementSync
  private readonly version: StatementSync
  private expected: Expected | undefined
  private readonly parts: Array<Part> = []

  constructor(
    db: Database,
    options: { readonly lockTimeoutMillis: number; readonly synchronous: "full" | "normal" }
  ) {
    this.db = db
    this.lockTimeoutMillis = options.lockTimeoutMillis
    this.synchronous = options.synchronous
    this.begin = db.prepare("BEGIN IMMEDIATE")
    this.beginReading = db.prepare("BEGIN")
    this.commit = db.prepare("COMMIT")
    this.rollback = db.prepare("ROLLBACK")
    this.version = db.prepare("PRAGMA user_version")
  }

  /**
   * From now on each transaction begins with a look at the version of the tables: a newer program may have changed them
   * while this one has the file open, and must not find them written to by one that does not know them. And, now and
   * then, with a look at the place of the file.
   */
  expect(expected: Expected): void {
    this.expected = expected
  }

  /** Lets something take part in every transaction. */
  join(part: Part): void {
    this.parts.push(part)
  }

  /** All of `act`, or nothing. Throws what `act` throws, and what SQLite does. */
  write<A>(act: () => A): A {
    this.begin.run()
    return this.finish(act)
  }

  /**
   * The same for what may be lost when the power fails, and be done again: does not wait for the disk. What is committed
   * later takes it along.
   */
  writeRelaxed<A>(act: () => A): A {
    this.db.exec("PRAGMA synchronous = NORMAL")
    try {
      return this.write(act)
    } finally {
      if (this.db.isOpen) this.db.exec(`PRAGMA synchronous = ${this.synchronous}`)
    }
  }

  /** `act` sees the database as it is at one moment. */
  read<A>(act: () => A): A {
    this.beginReading.run()
    return this.finish(act)
  }

  private finish<A>(act: () => A): A {
    let done = false
    try {
      this.checkExpected()
      const answer = act()
      this.flush()
      this.commit.run()
      done = true
      return answer
    } finally {
      try {
        // SQLite itself rolls back where the disk is full or fails
        if (!done && this.db.isOpen && this.db.isTransaction) this.rollback.run()
      } finally {
        for (const part of this.parts) part.ended(done)
      }
    }
  }

  private checkExpected(): void {
    if (this.expected === undefined) return
    const { place, version } = this.expected
    const { user_version: found } = this.version.get() as { user_version: number }
    if (found !== version) throw new OtherVersion(found, version)
    if (place?.isLost === true) throw new Replaced(place.file)
  }

  /** Where the file has been lost, that is what is behind what SQLite says. */
  private reasonOf(cause: unknown): unknown {
    const place = this.expected?.place
    return place !== undefined && isSqliteFailure(cause) && place.isLostNow
      ? new Replaced(place.file, cause)
      : cause
  }

  /** Whether nobody writes at this moment. */
  isLockFree(): boolean {
    try {
      this.begin.run()
      this.rollback.run()
      return true
    } catch (cause) {
      if (isBusy(cause)) return false
      throw cause
    }
  }

  /** Writes what was put off until the end of the transaction: from now on the tables tell all. */
  flush(): void {
    for (const part of this.parts) part.flush()
  }

  /** Runs `act`, again while another process holds the lock. Fails with what SQLite threw. */
  attempt<A>(act: () => A): Effect.Effect<A, unknown> {
    return Effect.suspend(() => {
      try {
        return Effect.succeed(act())
      } catch (cause) {
        return isBusy(cause) ? this.again(act) : Effect.fail(this.reasonOf(cause))
      }
    })
  }

  private again<A>(act: () => A): Effect.Effect<A, unknown> {
    const { lockTimeoutMillis } = this
    return Effect.gen({ self: this }, function* () {
      const clock = yield* Clock.Clock
      const deadline = Patience.monotonicMillis(clock) + lockTimeoutMillis
      for (let pause = shortestPauseMillis; ; pause = Math.min(pause * 2, longestPauseMillis)) {
        yield* Effect.sleep(pause * (0.5 + (yield* Random.next)))
        try {
          return act()
        } catch (cause) {
          if (!isBusy(cause) || Patience.monotonicMillis(clock) >= deadline) {
            return yield* Effect.fail(this.reasonOf(cause))
          }
        }
      }
    })
  }
}
