/** What `./dev` does before there is a Node: in a folder of its own, with none of this machine's Node, npm or pnpm. */
import { execFile } from "node:child_process"
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"

/** All that ./dev may need of a system. */
const tools = "sh env cat curl date dirname grep gzip mkdir rm sha256sum shasum tar uname".split(" ")

describe("./dev", () => {
  let folder: string
  let mirror: Server
  let requested: Array<string>

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "tidemark-dev-"))
    copyFileSync(join(import.meta.dirname, "../../dev"), join(folder, "dev"))
    const binaries = join(folder, "bin")
    mkdirSync(binaries)
    for (const tool of tools) {
      const found = ["/usr/bin", "/bin"].map((system) => join(system, tool)).find((path) => existsSync(path))
      if (found !== undefined) symlinkSync(found, join(binaries, tool))
    }
    requested = []
    mirror = createServer((request, response) => {
      requested.push(request.url ?? "")
      response.end("not the archive that was asked for")
    })
    await new Promise<void>((listening) => mirror.listen(0, "127.0.0.1", listening))
  })

  afterEach(() => {
    mirror.close()
    rmSync(folder, { recursive: true, force: true })
  })

  const dev = (...words: ReadonlyArray<string>) =>
    new Promise<{ code: number; output: string }>((settle) => {
      const env = {
        PATH: join(folder, "bin"),
        NODEJS_ORG_MIRROR: `http://127.0.0.1:${(mirror.address() as AddressInfo).port}`,
        NO_PROXY: "127.0.0.1"
      }
      execFile("/bin/sh", [join(folder, "dev"), ...words], { env }, (error, stdout, stderr) => {
        settle({ code: typeof error?.code === "number" ? error.code : 0, output: `${stdout}${stderr}` })
      })
    })

  it.each([[[]], [["--help"]], [["help"]]])(
    "teaches when called with %j, and fetches nothing",
    async (words) => {
      const { code, output } = await dev(...words)
      expect(code).toBe(0)
      for (const command of ["demo", "test", "check", "load", "bench", "build", "setup", "clean"]) {
        expect(output).toContain(`./dev ${command}`)
      }
      expect(requested).toEqual([])
      expect(existsSync(join(folder, ".tools"))).toBe(false)
    }
  )

  it("names an unknown command, and what is known", async () => {
    const { code, output } = await dev("tets")
    expect(code).toBe(2)
    expect(output).toContain("unknown command: tets")
    expect(output).toContain("./dev test")
  })

  it("uses no Node whose checksum differs from the pinned one", async () => {
    const { code, output } = await dev("setup")
    expect(code).toBe(1)
    expect(requested).toEqual([
      expect.stringMatching(/^\/v24\.21\.0\/node-v24\.21\.0-(linux|darwin)-(x64|arm64)\.tar\.gz$/)
    ])
    expect(output).toContain("is expected: not used")
    expect(readdirSync(join(folder, ".tools"))).toEqual(["last-step.log"])
  })

  it("says what to install where it can fetch nothing", async () => {
    rmSync(join(folder, "bin/curl"))
    const { code, output } = await dev("setup")
    expect(code).toBe(1)
    expect(output).toContain("please install Node")
  })

  it("keeps to the machine's Node where it is new enough, and passes the exit code on", async () => {
    symlinkSync(process.execPath, join(folder, "bin/node"))
    writeFileSync(join(folder, "bin/pnpm"), '#!/bin/sh\n[ "$1" = --version ] && echo 12.0.0 || exit 42\n', {
      mode: 0o755
    })
    const { code } = await dev("pnpm", "anything")
    expect(code).toBe(42)
    expect(requested).toEqual([])
  })
})
