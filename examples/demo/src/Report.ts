/** The result, side by side, in words that need no explanation elsewhere. */
import type { RaceResult } from "./Race.ts"
import { type InFlight, percentile } from "./Tally.ts"

const useColour = (): boolean => process.stdout.isTTY === true && !process.env.NO_COLOR
const paint = (code: number, text: string): string => (useColour() ? `\x1b[${code}m${text}\x1b[0m` : text)

const percent = (part: number, whole: number): string => `${((100 * part) / Math.max(1, whole)).toFixed(2)} %`
const millis = (value: number | undefined): string => (value === undefined ? "-" : `${value.toFixed(1)} ms`)

/** Whether tidemark kept what it promises. */
export const isKept = (result: RaceResult): boolean => result.lost.length === 0 && result.twice.length === 0

const rows: ReadonlyArray<readonly [string, (result: RaceResult) => string]> = [
  ["orders", (result) => String(result.done + result.lost.length)],
  ["effects run twice", (result) => `${result.twice.length} (${percent(result.twice.length, result.done)})`],
  ["  + in flight at the kill (1)", (result) => String(result.inFlightAtKill.length)],
  [
    "lost",
    (result) => `${result.lost.length} (${percent(result.lost.length, result.done + result.lost.length)})`
  ],
  ["in work at the kill", (result) => String(result.inWorkAtKill)],
  ["throughput (2)", (result) => `${Math.round(result.perSecond).toLocaleString("en")} /s`],
  ["handling p50 (3)", (result) => millis(percentile(result.handlingMillis, 0.5))],
  ["handling p95", (result) => millis(percentile(result.handlingMillis, 0.95))],
  ["handling p99", (result) => millis(percentile(result.handlingMillis, 0.99))],
  ["effect to mark p50 (1)", (result) => millis(percentile(result.markingMillis, 0.5))],
  ["deliveries that came again", (result) => String(result.redeliveries)],
  ["hit rate (4)", (result) => percent(result.recognised, result.redeliveries)]
]

const footnotes = `(1) The consumer died between the effect and its mark: whoever takes over can't know, and runs it again after the lease.
    The longer marks take, the more are in flight. tidemark marks in batches, the other two one by one. A handler that
    writes the fencing token along with its effect closes this gap too.
(2) Effects a second while a living consumer had work: waiting for joins, and for the dead member, left out.
(3) From the record's receipt until its effect was marked: the wait behind its batch, and the 5 ms of work, included.
(4) Of the deliveries of an order that was done, or in work at a living consumer: those that were not run again. What
    was in flight at the kill is left out.`

export const renderTable = (results: ReadonlyArray<RaceResult>): string => {
  const head = ["", ...results.map(({ contestant }) => contestant)]
  const body = rows.map(([name, cell]) => [name, ...results.map(cell)])
  const widths = head.map((_, column) => Math.max(...[head, ...body].map((row) => row[column]?.length ?? 0)))
  const line = (row: ReadonlyArray<string>): string =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)
      )
      .join("   ")
  const [, twice, , lost] = body
  const painted = body.map((row) => {
    const text = line(row)
    return row === twice || row === lost ? paint(1, text) : text
  })
  return [paint(1, line(head)), "-".repeat(line(head).length), ...painted, "", footnotes].join("\n")
}

const list = (orderIds: ReadonlyArray<string>): string =>
  orderIds.length <= 12
    ? orderIds.join(", ")
    : `${orderIds.slice(0, 12).join(", ")} and ${orderIds.length - 12} more`

const explainInFlight = (inFlight: ReadonlyArray<InFlight>): string => {
  const earliest = Math.max(...inFlight.map(({ beforeKillMillis }) => beforeKillMillis))
  return (
    `In flight at the kill: ${list(inFlight.map(({ orderId }) => orderId))}.\n` +
    `Their effects took place in the last ${earliest.toFixed(1)} ms of the killed consumer, and the kill came before their marks.`
  )
}

/** What was shown, in a few sentences. */
export const renderVerdict = (results: ReadonlyArray<RaceResult>): string => {
  const tidemark = results.find(({ contestant }) => contestant === "tidemark")
  if (tidemark === undefined) return ""
  const inFlight = tidemark.inFlightAtKill
  const lines = [
    isKept(tidemark)
      ? paint(
          32,
          "tidemark: 0 lost, 0 twice" +
            (inFlight.length === 0 ? "." : `, but for ${inFlight.length} in flight at the kill.`)
        )
      : paint(
          31,
          `tidemark did not keep its promise: lost ${list(tidemark.lost) || "none"}; twice ${list(tidemark.twice) || "none"}.`
        )
  ]
  if (inFlight.length > 0) lines.push(explainInFlight(inFlight))
  const [racy, leaseless] = results
  if (racy !== undefined && racy.twice.length > 0)
    lines.push(
      `check-process-add ran ${racy.twice.length} orders twice: two deliveries of each met before the first was added.`
    )
  if (leaseless !== undefined && leaseless.lost.length > 0)
    lines.push(
      `The claim without a lease lost ${leaseless.lost.length} orders: their owner had claimed them, and died before they were done.`
    )
  lines.push(
    "tidemark's claim is one atomic step, and ends with its owner.",
    "",
    "On your own servers:  ./dev demo --brokers localhost:9092 --store redis --redis redis://localhost:6379"
  )
  return lines.join("\n")
}

export const toJson = (broker: string, store: string, results: ReadonlyArray<RaceResult>): string =>
  JSON.stringify(
    {
      broker,
      store,
      kept: results.every((result) => result.contestant !== "tidemark" || isKept(result)),
      contestants: results.map((result) => ({
        contestant: result.contestant,
        orders: result.done + result.lost.length,
        messages: result.messages,
        twice: result.twice.length,
        inFlightAtKill: result.inFlightAtKill,
        inWorkAtKill: result.inWorkAtKill,
        lost: result.lost,
        perSecond: Math.round(result.perSecond),
        handlingMillis: {
          p50: percentile(result.handlingMillis, 0.5),
          p95: percentile(result.handlingMillis, 0.95),
          p99: percentile(result.handlingMillis, 0.99)
        },
        markingMillis: {
          p50: percentile(result.markingMillis, 0.5),
          p99: percentile(result.markingMillis, 0.99)
        },
        redeliveries: result.redeliveries,
        hitRate: result.recognised / Math.max(1, result.redeliveries),
        seconds: Math.round(result.totalMillis / 1_000)
      }))
    },
    undefined,
    2
  )
