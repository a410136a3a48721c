import { expect, test } from "vitest"
import { makeLoad } from "../src/Orders.ts"

test("the load is the same for the same seed, and has as many copies as were asked for", () => {
  const options = { orders: 1_000, partitions: 4, duplicatesPercent: 3, seed: 5 }
  const load = makeLoad(options)
  expect(makeLoad(options)).toEqual(load)
  expect(makeLoad({ ...options, seed: 6 })).not.toEqual(load)
  expect(load.length).toBe(1_030)
  expect(new Set(load.map(({ orderId }) => orderId)).size).toBe(1_000)
  const firsts = new Set<string>()
  for (const { kind, orderId } of load) {
    if (kind === "first") firsts.add(orderId)
    else expect(firsts.has(orderId), "a copy comes after its first").toBe(true)
  }
})
