import { once } from "node:events"
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import { supervise } from "../src/internal/Supervisor.ts"
import { expectNothingLeft, processesOf, startProgram } from "./remains.ts"

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tidemark-test-servers-"))
})

afterEach(() => rmSync(folder, { recursive: true, force: true }))

describe("a supervised program ends, and its folder with it,", () => {
  test.for([
    ["nothing more to do", 0],
    ["exception", 1]
  ] as const)("when its starter ends by: %s", async ([end, exitCode]) => {
    const program = await startProgram("supervises.ts", [folder, end])
    if (program.exitCode === null) await once(program, "exit")
    expect(program.exitCode).toBe(exitCode)
    await expectNothingLeft(folder)
  })

  test.for(["SIGINT", "SIGTERM", "SIGKILL"] as const)("when its starter ends by: %s", async (signal) => {
    const program = await startProgram("supervises.ts", [folder, "signal"])
    const { length } = (await processesOf(join(folder, "data"))).filter((line) =>
      line.includes("setInterval")
    )
    expect(length).toBe(1)
    program.kill(signal)
    await expectNothingLeft(folder)
  })

  test("when it is told to", async () => {
    const data = join(folder, "data")
    mkdirSync(data)
    const supervisor = await supervise({ folder: data })
    const forever = { command: process.execPath, args: ["-e", "setInterval(() => {}, 60_000)", data] }
    const { exited } = await supervisor.run(forever, join(data, "log"))
    await supervisor.end()
    await supervisor.end()
    expect(await exited).toBe("its supervisor ended")
    await expectNothingLeft(folder)
  })
})

describe("a supervised program", () => {
  test("that ends by itself says how, and can be run again", async () => {
    const data = join(folder, "data")
    const log = join(folder, "log")
    mkdirSync(data)
    const supervisor = await supervise({ folder: data })
    const fails = { command: process.execPath, args: ["-e", "console.log('no space left'); process.exit(7)"] }
    for (let runs = 1; runs <= 2; runs++) {
      expect(await supervisor.runToEnd(fails, log)).toBe("exit code 7")
    }
    await supervisor.end()
    expect(readFileSync(log, "utf8")).toBe("no space left\nno space left\n")
  })

  test("that does not exist is an error", async () => {
    const data = join(folder, "data")
    mkdirSync(data)
    const supervisor = await supervise({ folder: data })
    const missing = { command: join(data, "missing"), args: [] }
    await expect(supervisor.run(missing, join(data, "log"))).rejects.toThrow("ENOENT")
    await supervisor.end()
    await expectNothingLeft(folder)
  })
})
