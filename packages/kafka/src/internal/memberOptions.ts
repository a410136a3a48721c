import type { MemberOptions } from "../KafkaClient.ts"
import { KafkaError } from "../KafkaErrors.ts"

const durations = [
  "sessionTimeoutMillis",
  "rebalanceTimeoutMillis",
  "heartbeatIntervalMillis",
  "maxWaitMillis"
] as const

/** What is wrong with the options of a join, if anything. */
export const validateMemberOptions = (
  brokers: ReadonlyArray<string>,
  options: MemberOptions
): KafkaError | undefined => {
  const invalid = (field: string, value: unknown, allowed: string): KafkaError =>
    new KafkaError({
      reason: "InvalidRequest",
      operation: "join",
      brokers,
      detail: `${field} is ${typeof value === "number" ? value : JSON.stringify(value)}; allowed: ${allowed}`,
      retriable: false
    })
  if (options.groupId === "") return invalid("groupId", options.groupId, "a text that is not empty")
  if (options.topics.length === 0) return invalid("topics", options.topics, "at least one topic")
  if (options.topics.includes("")) return invalid("topics", options.topics, "names that are not empty")
  for (const field of durations)
    if (!(Number.isSafeInteger(options[field]) && options[field] > 0))
      return invalid(field, options[field], "a whole number of milliseconds above 0")
  if (options.heartbeatIntervalMillis >= options.sessionTimeoutMillis)
    return invalid(
      "heartbeatIntervalMillis",
      options.heartbeatIntervalMillis,
      "less than sessionTimeoutMillis"
    )
  return undefined
}
