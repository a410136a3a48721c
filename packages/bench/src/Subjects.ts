/** Our own stores, made ready for a contest. */
import { ClaimId, IdempotencyStore, Lock, OffsetRanges, OffsetStore, Tracker } from "@tidemark/core"
import { MemoryCore, MemoryStore } from "@tidemark/store-memory"
import { Context, Effect, Exit, Layer, Scope } from "effect"

export const leaseMillis = 30_000
export const retentionMillis = 300_000
export const owner = "bench"

/** The synchronous core, as the layer makes it. */
export const newCore = (maxSize: number): MemoryCore =>
  new MemoryCore({ maxSize, whenFull: "evict-oldest", now: Date.now() })

/** The services of a store, and how to close it. */
export interface Services {
  readonly offsets: OffsetStore["Service"]
  readonly keys: IdempotencyStore["Service"]
  readonly lock: Lock["Service"]
  readonly tracker: Tracker["Service"]
  readonly close: () => Promise<void>
}

/** Opens a store of the contestant's own. */
export const openServices = async <E>(
  store: Layer.Layer<OffsetStore | IdempotencyStore | Lock, E>
): Promise<Services> => {
  const scope = Effect.runSync(Scope.make())
  const layer = Tracker.layer({ namespace: "bench", owner }).pipe(Layer.provideMerge(store))
  const context = await Effect.runPromise(Layer.buildWithScope(layer, scope))
  return {
    offsets: Context.get(context, OffsetStore),
    keys: Context.get(context, IdempotencyStore),
    lock: Context.get(context, Lock),
    tracker: Context.get(context, Tracker),
    close: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

/** The services of a memory store. */
export const newServices = (maxTrackedOffsets = 50_000): Promise<Services> =>
  openServices(MemoryStore.layer({ maxTrackedOffsets, ttlSeconds: retentionMillis / 1_000 }))

/** Claims and completes keys, in two calls of the store; by default for its own retention. */
export const completeKeys = (
  store: Services["keys"],
  keys: ReadonlyArray<string>,
  options?: { readonly retentionMillis: number }
) => {
  const claimId = ClaimId.make()
  const items = keys.map((key) => ({ key }))
  return Effect.andThen(
    store.claim("bench", items, { claimId, owner, leaseMillis }),
    store.complete({ namespace: "bench", claimId }, items, options)
  )
}

/** Claims and completes the offsets from `from` to before `to`, in two calls of the store. */
export const completeRange = (store: Services["offsets"], stream: string, from: number, to: number) => {
  const claimId = ClaimId.make()
  const ranges = OffsetRanges.make(from, to)
  return Effect.andThen(
    store.claim(stream, ranges, { claimId, owner, leaseMillis }),
    store.complete({ stream, claimId }, ranges)
  )
}
