import { existsSync } from "node:fs"
import { mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { exec, tail } from "./exec.ts"
import { findProgram, type RedisProgram } from "./redisProgram.ts"

const tools = fileURLToPath(new URL("../../../../.tools/", import.meta.url))
const home = join(tools, "valkey")
const serverIn = (folder: string) => join(folder, "usr", "bin", "valkey-server")

/** Runs a program to its end, within a folder, and answers what it printed. */
const complete = async (command: string, args: ReadonlyArray<string>, folder: string): Promise<string> => {
  const { output, succeeded } = await exec(command, args, 60_000, folder)
  if (!succeeded) throw new Error(`${command} failed: ${tail(output, 2)}`)
  return output
}

/** Debian's release by its code name; other systems have other packages. */
const debianCodename = async (): Promise<string> => {
  const text = await readFile("/etc/os-release", "utf8").catch(() => "")
  const codename = /^ID=debian$/m.test(text) ? /^VERSION_CODENAME=(\w+)$/m.exec(text)?.[1] : undefined
  if (codename === undefined) throw new Error("it is only fetched on Debian")
  return codename
}

/**
 * Fetches Debian's package from the mirror that this machine uses, backports included, without installing it or
 * touching the machine's own lists; no rights are needed for that.
 */
const fetchPackage = async (folder: string): Promise<void> => {
  const codename = await debianCodename()
  const format = "$(CODENAME) $(COMPONENT) $(REPO_URI)"
  const targets = await complete("apt-get", ["indextargets", "--format", format], folder)
  const mirror = targets
    .split("\n")
    .map((line) => line.split(" "))
    .find(([name, component]) => name === codename && component === "main")?.[2]
  if (mirror === undefined) throw new Error(`apt-get knows no mirror of ${codename}`)
  const sources = join(folder, "sources.list")
  await writeFile(
    sources,
    [codename, `${codename}-backports`].map((suite) => `deb ${mirror} ${suite} main\n`).join("")
  )
  const settings = {
    "Dir::Etc::sourcelist": sources,
    "Dir::Etc::sourceparts": "/dev/null",
    "Dir::State::lists": join(folder, "lists"),
    "Dir::Cache": join(folder, "cache"),
    "APT::Sandbox::User": "",
    "Acquire::Retries": "0",
    "Acquire::http::Timeout": "10"
  }
  const options = Object.entries(settings).flatMap(([name, value]) => ["-o", `${name}=${value}`])
  await mkdir(join(folder, "lists", "partial"), { recursive: true })
  await mkdir(join(folder, "cache", "archives", "partial"), { recursive: true })
  await complete("apt-get", [...options, "update"], folder)
  await complete("apt-get", [...options, "download", "valkey-tools"], folder)
  const archive = (await readdir(folder)).find((name) => name.endsWith(".deb"))
  if (archive === undefined) throw new Error("apt-get downloaded nothing")
  const unpacked = join(folder, "unpacked")
  await complete("dpkg-deb", ["-x", archive, unpacked], folder)
  // One program by several names: the package valkey-server has only the link, and scripts that start a service.
  await symlink("valkey-check-rdb", serverIn(unpacked))
}

const fetchOnce = async (): Promise<void> => {
  if (existsSync(home)) return
  process.stderr.write("Fetching Valkey (1 MB, once) ...\n")
  await mkdir(tools, { recursive: true })
  const partial = await mkdtemp(join(tools, "valkey-partial-"))
  try {
    await fetchPackage(partial)
    await rename(join(partial, "unpacked"), home)
  } catch (error) {
    const otherFetchWasFirst = existsSync(home)
    if (!otherFetchWasFirst) throw error
  } finally {
    await rm(partial, { recursive: true, force: true })
  }
}

/**
 * `valkey-server` from the path, else from `.tools/`, fetched there from Debian's packages when it is missing; else
 * why there is none. What is fetched is moved into place as a whole.
 */
export const findValkeyProgram = async (): Promise<RedisProgram | { readonly missing: string }> => {
  const onPath = await findProgram(["valkey-server"])
  if ("command" in onPath) return onPath
  try {
    await fetchOnce()
  } catch (error) {
    return { missing: `${onPath.missing} (${(error as Error).message})` }
  }
  return findProgram([serverIn(home)])
}
