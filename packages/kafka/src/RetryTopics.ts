/**
 * Names of the topics in which records wait for another try: `<topic>.retry.<delay>`, as `orders.retry.30s`.
 */

const units: ReadonlyArray<readonly [millis: number, unit: string]> = [
  [86_400_000, "d"],
  [3_600_000, "h"],
  [60_000, "m"],
  [1_000, "s"]
]

/**
 * A delay in the largest unit that it is a whole number of.
 *
 * @param millis - a whole number above 0.
 *
 * @example
 * formatDelay(30_000) // "30s"
 * formatDelay(90_000) // "90s"
 * formatDelay(1_500) // "1500ms"
 */
export const formatDelay = (millis: number): string => {
  const found = units.find(([unit]) => millis % unit === 0)
  return found === undefined ? `${millis}ms` : `${millis / found[0]}${found[1]}`
}

/**
 * The topic in which records of `topic` wait for so long.
 *
 * @example
 * nameFor("orders", 30_000) // "orders.retry.30s"
 */
export const nameFor = (topic: string, millis: number): string => `${topic}.retry.${formatDelay(millis)}`
