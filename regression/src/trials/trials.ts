/** The trials, by name. */
import type { OwnKafkaServer } from "@tidemark/test-servers"
import type { Member } from "./Crew.ts"
import { drainMillis, type Needs, type Outcome, Stage, sessionMillis, type TrialOptions } from "./Trial.ts"

export interface Trial {
  /** The promise. */
  readonly title: string
  readonly stores: ReadonlyArray<TrialOptions["store"]>
  /** How large it is under `./dev soak`. */
  readonly long: Pick<TrialOptions, "records" | "partitions" | "everyMillis" | "times">
  readonly run: (options: TrialOptions) => Promise<Outcome>
  /** What of the outcome breaks the promise, in words. */
  readonly broken: (outcome: Outcome, options: TrialOptions) => ReadonlyArray<string>
}

const staged =
  (needs: Needs, act: (stage: Stage) => Promise<void>) =>
  async (options: TrialOptions): Promise<Outcome> => {
    const startedAt = performance.now()
    await using stage = await Stage.open(options, needs)
    await act(stage)
    return stage.outcome(startedAt)
  }

/** The rate at which records come, so that there are some for as long as things go wrong. */
const rateOf = ({ options: { everyMillis, records, times } }: Stage, actMillis: number): number =>
  Math.ceil(records / Math.max(1, ((everyMillis + actMillis) * times) / 1_000))

const anyOf = (stage: Stage, members: Iterable<Member>): Member => {
  const all = [...members]
  return all[Math.floor(stage.random() * all.length)]
}

const ownsAll = (stage: Stage): boolean => stage.crew.owned === stage.options.partitions

const startCrew = async (stage: Stage, size: number): Promise<void> => {
  for (let index = 0; index < size; index++) stage.crew.start()
  const isReady = (): boolean => ownsAll(stage) && [...stage.crew.living].every(({ told }) => told.owned > 0)
  await stage.until("each owns some of the partitions", isReady)
}

/** Lets something go wrong again and again while records come, at least so many times, and waits for the rest. */
const again = async (
  stage: Stage,
  /** How long it takes, about. */
  actMillis: number,
  act: () => Promise<void>
): Promise<void> => {
  const { everyMillis, times } = stage.options
  const feeding = stage.feeding(rateOf(stage, actMillis))
  for (let time = 0; time < times; time++) {
    await stage.pass(everyMillis * (0.5 + stage.random()))
    await act()
  }
  await feeding
  await stage.finish()
}

const killAgain = async (stage: Stage): Promise<void> => {
  await startCrew(stage, 3)
  await again(stage, 0, async () => {
    await stage.crew.kill(anyOf(stage, stage.crew.living))
    stage.crew.start()
  })
}

const consumptionGoesOn = (stage: Stage): Promise<void> => {
  const { done } = stage
  return stage.until("consumption goes on", () => stage.done > done || stage.done === stage.sent, 60_000)
}

const nothingLost = ({ failures, lost, outOfOrder }: Outcome): ReadonlyArray<string> => [
  ...(lost.length > 0 ? [`${lost.length} lost: ${lost.slice(0, 20).join(", ")}`] : []),
  ...(outOfOrder.length > 0 ? [`out of order: the keys ${outOfOrder.slice(0, 20).join(", ")}`] : []),
  ...failures
]

const nothingTwice = ({ twice }: Outcome): ReadonlyArray<string> =>
  twice.length > 0
    ? [
        `${twice.length} took effect twice: ${twice
          .slice(0, 20)
          .map(([value]) => value)
          .join(", ")}`
      ]
    : []

const twiceOnlyInFlight = ({ unexplained }: Outcome): ReadonlyArray<string> =>
  unexplained.length > 0
    ? [
        `${unexplained.length} took effect twice without a death that explains it: ${unexplained.slice(0, 5).join("; ")}`
      ]
    : []

const goneWithin = ({ longestStopMillis }: Outcome): ReadonlyArray<string> => {
  // the last commit, the group, and a busy machine
  const most = drainMillis + 10_000
  return longestStopMillis > most ? [`one took ${longestStopMillis} ms to stop, of at most ${most}`] : []
}

const both = ["redis", "sqlite"] as const

const all = {
  "members-come-and-go": {
    title: "members join and leave, again and again: nothing lost, nothing twice",
    stores: both,
    long: { records: 100_000, partitions: 12, everyMillis: 2_500, times: 150 },
    run: staged({}, async (stage) => {
      await startCrew(stage, 2)
      const [lasting] = stage.crew.living
      await again(stage, 1_000, async () => {
        const others = [...stage.crew.living].filter((member) => member !== lasting)
        if (others.length === 0 || (others.length < 4 && stage.random() < 0.5)) stage.crew.start()
        else await stage.crew.stop(anyOf(stage, others))
      })
    }),
    broken: (outcome, { times }) => [
      ...nothingLost(outcome),
      ...nothingTwice(outcome),
      ...goneWithin(outcome),
      // some changes make one rebalance together, where they come fast
      ...(outcome.rebalances < times / 3
        ? [`only ${outcome.rebalances} rebalances, of at least ${Math.ceil(times / 3)}`]
        : [])
    ]
  },
  killed: {
    title: "consumers are killed, again and again: nothing lost, twice only what was in flight",
    stores: both,
    long: { records: 60_000, partitions: 12, everyMillis: 4_000, times: 30 },
    run: staged({}, killAgain),
    broken: (outcome) => [...nothingLost(outcome), ...twiceOnlyInFlight(outcome)]
  },
  "killed-in-a-transaction": {
    title: "effect and mark are one transaction, and consumers are killed: nothing lost, nothing twice",
    stores: ["sqlite"],
    long: { records: 30_000, partitions: 12, everyMillis: 4_000, times: 30 },
    run: staged({ effect: "transaction" }, killAgain),
    broken: (outcome) => [...nothingLost(outcome), ...nothingTwice(outcome)]
  },
  frozen: {
    title: "a consumer is frozen for longer than its lease and comes back: its late writes are turned away",
    stores: both,
    long: { records: 20_000, partitions: 12, everyMillis: 3_000, times: 6 },
    run: staged({ effect: "fenced", workMillis: 400 }, async (stage) => {
      await startCrew(stage, 2)
      await again(stage, 1.5 * sessionMillis, async () => {
        const zombie = anyOf(stage, stage.crew.living)
        zombie.signal("SIGSTOP")
        stage.crew.noteDeath(zombie)
        // its lease and its session end, and others have what was its own
        const others = [...stage.crew.living].filter((member) => member !== zombie)
        await stage.until(
          "others own all partitions",
          () => others.reduce((sum, { told }) => sum + told.owned, 0) === stage.options.partitions
        )
        await stage.pass(sessionMillis / 4)
        zombie.signal("SIGCONT")
        await stage.until("all partitions are owned again", () => ownsAll(stage) && zombie.told.owned > 0)
      })
    }),
    broken: (outcome) => [
      ...nothingLost(outcome),
      ...twiceOnlyInFlight(outcome),
      ...(outcome.refused === 0 ? ["no late write was turned away: the trial shows nothing"] : [])
    ]
  },
  "broker-restarts": {
    title:
      "the broker is killed and started again: consumption goes on by itself, nothing lost, nothing twice",
    stores: both,
    long: { records: 30_000, partitions: 12, everyMillis: 5_000, times: 8 },
    run: staged({ ownBroker: true }, async (stage) => {
      await startCrew(stage, 2)
      await again(stage, 7_000, async () => {
        const broker = stage.broker as OwnKafkaServer
        await broker.kill()
        await stage.pass(1_000 + stage.random() * 3_000)
        await broker.restart()
        await consumptionGoesOn(stage)
      })
    }),
    broken: (outcome) => [...nothingLost(outcome), ...nothingTwice(outcome)]
  },
  "network-cuts": {
    title: "the networks to broker and store are cut and healed: nothing lost, twice only what was in flight",
    stores: ["redis"],
    long: { records: 30_000, partitions: 12, everyMillis: 4_000, times: 12 },
    run: staged({ network: true }, async (stage) => {
      await startCrew(stage, 2)
      await again(stage, sessionMillis, async () => {
        const network = stage.networks[Math.floor(stage.random() * stage.networks.length)]
        const isSilent = stage.random() < 0.5
        if (isSilent) network.halfOpen()
        else network.cut()
        // sometimes for longer than a lease
        await stage.pass(500 + stage.random() * sessionMillis * 1.5)
        // whose lease has ended, or who could not tell of what it did: its last effects may come again
        for (const member of stage.crew.living) stage.crew.noteDeath(member)
        await network.heal()
        await stage.until("all partitions are owned again", () => ownsAll(stage), 60_000)
      })
    }),
    broken: (outcome) => [...nothingLost(outcome), ...twiceOnlyInFlight(outcome)]
  },
  "redis-restarts": {
    title: "Redis is killed and started again: consumption goes on by itself, nothing lost, nothing twice",
    stores: ["redis"],
    long: { records: 30_000, partitions: 12, everyMillis: 4_000, times: 10 },
    run: staged({}, async (stage) => {
      await startCrew(stage, 2)
      await again(stage, 3_000, async () => {
        await stage.redis?.kill()
        await stage.pass(stage.random() * sessionMillis * 0.4)
        await stage.redis?.restart()
        await consumptionGoesOn(stage)
      })
    }),
    broken: (outcome) => [...nothingLost(outcome), ...nothingTwice(outcome)]
  },
  shutdowns: {
    title: "consumers are asked to stop amid a load: they are gone in time, and nothing done is repeated",
    stores: both,
    long: { records: 20_000, partitions: 12, everyMillis: 2_000, times: 15 },
    run: staged({}, async (stage) => {
      await startCrew(stage, 1)
      await again(stage, 3_000, async () => {
        await Promise.all([...stage.crew.living].map((member) => stage.crew.stop(member)))
        await startCrew(stage, 1)
      })
    }),
    broken: (outcome) => [...nothingLost(outcome), ...nothingTwice(outcome), ...goneWithin(outcome)]
  }
} satisfies Readonly<Record<string, Trial>>

export type TrialName = keyof typeof all

export const trials: Readonly<Record<TrialName, Trial>> = all
