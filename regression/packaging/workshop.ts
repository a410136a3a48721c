/** Packs what would be published, and installs it into a project outside of this repository. */
import { execFile } from "node:child_process"
import {
  copyFileSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  writeFileSync
} from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { delimiter, join, resolve } from "node:path"

export const root = resolve(import.meta.dirname, "../..")
const require = createRequire(import.meta.url)

const binaries = [root, join(root, "regression")].map((folder) => join(folder, "node_modules/.bin"))

export interface PackedPackage {
  readonly name: string
  readonly folder: string
  readonly tarball: string
}

/** Runs a command to its end; never throws: an exit code other than 0 is an answer too. */
export const run = (
  cwd: string,
  command: string,
  ...words: ReadonlyArray<string>
): Promise<{ readonly code: number; readonly output: string }> =>
  new Promise((settle) => {
    const path = [...binaries, process.env.PATH].join(delimiter)
    const options = {
      cwd,
      env: { ...process.env, PATH: path, NODE_OPTIONS: "" },
      maxBuffer: 64 * 1024 * 1024
    }
    execFile(command, words, options, (error, stdout, stderr) => {
      settle({ code: error === null ? 0 : 1, output: `${stdout}${stderr}${error?.message ?? ""}` })
    })
  })

const runOrThrow = async (cwd: string, command: string, ...words: ReadonlyArray<string>): Promise<string> => {
  const { code, output } = await run(cwd, command, ...words)
  if (code !== 0) throw new Error(`${command} ${words.join(" ")} failed in ${cwd}:\n${output}`)
  return output
}

const manifestOf = (folder: string) => JSON.parse(readFileSync(join(folder, "package.json"), "utf8"))

/** Every package of the workspace that is not private. */
export const publishedFolders: ReadonlyArray<string> = globSync("packages/*", { cwd: root })
  .map((folder) => join(root, folder))
  .filter((folder) => readdirSync(folder).includes("package.json") && manifestOf(folder).private !== true)

export const nameOf = (folder: string): string => manifestOf(folder).name

/** A folder of this run's own, outside of the repository, so that nothing of it can be reached by accident. */
export const temporaryFolder = (): string => mkdtempSync(join(tmpdir(), "tidemark-packaging-"))

/** Builds all published packages, and packs them as a release would. */
export const packAll = async (into: string): Promise<ReadonlyArray<PackedPackage>> => {
  await runOrThrow(root, "turbo", "run", "build", "--output-logs=errors-only", "--ui=stream")
  const packed: Array<PackedPackage> = []
  for (const folder of publishedFolders) {
    const before = new Set(readdirSync(into))
    await runOrThrow(folder, "pnpm", "pack", "--pack-destination", into)
    const tarball = readdirSync(into).find((file) => !before.has(file)) as string
    packed.push({ name: nameOf(folder), folder, tarball: join(into, tarball) })
  }
  return packed
}

/** The version that this workspace is tested with. */
const versionHere = (name: string): string => require(`${name}/package.json`).version

/** A project that installs the tarballs with their peers, and holds the programs of `consumer/`. */
export const installConsumer = async (
  packed: ReadonlyArray<PackedPackage>,
  parent: string
): Promise<string> => {
  const folder = join(parent, "consumer")
  mkdirSync(folder)
  const tarballs = Object.fromEntries(packed.map(({ name, tarball }) => [name, `file:${tarball}`]))
  const peers = Object.fromEntries(
    ["effect", "kafkajs", "@types/node"].map((name) => [name, versionHere(name)])
  )
  const manifest = {
    name: "consumer",
    private: true,
    type: "module",
    dependencies: { ...tarballs, ...peers }
  }
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest, null, 2))
  // The packages depend on each other's version, which no registry has yet.
  writeFileSync(
    join(folder, "pnpm-workspace.yaml"),
    JSON.stringify({ pmOnFail: "ignore", overrides: tarballs })
  )
  const source = join(import.meta.dirname, "consumer")
  for (const file of readdirSync(source)) copyFileSync(join(source, file), join(folder, file))
  await runOrThrow(folder, "pnpm", "install", "--no-frozen-lockfile", "--prefer-offline")
  return folder
}

/** The compilers that consumers use, by the names under which this workspace installs them. */
export const compilers: Readonly<Record<string, string>> = {
  "5.9": join(require.resolve("typescript59/package.json"), "../bin/tsc"),
  "6.0": join(require.resolve("typescript/package.json"), "../bin/tsc6"),
  "7.0": join(require.resolve("typescript7/package.json"), "../bin/tsc")
}
