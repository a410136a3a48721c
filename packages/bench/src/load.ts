/** `./dev load`: the five load tests, measured against threshold. Exit code 1 where one is missed. */
import { digits, table } from "./Figure.ts"
import { loadTests } from "./load/all.ts"
import { isMet, type Judged } from "./load/LoadTest.ts"

const progress = (line: string): void => {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[2K${line}`)
}

const thresholdOf = ({ threshold }: Judged): string => {
  if ("exactly" in threshold) return threshold.exactly.toLocaleString("en-US")
  return "atMost" in threshold ? `<= ${threshold.atMost}` : `>= ${threshold.atLeast}`
}

const shown = ({ kind, measured }: Judged): string =>
  kind === "count" && Number.isInteger(measured) ? measured.toLocaleString("en-US") : digits(measured)

const rows: Array<ReadonlyArray<string>> = [["", "measured", "", "threshold", ""]]
const missed: Array<string> = []
for (const { name, about, run } of loadTests) {
  console.log(`${name}: ${about}`)
  const judged = await run({ progress: (line) => progress(`${name}: ${line}`) })
  progress("")
  for (const figure of judged) {
    const met = isMet(figure)
    rows.push([
      `${name}: ${figure.what}`,
      shown(figure),
      figure.unit,
      thresholdOf(figure),
      met ? "met" : "MISSED"
    ])
    if (!met)
      missed.push(`${name}: ${figure.what} is ${shown(figure)} ${figure.unit}, not ${thresholdOf(figure)}`)
  }
}
console.log(`\n${table(rows)}\n`)
if (missed.length === 0) {
  console.log("all thresholds met")
} else {
  console.log(`${missed.length} missed:\n  ${missed.join("\n  ")}`)
  process.exitCode = 1
}
