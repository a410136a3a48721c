/** The stores that a soak works on; this module is also what each process of a history makes its store by. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { IdempotencyStore, Lock, OffsetStore } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"
import { RedisStore } from "@tidemark/store-redis"
import { SqliteStore } from "@tidemark/store-sqlite"
import { startRedis, startRedisCluster, uniqueName } from "@tidemark/test-servers"
import type { Layer } from "effect"

export const storeNames = ["memory", "sqlite", "redis", "redis-cluster"] as const
export type StoreName = (typeof storeNames)[number]

/** What a process has to know to open the same store. */
type StoreOptions =
  | { readonly name: "memory" }
  | { readonly name: "sqlite"; readonly filename: string }
  | { readonly name: "redis"; readonly url: string; readonly prefix: string }
  | { readonly name: "redis-cluster"; readonly nodes: ReadonlyArray<string>; readonly prefix: string }

type Services = OffsetStore | IdempotencyStore | Lock

/** A store to soak, until it is closed. */
export interface SoakedStore {
  readonly name: StoreName
  readonly clock: "test" | "live"
  readonly layer: Layer.Layer<Services, unknown>
  /** For processes that share it; `undefined` where they can't. */
  readonly shared: StoreOptions | undefined
  readonly close: () => Promise<void>
}

const layerOf = (options: StoreOptions): Layer.Layer<Services, unknown> => {
  switch (options.name) {
    case "memory":
      return MemoryStore.layer()
    case "sqlite":
      return SqliteStore.layer({ filename: options.filename })
    case "redis":
      return RedisStore.layer({ url: options.url, prefix: options.prefix })
    case "redis-cluster":
      return RedisStore.layer({ cluster: { nodes: options.nodes }, prefix: options.prefix })
  }
}

export default layerOf

/** Fails where there is no such server. */
export const openStore = async (name: StoreName): Promise<SoakedStore> => {
  switch (name) {
    case "memory":
      return { name, clock: "test", layer: layerOf({ name }), shared: undefined, close: async () => {} }
    case "sqlite": {
      const folder = mkdtempSync(join(tmpdir(), "tidemark-soak-"))
      const options = { name, filename: join(folder, "soak.db") }
      const close = async (): Promise<void> => rmSync(folder, { recursive: true, force: true })
      return { name, clock: "test", layer: layerOf(options), shared: options, close }
    }
    case "redis": {
      const server = await startRedis()
      const options = { name, url: server.url, prefix: uniqueName("soak") }
      return { name, clock: "live", layer: layerOf(options), shared: options, close: server.stop }
    }
    case "redis-cluster": {
      const cluster = await startRedisCluster()
      const options = { name, nodes: cluster.nodes.map(({ url }) => url), prefix: uniqueName("soak") }
      return { name, clock: "live", layer: layerOf(options), shared: options, close: cluster.stop }
    }
  }
}
