/**
 * `./dev test`: every check and every test, one after the other, each of them even if an earlier one failed, so
 * that one run tells everything. `./dev check` is `--checks`: those that need no build. Other words are handed
 * to vitest: `./dev test --project core`.
 *
 * The last line is of the form `N passed, N failed`, and counts the checks and the tests; the line before it
 * names the servers for want of which tests were not run.
 */
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { readTestReport, type TestReport } from "./testReport.ts"

const root = join(import.meta.dirname, "..")

interface Check {
  readonly name: string
  /** What a reader should know when it fails. */
  readonly what: string
  readonly needsBuild?: true
}

/** Tasks of turbo.json: a check whose inputs did not change is not repeated. */
const checks: ReadonlyArray<Check> = [
  { name: "types", what: "TypeScript 7 over all sources, tests, examples and scripts" },
  { name: "lint", what: "biome: ./dev format mends most of it" },
  { name: "unused", what: "knip: files, exports and dependencies that nothing uses" },
  { name: "build", what: "JavaScript and declarations of the published packages", needsBuild: true }
]

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`

/** The exit code that an interruption asks for; `undefined` while there was none. */
let interrupted: number | undefined
const children = new Set<ReturnType<typeof spawn>>()
// Ctrl-C reaches the children by themselves; a SIGTERM sent to this process alone does not.
process.on("SIGINT", () => {
  interrupted = 130
})
process.on("SIGTERM", () => {
  interrupted = 143
  for (const child of children) child.kill("SIGTERM")
})

/** Runs a command to its end; answers its exit code, and its output where it was not shown at once. */
const run = (
  command: string,
  words: ReadonlyArray<string>,
  options: { readonly show: boolean; readonly env?: Readonly<Record<string, string>> }
): Promise<{ readonly code: number; readonly output: string }> =>
  new Promise((resolve, reject) => {
    const child = spawn(command, words, {
      cwd: root,
      env: {
        ...process.env,
        PATH: `${join(root, "node_modules/.bin")}${delimiter}${process.env.PATH}`,
        ...options.env
      },
      stdio: options.show ? "inherit" : ["ignore", "pipe", "pipe"]
    })
    children.add(child)
    let output = ""
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        output += text
      })
    }
    child.on("error", reject)
    child.on("close", (code) => {
      children.delete(child)
      resolve({ code: code ?? 1, output })
    })
  })

/** A task's output without turbo's and pnpm's lines around it. */
const ofTheTool = (output: string): string => {
  const lines = output.split("\n")
  const start = lines.findIndex((line) => line.startsWith("$ "))
  const end = lines.findIndex((line) => line.startsWith("[ELIFECYCLE]"))
  return start < 0 || end < start ? output : lines.slice(start, end).join("\n")
}

const runCheck = async (check: Check): Promise<boolean> => {
  const started = performance.now()
  const words = ["run", check.name, "--output-logs=errors-only", "--ui=stream", "--log-prefix=none"]
  const { code, output } = await run("turbo", words, { show: false })
  const verdict = code === 0 ? "passed" : "FAILED"
  console.log(`${check.name.padEnd(8)} ${verdict}  ${seconds(started).padStart(7)}  ${check.what}`)
  if (code !== 0) console.log(`\n${ofTheTool(output)}\n`)
  return code === 0
}

const runTests = async (words: ReadonlyArray<string>): Promise<TestReport> => {
  const folder = mkdtempSync(join(tmpdir(), "tidemark-test-"))
  const report = join(folder, "vitest.json")
  const notRun = join(folder, "not-run")
  try {
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`]
    const { code } = await run("vitest", ["run", ...reporters, ...words], {
      show: true,
      env: { TIDEMARK_NOT_RUN_FILE: notRun }
    })
    return readTestReport({ report, notRun, exitCode: interrupted === undefined ? code : 0, root })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const isRequired = (server: string): boolean =>
  (process.env.TIDEMARK_REQUIRE ?? "")
    .split(",")
    .some((name) => name.trim() !== "" && server.toLowerCase().startsWith(`${name.trim().toLowerCase()} `))

const main = async (words: ReadonlyArray<string>): Promise<number> => {
  const onlyChecks = words.includes("--checks")
  const onlyTests = words.length > 0 && !onlyChecks
  const failures: Array<string> = []
  let passed = 0

  for (const check of checks) {
    if (interrupted !== undefined || onlyTests || (onlyChecks && check.needsBuild)) continue
    if (await runCheck(check)) passed += 1
    else failures.push(`the check "${check.name}"`)
  }

  let notRun: ReadonlyArray<string> = []
  if (!onlyChecks && interrupted === undefined) {
    const tests = await runTests(words)
    passed += tests.passed
    failures.push(...tests.failures)
    notRun = tests.notRun
    for (const server of notRun.filter(isRequired)) {
      failures.push(`${server}: required by TIDEMARK_REQUIRE, and its tests could not run`)
    }
  }
  if (interrupted !== undefined) failures.push("interrupted: what was not finished counts as one failure")

  for (const failure of failures) console.log(`FAILED: ${failure}`)
  if (!onlyChecks) console.log(`NOT RUN: ${notRun.length === 0 ? "nothing" : notRun.join("; ")}`)
  console.log(`${passed} passed, ${failures.length} failed`)
  return interrupted ?? (failures.length === 0 ? 0 : 1)
}

process.exitCode = await main(process.argv.slice(2))
