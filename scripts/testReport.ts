import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"

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
  /** The servers for want of which tests were not run, each with why: `KAFKA (no Java, no Docker)`. */
  readonly notRun: ReadonlyArray<string>
}

/** Reads what one vitest run left in `folder`; `code` is its exit code, which also tells of failures outside of tests. */
export const readTestReport = ({
  folder,
  code
}: {
  readonly folder: string
  readonly code: number
}): TestReport => {
  const failures: Array<string> = []
  const file = join(folder, "vitest.json")
  let passed = 0
  if (existsSync(file)) {
    const report = JSON.parse(readFileSync(file, "utf8")) as VitestReport
    passed = report.numPassedTests
    for (const { name, status, assertionResults } of report.testResults) {
      const failed = assertionResults.filter((test) => test.status === "failed")
      failures.push(...failed.map((test) => `${name}: ${test.fullName}`))
      if (status === "failed" && failed.length === 0) failures.push(`${name}: the file could not be run`)
    }
  }
  if (code !== 0 && failures.length === 0) {
    failures.push(`vitest ended with code ${code} outside of any test, see above`)
  }
  const notRunFile = join(folder, "not-run")
  const notRun = existsSync(notRunFile) ? readFileSync(notRunFile, "utf8").split("\n").filter(Boolean) : []
  return { passed, failures, notRun: [...new Set(notRun)] }
}
