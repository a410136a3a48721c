/** What a consumer who writes Effect does first: the same id twice, one effect. */
import { Key, Tracker } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"
import { Effect, Layer } from "effect"

let charges = 0

const program = Effect.gen(function* () {
  const tracker = yield* Tracker
  const charge = Effect.sync(() => {
    charges += 1
    return "charged"
  })
  const first = yield* tracker.once(Key.id("order-4711"), charge)
  const second = yield* tracker.once(Key.id("order-4711"), charge)
  return [first._tag, second._tag] as const
})

const live = Tracker.layer({ namespace: "billing" }).pipe(Layer.provide(MemoryStore.layer()))
const [first, second] = await Effect.runPromise(Effect.provide(program, live))
console.log(first, second, charges)
