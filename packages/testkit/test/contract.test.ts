import {
  idempotencyStoreSuite,
  inspectSuite,
  lockSuite,
  offsetStoreSuite,
  parkedRecordsSuite
} from "@tidemark/testkit/vitest"
import { referenceStore } from "./referenceStore.ts"

const layer = referenceStore()

offsetStoreSuite("The rules themselves", layer, { clock: "test" })
idempotencyStoreSuite("The rules themselves", layer, { clock: "test" })
lockSuite("The rules themselves", layer, { clock: "test" })
inspectSuite("The rules themselves", layer, { clock: "test" })
parkedRecordsSuite("The rules themselves", layer, { clock: "test" })
