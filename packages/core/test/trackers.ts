import { type OffsetStore, Tracker } from "@tidemark/core"
import { Deferred, Effect, Layer, Ref } from "effect"
import * as ModelStore from "./ModelStore.ts"

const live = Tracker.layer({ namespace: "test", lease: "30 seconds" }).pipe(
  Layer.provideMerge(ModelStore.layer)
)

/** A tracker on the model of a store, whose calls a test can make fail. */
export const withTracker = <A, E>(
  body: (
    tracker: Tracker["Service"],
    faults: ModelStore.Faults["Service"]
  ) => Effect.Effect<A, E, Tracker | OffsetStore>
) =>
  Effect.gen(function* () {
    return yield* body(yield* Tracker, yield* ModelStore.Faults)
  }).pipe(Effect.provide(live))

/** A handler that waits until the test lets it go on. */
export const gated = Effect.gen(function* () {
  const started = yield* Deferred.make<void>()
  const gate = yield* Deferred.make<void>()
  const runs = yield* Ref.make(0)
  const handler = Ref.update(runs, (count) => count + 1).pipe(
    Effect.andThen(Deferred.succeed(started, undefined)),
    Effect.andThen(Deferred.await(gate))
  )
  return {
    started: Deferred.await(started),
    open: Deferred.succeed(gate, undefined),
    runs: Ref.get(runs),
    handler
  }
})
