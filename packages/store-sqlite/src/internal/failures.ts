/** What SQLite throws, as the errors of the protocol. */
import { StoreError, type StoreErrorReason } from "@tidemark/core"

export const storeName = "sqlite"

interface SqliteFailure extends Error {
  readonly code: string
  /** SQLite's extended result code. */
  readonly errcode: number
}

/** A function of the user's has ended the transaction that it was run in. */
export class EndedTransaction extends Error {}

/** What stands in tidemark's tables makes no sense. */
export class Damaged extends Error {}

/** The tables have come to have another version while the file was open. */
export class OtherVersion extends Error {
  readonly found: number
  readonly expected: number
  constructor(found: number, expected: number) {
    super(`version ${found} of the tables instead of ${expected}`)
    this.found = found
    this.expected = expected
  }
}

/** Another file, or none, is where it was opened. */
export class Replaced extends Error {
  readonly file: string
  constructor(file: string, cause?: unknown) {
    super(`${file} was moved, removed or replaced`, { cause })
    this.file = file
  }
}

/** Whether SQLite itself has refused; anything else that is thrown is a defect. */
export const isSqliteFailure = (cause: unknown): cause is SqliteFailure =>
  cause instanceof Error && (cause as { code?: unknown }).code === "ERR_SQLITE_ERROR"

const isClosed = (cause: unknown): boolean =>
  cause instanceof Error && (cause as { code?: unknown }).code === "ERR_INVALID_STATE"

/** Primary result codes, https://www.sqlite.org/rescode.html. */
const codes = {
  permission: 3,
  busy: 5,
  locked: 6,
  noMemory: 7,
  readOnly: 8,
  inputOutput: 10,
  corrupt: 11,
  full: 13,
  cannotOpen: 14,
  tooBig: 18,
  constraint: 19,
  authorization: 23,
  notADatabase: 26
} as const

const primary = (failure: SqliteFailure): number => failure.errcode & 0xff

/** Another connection holds the lock: to be tried again in a moment. */
export const isBusy = (cause: unknown): boolean =>
  isSqliteFailure(cause) && (primary(cause) === codes.busy || primary(cause) === codes.locked)

/** The file, or one beside it, could not be opened or written to. */
export const isAccessFailure = (cause: unknown): boolean =>
  isSqliteFailure(cause) && (primary(cause) === codes.cannotOpen || primary(cause) === codes.readOnly)

/** The disk, the file or its lock are to blame, and not a statement. */
export const isOfTheStore = (cause: unknown): boolean =>
  isClosed(cause) ||
  cause instanceof OtherVersion ||
  cause instanceof Replaced ||
  (isSqliteFailure(cause) && meanings.has(primary(cause)))

/** One statement, or what it left for the end of the transaction, is to blame: the others would have gone well. */
export const isOfOne = (cause: unknown): boolean =>
  isSqliteFailure(cause) && (primary(cause) === codes.constraint || primary(cause) === codes.tooBig)

interface Meaning {
  readonly reason: StoreErrorReason
  readonly retriable: boolean
  readonly detail: string
}

const meanings: ReadonlyMap<number, Meaning> = new Map([
  [
    codes.busy,
    {
      reason: "Busy",
      retriable: true,
      detail:
        "another process held the database for the whole lockTimeout; nothing was written. Ask again; " +
        "if it lasts, look for a program that leaves a transaction open"
    }
  ],
  [
    codes.readOnly,
    {
      reason: "ReadOnly",
      retriable: false,
      detail:
        "the file or its folder takes no writes; nothing was written. Give the process the right to write both"
    }
  ],
  [
    codes.inputOutput,
    {
      reason: "Unavailable",
      retriable: true,
      detail: "the disk failed; the call may or may not have taken effect. Look at the system's log"
    }
  ],
  [
    codes.corrupt,
    {
      reason: "Corrupt",
      retriable: false,
      detail:
        "the file is damaged; nothing was written. Restore a backup, or take what can be had with sqlite3's .recover"
    }
  ],
  [
    codes.notADatabase,
    {
      reason: "Corrupt",
      retriable: false,
      detail:
        "the file is no SQLite database, or is damaged; nothing was written. Give tidemark a file of its own"
    }
  ],
  [
    codes.full,
    {
      reason: "Full",
      retriable: true,
      detail: "the disk, or maxBytes, is full; nothing was written. Make room; what was acknowledged is kept"
    }
  ],
  [
    codes.cannotOpen,
    {
      reason: "Unavailable",
      retriable: true,
      detail: "the file, or one of those beside it (-wal, -shm), can't be opened; nothing was written"
    }
  ],
  [codes.noMemory, { reason: "Unavailable", retriable: true, detail: "out of memory; nothing was written" }],
  [
    codes.permission,
    { reason: "Refused", retriable: false, detail: "access is denied; nothing was written" }
  ],
  [
    codes.authorization,
    { reason: "Refused", retriable: false, detail: "access is denied; nothing was written" }
  ]
])

const unknown: Meaning = {
  reason: "Corrupt",
  retriable: false,
  detail: "tidemark's tables are not as they should be; nothing was written. Has somebody changed them?"
}

const damaged: Meaning = {
  ...unknown,
  detail: "tidemark's tables hold what makes no sense; nothing was written"
}

const afterClose: Meaning = {
  reason: "Closed",
  retriable: false,
  detail: "the layer was closed, or somebody closed its database"
}

/** Of a verb that shared its transaction with the one that ended it. */
const ended: Meaning = {
  reason: "Unavailable",
  retriable: true,
  detail:
    "a function in the same transaction ended it by COMMIT or ROLLBACK; the call may or may not have taken effect. Ask again"
}

const replaced = ({ file }: Replaced): Meaning => ({
  reason: "Replaced",
  retriable: false,
  detail:
    `${file} was moved, removed or replaced while it was open; nothing was written. What was acknowledged within the last ` +
    "second went to the old file. Restart the program, on the right file"
})

const otherVersion = ({ expected, found }: OtherVersion): Meaning => ({
  reason: "WrongVersion",
  retriable: false,
  detail:
    `another program has brought the file to version ${found} of tidemark's tables, this one knows ${expected}; ` +
    "nothing was written. Restart this one with the @tidemark/store-sqlite of the other"
})

/** Of what tidemark itself found. */
const ourMeaning = (cause: unknown): Meaning | undefined => {
  if (cause instanceof EndedTransaction) return ended
  if (cause instanceof OtherVersion) return otherVersion(cause)
  if (cause instanceof Replaced) return replaced(cause)
  return cause instanceof Damaged ? damaged : undefined
}

/** The error of a verb; a cause that is neither SQLite's nor a closed database is thrown on, as the defect it is. */
export const storeError = (verb: string, cause: unknown): StoreError => {
  if (cause instanceof StoreError) return cause
  const meaning = ourMeaning(cause)
  if (meaning !== undefined) return new StoreError({ store: storeName, verb, ...meaning, cause })
  if (isClosed(cause)) return closed(verb)
  if (!isSqliteFailure(cause)) throw cause
  const { reason, retriable, detail } = meanings.get(primary(cause)) ?? unknown
  return new StoreError({
    store: storeName,
    verb,
    reason,
    retriable,
    detail: `${detail} (${cause.message}, code ${cause.errcode})`,
    cause
  })
}

export const closed = (verb: string): StoreError => new StoreError({ store: storeName, verb, ...afterClose })
