import { KafkaError, type KafkaErrorReason } from "../KafkaErrors.ts"
import { type ErrorContext, makeKafkaError, reasonOf } from "./protocolErrors.ts"

/** kafkajs wraps an error once for each layer that gave up on it; the innermost one says what happened. */
const rootOf = (error: unknown): unknown => {
  let root = error
  for (let depth = 0; depth < 10; depth++) {
    if (!(root instanceof Error)) return root
    const first = "errors" in root && Array.isArray(root.errors) ? root.errors[0] : undefined
    const inner = first ?? root.cause
    if (!(inner instanceof Error) || inner === root) return root
    root = inner
  }
  return root
}

/** By the names of kafkajs's own error classes. */
const byName: Readonly<Record<string, KafkaErrorReason>> = {
  KafkaJSConnectionError: "Unreachable",
  KafkaJSConnectionClosedError: "Unreachable",
  KafkaJSBrokerNotFound: "Unreachable",
  KafkaJSNoBrokerAvailableError: "Unreachable",
  KafkaJSMetadataNotLoaded: "Unreachable",
  KafkaJSLockTimeout: "RequestTimedOut",
  KafkaJSTimeout: "RequestTimedOut",
  KafkaJSRequestTimeoutError: "RequestTimedOut",
  KafkaJSGroupCoordinatorNotFound: "CoordinatorNotReady",
  KafkaJSSASLAuthenticationError: "Unauthorized",
  KafkaJSServerDoesNotSupportApiKey: "Unsupported",
  KafkaJSNotImplemented: "Unsupported"
}

/** Says in our terms what a kafkajs error means. */
export const toKafkaError = (error: unknown, context: ErrorContext): KafkaError => {
  if (error instanceof KafkaError) return error
  const root = rootOf(error)
  const { type, name, message, retriable } = root as {
    readonly type?: string
    readonly name?: string
    readonly message?: string
    readonly retriable?: boolean
  }
  const reason = reasonOf(type) ?? byName[name ?? ""] ?? "Protocol"
  return makeKafkaError(reason, message ?? String(root), context, error, retriable === true)
}
