/** What a suite finds out, as tables for people or as JSON. */
import type { Spread, Times } from "./Contest.ts"

/** One line of a table. */
export interface Figure {
  readonly what: string
  readonly unit: string
  readonly measured: Spread
  /** What is to be reached, in the same unit. */
  readonly target?: { readonly atMost: number } | { readonly atLeast: number }
  readonly note?: string
}

/** How many times as fast as `base` a contestant is. */
export const rateAgainst = (times: Times, name: string, base: string, atLeast?: number): Figure => ({
  what: `${name}: rate against ${base}`,
  unit: "x",
  measured: times.ratio(base, name),
  ...(atLeast === undefined ? {} : { target: { atLeast } })
})

/** What one suite found out. */
export interface Report {
  readonly suite: string
  /** How it was measured, in a sentence or two. */
  readonly about: string
  readonly figures: ReadonlyArray<Figure>
}

/** What `./dev bench` runs. */
export interface Suite {
  readonly name: string
  readonly about: string
  readonly run: (progress: (line: string) => void) => Promise<ReadonlyArray<Figure>>
}

/** Whether the median is what was to be reached; `undefined` where nothing was. */
export const isReached = ({ measured, target }: Figure): boolean | undefined => {
  if (target === undefined) return undefined
  return "atMost" in target ? measured.median <= target.atMost : measured.median >= target.atLeast
}

/** A number in three to four digits. */
export const digits = (value: number): string => {
  const size = Math.abs(value)
  if (size >= 100) return Math.round(value).toLocaleString("en-US")
  if (size >= 10) return value.toFixed(1)
  return size >= 0.095 || size === 0 ? value.toFixed(2) : value.toPrecision(2)
}

const targetOf = ({ target }: Figure): string => {
  if (target === undefined) return ""
  return "atMost" in target ? `<= ${target.atMost}` : `>= ${target.atLeast}`
}

const verdictOf = (figure: Figure): string => {
  const reached = isReached(figure)
  if (reached === undefined) return ""
  return reached ? "reached" : "not reached"
}

/** Columns as wide as their widest cell; the first one to the left, the others to the right. */
export const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths: Array<number> = []
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length)
    })
  }
  return rows
    .map((row) =>
      row
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column])))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

/** The report for people. */
export const format = ({ suite, about, figures }: Report): string => {
  const rows = figures.map((figure) => [
    figure.what,
    digits(figure.measured.median),
    figure.measured.min === figure.measured.max
      ? ""
      : `${digits(figure.measured.min)} - ${digits(figure.measured.max)}`,
    figure.unit,
    targetOf(figure),
    verdictOf(figure)
  ])
  const notes = figures.flatMap(({ what, note }) => (note === undefined ? [] : [`  ${what}: ${note}`]))
  return [
    `${suite}: ${about}`,
    "",
    table([["", "median", "min - max", "", "target", ""], ...rows]),
    ...(notes.length === 0 ? [] : ["", ...notes]),
    ""
  ].join("\n")
}
