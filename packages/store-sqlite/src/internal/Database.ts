/**
 * A connection that lets go of rows which a user's function left unread. SQLite commits nothing while a statement that
 * writes is unfinished, and keeps the log from being begun anew while one that reads is; and a statement ends only with
 * its last row, or with its iterator.
 */
import { DatabaseSync, type SQLTagStore, type StatementSync } from "node:sqlite"

type Iterate = (...values: ReadonlyArray<never>) => NodeJS.Iterator<unknown>

/** The rows of a statement, while a function is at work that began to read them. */
interface Rows {
  readonly iterator: NodeJS.Iterator<unknown>
  ended: boolean
}

const outside =
  "rows can only be read one by one within a function that tidemark was given, while it runs: else they would keep others " +
  "from committing. Read them there, or take them all at once"

/** The iterator itself, which throws when it has been ended. */
const endable = (rows: Rows): NodeJS.Iterator<unknown> => {
  const next = rows.iterator.next.bind(rows.iterator)
  return Object.assign(rows.iterator, {
    next: () => {
      if (rows.ended) throw new Error(outside)
      return next()
    }
  })
}

export class Database extends DatabaseSync {
  private begun: Array<Rows> | undefined

  /** Runs `work`, and ends what it has begun to read and not read to its end; reading on there throws. */
  endingRows<A>(work: (isRows: (value: unknown) => boolean) => A): A {
    const begun: Array<Rows> = []
    this.begun = begun
    try {
      return work((value) => begun.some(({ iterator }) => iterator === value))
    } finally {
      this.begun = undefined
      for (const rows of begun) {
        // of a database that was closed there is nothing left to end
        if (this.isOpen) rows.iterator.return?.()
        rows.ended = true
      }
    }
  }

  override prepare(...words: Parameters<DatabaseSync["prepare"]>): StatementSync {
    return this.watched(super.prepare(...words))
  }

  override createTagStore(maxSize?: number): SQLTagStore {
    return this.watched(super.createTagStore(maxSize))
  }

  private watched<S extends { readonly iterate: unknown }>(statement: S): S {
    const iterate = (statement.iterate as Iterate).bind(statement)
    return Object.assign(statement, {
      iterate: (...values: ReadonlyArray<never>) => {
        if (this.begun === undefined) throw new Error(outside)
        const rows: Rows = { iterator: iterate(...values), ended: false }
        this.begun.push(rows)
        return endable(rows)
      }
    })
  }
}
