import { Key, Tracker } from "@tidemark/core"
import { RedisStore } from "@tidemark/store-redis"
import { Effect, Layer } from "effect"

const url = process.env.REDIS_URL ?? "redis://localhost:6379"

const live = Tracker.layer({ namespace: "billing" }).pipe(
  Layer.provide(RedisStore.layer({ url, prefix: "shop" }))
)

const program = Effect.gen(function* () {
  const tracker = yield* Tracker
  const outcome = yield* tracker.once(Key.id("order-4711"), Effect.succeed("charged"))
  console.log(outcome._tag) // Processed; the second time Duplicate
})

await Effect.runPromise(Effect.provide(program, live))
