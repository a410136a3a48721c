import { KafkaError, type KafkaErrorReason } from "../KafkaErrors.ts"
import { type ErrorContext, makeKafkaError, reasonOf } from "./protocolErrors.ts"

/** What the library's errors hold, each in some of its classes. */
interface LibraryError {
  readonly message?: string
  readonly code?: string
  /** The name of an error of the protocol. */
  readonly apiId?: string
  readonly canRetry?: boolean
  readonly errors?: ReadonlyArray<unknown>
  readonly cause?: unknown
}

/** The library collects the errors of all its attempts and parts. The last that a broker has answered says most. */
const rootOf = (error: unknown, depth = 0): LibraryError => {
  const here = (error ?? {}) as LibraryError
  if (here.apiId !== undefined || depth > 10) return here
  const inner = (here.errors ?? [])
    .filter((one) => one !== undefined && one !== null)
    .map((one) => rootOf(one, depth + 1))
  return inner.findLast(({ apiId }) => apiId !== undefined) ?? inner.at(-1) ?? here
}

const byCode: Readonly<Record<string, KafkaErrorReason>> = {
  PLT_KFK_AUTHENTICATION: "Unauthorized",
  PLT_KFK_NETWORK: "Unreachable",
  PLT_KFK_UNSUPPORTED: "Unsupported",
  PLT_KFK_UNSUPPORTED_API: "Unsupported"
}

const reasonFor = ({ apiId, code, message = "", cause }: LibraryError): KafkaErrorReason => {
  const reason = reasonOf(apiId)
  if (reason !== undefined) return reason
  if (message === "Request timed out") return "RequestTimedOut"
  if (code === "PLT_KFK_USER") return message.startsWith("Unknown topic") ? "UnknownTopic" : "InvalidRequest"
  // a connection can also fail since the credentials were refused
  if ((cause as LibraryError | undefined)?.code === "PLT_KFK_AUTHENTICATION") return "Unauthorized"
  return byCode[code ?? ""] ?? "Protocol"
}

const textOf = (error: LibraryError, whole: unknown): string => {
  const text = error.message ?? String(whole)
  const cause = error.cause instanceof Error ? error.cause.message : undefined
  return cause === undefined || cause === "" || text.includes(cause) ? text : `${text} ${cause}`
}

/** Says in our terms what an error of @platformatic/kafka means. */
export const toKafkaError = (error: unknown, context: ErrorContext): KafkaError => {
  if (error instanceof KafkaError) return error
  const root = rootOf(error)
  return makeKafkaError(reasonFor(root), textOf(root, error), context, error, root.canRetry === true)
}
