/** What bad stores are made of. */
import { StoreError } from "@tidemark/core"
import { Clock, Effect } from "effect"
import type { Data, Implementations, Mutation } from "../referenceStore.ts"

/** Changes one of the services, and leaves the others good. */
const on =
  <Name extends keyof Implementations>(name: Name) =>
  (
    change: (good: Implementations[Name], data: Data, all: Implementations) => Partial<Implementations[Name]>
  ): Mutation =>
  (good, data) => ({ ...good, [name]: { ...good[name], ...change(good[name], data, good) } })

export const onOffsets = on("offsets")
export const onKeys = on("keys")
export const onInspect = on("inspect")
export const onParked = on("parked")

export const at = <A>(act: (now: number) => A): Effect.Effect<A> => Effect.map(Clock.currentTimeMillis, act)

/** The call on a clock that goes wrong by so much. */
export const shifted = <A, E>(millis: number, call: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.flatMap(Clock.Clock, (clock) => {
    const moved = { ...clock } as Clock.Clock
    const now = clock.currentTimeMillisUnsafe() + millis
    return Effect.provideService(
      call,
      Clock.Clock,
      Object.assign(Object.create(clock) as Clock.Clock, moved, {
        currentTimeMillisUnsafe: () => now,
        currentTimeMillis: Effect.succeed(now)
      })
    )
  })

export const failure = (verb: string): StoreError =>
  new StoreError({ store: "bad", verb, reason: "Unavailable", detail: "a mutation", retriable: true })
