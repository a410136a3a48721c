import { existsSync, readFileSync } from "node:fs"
import { relative } from "node:path"

/** The part that is read of what vitest's JSON reporter writes. */
interface VitestReport {
  readonly numPassedTests: number
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly status: string
    readonly assertionResults: ReadonlyArray<{ readonly fullName: string; readonly status: string }>
  }>
}

export interface TestReport {
  readonly passed: number
  /** One entry for each test, each file that could not be run at all, and each failure outside of any test. */
  readonly failures: ReadonlyArray<string>
  /** The servers for want of which tests were not run, each with why: `KAFKA (no Java 17, no Docker engine)`. */
  readonly notRun: ReadonlyArray<string>
}

/** Reads vitest's report; the exit code also tells of failures outside of any test. Paths are told from `root`. */
export const readTestReport = (run: {
  /** The file that vitest's JSON reporter wrote. */
  readonly report: string
  /** The file to which the tests' servers wrote what could not be had, a line each. */
  readonly notRun: string
  readonly exitCode: number
  readonly root: string
}): TestReport => {
  const failures: Array<string> = []
  let passed = 0
  if (existsSync(run.report)) {
    const report = JSON.parse(readFileSync(run.report, "utf8")) as VitestReport
    passed = report.numPassedTests
    for (const { name, status, assertionResults } of report.testResults) {
      const path = relative(run.root, name)
      const failed = assertionResults.filter((test) => test.status === "failed")
      failures.push(...failed.map((test) => `${path}: ${test.fullName}`))
      if (status === "failed" && failed.length === 0) failures.push(`${path}: the file could not be run`)
    }
  }
  if (run.exitCode !== 0 && failures.length === 0) {
    failures.push(`vitest ended with code ${run.exitCode} outside of any test, see above`)
  }
  const notRun = existsSync(run.notRun) ? readFileSync(run.notRun, "utf8").split("\n").filter(Boolean) : []
  return { passed, failures, notRun }
}
