import { defineConfig } from "vitest/config"

/** Tests run on the packages' sources, not on their builds: see "exports" in any package.json. */
const conditions = ["@tidemark/source", "module", "node", "development|production"]

/** One project for each folder with tests; `pnpm exec vitest run --project core` runs one. */
const folders = [
  "packages/core",
  "packages/store-memory",
  "packages/kafka",
  "packages/test-servers",
  "packages/bench",
  "examples/demo",
  "regression"
]

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: ["@tidemark/source", "node"] } },
  test: {
    include: ["test/**/*.test.ts"],
    passWithNoTests: true,
    projects: folders.map((folder) => ({
      extends: true as const,
      root: folder,
      test: { name: folder.split("/").at(-1) as string }
    }))
  }
})
