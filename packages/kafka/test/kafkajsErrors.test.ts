import { expect, it } from "@effect/vitest"
import kafkajs from "kafkajs"
import { toKafkaError } from "../src/internal/kafkajsErrors.ts"
import { KafkaError } from "../src/KafkaErrors.ts"

const context = { operation: "commit", brokers: ["a:9092", "b:9092"], topics: ["orders"] }
const protocol = (type: string, retriable = false) =>
  new kafkajs.KafkaJSProtocolError(
    Object.assign(new Error(`the broker says ${type}`), { type, code: 1, retriable })
  )
const exhausted = (cause: Error) =>
  new kafkajs.KafkaJSNumberOfRetriesExceeded(cause, { retryCount: 5, retryTime: 1 })

it.each([
  [protocol("ILLEGAL_GENERATION"), "StaleMember", true],
  [protocol("REBALANCE_IN_PROGRESS"), "StaleMember", true],
  [protocol("GROUP_LOAD_IN_PROGRESS", true), "CoordinatorNotReady", true],
  [protocol("LEADER_NOT_AVAILABLE", true), "PartitionNotReady", true],
  [protocol("GROUP_AUTHORIZATION_FAILED"), "Unauthorized", false],
  [protocol("MESSAGE_TOO_LARGE"), "RecordTooLarge", false],
  [protocol("INVALID_PRODUCER_EPOCH"), "Fenced", false],
  [protocol("INVALID_TXN_STATE"), "Fenced", false],
  [protocol("CONCURRENT_TRANSACTIONS", true), "TransactionPending", true],
  [protocol("SOMETHING_NEW", true), "Protocol", true],
  [protocol("SOMETHING_ELSE"), "Protocol", false],
  [new kafkajs.KafkaJSConnectionError("refused"), "Unreachable", true],
  [
    Object.assign(new Error("wrong password"), { name: "KafkaJSSASLAuthenticationError", retriable: false }),
    "Unauthorized",
    false
  ],
  [new TypeError("undefined is not a function"), "Protocol", false],
  ["a text", "Protocol", false]
])("%s is %s, retriable %s", (thrown, reason, retriable) => {
  const error = toKafkaError(thrown, context)
  expect(error).toMatchObject({ reason, retriable, operation: "commit", brokers: context.brokers })
  expect(error.message).toContain("commit at a:9092, b:9092")
  expect(error.cause).toBe(thrown)
})

it("looks through what kafkajs wraps around the first error", () => {
  const root = protocol("UNKNOWN_TOPIC_OR_PARTITION", true)
  const wrapped = new Error("given up", { cause: exhausted(root) })
  const error = toKafkaError(wrapped, context)
  expect(error.reason).toBe("UnknownTopic")
  expect(error.detail).toContain('topic "orders" does not exist')
  expect(error.retriable).toBe(false)
  const aggregate = Object.assign(new Error("Topic creation errors"), {
    errors: [protocol("INVALID_PARTITIONS")]
  })
  expect(toKafkaError(aggregate, context).reason).toBe("InvalidRequest")
})

it("leaves an error of ours as it is", () => {
  const error = new KafkaError({
    reason: "NotAssigned",
    operation: "commit",
    brokers: [],
    detail: "",
    retriable: false
  })
  expect(toKafkaError(error, context)).toBe(error)
})
