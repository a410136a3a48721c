/** The stores that several processes share, as one consumer's process opens them. */
import type { IdempotencyStore, InvalidInput, OffsetStore, StoreError } from "@tidemark/core"
import { RedisStore } from "@tidemark/store-redis"
import { SqliteStore } from "@tidemark/store-sqlite"
import type { Effect, Layer, Scope } from "effect"
import type { KeyStore } from "../Trackers.ts"
import { openRedisKeys } from "./RedisKeys.ts"
import { openSqliteKeys } from "./SqliteKeys.ts"

/** Where a contestant's store is. */
export type StorePlace =
  | { readonly kind: "sqlite"; readonly filename: string }
  | {
      readonly kind: "redis"
      readonly url: string
      /** Before every key, with a colon. */
      readonly prefix: string
    }

/** The store of the usual trackers. */
export const openKeys = (place: StorePlace): Effect.Effect<KeyStore, unknown, Scope.Scope> =>
  place.kind === "sqlite" ? openSqliteKeys(place.filename) : openRedisKeys(place.url, place.prefix)

/** tidemark's. */
export const storeLayer = (
  place: StorePlace
): Layer.Layer<OffsetStore | IdempotencyStore, StoreError | InvalidInput> =>
  place.kind === "sqlite"
    ? SqliteStore.layer({ filename: place.filename })
    : RedisStore.layer({ url: place.url, prefix: place.prefix })
