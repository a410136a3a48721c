import { availableParallelism } from "node:os"
import { defineConfig } from "vitest/config"

/** Tests run on the packages' sources, not on their builds: see "exports" in any package.json. */
const conditions = ["@tidemark/source", "module", "node", "development|production"]

/** Names of projects, and their folders; `pnpm exec vitest run --project core` runs one. */
const projects = {
  scripts: "scripts",
  core: "packages/core",
  "store-memory": "packages/store-memory",
  "store-redis": "packages/store-redis",
  "store-sqlite": "packages/store-sqlite",
  kafka: "packages/kafka",
  testkit: "packages/testkit",
  "test-servers": "packages/test-servers",
  bench: "packages/bench",
  demo: "examples/demo",
  "quick-start": "examples/quick-start",
  "own-store": "examples/own-store",
  "kafkajs-guard": "examples/kafkajs-guard",
  "kafka-to-kafka": "examples/kafka-to-kafka",
  regression: "regression",
  packaging: "regression/packaging"
}

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: ["@tidemark/source", "node"] } },
  test: {
    globalSetup: "@tidemark/test-servers/globalSetup",
    // Generous, for slow and busy machines: tests wait for conditions, so a good run never gets near.
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // For the tests that measure memory.
    execArgv: ["--expose-gc"],
    passWithNoTests: true,
    // Most tests wait for servers, leases and child processes: more of them than cores keep a small machine busy.
    maxWorkers: Math.max(3, Math.floor(availableParallelism() * 0.75)),
    projects: Object.entries(projects).map(([name, root]) => ({
      extends: true as const,
      root,
      test: {
        name,
        include: [name === "packaging" ? "*.test.ts" : "test/**/*.test.ts"],
        // Compilers and installs take all cores: not while the tests with brokers and clocks run.
        sequence: { groupOrder: name === "packaging" ? 1 : 0 }
      }
    }))
  }
})
