import { writeFileSync } from "node:fs"
import type { TestProject } from "vitest/node"
import { openSharedServers } from "./SharedServers.ts"

declare module "vitest" {
  interface ProvidedContext {
    readonly sharedServers: string
  }
}

/**
 * vitest's global setup: makes the run's shared servers reachable, and ends them when all tests are done. Which
 * were asked for and not to be had goes to the file that `TIDEMARK_NOT_RUN_FILE` names, a line each, and is said.
 */
export default async (project: TestProject) => {
  const servers = await openSharedServers()
  project.provide("sharedServers", servers.url)
  return async () => {
    const notRun = await servers.stop()
    const file = process.env.TIDEMARK_NOT_RUN_FILE
    if (file !== undefined) writeFileSync(file, notRun.map((line) => `${line}\n`).join(""))
    for (const line of notRun) process.stderr.write(`NOT RUN: ${line}\n`)
  }
}
