/** `./dev load`: the five load tests by which such trackers are judged, measured against threshold. */
import { cpus } from "node:os"
import { Effect } from "effect"
import { digits, table } from "./Figure.ts"
import * as contendedLocks from "./load/contendedLocks.ts"
import * as heapGrowth from "./load/heapGrowth.ts"
import {
  isKept,
  type LoadError,
  type LoadOptions,
  type Measure,
  type Subjects,
  subjects
} from "./load/LoadTest.ts"
import * as shuffledDuplicates from "./load/shuffledDuplicates.ts"
import * as steadyRate from "./load/steadyRate.ts"
import * as writersAndReaders from "./load/writersAndReaders.ts"

interface LoadTest {
  readonly title: string
  readonly run: (options: LoadOptions) => Effect.Effect<ReadonlyArray<Measure>, LoadError, Subjects>
}

const tests: ReadonlyArray<LoadTest> = [
  {
    title: "1. 10,000 messages at 1,000 a second, each redelivered 5 times on average, 100 concurrent",
    run: (options) => Effect.map(steadyRate.run(options), steadyRate.measures)
  },
  {
    title: "2. 20 writers x 500 beside 10 readers x 1,000",
    run: (options) => Effect.map(writersAndReaders.run(options), writersAndReaders.measures)
  },
  {
    title: "3. 1,000 messages x 5 deliveries, shuffled",
    run: (options) => Effect.map(shuffledDuplicates.run(options), shuffledDuplicates.measures)
  },
  {
    title: "4. 50 tasks x 200 operations on 5 contended locks",
    run: (options) => Effect.map(contendedLocks.run(options), contendedLocks.measures)
  },
  {
    title: "5. 5 rounds x 2,000 messages: memory after gc",
    run: (options) => Effect.map(heapGrowth.run(options), heapGrowth.measures)
  }
]

const usage = `./dev load [--json]

Runs the five load tests on the memory store, some 15 seconds, and tells what was measured against its threshold:
${tests.map(({ title }) => `  ${title}`).join("\n")}

Exit code 1 when a threshold is missed. Counts must be exact anywhere; a time that is missed on a busy machine is
worth a second run.
  --json      the measures as JSON, on one line
`

/** What was measured, and what it must be. */
interface Report {
  readonly title: string
  readonly measures: ReadonlyArray<Measure>
}

const bar = (title: string, done: number, of: number): void => {
  if (!process.stderr.isTTY) return
  const full = Math.round((20 * done) / of)
  const line = `${"#".repeat(full)}${".".repeat(20 - full)}  ${title}`
  process.stderr.write(`\r\u001b[2K${line.slice(0, (process.stderr.columns || 80) - 1)}`)
}

const clearBar = (): void => {
  if (process.stderr.isTTY) process.stderr.write("\r\u001b[2K")
}

const figure = ({ unit, measured }: Measure): string =>
  `${Number.isInteger(measured) ? measured.toLocaleString("en-US") : digits(measured)}${unit === "" ? "" : ` ${unit}`}`

const thresholdOf = ({ threshold }: Measure): string =>
  threshold === undefined ? "" : `${threshold[0]} ${threshold[1].toLocaleString("en-US")}`

const verdictOf = (measure: Measure): string => {
  const kept = isKept(measure)
  if (kept === undefined) return ""
  return kept ? "ok" : "MISSED"
}

const format = (reports: ReadonlyArray<Report>): string =>
  table([
    ["", "measured", "threshold", ""],
    ...reports.flatMap(({ title, measures }) => [
      [title],
      ...measures.map((measure) => [
        `   ${measure.what}`,
        figure(measure),
        thresholdOf(measure),
        verdictOf(measure)
      ])
    ])
  ])

const runAll = async (): Promise<ReadonlyArray<Report>> => {
  const reports: Array<Report> = []
  for (const { title, run } of tests) {
    if (!process.stderr.isTTY) process.stderr.write(`${title} ...\n`)
    bar(title, 0, 1)
    const progress = (done: number, of: number): void => bar(title, done, of)
    const measures = await Effect.runPromise(Effect.provide(run({ scale: 1, progress }), subjects()))
    clearBar()
    reports.push({ title, measures })
  }
  return reports
}

const main = async (json: boolean): Promise<void> => {
  const reports = await runAll()
  const judged = reports.flatMap(({ title, measures }) =>
    measures.map((measure) => ({ title, measure, kept: isKept(measure) }))
  )
  const missed = judged.filter(({ kept }) => kept === false)
  if (json) {
    console.log(
      JSON.stringify({ node: process.version, cpu: cpus()[0]?.model, missed: missed.length, reports })
    )
  } else {
    console.log(format(reports))
    const kept = judged.filter(({ kept }) => kept === true).length
    console.log(
      `\n${kept} of ${kept + missed.length} thresholds kept (Node ${process.version}, ${cpus()[0]?.model})`
    )
  }
  for (const { title, measure } of missed) {
    console.error(
      `missed in ${title}: ${measure.what} was ${figure(measure)}, and must be ${thresholdOf(measure)}`
    )
  }
  if (missed.length > 0) process.exitCode = 1
}

const words = process.argv.slice(2)
const unknown = words.filter((word) => !["--json", "--help", "-h"].includes(word))
if (unknown.length > 0) {
  console.error(`unknown: ${unknown.join(", ")}\n\n${usage}`)
  process.exitCode = 2
} else if (words.includes("--help") || words.includes("-h")) {
  console.log(usage)
} else {
  await main(words.includes("--json"))
}
