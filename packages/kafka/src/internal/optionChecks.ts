/** Checks of options: each gives the value, or throws an `InvalidInput` that names the option, its value and what is allowed. */
import { InvalidInput, Policies } from "@tidemark/core"
import type { Duration } from "effect"

const describe = (value: unknown): string => {
  if (typeof value === "string") return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}...` : value)
  if (Array.isArray(value)) return value.length === 0 ? "[]" : `[${value.map(describe).join(", ")}]`
  return typeof value === "object" && value !== null ? "an object" : String(value)
}

export const fail = (field: string, value: unknown, allowed: string): never => {
  throw new InvalidInput({ field, value: describe(value), allowed })
}

export const checkKnown = (what: string, given: object, known: Readonly<Record<string, unknown>>): void => {
  const unknown = Policies.unknownOption(what, given, Object.keys(known))
  if (unknown !== undefined) throw unknown
}

export const text = (field: string, value: unknown): string => {
  if (typeof value !== "string" || value === "" || !value.isWellFormed() || Buffer.byteLength(value) > 1_024)
    return fail(field, value, "1 to 1,024 bytes of UTF-8 without lone surrogates")
  return value
}

export const count = (field: string, value: number | undefined, fallback: number, max: number): number => {
  if (value === undefined) return fallback
  return Number.isSafeInteger(value) && value >= 1 && value <= max
    ? value
    : fail(field, value, `an integer from 1 to ${max}`)
}

export const word = <Word extends string>(
  field: string,
  value: Word | undefined,
  words: readonly [Word, ...ReadonlyArray<Word>]
): Word => {
  if (value === undefined) return words[0]
  return words.includes(value) ? value : fail(field, value, words.join(", "))
}

export const millis = (
  field: string,
  value: Duration.Input | undefined,
  fallback: number,
  max = 86_400_000
): number => {
  if (value === undefined) return fallback
  const duration = Policies.duration(field, value)
  if (typeof duration !== "number") throw duration
  return duration <= max ? duration : fail(field, duration, `more than 0 and at most ${max}, in milliseconds`)
}

const topicPattern = /^[A-Za-z0-9._-]{1,249}$/

export const topicName = (field: string, topic: string): string =>
  typeof topic === "string" && topicPattern.test(topic) && topic !== "." && topic !== ".."
    ? topic
    : fail(field, topic, "names of 1 to 249 letters, digits, dots, underscores and hyphens")

export const checkTopics = (field: string, topics: ReadonlyArray<string>): ReadonlyArray<string> => {
  if (!Array.isArray(topics) || topics.length === 0) return fail(field, topics, "at least one topic")
  for (const topic of topics) topicName(field, topic)
  if (new Set(topics).size !== topics.length) return fail(field, topics, "each topic once")
  return [...topics]
}

export const checkFunction = <F>(field: string, value: F): F =>
  typeof value === "function" ? value : fail(field, value, "a function")
