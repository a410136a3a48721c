import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { processesSuite } from "@tidemark/testkit/vitest"

processesSuite("SqliteStore", {
  store: new URL("./sharedStore.ts", import.meta.url),
  storeOptions: { filename: join(mkdtempSync(join(tmpdir(), "tidemark-sqlite-")), "shared.db") }
})
