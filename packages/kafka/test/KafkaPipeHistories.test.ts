import { describe, expect, it } from "@effect/vitest"
import { Effect, Schedule, type Scope } from "effect"
import fc from "fast-check"
import * as InProcessKafka from "../src/InProcessKafka.ts"
import { makeError } from "../src/internal/inProcessState.ts"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import { layers, logLines, records } from "./consumerHarness.ts"
import { isDone, type RunningPipe, startPipe, valuesIn, withTransactions } from "./pipeHarness.ts"

/** What happens to the group while it works. */
type Act = "join" | "stop" | "kill" | "crash" | "rebalance" | "isolate" | "fence"

interface History {
  readonly records: number
  readonly maxBatchRecords: number
  readonly concurrency: number
  readonly workMillis: number
  /** How often a transform fails, to be tried again. */
  readonly refusals: number
  /** How often a step of a transaction fails, half of those after it took effect. */
  readonly failures: number
  readonly acts: ReadonlyArray<{ readonly act: Act; readonly afterMillis: number; readonly at: number }>
}

const histories = fc.record<History>({
  records: fc.integer({ min: 100, max: 600 }),
  maxBatchRecords: fc.constantFrom(1, 7, 50),
  concurrency: fc.constantFrom(1, 8),
  workMillis: fc.constantFrom(0, 1, 3),
  refusals: fc.constantFrom(0, 0.02),
  failures: fc.constantFrom(0, 0.05),
  acts: fc.array(
    fc.record({
      act: fc.constantFrom<Act>("join", "join", "stop", "kill", "crash", "rebalance", "isolate", "fence"),
      afterMillis: fc.integer({ min: 0, max: 60 }),
      at: fc.nat({ max: 100 })
    }),
    { minLength: 4, maxLength: 8 }
  )
})

const partitions = 3

/** A record in so many: none for every fourth. */
const outputsOf = (value: string): ReadonlyArray<string> =>
  Array.from({ length: Number(value) % 4 }, (_, index) => `${value}.${index}`)

/** A client that is slow, whose transactions fail, or which never answers any more. */
const makeClient = (broker: InProcessKafka.Broker, { failures }: History) => {
  let isDead = false
  const clientId = `client ${Math.random()}`
  const own = broker.makeClient({ clientId })
  const unlessDead = Effect.suspend(() => (isDead ? Effect.never : Effect.void))
  const slowly = <A, E, R>(call: Effect.Effect<A, E, R>) =>
    Effect.suspend(() => {
      const pause = Math.random() < 0.4 ? Effect.sleep(Math.random() * 5) : Effect.void
      return Effect.andThen(pause, Effect.andThen(unlessDead, Effect.tap(call, unlessDead)))
    })
  const client = withTransactions(
    {
      ...own,
      committed: (groupId, places) => slowly(own.committed(groupId, places)),
      transactionalProducer: (options) => slowly(own.transactionalProducer(options))
    },
    (step, call) =>
      Effect.suspend(() => {
        const lost = Effect.fail(makeError(step, "RequestTimedOut", "as told", true))
        const chance = Math.random()
        if (chance < failures / 2) return slowly(Effect.andThen(call, lost))
        return slowly(chance < failures ? lost : call)
      })
  )
  const kill = () => {
    isDead = true
    for (const member of broker.members("group"))
      if (member.clientId === clientId) broker.kill(member.memberId)
  }
  return { client, kill }
}

const begin = (history: History) =>
  Effect.gen(function* () {
    const broker = yield* InProcessKafka.InProcessBroker
    const { client, kill } = makeClient(broker, history)
    const pipe: RunningPipe<string> = yield* startPipe(
      {
        from: "orders",
        to: "invoices",
        groupId: "group",
        sessionTimeout: 600,
        drainTimeout: 100,
        concurrency: history.concurrency,
        maxBatchRecords: history.maxBatchRecords,
        retry: Schedule.spaced(2),
        transform: ({ key, value }: KafkaRecord) =>
          Effect.suspend(() => {
            if (Math.random() < history.refusals) return Effect.fail("refused")
            const outputs = outputsOf(String(value)).map((output) => ({ key: key as Buffer, value: output }))
            return history.workMillis === 0
              ? Effect.succeed(outputs)
              : Effect.as(Effect.sleep(Math.random() * history.workMillis), outputs)
          })
      },
      client
    )
    return { ...pipe, kill }
  })

const play = (history: History) =>
  Effect.gen(function* () {
    const broker = yield* InProcessKafka.InProcessBroker
    const client = yield* KafkaClient
    const half = history.records >> 1
    yield* client.produce(records("orders", half, 20))
    const starting: Effect.Effect<
      RunningPipe<string> & { readonly kill: () => void },
      unknown,
      InProcessKafka.InProcessBroker | Scope.Scope
    > = begin(history)
    const running = [yield* starting]
    for (const { act, afterMillis, at } of history.acts) {
      yield* Effect.sleep(afterMillis)
      const members = broker.members("group")
      const memberId = members.length === 0 ? undefined : members[at % members.length].memberId
      if (act === "join" && running.length < 4) running.push(yield* starting)
      if (act === "stop" && running.length > 1) yield* running.splice(at % running.length, 1)[0].stop
      if (act === "kill" && running.length > 1) running.splice(at % running.length, 1)[0].kill()
      if (act === "rebalance") broker.rebalance("group")
      if (act === "crash" && memberId !== undefined) broker.crash(memberId, { rejoins: true })
      if (act === "fence")
        yield* Effect.scoped(
          client.transactionalProducer({
            transactionalId: `kafka/group/orders/${at % partitions}`,
            timeoutMillis: 1_000
          })
        )
      if (act === "isolate" && memberId !== undefined) {
        broker.isolate(memberId)
        yield* Effect.sleep(at * 10)
        broker.heal(memberId)
      }
    }
    broker.appendControl("orders", 0, 3)
    yield* client.produce(records("orders", history.records - half, 20, half))
    const expected = Array.from({ length: history.records }, (_, index) => outputsOf(String(index))).flat()
    const isOver = () =>
      valuesIn(broker, "invoices", partitions).length >= expected.length &&
      running.reduce((sum, { status }) => sum + status().partitions.length, 0) === partitions &&
      running.every((pipe) => isDone(pipe, pipe.status().partitions.length))
    for (let waited = 0; !isOver() && waited < 20_000; waited += 10) yield* Effect.sleep(10)
    const told = JSON.stringify(running.map(({ hasEnded, status }) => [hasEnded(), status()]))
    const values = valuesIn(broker, "invoices", partitions)
    expect([...values].sort(), told).toEqual(expected.sort())
    expect(isOver(), told).toBe(true)
    for (let partition = 0; partition < partitions; partition++) {
      const last = new Map<string, number>()
      for (const { key, value } of broker.records("invoices", partition)) {
        const [number, index] = String(value).split(".").map(Number)
        const place = number! * 4 + index!
        expect(place).toBeGreaterThan(last.get(String(key)) ?? -1)
        last.set(String(key), place)
      }
    }
  }).pipe(
    Effect.scoped,
    Effect.provide(layers({ topics: { orders: partitions, invoices: partitions }, maxRecordsPerBatch: 40 }))
  )

describe("KafkaPipe, whatever happens to its group and its transactions", () => {
  it("has each record take effect once, and in its order", async () => {
    await fc.assert(
      fc.asyncProperty(histories, (history) =>
        Effect.runPromise(Effect.provide(play(history), logLines().layer))
      ),
      // a history takes a second, and shrinking it would take hundreds
      { numRuns: Number(process.env.TIDEMARK_HISTORIES ?? 6), endOnFailure: true }
    )
  }, 600_000)
})
