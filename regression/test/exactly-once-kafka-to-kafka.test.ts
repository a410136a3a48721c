import { it } from "@effect/vitest"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Effect, Fiber } from "effect"
import { expect } from "vitest"
import { until } from "./consumers.ts"
import { clientFor, type PipeBed, type PipeProcess, pipeBed } from "./pipes.ts"

const partitions = 4

/** Keeps records coming until it is told to end; then gives how many there are. */
const load = Effect.fnUntraced(function* ({ produce }: PipeBed) {
  let enough = false
  const feed = Effect.gen(function* () {
    let count = 0
    while (!enough) {
      count = yield* produce(50)
      yield* Effect.sleep(50)
    }
    return count
  })
  const feeding = yield* Effect.forkScoped(feed)
  const end = Effect.suspend(() => {
    enough = true
    return Fiber.join(feeding)
  })
  return { end }
})

const stateOf = (processes: ReadonlyArray<PipeProcess>) => () =>
  processes.map(({ errors, hasEnded, told }) => [hasEnded(), told(), errors().slice(-500)])

/** Each record has come out as often as it should have, in its order, and nothing else. */
const expectOnce = ({ output }: PipeBed, produced: number): void => {
  expect(output.missing(produced)).toEqual([])
  expect(output.twice).toEqual([])
  expect(output.disordered).toEqual([])
  expect(output.times.size).toBe(Math.floor(produced / 3) * 3 + Math.max(0, (produced % 3) - 1))
}

await describeWithKafka("from Kafka to Kafka", ({ brokers }) => {
  it.live(
    "processes that are killed, stopped and woken up in mid-transaction: each record takes effect once, in order",
    () =>
      Effect.gen(function* () {
        const bed = yield* pipeBed(brokers, partitions)
        const { output, produce, processes, start } = bed
        const tell = stateOf(processes)
        yield* produce(1_000)
        // each kills or stops itself in one of its transactions
        const zombie = start({ atCommit: 6, when: "before", signal: "SIGSTOP" })
        const before = start({ atCommit: 4, when: "before", signal: "SIGKILL" })
        const during = start({ atCommit: 8, when: "during", signal: "SIGKILL" })
        const { end } = yield* load(bed)
        const isOver = () => before.hasEnded() && during.hasEnded() && zombie.isBefallen()
        yield* until("two are dead, and one is stopped", isOver, tell)
        start()
        const other = start()
        const soFar = yield* produce(1)
        yield* until("others have taken over", () => output.missing(soFar).length === 0, tell)
        const { rebalances } = zombie.told()?.counters ?? { rebalances: 0 }
        zombie.signal("SIGCONT")
        const isBack = () => {
          const counters = zombie.told()?.counters
          return counters !== undefined && counters.fenced > 0 && counters.rebalances > rebalances
        }
        yield* until("the zombie was refused, and is a member again", isBack, tell)
        other.signal("SIGTERM")
        yield* until("one has gone in good order", other.hasEnded, tell)
        const produced = yield* end
        yield* until("all is done", () => output.missing(produced).length === 0, tell)
        expect(zombie.hasEnded()).toBe(false)
        expectOnce(bed, produced)
      }).pipe(Effect.scoped, Effect.provide(clientFor(brokers))),
    120_000
  )

  const minutes = Number(process.env.TIDEMARK_PIPE_MINUTES ?? 0)
  if (minutes > 0)
    it.live(
      `the same for ${minutes} minutes, by chance`,
      () =>
        Effect.gen(function* () {
          const bed = yield* pipeBed(brokers, partitions)
          const { output, processes, start } = bed
          for (let count = 0; count < 3; count++) start()
          const { end } = yield* load(bed)
          const endAt = Date.now() + minutes * 60_000
          while (Date.now() < endAt) {
            yield* Effect.sleep(Math.random() * 8_000)
            const living = processes.filter(({ hasEnded }) => !hasEnded())
            const chosen = living[Math.floor(Math.random() * living.length)]
            const chance = Math.random()
            if (chance < 0.4) {
              chosen?.signal("SIGKILL")
              start()
            } else if (chance < 0.6) {
              chosen?.signal("SIGTERM")
              start()
            } else if (chance < 0.8) {
              // longer than the session
              chosen?.signal("SIGSTOP")
              yield* Effect.sleep(6_000 + Math.random() * 6_000)
              chosen?.signal("SIGCONT")
            } else {
              const atCommit = 5 + Math.floor(Math.random() * 20)
              start({ atCommit, when: chance < 0.9 ? "before" : "during", signal: "SIGKILL" })
            }
          }
          const produced = yield* end
          yield* until("all is done", () => output.missing(produced).length === 0, stateOf(processes))
          expectOnce(bed, produced)
          console.log(`${produced} records, ${processes.length} processes`)
        }).pipe(Effect.scoped, Effect.provide(clientFor(brokers))),
      minutes * 60_000 + 180_000
    )
})
