import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { SqliteStore } from "@tidemark/store-sqlite"
import {
  idempotencyStoreSuite,
  inspectSuite,
  lockSuite,
  offsetStoreSuite,
  parkedRecordsSuite
} from "@tidemark/testkit/vitest"

const folder = mkdtempSync(join(tmpdir(), "tidemark-sqlite-"))
// thousands of commits: what `full` adds shows only when the power fails
const layer = SqliteStore.layer({ filename: join(folder, "contract.db"), synchronous: "normal" })

offsetStoreSuite("SqliteStore", layer, { clock: "test" })
idempotencyStoreSuite("SqliteStore", layer, { clock: "test" })
lockSuite("SqliteStore", layer, { clock: "test" })
inspectSuite("SqliteStore", layer, { clock: "test" })
parkedRecordsSuite("SqliteStore", layer, { clock: "test" })
