import { idempotencyStoreSuite, lockSuite, offsetStoreSuite } from "@tidemark/testkit/vitest"
import { layer } from "../src/OwnStore.ts"

offsetStoreSuite("OwnStore", layer, { clock: "test", durable: false })
idempotencyStoreSuite("OwnStore", layer, { clock: "test", durable: false })
lockSuite("OwnStore", layer, { clock: "test", durable: false })
