import { MemoryStore } from "@tidemark/store-memory"
import { idempotencyStoreSuite, lockSuite, offsetStoreSuite } from "@tidemark/testkit/vitest"

const layer = MemoryStore.layer()

offsetStoreSuite("MemoryStore", layer, { clock: "test", durable: false })
idempotencyStoreSuite("MemoryStore", layer, { clock: "test", durable: false })
lockSuite("MemoryStore", layer, { clock: "test", durable: false })
