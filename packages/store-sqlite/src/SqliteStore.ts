/**
 * The store in a SQLite file: all three services in one layer, for the processes of one machine, kept through crashes.
 */
import {
  IdempotencyStore,
  Inspect,
  InvalidInput,
  Lock,
  OffsetStore,
  ParkedRecords,
  Policies,
  Settings,
  type StoreError
} from "@tidemark/core"
import { Config, Context, type Duration, Effect, Layer, type Scope } from "effect"
import { inspect } from "./internal/inspect.ts"
import { open } from "./internal/open.ts"
import { parked } from "./internal/parked.ts"
import { keyStore, offsetStore, orNot, Store } from "./internal/Store.ts"
import { sweep, sweepOften } from "./internal/sweep.ts"
import { transactions } from "./internal/transactions.ts"
import { SqliteDatabase } from "./SqliteDatabase.ts"

/** How a commit is written. */
export type Synchronous = "full" | "normal"

export interface SqliteStoreOptions {
  /** A file on a local disk, made where it is missing, in a folder that is there; or `":memory:"`. */
  readonly filename: string
  /**
   * - `full` (default): a commit is on the disk before it is acknowledged.
   * - `normal`: it is with the operating system. A crash of the process, `kill -9` included, loses nothing; when the
   *   machine loses power, or its kernel dies, the last moments are lost, and what they completed runs again.
   */
  readonly synchronous?: Synchronous
  /** How long a completed key is remembered where `complete` does not say. Default: 24 h. */
  readonly retention?: Duration.Input
  /** How long to wait while another process writes, before `StoreError` `Busy`. Default: 5 s. */
  readonly lockTimeout?: Duration.Input
  /** How often keys and claims whose time is over are removed, by one of the processes. Default: 1 minute. */
  readonly sweepInterval?: Duration.Input
  /** The file's greatest size in bytes; at it, `StoreError` `Full`. Default: the disk's. */
  readonly maxBytes?: number
}

/** What a connection serves; the others are made of it. */
type Services = OffsetStore | IdempotencyStore | Inspect | ParkedRecords

export type SqliteStoreServices = Services | Lock | SqliteDatabase

interface Terms {
  readonly filename: string
  readonly synchronous: Synchronous
  readonly retentionMillis: number
  readonly lockTimeoutMillis: number
  readonly sweepIntervalMillis: number
  readonly maxBytes: number | undefined
}

const knownOptions: ReadonlyArray<string> = [
  "filename",
  "synchronous",
  "retention",
  "lockTimeout",
  "sweepInterval",
  "maxBytes"
]

const smallestBytes = 65_536

const check = (options: SqliteStoreOptions): Terms | InvalidInput => {
  const unknown = Policies.unknownOption("SqliteStore", options, knownOptions)
  if (unknown !== undefined) return unknown
  const { filename, synchronous = "full", maxBytes } = options
  if (typeof filename !== "string" || filename.length === 0 || filename.includes("\0")) {
    return new InvalidInput({
      field: "filename",
      value: JSON.stringify(filename) ?? "undefined",
      allowed: 'the path of a file, or ":memory:"'
    })
  }
  if (synchronous !== "full" && synchronous !== "normal") {
    return new InvalidInput({ field: "synchronous", value: String(synchronous), allowed: "full, normal" })
  }
  if (maxBytes !== undefined && !(Number.isSafeInteger(maxBytes) && maxBytes >= smallestBytes)) {
    return new InvalidInput({
      field: "maxBytes",
      value: String(maxBytes),
      allowed: `an integer from ${smallestBytes} on`
    })
  }
  const retentionMillis = Policies.duration("retention", options.retention ?? "24 hours")
  if (typeof retentionMillis !== "number") return retentionMillis
  const lockTimeoutMillis = Policies.duration("lockTimeout", options.lockTimeout ?? "5 seconds")
  if (typeof lockTimeoutMillis !== "number") return lockTimeoutMillis
  const sweepIntervalMillis = Policies.duration("sweepInterval", options.sweepInterval ?? "1 minute")
  if (typeof sweepIntervalMillis !== "number") return sweepIntervalMillis
  return { filename, synchronous, retentionMillis, lockTimeoutMillis, sweepIntervalMillis, maxBytes }
}

/** The stores on one connection, for what is made of them. */
class Opened extends Context.Service<Opened, { readonly store: Store; readonly terms: Terms }>()(
  "@tidemark/store-sqlite/Opened"
) {}

const opened = (options: SqliteStoreOptions) =>
  Effect.gen(function* () {
    const terms = check(options)
    if ("_tag" in terms) return yield* terms
    const store = yield* Store.make(yield* open(terms))
    return Context.make(OffsetStore, yield* offsetStore(store)).pipe(
      Context.add(IdempotencyStore, yield* keyStore(store, terms.retentionMillis)),
      Context.add(Inspect, yield* orNot("open", () => inspect(store))),
      Context.add(ParkedRecords, yield* orNot("open", () => parked(store))),
      Context.add(Opened, Opened.of({ store, terms }))
    )
  })

const database = Layer.effect(
  SqliteDatabase,
  Effect.gen(function* () {
    const { store, terms } = yield* Opened
    const lock = yield* Lock
    yield* Effect.forkScoped(sweepOften(store, terms.sweepIntervalMillis))
    return SqliteDatabase.of({
      ...transactions(store, terms.retentionMillis),
      sweep: Effect.provideService(sweep(store), Lock, lock)
    })
  })
)

const layerOf = <E>(
  stores: Effect.Effect<Context.Context<Services | Opened>, E, Scope.Scope>
): Layer.Layer<SqliteStoreServices, E> =>
  database.pipe(Layer.provideMerge(Lock.layer), Layer.provideMerge(Layer.effectContext(stores)))

/**
 * The SQLite store: positions, idempotency keys and locks, for all processes of one machine that use the same file.
 *
 * Its clock is Effect's, so that `TestClock` drives it; processes that share a file must share a clock too. Fails with
 * `InvalidInput` for a bad or unknown option, and with `StoreError` for a file that can't be used: `Misconfigured`
 * (no such folder, the file of another program), `ReadOnly`, `Corrupt` (no database, or damaged), `WrongVersion`
 * (a newer tidemark's), `Busy`, `Full`. The file is then left as it was.
 *
 * @example
 * program.pipe(Effect.provide(SqliteStore.layer({ filename: "/var/lib/billing/tidemark.db" })))
 */
export const layer = (
  options: SqliteStoreOptions
): Layer.Layer<SqliteStoreServices, InvalidInput | StoreError> => layerOf(opened(options))

/**
 * The SQLite store with `SQLITE_FILENAME`, `SQLITE_SYNCHRONOUS`, `OFFSET_CACHE_TTL_SECONDS` (how long keys are
 * remembered) and `OFFSET_CLEANUP_INTERVAL` from the environment (or any other `ConfigProvider`); where one is absent,
 * from `base`.
 */
export const layerConfig = (
  base: Partial<SqliteStoreOptions> = {}
): Layer.Layer<SqliteStoreServices, InvalidInput | StoreError | Config.ConfigError> =>
  layerOf(
    Effect.gen(function* () {
      const filename = Config.String("SQLITE_FILENAME")
      const synchronous = Config.Literals(["full", "normal"], "SQLITE_SYNCHRONOUS")
      const retention = yield* seconds("OFFSET_CACHE_TTL_SECONDS", 31_536_000, base.retention)
      const sweepInterval = yield* seconds("OFFSET_CLEANUP_INTERVAL", 86_400, base.sweepInterval)
      return yield* opened({
        ...base,
        filename: yield* base.filename === undefined ? filename : Config.withDefault(filename, base.filename),
        synchronous: yield* Config.withDefault(synchronous, base.synchronous ?? "full"),
        ...(retention === undefined ? {} : { retention }),
        ...(sweepInterval === undefined ? {} : { sweepInterval })
      })
    })
  )

const seconds = (
  name: string,
  max: number,
  otherwise: Duration.Input | undefined
): Config.Config<Duration.Input | undefined> =>
  Settings.integer(name, 1, max).pipe(
    Config.map((count): Duration.Input => count * 1_000),
    Config.withDefault(otherwise)
  )
