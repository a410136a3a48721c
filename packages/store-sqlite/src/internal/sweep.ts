/**
 * Removes what nobody will ask for again: keys that need not be remembered any longer, claims that ended long ago. In
 * slices of some milliseconds, between which others get their turn; by one of the processes that share the file.
 */
import { Lock, type StoreError } from "@tidemark/core"
import { Effect } from "effect"
import { Slices } from "./Slices.ts"
import type { Store } from "./Store.ts"
import { type ClaimPlace, firstPlace } from "./Streams.ts"

/** How long a slice may take, its commit included. */
const sliceMillis = 4
const claimsPerLook = 100

/** The lock of the process that sweeps. */
const lockName = "tidemark sweep"

/** Removes, in transactions of their own, as long as there is more: `remove` asks before each step. */
const inSlices = (
  store: Store,
  slices: Slices,
  remove: (now: number, hasTime: () => boolean) => boolean
): Effect.Effect<void, StoreError> =>
  Effect.flatMap(
    store.alone("sweep", (now) => {
      const { answer, steps } = slices.run((hasTime) =>
        store.connection.writeRelaxed(() => remove(now, hasTime))
      )
      store.log.note(steps)
      return answer
    }),
    (more) => (more ? Effect.andThen(Effect.yieldNow, inSlices(store, slices, remove)) : Effect.void)
  )

/** Claims on positions that ended long ago: looks through all, and removes some at a time. */
const sweepClaims = (store: Store, slices: Slices, from: ClaimPlace): Effect.Effect<void, StoreError> =>
  Effect.gen(function* () {
    const { old, next } = yield* store.read("sweep", (now) =>
      store.streams.oldClaims(from, now, claimsPerLook)
    )
    yield* Effect.yieldNow
    let at = 0
    if (old.length > 0) {
      yield* inSlices(store, slices, (now, hasTime) => {
        while (at < old.length && hasTime()) store.streams.removeClaim(old[at++], now)
        return at < old.length
      })
    }
    if (next !== undefined) yield* sweepClaims(store, slices, next)
  })

const hasOldClaims = (store: Store, from: ClaimPlace): Effect.Effect<boolean, StoreError> =>
  Effect.gen(function* () {
    const { old, next } = yield* store.read("sweep", (now) =>
      store.streams.oldClaims(from, now, claimsPerLook)
    )
    if (old.length > 0 || next === undefined) return old.length > 0
    yield* Effect.yieldNow
    return yield* hasOldClaims(store, next)
  })

/** Once: all that is due, unless another process is at it. */
export const sweep = (store: Store): Effect.Effect<void, StoreError, Lock> =>
  Effect.gen(function* () {
    const lock = yield* Lock
    const slices = new Slices(sliceMillis, () => performance.now())
    const all = Effect.andThen(
      inSlices(store, slices, (now, hasTime) => store.keys.sweep(now, () => !hasTime())),
      sweepClaims(store, slices, firstPlace)
    )
    // the lock is a key itself, and not worth two commits where there is nothing to do
    const areKeysDue = yield* store.read("sweep", (now) => store.keys.isSweepDue(now))
    if (areKeysDue || (yield* hasOldClaims(store, firstPlace))) {
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
