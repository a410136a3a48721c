import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { readTestReport } from "../testReport.ts"

describe("the report of a test run", () => {
  let root: string
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "tidemark-report-"))
  })
  afterEach(() => rmSync(root, { recursive: true, force: true }))

  const read = (exitCode: number) =>
    readTestReport({ report: join(root, "vitest.json"), notRun: join(root, "not-run"), exitCode, root })

  const testFile = (name: string, status: string, tests: ReadonlyArray<readonly [string, string]>) => ({
    name: join(root, name),
    status,
    assertionResults: tests.map(([fullName, status]) => ({ fullName, status }))
  })

  const write = (numPassedTests: number, ...testResults: ReadonlyArray<ReturnType<typeof testFile>>) =>
    writeFileSync(join(root, "vitest.json"), JSON.stringify({ numPassedTests, testResults }))

  it("counts what passed, and names each test that failed", () => {
    write(
      2,
      testFile("a.test.ts", "passed", [["adds", "passed"]]),
      testFile("b.test.ts", "failed", [
        ["takes", "passed"],
        ["gives", "failed"],
        ["waits", "skipped"]
      ])
    )
    expect(read(1)).toEqual({ passed: 2, failures: ["b.test.ts: gives"], notRun: [] })
  })

  it("counts a file that could not be run as a failure", () => {
    write(0, testFile("broken.test.ts", "failed", []))
    expect(read(1).failures).toEqual(["broken.test.ts: the file could not be run"])
  })

  it("counts a failure outside of any test, such as an unhandled rejection", () => {
    write(1, testFile("a.test.ts", "passed", [["adds", "passed"]]))
    expect(read(1).failures).toEqual(["vitest ended with code 1 outside of any test, see above"])
    expect(read(0).failures).toEqual([])
  })

  it("counts a run that left no report as a failure", () => {
    expect(read(137).failures).toHaveLength(1)
  })

  it("names the servers that could not be had", () => {
    write(0)
    writeFileSync(join(root, "not-run"), "KAFKA (no Java 17)\nREDIS (not installed)\n")
    expect(read(0).notRun).toEqual(["KAFKA (no Java 17)", "REDIS (not installed)"])
  })
})
