import { expect, it } from "vitest"
import { freePorts } from "../src/internal/ports.ts"

it("a port is chosen once, also while nobody listens on it", async () => {
  const chosen = new Set<number>()
  for (let round = 0; round < 60; round++) for (const port of await freePorts(10)) chosen.add(port)
  expect(chosen.size).toBe(600)
})
