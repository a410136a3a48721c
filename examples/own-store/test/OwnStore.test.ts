import { idempotencyStoreSuite, lockSuite, offsetStoreSuite } from "@tidemark/testkit/vitest"
import { layer } from "../src/OwnStore.ts"

offsetStoreSuite("OwnStore", layer, { clock: "test" })
idempotencyStoreSuite("OwnStore", layer, { clock: "test" })
lockSuite("OwnStore", layer, { clock: "test" })
