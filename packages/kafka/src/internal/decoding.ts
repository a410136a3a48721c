import { DecodeFailed } from "../ConsumerErrors.ts"
import type { HeaderValue, KafkaRecord } from "../KafkaClient.ts"

export const describe = (error: unknown): string => {
  if (error instanceof Error) return error.message
  if (typeof error === "object" && error !== null && "message" in error) return String(error.message)
  return String(error)
}

const isRetriable = (error: unknown): boolean =>
  typeof error === "object" && error !== null && "retriable" in error && error.retriable === true

/** A decoder's failure, with the record's place. `what`: which part of it, with a colon. */
export const failed = ({ offset, partition, topic }: KafkaRecord, cause: unknown, what = ""): DecodeFailed =>
  cause instanceof DecodeFailed
    ? cause
    : new DecodeFailed({
        topic,
        partition,
        offset,
        detail: `${what}${describe(cause)}`,
        retriable: isRetriable(cause),
        cause
      })

const textOf = (value: HeaderValue | undefined): string | undefined => {
  const last = Array.isArray(value) ? value.at(-1) : value
  return last === undefined ? undefined : String(last)
}

/** The headers as text, by name; of a header that was sent more than once the last. */
export const headersOf = ({ headers }: KafkaRecord): Readonly<Record<string, string>> => {
  const texts: Record<string, string> = {}
  for (const name of Object.keys(headers)) {
    const value = textOf(headers[name])
    if (value !== undefined) texts[name] = value
  }
  return texts
}
