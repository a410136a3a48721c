/**
 * Keeps positions, idempotency keys and locks in a SQLite file.
 */
export * as SqliteStore from "./SqliteStore.ts"
