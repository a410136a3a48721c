/** A claim id names one claim in all its verbs and retries. */
import { randomBytes } from "node:crypto"

const processPart = randomBytes(12).toString("base64url")
let count = 0

/**
 * A new claim id: 96 random bits for this process and a count within it, so that one costs some tens of
 * nanoseconds and none comes twice.
 */
export const make = (): string => `${processPart}.${count++}`
