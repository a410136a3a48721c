/**
 * Keeps positions, idempotency keys and locks in a SQLite file.
 */
export * from "./SqliteDatabase.ts"
export * as SqliteStore from "./SqliteStore.ts"
