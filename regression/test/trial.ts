/** A short part of a trial as a test; `./dev soak consumers` has the whole. */
import { expect, it } from "vitest"
import type { TrialOptions } from "../src/trials/Trial.ts"
import { type TrialName, trials } from "../src/trials/trials.ts"

export const tryShortly = (
  name: TrialName,
  options: Partial<TrialOptions> & Pick<TrialOptions, "store" | "times">
): void => {
  const { broken, run, title } = trials[name]
  it(`${title} (${options.store})`, { timeout: 240_000 }, async () => {
    const all: TrialOptions = { seed: 7, records: 2_500, partitions: 4, everyMillis: 1_200, ...options }
    const outcome = await run(all)
    // a short trial need not show each thing that a long one must
    expect(broken(outcome, all)).toEqual([])
    expect(outcome.effects).toBeGreaterThanOrEqual(all.records)
  })
}
