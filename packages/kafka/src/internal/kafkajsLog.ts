import type { Context } from "effect"
import { Effect } from "effect"
import type { logCreator, logLevel } from "kafkajs"

/** How much of what kafkajs itself says goes into the log. */
export type LogLevel = "nothing" | "error" | "warn" | "info" | "debug"

/** kafkajs's numbers for its levels. */
export const logLevels: Readonly<Record<LogLevel, logLevel>> = {
  nothing: 0,
  error: 1,
  warn: 2,
  info: 4,
  debug: 5
}

/**
 * What kafkajs says here comes back to us as an error as well, which is then reported with the operation that it
 * made fail, or is no news: a rebalance, a coordinator that loads, a connection that is tried again. Of an offset out of range
 * the batch tells, by where it begins.
 */
const saidTwice: ReadonlySet<string> = new Set([
  "Connection",
  "BrokerPool",
  "RequestQueue",
  "Cluster",
  "Producer"
])
const harmless = [/^Offset out of range/, /^The group is rebalancing/, /^Crash:/, /^Restarting the consumer/]

/** Puts what kafkajs logs into Effect's log. */
export const makeLogCreator =
  (context: Context.Context<never>): logCreator =>
  () => {
    const run = Effect.runForkWith(context)
    return ({ namespace, level, log }) => {
      const { message, timestamp: _timestamp, logger: _logger, stack: _stack, ...details } = log
      const quiet = saidTwice.has(namespace) || harmless.some((pattern) => pattern.test(message))
      const write =
        quiet || level >= 5
          ? Effect.logDebug
          : level === 4
            ? Effect.logInfo
            : level === 2
              ? Effect.logWarning
              : Effect.logError
      run(Effect.annotateLogs(write(`kafkajs ${namespace}: ${message}`), details))
    }
  }
