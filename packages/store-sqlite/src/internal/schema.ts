/**
 * The tables, and how a file of an older version comes to have them. Forward only: a file of a newer version is
 * refused, since nobody knows what it means.
 *
 * Two numbers in the file's header say whose it is: `application_id`, and in `user_version` how many of the migrations
 * it has seen.
 */
import type { DatabaseSync } from "node:sqlite"

/** "tide" in ASCII. */
export const applicationId = 0x74_69_64_65

/**
 * Whole statements, one list for each version, never to be changed once published.
 *
 * Offsets are REAL, since the end of all offsets, 2^53, is beyond what comes back exactly as an integer; SQLite keeps
 * them as integers on disk all the same.
 */
export const migrations: ReadonlyArray<string> = [
  `
  -- AUTOINCREMENT: a stream that was forgotten and comes again is another one, also to a process that remembers it.
  CREATE TABLE tidemark_streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    origin REAL NOT NULL,
    watermark REAL NOT NULL,
    highest REAL NOT NULL,
    gap_count REAL NOT NULL,
    epoch INTEGER NOT NULL,
    last_token INTEGER NOT NULL,
    touched_at REAL NOT NULL
  );

  -- What is completed above a watermark, 4,096 offsets a page; without content: so many pages, all completed.
  CREATE TABLE tidemark_pages (
    stream INTEGER NOT NULL,
    page INTEGER NOT NULL,
    pages INTEGER NOT NULL,
    version INTEGER NOT NULL,
    content BLOB,
    PRIMARY KEY (stream, page)
  ) WITHOUT ROWID;

  -- Without an index by their end: it would cost each claim and each completion a page more, and they are few.
  CREATE TABLE tidemark_claims (
    stream INTEGER NOT NULL,
    claim_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    token INTEGER NOT NULL,
    lease REAL NOT NULL,
    until REAL NOT NULL,
    forgotten_at REAL NOT NULL,
    requested TEXT NOT NULL,
    -- NULL: what was requested
    held TEXT,
    PRIMARY KEY (stream, claim_id)
  ) WITHOUT ROWID;

  CREATE TABLE tidemark_namespaces (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
  );

  -- Keys that were claimed, or completed, together: one row changes for all of them. Completed: without a claim_id.
  CREATE TABLE tidemark_batches (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    claim_id TEXT,
    owner TEXT,
    token INTEGER,
    lease REAL,
    until REAL NOT NULL,
    forgotten_at REAL NOT NULL,
    held INTEGER NOT NULL,
    -- Of a claim of one key, without a fingerprint: as in tidemark_batch_keys, which has no row for it.
    keys TEXT
  );
  CREATE UNIQUE INDEX tidemark_batches_by_claim ON tidemark_batches (claim_id) WHERE claim_id IS NOT NULL;
  CREATE INDEX tidemark_batches_by_end ON tidemark_batches (forgotten_at);

  -- Apart from the batches, since these change and the lists don't.
  CREATE TABLE tidemark_batch_keys (
    batch INTEGER PRIMARY KEY,
    keys TEXT NOT NULL,
    -- NULL: the same as keys
    requested TEXT
  );

  CREATE TABLE tidemark_keys (
    namespace INTEGER NOT NULL,
    key TEXT NOT NULL,
    batch INTEGER NOT NULL,
    fingerprint TEXT,
    result TEXT,
    PRIMARY KEY (namespace, key)
  ) WITHOUT ROWID;

  -- Apart from the streams: a record stays when its stream is forgotten. The content last, since lists don't read it.
  CREATE TABLE tidemark_parked (
    stream TEXT NOT NULL,
    position REAL NOT NULL,
    topic TEXT NOT NULL,
    partition_number INTEGER NOT NULL,
    timestamp REAL NOT NULL,
    error_tag TEXT NOT NULL,
    error_message TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    parked_at REAL NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (stream, position)
  );

  CREATE TABLE tidemark_counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
  ) WITHOUT ROWID;
  INSERT INTO tidemark_counters VALUES ('key token', 0), ('stream token', 0);
  `,
  `
  -- What the owner of a claim has noted for later ones.
  ALTER TABLE tidemark_streams ADD COLUMN note TEXT;
  `
]

/** What the header of a file tells. */
export type Standing =
  | { readonly _tag: "Current" }
  /** To be brought up to date from this version; 0: it has no tables of ours yet. */
  | { readonly _tag: "Behind"; readonly version: number }
  | { readonly _tag: "Newer"; readonly version: number }
  | { readonly _tag: "Foreign"; readonly applicationId: number; readonly version: number }

/** Reads, and writes nothing. */
export const standing = (db: DatabaseSync, steps: ReadonlyArray<string> = migrations): Standing => {
  const { application_id: id } = db.prepare("PRAGMA application_id").get() as { application_id: number }
  const { user_version: version } = db.prepare("PRAGMA user_version").get() as { user_version: number }
  if (id !== applicationId) {
    return id === 0 && version === 0
      ? { _tag: "Behind", version: 0 }
      : { _tag: "Foreign", applicationId: id, version }
  }
  if (version > steps.length) return { _tag: "Newer", version }
  return version === steps.length ? { _tag: "Current" } : { _tag: "Behind", version }
}

/** Brings a database from `version` up to date; to be called within a transaction. */
export const migrate = (
  db: DatabaseSync,
  version: number,
  steps: ReadonlyArray<string> = migrations
): void => {
  for (const step of steps.slice(version)) db.exec(step)
  db.exec(`PRAGMA application_id = ${applicationId}; PRAGMA user_version = ${steps.length}`)
}
