import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { readdirSync } from "node:fs"
import { connect } from "node:net"
import { fileURLToPath } from "node:url"
import { expect } from "vitest"
import { exec } from "../src/internal/exec.ts"

/** Servers and their supervisors name the folder with their data on the command line: the lines that name it. */
export const processesOf = async (folder: string): Promise<ReadonlyArray<string>> => {
  const { output } = await exec("ps", ["-A", "-ww", "-o", "command="], 10_000)
  return output.split("\n").filter((command) => command.includes(folder))
}

/** Passes as soon as no process works in the folder and nothing is in it. */
export const expectNothingLeft = async (folder: string): Promise<void> => {
  await expect.poll(() => processesOf(folder), { timeout: 10_000 }).toEqual([])
  expect(readdirSync(folder)).toEqual([])
}

/** Runs a file of `programs/` in a process of its own, and resolves when it has told that it started. */
export const startProgram = async (name: string, args: ReadonlyArray<string>): Promise<ChildProcess> => {
  const file = fileURLToPath(new URL(`programs/${name}`, import.meta.url))
  const program = fork(file, args, { execArgv: [], stdio: ["ignore", "ignore", "ignore", "ipc"] })
  await once(program, "message")
  return program
}

/** Whether somebody listens there. */
export const accepts = (address: string): Promise<boolean> => {
  const [host, port] = address.split(":") as [string, string]
  const socket = connect({ host, port: Number(port) })
  return new Promise<boolean>((resolve) => {
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false))
  }).finally(() => socket.destroy())
}
