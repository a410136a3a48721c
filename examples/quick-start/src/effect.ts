import { Key, Tracker } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"
import { Console, Effect, Layer } from "effect"

const charge = (order: string) => Effect.succeed(`charged ${order}`)

const program = Effect.gen(function* () {
  const tracker = yield* Tracker
  for (const order of ["order-4711", "order-4711", "order-4712"]) {
    const outcome = yield* tracker.once(Key.id(order), charge(order))
    yield* Console.log(order, outcome._tag)
  }
})

// One layer to start; another store is another layer on this line.
const live = Tracker.layer({ namespace: "billing" }).pipe(Layer.provide(MemoryStore.layer()))

await Effect.runPromise(Effect.provide(program, live))
