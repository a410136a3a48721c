/** The verbs on one connection: those that write are gathered, so that many who call at once share one commit. */
import { Coalescing, IdempotencyStore, OffsetStore, type StoreError } from "@tidemark/core"
import { Clock, Effect, Exit, type Scope } from "effect"
import type { Connection } from "./Connection.ts"
import { closed, EndedTransaction, isOfOne, isOfTheStore, storeError, storeName } from "./failures.ts"
import { Keys } from "./Keys.ts"
import { Log } from "./Log.ts"
import { Streams } from "./Streams.ts"
import { Watch } from "./Watch.ts"

/** So many items at most share a commit: some milliseconds of work. */
const itemsPerCommit = 1_000

interface Write {
  readonly verb: string
  readonly items: number
  readonly act: () => Exit.Exit<unknown, unknown>
  /** What the act fails with where it is itself to blame that the transaction failed. */
  readonly blame: (cause: unknown) => unknown
}

/** What the layers and the transactions work with. */
export class Store {
  readonly connection: Connection
  readonly streams: Streams
  readonly keys: Keys
  readonly watch: Watch
  readonly log: Log
  private readonly ask: (write: Write) => Effect.Effect<unknown, unknown>

  private constructor(
    connection: Connection,
    watch: Watch,
    log: Log,
    ask: (write: Write) => Effect.Effect<unknown, unknown>
  ) {
    this.connection = connection
    this.streams = new Streams(connection)
    this.keys = new Keys(connection)
    this.watch = watch
    this.log = log
    this.ask = ask
  }

  static make(connection: Connection): Effect.Effect<Store, StoreError, Scope.Scope> {
    return Effect.gen(function* () {
      const watch = yield* Watch.make(connection.db)
      const log = yield* Log.make(connection)
      const ask = yield* Coalescing.make<Write, unknown, unknown>({
        maxItems: itemsPerCommit,
        sizeOf: ({ items }) => items,
        after: "turn",
        run: (writes) => {
          log.note(writes.reduce((sum, { items }) => sum + items, 0))
          return log.whenShort(commitTogether(connection, writes))
        }
      })
      // its statements are made, which finds tables that are not as they should be
      return yield* orNot("open", () => new Store(connection, watch, log, ask))
    })
  }

  /** In a transaction that others may share. `act` writes all it has to, or throws: then the others are done again. */
  write<A>(verb: string, items: number, act: (now: number) => A): Effect.Effect<A, StoreError> {
    return this.writeOr(verb, items, (now) => Exit.succeed(act(now)))
  }

  /** The same for an act that may fail, having written nothing then, or end the transaction, which it must not. */
  writeOr<A, E>(
    verb: string,
    items: number,
    act: (now: number) => Exit.Exit<A, E>,
    blame: (cause: unknown) => E | StoreError = (cause) => storeError(verb, cause)
  ): Effect.Effect<A, E | StoreError> {
    return atClock((clock): Effect.Effect<A, E | StoreError> => {
      if (!this.connection.db.isOpen) return Effect.fail(closed(verb))
      const asked = this.ask({ verb, items, act: () => act(clock.currentTimeMillisUnsafe()), blame })
      return asked as Effect.Effect<A, E | StoreError>
    })
  }

  /** In a transaction of its own. */
  writeAlone<A>(verb: string, act: (now: number) => A): Effect.Effect<A, StoreError> {
    this.log.note(1)
    return this.alone(verb, (now) => this.connection.write(() => act(now)))
  }

  read<A>(verb: string, act: (now: number) => A): Effect.Effect<A, StoreError> {
    return this.alone(verb, (now) => this.connection.read(() => act(now)))
  }

  /** Without a transaction. */
  alone<A>(verb: string, act: (now: number) => A): Effect.Effect<A, StoreError> {
    return atClock((clock) =>
      Effect.mapError(
        this.connection.attempt(() => act(clock.currentTimeMillisUnsafe())),
        (cause) => storeError(verb, cause)
      )
    )
  }
}

/** What SQLite has against it, as an error. */
export const orNot = <A>(verb: string, act: () => A): Effect.Effect<A, StoreError> =>
  Effect.mapError(Effect.try({ try: act, catch: (cause) => cause }), (cause) => storeError(verb, cause))

const atClock = <A, E>(act: (clock: Clock.Clock) => Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.withFiber((fiber) => act(fiber.getRef(Clock.Clock)))

/** Each gets what it came to, or why the whole came to nothing. */
const commitTogether = (
  connection: Connection,
  writes: ReadonlyArray<Write>
): Effect.Effect<ReadonlyArray<Exit.Exit<unknown, unknown>>> => {
  let acting: Write | undefined
  const together = connection.attempt(() =>
    connection.write(() =>
      writes.map((write) => {
        acting = write
        return write.act()
      })
    )
  )
  return Effect.catch(together, (cause) => {
    const hasEnded = cause instanceof EndedTransaction
    // nothing was written: one by one, the others do not suffer for what is wrong with one of them
    if (writes.length > 1 && !hasEnded && !isOfTheStore(cause)) {
      return Effect.map(
        Effect.forEach(writes, (write) => commitTogether(connection, [write])),
        (exits) => exits.flat()
      )
    }
    const isToBlame = (write: Write): boolean => (hasEnded ? write === acting : isOfOne(cause))
    return Effect.succeed(writes.map((write) => failed(write, cause, isToBlame(write))))
  })
}

/** A cause that makes no error of the store is a defect, of this write alone. */
const failed = (write: Write, cause: unknown, isToBlame: boolean): Exit.Exit<never, unknown> => {
  try {
    return Exit.fail(isToBlame ? write.blame(cause) : storeError(write.verb, cause))
  } catch (defect) {
    return Exit.die(defect)
  }
}

const streamName = (stream: string): string => `s${stream}`
export const keyName = (namespace: string, key: string): string => `k${namespace}\u0000${key}`

export const wakeStream = ({ watch }: Store, stream: string): void => {
  if (watch.any) watch.wake(streamName(stream))
}

export const wakeKeys = ({ watch }: Store, namespace: string, keys: Iterable<string>): void => {
  if (watch.any) for (const key of keys) watch.wake(keyName(namespace, key))
}

export const offsetStore = (store: Store) => {
  const { streams, watch } = store
  const thenWake = <A>(stream: string, asked: Effect.Effect<A, StoreError>): Effect.Effect<A, StoreError> =>
    Effect.map(asked, (answer) => {
      wakeStream(store, stream)
      return answer
    })
  return OffsetStore.make({
    name: storeName,
    durable: true,
    claim: (stream, ranges, terms) =>
      store.write("claim", 1, (now) => streams.claim(stream, ranges, terms, now)),
    complete: ({ stream, claimId }, ranges) =>
      thenWake(
        stream,
        store.write("complete", 1, (now) => streams.complete(stream, claimId, ranges, now))
      ),
    release: ({ stream, claimId }, ranges) =>
      thenWake(
        stream,
        store.write("release", 1, (now) => streams.release(stream, claimId, ranges, now))
      ),
    renew: (claims) =>
      store.write("renew", claims.length, (now) =>
        claims.map(({ stream, claimId, leaseMillis }) => streams.renew(stream, claimId, leaseMillis, now))
      ),
    annotate: (notes) =>
      store.write("annotate", notes.length, (now) =>
        notes.map(({ stream, claimId, note }) => streams.annotate(stream, claimId, note, now))
      ),
    progress: (stream) => store.read("progress", (now) => streams.progress(stream, now)),
    isCompleted: (stream, offset) => store.read("isCompleted", () => streams.isCompleted(stream, offset)),
    rewind: (stream, to) =>
      thenWake(
        stream,
        store.write("rewind", 1, (now) => streams.rewind(stream, to, now))
      ),
    skip: (stream, ranges) =>
      thenWake(
        stream,
        store.write("skip", 1, (now) => streams.skip(stream, ranges, now))
      ),
    forget: (stream) =>
      thenWake(
        stream,
        store.write("forget", 1, () => streams.forget(stream))
      ),
    copy: (from, to) => store.write("copy", 1, (now) => streams.copy(from, to, now)),
    awaitRelease: (stream) =>
      Effect.suspend(() => {
        let seen: number | undefined
        return watch.wait(streamName(stream), () => {
          const version = streams.versionOf(stream)
          // 0: nothing is known of it, so that there is nothing to wait for
          const isReady = version === 0 || (seen !== undefined && version !== seen)
          seen ??= version
          return isReady
        })
      })
  })
}

export const keyStore = (store: Store, retentionMillis: number) => {
  const { keys, watch } = store
  return IdempotencyStore.make({
    name: storeName,
    durable: true,
    retentionMillis,
    claim: (namespace, items, terms) =>
      store.write("claim", items.length, (now) => keys.claim(namespace, items, terms, now)),
    complete: ({ namespace, claimId }, items, retention) =>
      Effect.map(
        store.write("complete", items.length, (now) =>
          keys.complete(claimId, namespace, items, retention, now)
        ),
        (answers) => {
          if (watch.any) for (const { key } of items) watch.wake(keyName(namespace, key))
          return answers
        }
      ),
    release: ({ namespace, claimId }, released) =>
      Effect.map(
        store.write("release", released?.length ?? 1, () => keys.release(claimId, released)),
        (granted) => wakeKeys(store, namespace, released ?? granted)
      ),
    renew: (claims) =>
      store.write("renew", claims.length, (now) =>
        claims.map(({ claimId, leaseMillis }) => keys.renew(claimId, leaseMillis, now))
      ),
    lookup: (namespace, asked) =>
      store.read("lookup", (now) => asked.map((key) => keys.lookup(namespace, key, now))),
    forget: (namespace, forgotten) =>
      Effect.map(
        store.write(
          "forget",
          forgotten.length,
          () => forgotten.filter((key) => keys.forget(namespace, key)).length
        ),
        (known) => {
          wakeKeys(store, namespace, forgotten)
          return known
        }
      ),
    awaitSettled: (namespace, key) =>
      atClock((clock) =>
        watch.wait(
          keyName(namespace, key),
          () => keys.lookup(namespace, key, clock.currentTimeMillisUnsafe())._tag !== "InFlight"
        )
      )
  })
}
