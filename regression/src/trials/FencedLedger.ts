/** A database of the handlers' own that turns late writers away: it keeps the greatest token of each stream. */
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { Effect } from "./Ledger.ts"

const columns =
  "member TEXT, value INTEGER, key TEXT, partition INTEGER, offset INTEGER, token INTEGER, at INTEGER"

/** The table of effects, which a store's own database can have too. */
export const createEffects = `CREATE TABLE IF NOT EXISTS effects (${columns})`

/** All effects of a database, in the order in which they were written. */
export const readEffects = (filename: string): ReadonlyArray<Effect> => {
  const db = new DatabaseSync(filename, { readOnly: true, timeout: 5_000 })
  try {
    return db
      .prepare("SELECT * FROM effects ORDER BY rowid")
      .all() as ReadonlyArray<unknown> as ReadonlyArray<Effect>
  } finally {
    db.close()
  }
}

export class FencedLedger {
  private readonly db: DatabaseSync
  private readonly statements

  constructor(folder: string) {
    this.db = new DatabaseSync(FencedLedger.fileIn(folder), { timeout: 5_000 })
    this.db.exec(
      `PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; ${createEffects};
       CREATE TABLE IF NOT EXISTS tokens (stream TEXT PRIMARY KEY, token INTEGER)`
    )
    this.statements = {
      raise: this.db.prepare(
        `INSERT INTO tokens VALUES (?, ?)
         ON CONFLICT DO UPDATE SET token = excluded.token WHERE excluded.token >= token RETURNING token`
      ),
      insert: this.db.prepare("INSERT INTO effects VALUES (?, ?, ?, ?, ?, ?, ?)")
    }
  }

  static fileIn(folder: string): string {
    return join(folder, "fenced.db")
  }

  /** Whether it was accepted: a greater token has not been seen. */
  write(stream: string, { at, key, member, offset, partition, token, value }: Effect): boolean {
    const { db, statements } = this
    db.exec("BEGIN IMMEDIATE")
    try {
      const isNewest = statements.raise.get(stream, token) !== undefined
      if (isNewest) statements.insert.run(member, value, key, partition, offset, token, at)
      db.exec("COMMIT")
      return isNewest
    } catch (error) {
      db.exec("ROLLBACK")
      throw error
    }
  }
}
