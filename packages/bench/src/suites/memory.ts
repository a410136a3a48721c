/** Bytes that are kept for each completed offset and each idempotency key, as the heap tells after a collection. */
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { spread } from "../Contest.ts"
import type { Figure, Suite } from "../Figure.ts"
import { type Measured, patterns } from "../memoryPatterns.ts"

const rounds = 3

/** In a process of its own: what others have left on the heap does not count. */
const measure = async (pattern: string): Promise<Measured> => {
  const { stdout } = await promisify(execFile)(process.execPath, [
    "--conditions=@tidemark/source",
    "--disable-warning=ExperimentalWarning",
    "--expose-gc",
    new URL("../memoryPatterns.ts", import.meta.url).pathname,
    pattern
  ])
  return JSON.parse(stdout) as Measured
}

export const suite: Suite = {
  name: "memory",
  about: "bytes kept, heapUsed + external + arrayBuffers after gc, in a process for each pattern",
  run: async (progress) => {
    const figures: Array<Figure> = []
    for (const { name, what, unit, atMost } of patterns) {
      const measured: Array<Measured> = []
      for (let round = 1; round <= rounds; round++) {
        progress(`${name}, ${round} of ${rounds}`)
        measured.push(await measure(name))
      }
      const estimated = measured[0].estimated
      figures.push({
        what,
        unit,
        measured: spread(measured.map(({ bytes }) => bytes)),
        ...(atMost === undefined ? {} : { target: { atMost } }),
        ...(estimated === undefined ? {} : { note: `estimatedBytes says ${estimated.toPrecision(3)}` })
      })
    }
    return figures
  }
}
