/** The metrics of core. Labels are bounded: never an id, a key or an offset. */
import { Metric } from "effect"

/**
 * Handlers that ran without the protection of a claim: the store failed and the policy was `run`, or tracking was
 * switched off. Each may have taken effect twice.
 */
export const unprotectedRuns = Metric.counter("tidemark_unprotected_runs_total", {
  description: "Handlers that ran without a claim: store failed under the policy run, or tracking is off",
  incremental: true
})
