import { MemoryStore } from "@tidemark/store-memory"
import { idempotencyStoreSuite, lockSuite, offsetStoreSuite } from "@tidemark/testkit/vitest"

const layer = MemoryStore.layer()

offsetStoreSuite("MemoryStore", layer, { clock: "test" })
idempotencyStoreSuite("MemoryStore", layer, { clock: "test" })
lockSuite("MemoryStore", layer, { clock: "test" })
