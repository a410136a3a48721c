/** `./dev bench`: the benchmarks, peers side by side. */
import { cpus } from "node:os"
import { format, isReached, type Report, type Suite } from "./Figure.ts"
import { suite as consumer } from "./suites/consumer.ts"
import { suite as consumerKeys } from "./suites/consumerKeys.ts"
import { suite as consumerWork } from "./suites/consumerWork.ts"
import { suite as keys } from "./suites/keys.ts"
import { suite as memory } from "./suites/memory.ts"
import { suite as offsets } from "./suites/offsets.ts"
import { suite as pipe } from "./suites/pipe.ts"
import { suite as redisKeys } from "./suites/redisKeys.ts"
import { suite as redisLocks } from "./suites/redisLocks.ts"
import { suite as redisMemory } from "./suites/redisMemory.ts"
import { suite as redisOffsets } from "./suites/redisOffsets.ts"
import { suite as sqlite } from "./suites/sqlite.ts"
import { suite as tracker } from "./suites/tracker.ts"

const suites: ReadonlyArray<Suite> = [
  offsets,
  keys,
  tracker,
  memory,
  consumer,
  consumerKeys,
  consumerWork,
  pipe,
  redisKeys,
  redisOffsets,
  redisLocks,
  redisMemory,
  sqlite
]

const usage = `./dev bench [NAME...] [--json]

Without a name all run, one after another:
${suites.map(({ name, about }) => `  ${name.padEnd(14)}${about}`).join("\n")}

Contestants take turns in slices of about a millisecond; read the ratios, not the nanoseconds. A figure that is
not reached does not fail the run: timing on a shared machine is no judge.
  --json      the figures as JSON, on one line
`

const progress = (line: string): void => {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[2K${line}`)
}

const run = async (chosen: ReadonlyArray<Suite>, json: boolean): Promise<void> => {
  const reports: Array<Report> = []
  for (const { name, about, run } of chosen) {
    const figures = await run((line) => progress(`${name}: ${line}`))
    progress("")
    const report = { suite: name, about, figures }
    reports.push(report)
    if (!json) console.log(format(report))
  }
  if (json) {
    console.log(JSON.stringify({ node: process.version, cpu: cpus()[0]?.model, reports }))
    return
  }
  const judged = reports.flatMap(({ figures }) => figures).filter((figure) => isReached(figure) !== undefined)
  const reached = judged.filter((figure) => isReached(figure) === true).length
  console.log(`${reached} of ${judged.length} targets reached (Node ${process.version}, ${cpus()[0]?.model})`)
}

const words = process.argv.slice(2)
const json = words.includes("--json")
const wanted = words.filter((word) => word !== "--json")
const unknown = wanted.filter((word) => !suites.some(({ name }) => name === word))
if (wanted.includes("--help") || wanted.includes("-h")) {
  console.log(usage)
} else if (unknown.length > 0) {
  console.error(`unknown: ${unknown.join(", ")}\n\n${usage}`)
  process.exitCode = 2
} else {
  await run(wanted.length === 0 ? suites : suites.filter(({ name }) => wanted.includes(name)), json)
}
