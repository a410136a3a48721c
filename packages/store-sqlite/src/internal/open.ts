/** Opening a file: whose it is, whether it can be trusted, and what it needs to become current. */
import { accessSync, constants, existsSync, statSync } from "node:fs"
import { dirname } from "node:path"
import { StoreError, type StoreErrorReason } from "@tidemark/core"
import { Effect, type Scope } from "effect"
import { Connection } from "./Connection.ts"
import { Database } from "./Database.ts"
import { isAccessFailure, storeError, storeName } from "./failures.ts"
import { Place } from "./Place.ts"
import { migrate, migrations, type Standing, standing } from "./schema.ts"

export interface OpenOptions {
  readonly filename: string
  readonly synchronous: "full" | "normal"
  readonly lockTimeoutMillis: number
  /** The file's greatest size. */
  readonly maxBytes: number | undefined
}

const inMemory = ":memory:"

/** A connection, ready to be used; closed with the Scope. */
export const open = (options: OpenOptions): Effect.Effect<Connection, StoreError, Scope.Scope> =>
  Effect.gen(function* () {
    const db = yield* Effect.acquireRelease(
      Effect.try({
        try: () => new Database(options.filename, { timeout: 0 }),
        catch: (cause) => cannotOpen(options.filename, cause)
      }),
      (opened) =>
        Effect.sync(() => {
          if (opened.isOpen) opened.close()
        })
    )
    const connection = new Connection(db, options)
    yield* Effect.mapError(
      // nothing is written before it is known whose the file is
      Effect.andThen(
        connection.attempt(() => accept(options, standing(db))),
        connection.attempt(() => prepare(connection, options))
      ),
      (cause) => cannotOpen(options.filename, cause)
    )
    const file = db.location()
    connection.expect({
      version: migrations.length,
      place: file === null || file === "" ? undefined : new Place(file)
    })
    return connection
  })

const prepare = (connection: Connection, options: OpenOptions): void => {
  const { db } = connection
  // SQLite opens a file that it may not write to for reading, without a word; this does not write either
  connection.write(() => {})
  const { journal_mode: mode } = db.prepare("PRAGMA journal_mode = WAL").get() as { journal_mode: string }
  if (mode !== "wal" && options.filename !== inMemory) {
    throw failure(
      "Misconfigured",
      `${options.filename} can't have a write-ahead log (its journal mode is ${mode}); use a file on a local disk`
    )
  }
  db.exec(`PRAGMA synchronous = ${options.synchronous}`)
  // macOS leaves what is "synchronised" in the drive's cache unless it is told otherwise; elsewhere this does nothing
  db.exec("PRAGMA fullfsync = ON")
  if (options.maxBytes !== undefined) {
    const { page_size: pageBytes } = db.prepare("PRAGMA page_size").get() as { page_size: number }
    db.exec(`PRAGMA max_page_count = ${Math.max(1, Math.floor(options.maxBytes / pageBytes))}`)
  }
  if (standing(db)._tag === "Current") return
  connection.write(() => {
    // another process may have been quicker
    const now = standing(db)
    accept(options, now)
    if (now._tag === "Behind") migrate(db, now.version)
  })
}

const accept = ({ filename }: OpenOptions, found: Standing): void => {
  if (found._tag === "Newer") {
    throw failure(
      "WrongVersion",
      `${filename} has version ${found.version} of tidemark's tables, this program knows ${migrations.length}; ` +
        "nothing was written. Update @tidemark/store-sqlite"
    )
  }
  if (found._tag === "Foreign") {
    throw failure(
      "Misconfigured",
      `${filename} belongs to another program (application_id ${found.applicationId}, user_version ${found.version}); ` +
        "nothing was written. Give tidemark a file in which both are its own"
    )
  }
}

const failure = (reason: StoreErrorReason, detail: string, cause?: unknown): StoreError =>
  new StoreError({
    store: storeName,
    verb: "open",
    reason,
    detail,
    retriable: false,
    ...(cause === undefined ? {} : { cause })
  })

const cannotOpen = (filename: string, cause: unknown): StoreError => {
  if (!isAccessFailure(cause) || filename === inMemory) return storeError("open", cause)
  const folder = dirname(filename)
  if (!existsSync(folder)) {
    return failure(
      "Misconfigured",
      `the folder ${folder} does not exist; make it, or choose another filename`,
      cause
    )
  }
  if (existsSync(filename) && statSync(filename).isDirectory()) {
    return failure("Misconfigured", `${filename} is a folder; name a file`, cause)
  }
  const blocked = existsSync(filename) ? [filename, folder] : [folder]
  for (const path of blocked) {
    try {
      accessSync(path, constants.R_OK | constants.W_OK)
    } catch {
      return failure("ReadOnly", `${path} can't be written to; the database and its log lie there`, cause)
    }
  }
  return storeError("open", cause)
}
