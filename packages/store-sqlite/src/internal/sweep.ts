/**
 * Removes what nobody will ask for again: keys that need not be remembered any longer, claims that ended long ago. In
 * slices of some milliseconds, between which others get their turn; by one of the processes that share the file.
 */
import { Lock, type StoreError } from "@tidemark/core"
import { Effect } from "effect"
import type { Store } from "./Store.ts"
import { type ClaimPlace, firstPlace } from "./Streams.ts"

/** How long a slice may take, its commit included. */
const sliceMillis = 3
const fewestKeys = 10
const mostKeys = 1_000
const claimsPerSlice = 500

/** The lock of the process that sweeps. */
const lockName = "tidemark sweep"

/** How many keys the next slice removes: what this disk, as busy as it is, gets done in time. */
const adapted = (count: number, tookMillis: number): number =>
  tookMillis > sliceMillis
    ? Math.max(fewestKeys, Math.floor(count / 2))
    : Math.min(mostKeys, Math.ceil(count * 1.2))

/** Keys whose time is over, and the claims on them, a slice at a time. */
const sweepKeys = (store: Store, count: number): Effect.Effect<void, StoreError> =>
  Effect.flatMap(
    store.alone("sweep", (now) => {
      const from = performance.now()
      let left = count
      store.log.note(count)
      const more = store.connection.writeRelaxed(() => store.keys.sweep(now, () => left-- === 0))
      return { more, next: adapted(count, performance.now() - from) }
    }),
    ({ more, next }) => (more ? Effect.andThen(Effect.yieldNow, sweepKeys(store, next)) : Effect.void)
  )

/** Claims on positions that ended long ago: looks through all, and removes some at a time. */
const sweepClaims = (store: Store, from: ClaimPlace): Effect.Effect<void, StoreError> =>
  Effect.gen(function* () {
    const { old, next } = yield* store.read("sweep", (now) =>
      store.streams.oldClaims(from, now, claimsPerSlice)
    )
    if (old.length > 0) yield* store.writeAlone("sweep", (now) => store.streams.removeClaims(old, now))
    yield* Effect.yieldNow
    if (next !== undefined) yield* sweepClaims(store, next)
  })

/** Once: all that is due, unless another process is at it. */
export const sweep = (store: Store): Effect.Effect<void, StoreError, Lock> =>
  Effect.gen(function* () {
    const lock = yield* Lock
    const all = Effect.andThen(sweepKeys(store, 10 * fewestKeys), sweepClaims(store, firstPlace))
    if (yield* store.read("sweep", (now) => store.keys.isSweepDue(now) || store.streams.hasClaims())) {
      yield* Effect.catchTags(lock.withLock(lockName, { wait: 0, owner: `process ${process.pid}` })(all), {
        InFlightElsewhere: () => Effect.void,
        LeaseLost: () => Effect.void,
        // our own name and options
        InvalidInput: Effect.die,
        ClaimIdReused: Effect.die
      })
    }
    yield* store.log.checkpoint
  })

const tellOf = (why: string): Effect.Effect<void> =>
  Effect.logWarning(`tidemark: what is expired could not be removed, and will be at the next sweep: ${why}`)

/** For ever, on the interval. What fails is told, and tried again next time. */
export const sweepOften = (store: Store, intervalMillis: number): Effect.Effect<never, never, Lock> =>
  Effect.forever(
    Effect.sleep(intervalMillis).pipe(
      Effect.andThen(sweep(store)),
      Effect.catch((error) => tellOf(error.message)),
      // a sweep that ended here would be missed by nobody until the disk is full
      Effect.catchDefect((defect) => tellOf(String(defect)))
    )
  )
