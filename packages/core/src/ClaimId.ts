/** A claim id names one claim in all its verbs and retries. */
import { randomBytes } from "node:crypto"

const processPart = randomBytes(12).toString("base64url")

/** The last part of an id comes from here: to write a number as text takes longer than all the rest of a claim. */
const lastParts = Array.from({ length: 1_024 }, (_, index) => `.${index.toString(36)}`)
let middlePart = 0
let firstParts = processPart
let next = lastParts.length

/**
 * A new claim id: 96 random bits for this process and a count within it, so that one costs some nanoseconds and none
 * comes twice.
 */
export const make = (): string => {
  if (next === lastParts.length) {
    firstParts = `${processPart}.${(middlePart++).toString(36)}`
    next = 0
  }
  return firstParts + lastParts[next++]
}
