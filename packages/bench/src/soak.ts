/** `./dev soak`: the random part of the stores' contract, from ever new seeds, for as long as one says. */
import { parseArgs } from "node:util"
import { parts } from "./soak/rounds.ts"
import { openStore, type SoakedStore, type StoreName, storeNames } from "./soak/stores.ts"

const usage = `./dev soak [--minutes N] [--seed N] [--rounds N] [--store NAME]...

Works the stores with random calls, compared with the rules of the protocol; with many callers and several processes at
once, whose histories must be explained by some order; with faults in between, and with processes that are killed.
Each round takes the next seed. Exit code 1 when anything failed, with how to come there again.
  --minutes N    for so long, to the end of what is under way. Default: 5
  --seed N       the first seed. Default: by the clock
  --rounds N     at most so many seeds
  --store NAME   ${storeNames.join(", ")}; may be given several times. Default: all that can be had
`

/** What was asked for can't be. */
class BadWords extends Error {}

const number = (name: string, text: string | undefined, fallback: number): number => {
  const value = text === undefined ? fallback : Number(text)
  if (!(value > 0)) throw new BadWords(`--${name} is ${text}; allowed: a number above 0`)
  return value
}

const store = (name: string): StoreName => {
  const found = storeNames.find((known) => known === name)
  if (found === undefined) throw new BadWords(`--store is ${name}; allowed: ${storeNames.join(", ")}`)
  return found
}

const bar = (share: number, title: string): void => {
  if (!process.stderr.isTTY) return
  const full = Math.round(20 * Math.min(1, share))
  const line = `${"#".repeat(full)}${".".repeat(20 - full)}  ${title}`
  process.stderr.write(`\r\u001b[2K${line.slice(0, (process.stderr.columns || 80) - 1)}`)
}

const clearBar = (): void => {
  if (process.stderr.isTTY) process.stderr.write("\r\u001b[2K")
}

/** The stores that were asked for; without a word all that can be had, and why not the others. */
const openStores = async (asked: ReadonlyArray<StoreName>): Promise<ReadonlyArray<SoakedStore>> => {
  const opened: Array<SoakedStore> = []
  for (const name of asked.length > 0 ? asked : storeNames) {
    try {
      opened.push(await openStore(name))
    } catch (error) {
      if (asked.length > 0) throw error
      console.error(`${name} is left out: ${(error as Error).message}`)
    }
  }
  return opened
}

interface Limits {
  readonly minutes: number
  readonly seed: number
  readonly rounds: number
}

/** Answers how many parts failed. */
const soak = async (
  stores: ReadonlyArray<SoakedStore>,
  { minutes, rounds, seed: first }: Limits
): Promise<number> => {
  const began = performance.now()
  const share = (): number => (performance.now() - began) / (minutes * 60_000)
  let failed = 0
  let done = 0
  let round = 0
  for (; round < rounds && share() < 1; round++) {
    const seed = first + round
    for (const part of parts) {
      for (const soaked of stores) {
        if (share() >= 1 || (part.needsProcesses && soaked.shared === undefined)) continue
        bar(share(), `seed ${seed}, ${soaked.name}: ${part.title} (${done} done, ${failed} failed)`)
        const failures = await part.run(soaked, seed)
        done += 1
        if (failures.length === 0) continue
        failed += 1
        clearBar()
        console.log(`FAILED ${soaked.name}: ${part.title}`)
        console.log(
          `again: ./dev soak --store ${soaked.name} --seed ${seed} --rounds 1\n${failures.join("\n")}\n`
        )
      }
    }
  }
  clearBar()
  const names = stores.map(({ name }) => name).join(", ")
  const minutesTaken = ((performance.now() - began) / 60_000).toFixed(1)
  console.log(
    `${names}: seeds ${first} to ${first + round - 1}, ${done} parts in ${minutesTaken} minutes, ${failed} failed`
  )
  return failed
}

const readWords = () => {
  try {
    return parseArgs({
      options: {
        minutes: { type: "string" },
        seed: { type: "string" },
        rounds: { type: "string" },
        store: { type: "string", multiple: true },
        help: { type: "boolean", short: "h" }
      }
    }).values
  } catch (error) {
    throw new BadWords((error as Error).message)
  }
}

const main = async (): Promise<void> => {
  const values = readWords()
  if (values.help) return console.log(usage)
  const limits = {
    minutes: number("minutes", values.minutes, 5),
    seed: number("seed", values.seed, Math.floor(Date.now() / 1_000) % 1_000_000),
    rounds: number("rounds", values.rounds, Number.POSITIVE_INFINITY)
  }
  const stores = await openStores((values.store ?? []).map(store))
  console.log(`soaking ${stores.map(({ name }) => name).join(", ")} from seed ${limits.seed}`)
  try {
    if ((await soak(stores, limits)) > 0) process.exitCode = 1
  } finally {
    for (const { close } of stores) await close()
  }
}

try {
  await main()
} catch (error) {
  if (!(error instanceof BadWords)) throw error
  console.error(`${error.message}\n\n${usage}`)
  process.exitCode = 2
}
