import { Policies } from "@tidemark/core"
import type { MemberOptions, TransactionOptions } from "../KafkaClient.ts"
import { KafkaError } from "../KafkaErrors.ts"

const durations = [
  "sessionTimeoutMillis",
  "rebalanceTimeoutMillis",
  "heartbeatIntervalMillis",
  "maxWaitMillis"
] as const

/** The error for a value outside what is allowed. */
export const invalidRequest = (
  operation: string,
  brokers: ReadonlyArray<string>,
  field: string,
  value: unknown,
  allowed: string
): KafkaError => {
  const shown = typeof value === "number" ? String(value) : JSON.stringify(value)
  const detail = `${field} is ${shown}; allowed: ${allowed}`
  return new KafkaError({ reason: "InvalidRequest", operation, brokers, detail, retriable: false })
}

/** What is wrong with options of which one is not among `names`: mistyped, and silently without effect. */
export const unknownOption = (
  operation: string,
  brokers: ReadonlyArray<string>,
  what: string,
  options: object,
  names: ReadonlyArray<string>
): KafkaError | undefined => {
  const unknown = Policies.unknownOption(what, options, names)
  if (unknown === undefined) return undefined
  return new KafkaError({
    reason: "InvalidRequest",
    operation,
    brokers,
    detail: unknown.message,
    retriable: false
  })
}

const memberOptionNames = ["groupId", "topics", ...durations, "events"]

/** What is wrong with the options of a join, if anything. */
export const validateMemberOptions = (
  brokers: ReadonlyArray<string>,
  options: MemberOptions
): KafkaError | undefined => {
  const invalid = (field: string, value: unknown, allowed: string): KafkaError =>
    invalidRequest("join", brokers, field, value, allowed)
  const unknown = unknownOption("join", brokers, "join", options, memberOptionNames)
  if (unknown !== undefined) return unknown
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

/** The longest time that a timer of Node and a field of the protocol hold. */
const mostMillis = 2_147_483_647

/** What is wrong with the options of a transactional producer, if anything. */
export const validateTransactionOptions = (
  brokers: ReadonlyArray<string>,
  { timeoutMillis, transactionalId }: TransactionOptions
): KafkaError | undefined => {
  const invalid = (field: string, value: unknown, allowed: string): KafkaError =>
    invalidRequest("initTransactions", brokers, field, value, allowed)
  if (transactionalId === "") return invalid("transactionalId", transactionalId, "a text that is not empty")
  if (!(Number.isSafeInteger(timeoutMillis) && timeoutMillis > 0 && timeoutMillis <= mostMillis))
    return invalid("timeoutMillis", timeoutMillis, `a whole number of milliseconds from 1 to ${mostMillis}`)
  return undefined
}

/** The first offset that can't be committed. */
export const wrongOffset = (
  operation: string,
  brokers: ReadonlyArray<string>,
  commits: ReadonlyArray<{ readonly offset: number }>
): KafkaError | undefined => {
  const wrong = commits.find(({ offset }) => !Number.isSafeInteger(offset) || offset < 0)
  if (wrong === undefined) return undefined
  return invalidRequest(operation, brokers, "offset", wrong.offset, "a safe integer from 0")
}
