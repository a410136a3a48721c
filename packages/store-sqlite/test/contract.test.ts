import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { SqliteStore } from "@tidemark/store-sqlite"
import { idempotencyStoreSuite, lockSuite, offsetStoreSuite } from "@tidemark/testkit/vitest"

const folder = mkdtempSync(join(tmpdir(), "tidemark-sqlite-"))
const layer = SqliteStore.layer({ filename: join(folder, "contract.db") })

offsetStoreSuite("SqliteStore", layer, { clock: "test" })
idempotencyStoreSuite("SqliteStore", layer, { clock: "test" })
lockSuite("SqliteStore", layer, { clock: "test" })
