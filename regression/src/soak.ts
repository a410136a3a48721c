/** `./dev soak consumers`: consumers in processes of their own that come, go, die and freeze, for as long as one says. */
import { parseArgs } from "node:util"
import type { Outcome, TrialOptions } from "./trials/Trial.ts"
import { type TrialName, trials } from "./trials/trials.ts"

const names = Object.keys(trials) as ReadonlyArray<TrialName>
const storeNames = ["sqlite", "redis"] as const

const usage = `./dev soak consumers [--trial NAME]... [--store NAME]... [--seed N] [--records N] [--times N]

Tries the promises of the Kafka consumer on a real broker (KAFKA_BROKERS, or one that is started), with consumers in
processes of their own and a ledger of their effects that no tracker can see. Each trial says how many records were lost
or took effect twice. Exit code 1 when a promise was broken.
  --trial NAME   one of these, may be given several times; default: all
${names.map((name) => `                   ${name}: ${trials[name].title}`).join("\n")}
  --store NAME   ${storeNames.join(", ")}; may be given several times. Default: both, where the trial allows
  --seed N       what is random. Default: by the clock
  --records N    how many records. Default: each trial's own, 20,000 to 100,000
  --times N      how often things go wrong. Default: each trial's own
`

/** What was asked for can't be. */
class BadWords extends Error {}

const number = (name: string, text: string | undefined): number | undefined => {
  if (text === undefined) return undefined
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text)
  throw new BadWords(`--${name} is ${text}; allowed: a whole number above 0`)
}

const oneOf = <Name extends string>(option: string, known: ReadonlyArray<Name>, word: string): Name => {
  const found = known.find((name) => name === word)
  if (found === undefined) throw new BadWords(`--${option} is ${word}; allowed: ${known.join(", ")}`)
  return found
}

const bar = (share: number, words: string): void => {
  if (!process.stderr.isTTY) return
  const full = Math.round(20 * Math.min(1, share))
  const line = `${"#".repeat(full)}${".".repeat(20 - full)}  ${words}`
  process.stderr.write(`\r\u001b[2K${line.slice(0, (process.stderr.columns || 80) - 1)}`)
}

const summary = ({
  deaths,
  explained,
  lost,
  longestStopMillis,
  rebalances,
  refused,
  seconds,
  twice
}: Outcome): string =>
  [
    `${lost.length} lost`,
    `${twice.length} twice${twice.length > 0 ? ` (${explained} of them in flight at a death)` : ""}`,
    `${rebalances} rebalances`,
    ...(deaths > 0 ? [`${deaths} deaths`] : []),
    ...(refused > 0 ? [`${refused} late writes turned away`] : []),
    ...(longestStopMillis > 0 ? [`stopped within ${longestStopMillis} ms`] : []),
    `${seconds} s`
  ].join(", ")

const readWords = () => {
  try {
    return parseArgs({
      options: {
        trial: { type: "string", multiple: true },
        store: { type: "string", multiple: true },
        seed: { type: "string" },
        records: { type: "string" },
        times: { type: "string" },
        help: { type: "boolean", short: "h" }
      }
    }).values
  } catch (error) {
    throw new BadWords((error as Error).message)
  }
}

/** Whether all promises were kept. */
const tryAll = async (
  chosen: ReadonlyArray<TrialName>,
  stores: ReadonlyArray<TrialOptions["store"]>,
  seed: number,
  size: Partial<Pick<TrialOptions, "records" | "times">>
): Promise<boolean> => {
  let allKept = true
  for (const name of chosen) {
    for (const store of stores.filter((store) => trials[name].stores.includes(store))) {
      const { broken, long, run } = trials[name]
      const options: TrialOptions = {
        ...long,
        ...size,
        seed,
        store,
        onProgress: (share, words) => bar(share, `${name}, ${store}: ${words}`)
      }
      const found = await run(options).then(
        (outcome) => ({ words: summary(outcome), faults: broken(outcome, options) }),
        (error: unknown) => ({ words: "not ended", faults: [String(error)] })
      )
      if (process.stderr.isTTY) process.stderr.write("\r\u001b[2K")
      console.log(
        `${found.faults.length === 0 ? "kept  " : "BROKEN"} ${name}, ${store}, ${options.records} records: ${found.words}`
      )
      for (const fault of found.faults) console.log(`       ${fault}`)
      if (found.faults.length === 0) continue
      allKept = false
      console.log(`       again: ./dev soak consumers --trial ${name} --store ${store} --seed ${seed}`)
    }
  }
  return allKept
}

const main = async (): Promise<void> => {
  const values = readWords()
  if (values.help) return console.log(usage)
  const chosen = values.trial?.map((word) => oneOf("trial", names, word)) ?? names
  const stores = values.store?.map((word) => oneOf("store", storeNames, word)) ?? storeNames
  const seed = number("seed", values.seed) ?? Math.floor(Date.now() / 1_000) % 1_000_000
  const records = number("records", values.records)
  const times = number("times", values.times)
  const size = { ...(records === undefined ? {} : { records }), ...(times === undefined ? {} : { times }) }
  console.log(`${chosen.length} trials from seed ${seed}`)
  if (!(await tryAll(chosen, stores, seed, size))) process.exitCode = 1
}

try {
  await main()
} catch (error) {
  if (!(error instanceof BadWords)) throw error
  console.error(`${error.message}\n\n${usage}`)
  process.exitCode = 2
}
