/** What the tests of this package have in common. */
import { IdempotencyStore, OffsetStore, type StoreError } from "@tidemark/core"
import { Context, Effect, Exit, Layer } from "effect"
import { RedisStore } from "../src/index.ts"

export { RedisStore }

export type RedisConnectionOptions = RedisStore.RedisConnectionOptions

export interface OpenStore {
  readonly offsets: OffsetStore["Service"]
  readonly keys: IdempotencyStore["Service"]
  readonly context: Context.Context<RedisStore.RedisStoreServices>
}

/** Opens a store for a test; it is closed with the test's Scope. */
export const openStore = (layer: ReturnType<typeof RedisStore.layer>) =>
  Effect.map(
    Effect.flatMap(Effect.scope, (scope) => Layer.buildWithMemoMap(layer, Layer.makeMemoMapUnsafe(), scope)),
    (context): OpenStore => ({
      offsets: Context.get(context, OffsetStore),
      keys: Context.get(context, IdempotencyStore),
      context
    })
  )

/** The error of an effect that must fail with a `StoreError`. */
export const storeErrorOf = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<StoreError, never, R> =>
  Effect.map(Effect.exit(effect), (exit) => {
    if (Exit.isFailure(exit)) {
      const failure = exit.cause.reasons.find((reason) => reason._tag === "Fail")
      const error = failure?._tag === "Fail" ? (failure.error as StoreError) : undefined
      if (error?._tag === "StoreError") return error
      throw new Error(`another failure than was expected: ${exit.cause}`)
    }
    throw new Error(`no failure but ${JSON.stringify(exit.value)}`)
  })

/** `host:port` as ioredis wants it. */
export const nodeOf = (url: string): { readonly host: string; readonly port: number } => ({
  host: new URL(url).hostname,
  port: Number(new URL(url).port)
})
