/**
 * The tracker for plain async code: promises in, promises out, no Effect in sight.
 */
import { Cause, Effect, Exit, Layer, ManagedRuntime } from "effect"
import { StoreError } from "./Errors.ts"
import type { IdempotencyStore } from "./IdempotencyStore.ts"
import type { Key } from "./Key.ts"
import * as Keys from "./Key.ts"
import type { OffsetStore } from "./OffsetStore.ts"
import { type HandlerClaim, type OnceOptions, type Outcome, Tracker, type TrackerOptions } from "./Tracker.ts"

/** What a plain handler may know of its claim. */
export interface PlainClaim extends HandlerClaim {
  /** Aborts when the lease is lost: hand it to `fetch`, to a query, to whatever can stop. */
  readonly signal: AbortSignal
}

/** What a plain tracker is made of. */
export interface PlainTrackerOptions extends TrackerOptions {
  /** A store, as its package makes it: `RedisStore.layer({ url })`, `SqliteStore.layer({ filename })`, `MemoryStore.layer()`. */
  readonly store: Layer.Layer<OffsetStore | IdempotencyStore, unknown>
}

/** A tracker for plain async code. A key is a text (an id in the tracker's namespace) or made by `Key`. */
export interface PlainTracker extends AsyncDisposable, Disposable {
  /**
   * Runs the handler unless the key is completed or being processed. Rejects with the handler's own error, or with
   * one of `TrackerError`, which carry a stable `_tag`.
   */
  readonly once: <A>(
    key: Key | string,
    handler: (claim: PlainClaim) => Promise<A> | A,
    options?: OnceOptions<A>
  ) => Promise<Outcome<A>>
  /** Whether the key is completed now. A question, never a gate. */
  readonly isProcessed: (key: Key | string) => Promise<boolean>
  /** Marks the key completed without running anything; answers whether that was news. */
  readonly markProcessed: (key: Key | string) => Promise<boolean>
  /**
   * Closes the store; again is no harm. Handlers that are at work get their signal, their calls reject, and so do later
   * ones: `StoreError` `Closed`. `await using` closes by itself, where the syntax is known: from Node 24 on, or compiled;
   * `using` begins to, and does not wait.
   */
  readonly close: () => Promise<void>
}

/** Carries what a handler threw through Effect, whatever it is, and out again as it was. */
class Thrown {
  readonly error: unknown
  constructor(error: unknown) {
    this.error = error
  }
}

const closed = (): StoreError =>
  new StoreError({
    store: "tracker",
    verb: "use",
    reason: "Closed",
    detail: "the tracker was closed; make another",
    retriable: false
  })

/**
 * A tracker for plain async code.
 *
 * Rejects with `InvalidInput` for a bad or unknown option, and with the store's own error where it can't be opened.
 *
 * @example
 * const tracker = await makeTracker({ store: MemoryStore.layer(), namespace: "billing" })
 * const outcome = await tracker.once("order-4711", async ({ signal }) => charge(order, { signal }))
 * await tracker.close()
 */
export const makeTracker = async ({ store, ...options }: PlainTrackerOptions): Promise<PlainTracker> => {
  const runtime = ManagedRuntime.make(Tracker.layer(options).pipe(Layer.provide(store)))
  let closing: Promise<void> | undefined
  const close = (): Promise<void> => {
    closing ??= runtime.dispose()
    return closing
  }
  const run = async <A>(effect: Effect.Effect<A, unknown, Tracker>): Promise<A> => {
    if (closing !== undefined) throw closed()
    const exit = await runtime.runPromiseExit(effect)
    if (Exit.isSuccess(exit)) return exit.value
    if (closing !== undefined && Cause.hasInterruptsOnly(exit.cause)) throw closed()
    const error = Cause.squash(exit.cause)
    throw error instanceof Thrown ? error.error : error
  }
  const tracker = await run(Tracker).catch(async (error: unknown) => {
    await close()
    throw error
  })
  const keyOf = (key: Key | string): Key => (typeof key === "string" ? Keys.id(key) : key)
  return {
    once: (key, handler, given) =>
      run(
        tracker.once(
          keyOf(key),
          (claim) =>
            Effect.tryPromise({
              try: async (signal) => {
                const { key, claimId, token, ref, noteCompleted } = claim
                return handler({
                  key,
                  claimId,
                  token,
                  ref,
                  noteCompleted,
                  signal
                })
              },
              catch: (error) => new Thrown(error)
            }),
          given
        )
      ),
    isProcessed: (key) => run(tracker.isProcessed(keyOf(key))),
    markProcessed: (key) => run(tracker.markProcessed(keyOf(key))),
    close,
    [Symbol.asyncDispose]: close,
    [Symbol.dispose]: () => void close()
  }
}
