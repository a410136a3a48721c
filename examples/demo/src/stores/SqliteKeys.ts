import { DatabaseSync } from "node:sqlite"
import { Effect, type Scope } from "effect"
import type { KeyStore } from "../Trackers.ts"

/**
 * A table of processed orders, in a file that several processes share: as one writes it, and as durable as
 * tidemark's store, since each transaction is on the disk before it is answered.
 */
export const openSqliteKeys = (filename: string): Effect.Effect<KeyStore, unknown, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(Effect.try({ try: () => open(filename), catch: (error) => error }), (database) =>
      Effect.sync(() => database.close())
    ),
    (database) => {
      const select = database.prepare("SELECT 1 FROM processed WHERE id = ?")
      const insert = database.prepare("INSERT OR IGNORE INTO processed (id) VALUES (?)")
      const remove = database.prepare("DELETE FROM processed WHERE id = ?")
      return {
        has: async (key) => select.get(key) !== undefined,
        add: async (key) => {
          insert.run(key)
        },
        addIfAbsent: async (key) => insert.run(key).changes === 1,
        remove: async (key) => {
          remove.run(key)
        }
      }
    }
  )

const open = (filename: string): DatabaseSync => {
  const database = new DatabaseSync(filename, { timeout: 5_000 })
  database.exec(`
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS processed (id TEXT PRIMARY KEY) WITHOUT ROWID;
  `)
  return database
}
