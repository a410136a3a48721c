/**
 * Removes what nobody will ask for again: keys that need not be remembered any longer, claims that ended long ago. In
 * slices of some milliseconds, between which others get their turn; by one of the processes that share the file.
 */
import { statSync } from "node:fs"
import { Lock, type StoreError } from "@tidemark/core"
import { Clock, Effect } from "effect"
import { logLimitBytes } from "./open.ts"
import type { Store } from "./Store.ts"

/** How long a slice removes; its commit comes on top. */
const sliceMillis = 2
const claimsPerSlice = 100

/** The lock of the process that sweeps. */
const lockName = "tidemark sweep"

const isDue = ({ keys, streams }: Store, now: number): boolean =>
  keys.isSweepDue(now) || streams.isSweepDue(now)

/** @returns whether there is more. */
const slice = ({ keys, streams }: Store, now: number): boolean => {
  if (streams.isSweepDue(now)) return streams.sweep(now, claimsPerSlice) || keys.isSweepDue(now)
  const end = performance.now() + sliceMillis
  return keys.sweep(now, () => performance.now() >= end)
}

const slices = (store: Store): Effect.Effect<void, StoreError> =>
  Effect.flatMap(
    store.writeAlone("sweep", (now) => slice(store, now)),
    (more) => (more ? Effect.andThen(Effect.yieldNow, slices(store)) : Effect.void)
  )

/** Where readers kept the log from being begun anew, it has grown: copies it into the database and cuts it back. */
const cutLog = (store: Store): Effect.Effect<void, StoreError> =>
  Effect.suspend(() => {
    const { db } = store.connection
    const file = db.location()
    const log = file === null ? undefined : statSync(`${file}-wal`, { throwIfNoEntry: false })
    if (log === undefined || log.size <= logLimitBytes) return Effect.void
    return store.alone("checkpoint", () => {
      db.exec("PRAGMA wal_checkpoint(TRUNCATE)")
    })
  })

/** Once: all that is due, unless another process is at it. */
export const sweep = (store: Store): Effect.Effect<void, StoreError, Lock> =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    if (yield* store.read("sweep", () => isDue(store, now))) {
      const lock = yield* Lock
      yield* Effect.catchTags(
        lock.withLock(lockName, { wait: 0, owner: `process ${process.pid}` })(slices(store)),
        {
          InFlightElsewhere: () => Effect.void,
          LeaseLost: () => Effect.void,
          // our own name and options
          InvalidInput: Effect.die,
          ClaimIdReused: Effect.die
        }
      )
    }
    yield* cutLog(store)
  })

/** For ever, on the interval. What fails is told, and tried again next time. */
export const sweepOften = (store: Store, intervalMillis: number): Effect.Effect<never, never, Lock> =>
  Effect.forever(
    Effect.sleep(intervalMillis).pipe(
      Effect.andThen(sweep(store)),
      Effect.catch((error) =>
        Effect.logWarning(
          `tidemark: what is expired could not be removed, and will be at the next sweep: ${error.message}`
        )
      )
    )
  )
