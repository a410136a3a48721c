/** What people would install is what is tested: the packed tarballs, in a project outside of this repository. */
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { join, relative } from "node:path"
import { startOwnRedis } from "@tidemark/test-servers"
import { describeWithOwnRedis } from "@tidemark/test-servers/vitest"
import { publint } from "publint"
import { formatMessage } from "publint/utils"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import {
  compilers,
  installConsumer,
  nameOf,
  type PackedPackage,
  packAll,
  publishedFolders,
  root,
  run,
  temporaryFolder
} from "./workshop.ts"

const folder = temporaryFolder()
let packed: ReadonlyArray<PackedPackage>
let consumer: string

beforeAll(async () => {
  packed = await packAll(folder)
  consumer = await installConsumer(packed, folder)
}, 240_000)

afterAll(() => rmSync(folder, { recursive: true, force: true }))

const succeeds = async (cwd: string, command: string, ...words: ReadonlyArray<string>): Promise<string> => {
  const { code, output } = await run(cwd, command, ...words)
  expect(code, output).toBe(0)
  return output
}

describe.each(publishedFolders.map(nameOf))("%s", (name) => {
  const here = (): PackedPackage => packed.find((one) => one.name === name) as PackedPackage

  it("holds the licence, a readme, and for each source its JavaScript, source map and declarations", async () => {
    const files = (await succeeds(folder, "tar", "-tzf", here().tarball)).trim().split("\n").sort()
    const sources = (
      await succeeds(here().folder, "git", "ls-files", "-co", "--exclude-standard", "src/*.ts")
    ).trim()
    const expected = sources.split("\n").flatMap((source) => {
      const stem = `package/dist/${source.slice("src/".length, -".ts".length)}`
      return [`${stem}.js`, `${stem}.js.map`, `${stem}.d.ts`]
    })
    const beside = ["package/LICENSE", "package/README.md", "package/package.json"]
    expect(files).toEqual([...beside, ...expected].sort())
  })

  it("names no workspace, no source and no machine", async () => {
    const manifest = await succeeds(folder, "tar", "-xzOf", here().tarball, "package/package.json")
    const { version, exports } = JSON.parse(manifest)
    expect(manifest).not.toMatch(/workspace:|catalog:|@tidemark\/source|"private"/)
    expect(version).toBe(JSON.parse(readFileSync(join(here().folder, "package.json"), "utf8")).version)
    expect(Object.keys(exports).filter((entry) => entry.includes("internal") || entry.includes("*"))).toEqual(
      []
    )
    const map = await succeeds(folder, "tar", "-xzOf", here().tarball, "package/dist/index.js.map")
    expect(map).not.toContain(root)
  })

  it("satisfies publint", async () => {
    const tarball = Uint8Array.from(readFileSync(here().tarball)).buffer
    const { messages, pkg } = await publint({ pack: { tarball } })
    expect(messages.map((message) => formatMessage(message, pkg))).toEqual([])
  })

  it("satisfies are-the-types-wrong, as an ES module", async () => {
    await succeeds(root, "attw", here().tarball, "--profile", "esm-only", "--no-color", "--no-emoji")
  })
})

describe("a consumer", () => {
  it.each(Object.entries(compilers))(
    "type-checks with TypeScript %s, libraries included",
    async (_, compiler) => {
      await succeeds(consumer, process.execPath, compiler, "-p", ".")
    },
    // all of effect's declarations, on a machine that may have more to do
    120_000
  )

  it.each([
    ["plain.ts", "Processed Duplicate 1"],
    ["effect.ts", "Processed Duplicate 1"],
    ["kafka.ts", "coffee tea cake last"],
    ["sqlite.ts", "order-4711 order-4712"],
    ["testkit.ts", "kept"]
  ])("runs %s", async (program, said) => {
    const output = await succeeds(
      consumer,
      process.execPath,
      "--disable-warning=ExperimentalWarning",
      program
    )
    expect(output.trim()).toBe(said)
  })

  it.each(["testkit", "store-sqlite"])("runs what the README of %s shows", (name) => {
    const readme = readFileSync(join(root, `packages/${name}/README.md`), "utf8")
    expect(readme).toContain(readFileSync(join(consumer, `${name.replace("store-", "")}.ts`), "utf8"))
  })

  it("cannot reach inside", async () => {
    for (const path of ["@tidemark/core/internal/input", "@tidemark/core/dist/internal/input.js"]) {
      writeFileSync(join(consumer, "reach.mjs"), `await import(${JSON.stringify(path)})`)
      const { code, output } = await run(consumer, process.execPath, "reach.mjs")
      expect(code, output).not.toBe(0)
      expect(output).toContain("ERR_PACKAGE_PATH_NOT_EXPORTED")
    }
  })

  it("has one copy of effect, shared with the packages", async () => {
    const found = await succeeds(
      consumer,
      "find",
      "node_modules/.pnpm",
      "-maxdepth",
      "1",
      "-name",
      "effect@*"
    )
    expect(
      found
        .trim()
        .split("\n")
        .map((path) => relative("node_modules/.pnpm", path))
    ).toHaveLength(1)
  })
})

await describeWithOwnRedis("a consumer with a Redis", () => {
  it("runs what the README of store-redis shows", async () => {
    await using redis = await startOwnRedis()
    const program = ["env", `REDIS_URL=${redis.url}`, process.execPath, "redis.ts"] as const
    expect((await succeeds(consumer, ...program)).trim()).toBe("Processed")
    expect((await succeeds(consumer, ...program)).trim()).toBe("Duplicate")
    const readme = readFileSync(join(root, "packages/store-redis/README.md"), "utf8")
    expect(readme).toContain(readFileSync(join(consumer, "redis.ts"), "utf8"))
  })
})
