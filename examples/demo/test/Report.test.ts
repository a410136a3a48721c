import { expect, test } from "vitest"
import type { RaceResult } from "../src/Race.ts"
import { isKept, renderTable, renderVerdict, toJson } from "../src/Report.ts"

const result: RaceResult = {
  contestant: "tidemark",
  done: 200,
  lost: [],
  twice: [],
  inFlightAtKill: [],
  inWorkAtKill: 12,
  redeliveries: 10,
  recognised: 9,
  handlingMillis: Float64Array.of(5, 6, 7, 8),
  markingMillis: Float64Array.of(1, 2),
  effects: 200,
  busyMillis: 100,
  messages: 206,
  perSecond: 2_000,
  totalMillis: 25_000
}

const inFlight = [
  { orderId: "order-7", beforeKillMillis: 0.4 },
  { orderId: "order-9", beforeKillMillis: 2.25 }
]

test("a promise is kept with orders in flight at the kill, which are listed apart and explained", () => {
  const kept = { ...result, inFlightAtKill: inFlight }
  expect(isKept(kept)).toBe(true)
  const verdict = renderVerdict([kept])
  for (const words of ["0 lost, 0 twice, but for 2 in flight", "order-7, order-9", "2.3 ms"])
    expect(verdict).toContain(words)
})

test.each([
  ["lost", { ...result, done: 199, lost: ["order-3"] }],
  ["twice", { ...result, twice: ["order-3"], inFlightAtKill: inFlight }]
])("a promise is broken by an order %s, whatever else", (_, broken) => {
  expect(isKept(broken)).toBe(false)
  expect(renderVerdict([broken])).toMatch(/did not keep its promise: .*order-3/)
  expect(JSON.parse(toJson("a broker", "a store", [broken]))).toMatchObject({ kept: false, store: "a store" })
})

test("the table has a column for each, and its percentages are of the orders", () => {
  const racy: RaceResult = { ...result, contestant: "check-process-add", twice: ["a", "b", "c"] }
  const lines = renderTable([racy, result]).split("\n")
  const row = (name: string) =>
    lines
      .find((line) => line.startsWith(name))
      ?.slice(name.length)
      .trim()
      .split(/ {2,}/)
  expect(lines[0]?.trim().split(/ {2,}/)).toEqual(["check-process-add", "tidemark"])
  expect(row("effects run twice")).toEqual(["3 (1.50 %)", "0 (0.00 %)"])
  expect(row("hit rate (4)")).toEqual(["90.00 %", "90.00 %"])
  expect(row("handling p95")).toEqual(["8.0 ms", "8.0 ms"])
})
