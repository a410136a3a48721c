import { describe, expect, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Layer, Option, Schedule, Tracer } from "effect"
import { InProcessBroker } from "../src/InProcessKafka.ts"
import { makeError } from "../src/internal/inProcessState.ts"
import { KafkaClient, type KafkaRecord } from "../src/KafkaClient.ts"
import * as KafkaPipe from "../src/KafkaPipe.ts"
import * as TraceContext from "../src/TraceContext.ts"
import { clockTests, commits, logLines, pass, records, settled } from "./consumerHarness.ts"
import { copy, isDone, owns, startPipe, unhurried, valuesIn, withTransactions } from "./pipeHarness.ts"

const test = clockTests({ topics: { orders: 1, invoices: 1, refused: 1 } })

const numbers = (count: number, from = 0): Array<string> =>
  Array.from({ length: count }, (_, index) => String(from + index))

/** Gives an error for the values that it is told, as often as it is told. */
const failing = (value: string, times: number) => {
  let failures = 0
  return (record: KafkaRecord) =>
    Effect.suspend(() =>
      String(record.value) === value && failures++ < times
        ? Effect.fail(`no ${value}`)
        : Effect.succeed(copy(record))
    )
}

describe("KafkaPipe", () => {
  test("gives none, one or many records to several topics, in order, and commits with them", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.produce(records("orders", 6))
      const pipe = yield* startPipe({
        ...unhurried,
        to: ["invoices", "refused"],
        maxBatchRecords: 4,
        transform: ({ value }) =>
          Effect.succeed(
            [
              [],
              [{ topic: "invoices" }],
              [{ topic: "refused" }, { topic: "invoices" }, { topic: "invoices" }]
            ][Number(String(value)) % 3]!.map((output, index) => ({ ...output, value: `${value}.${index}` }))
          )
      })
      yield* settled("done", () => isDone(pipe, 1))
      expect(valuesIn(broker, "invoices")).toEqual(["1.0", "2.1", "2.2", "4.0", "5.1", "5.2"])
      expect(valuesIn(broker, "refused")).toEqual(["2.0", "5.0"])
      expect(yield* commits("group", "orders", 1)).toMatchObject([{ offset: 6 }])
      expect(pipe.status()).toEqual({
        counters: {
          received: 6,
          processed: 6,
          produced: 8,
          transactions: 2,
          abandoned: 0,
          fenced: 0,
          redelivered: 0,
          rebalances: 1,
          lostToRetention: 0
        },
        partitions: [
          { topic: "orders", partition: 0, phase: "owned", position: 6, committed: 6, paused: false, lag: 0 }
        ]
      })
    }))

  test("goes on where the group has committed", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.produce(records("orders", 10))
      const transform = (record: KafkaRecord) => Effect.succeed(copy(record))
      const first = yield* startPipe({ ...unhurried, transform })
      yield* settled("done", () => isDone(first, 1))
      yield* first.stop
      yield* client.produce(records("orders", 10, 50, 10))
      const second = yield* startPipe({ ...unhurried, transform })
      yield* settled("done again", () => isDone(second, 1))
      expect(valuesIn(broker, "invoices")).toEqual(numbers(20))
    }))

  test("stops with the error of a transform; what came before it is done, and the record comes again", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.produce(records("orders", 10))
      const transform = failing("7", 1)
      const pipe = yield* startPipe({ ...unhurried, transform })
      expect(Exit.findErrorOption(yield* pipe.exit)).toEqual(Option.some("no 7"))
      expect(valuesIn(broker, "invoices")).toEqual(numbers(7))
      expect(yield* commits("group", "orders", 1)).toMatchObject([{ offset: 7 }])
      const next = yield* startPipe({ ...unhurried, transform })
      yield* settled("done", () => isDone(next, 1))
      expect(valuesIn(broker, "invoices")).toEqual(numbers(10))
    }))

  test("tries again as it is told, the records behind waiting", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.produce(records("orders", 5))
      const retry = Schedule.upTo(Schedule.spaced("1 second"), { times: 2 })
      const pipe = yield* startPipe({ ...unhurried, retry, transform: failing("2", 2) })
      yield* settled("at work", () => pipe.status().counters.received === 5)
      yield* pass(1)
      expect(valuesIn(broker, "invoices")).toEqual([])
      yield* pass(2)
      yield* settled("done", () => isDone(pipe, 1))
      expect(valuesIn(broker, "invoices")).toEqual(numbers(5))
    }))

  test("keeps the order of what transforms give that run beside each other", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.produce(records("orders", 30))
      let running = 0
      let most = 0
      const pipe = yield* startPipe({
        ...unhurried,
        concurrency: 8,
        transform: (record) =>
          Effect.suspend(() => {
            most = Math.max(most, ++running)
            return Effect.sleep(1_000 - 30 * Number(String(record.value)))
          }).pipe(
            Effect.map(() => copy(record)),
            Effect.ensuring(Effect.sync(() => running--))
          )
      })
      yield* settled("at work", () => running === 8)
      yield* pass(8)
      yield* settled("done", () => isDone(pipe, 1))
      expect(most).toBe(8)
      expect(valuesIn(broker, "invoices")).toEqual(numbers(30))
    }))

  test("of a record that fails beside others, what is before it counts, and nothing behind it", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.produce(records("orders", 10))
      const pipe = yield* startPipe({
        ...unhurried,
        concurrency: 10,
        transform: (record) =>
          String(record.value) === "4"
            ? Effect.andThen(Effect.sleep(1_000), Effect.fail("no 4"))
            : Effect.succeed(copy(record))
      })
      yield* settled("at work", () => pipe.status().counters.received === 10)
      yield* pass(2)
      expect(Exit.findErrorOption(yield* pipe.exit)).toEqual(Option.some("no 4"))
      expect(valuesIn(broker, "invoices")).toEqual(numbers(4))
    }))

  test("refuses a record for a topic that it was not told of", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.produce(records("orders", 1))
      const to = (topic?: string) => ({
        ...unhurried,
        to: ["invoices", "refused"],
        transform: () => Effect.succeed([topic === undefined ? { value: "1" } : { topic, value: "1" }])
      })
      for (const [topic, shown] of [
        ["orders", '"orders"'],
        [undefined, "missing"]
      ] as const) {
        const pipe = yield* startPipe(to(topic))
        expect(Exit.findErrorOption(yield* pipe.exit)).toMatchObject(
          Option.some({
            _tag: "InvalidInput",
            value: shown,
            allowed: "one of those in to: invoices, refused"
          })
        )
      }
      expect(yield* commits("group", "orders", 1)).toMatchObject([{ offset: undefined }])
    }))

  test("stops where a transform interrupts itself, and says what that means", () => {
    const log = logLines()
    return Effect.gen(function* () {
      const client = yield* KafkaClient
      yield* client.produce(records("orders", 1))
      const pipe = yield* startPipe({ ...unhurried, transform: () => Effect.interrupt })
      const exit = yield* pipe.exit
      expect(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)).toBe(true)
      expect(log.lines.join("\n")).toContain("transform interrupted itself")
    }).pipe(Effect.provide(log.layer))
  })

  test("transforms the next batch while a transaction is being committed, and commits them in order", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.produce(records("orders", 30))
      const mayCommit = yield* Deferred.make<void>()
      const slow = withTransactions(broker.makeClient(), (step, call) =>
        step === "commit" ? Effect.andThen(Deferred.await(mayCommit), call) : call
      )
      let transformed = 0
      const pipe = yield* startPipe(
        {
          ...unhurried,
          maxBatchRecords: 10,
          transform: (record) =>
            Effect.sync(() => {
              transformed++
              return copy(record)
            })
        },
        slow
      )
      yield* settled("the second batch is transformed", () => transformed === 20)
      yield* pass(5)
      expect(transformed).toBe(20)
      expect(valuesIn(broker, "invoices")).toEqual([])
      yield* Deferred.succeed(mayCommit, undefined)
      yield* settled("done", () => isDone(pipe, 1))
      expect(valuesIn(broker, "invoices")).toEqual(numbers(30))
    }))

  test(
    "holds back what it can't take yet, and goes on",
    () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const broker = yield* InProcessBroker
        yield* client.produce(records("orders", 200))
        const mayGo = yield* Deferred.make<void>()
        const pipe = yield* startPipe({
          ...unhurried,
          maxBatchRecords: 10,
          transform: (record) => Effect.as(Deferred.await(mayGo), copy(record))
        })
        yield* settled("paused", () => pipe.status().partitions[0]?.paused === true)
        yield* pass(5)
        // a batch at work, two that wait, and what the last fetch brought
        expect(pipe.status().counters.received).toBeLessThanOrEqual(50)
        yield* Deferred.succeed(mayGo, undefined)
        yield* settled("done", () => isDone(pipe, 1))
        expect(valuesIn(broker, "invoices")).toEqual(numbers(200))
      }),
    { maxRecordsPerBatch: 20 }
  )

  test("commits a position that has passed no records, after a moment", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      const pipe = yield* startPipe({ ...unhurried, transform: (record) => Effect.succeed(copy(record)) })
      yield* settled("owned", () => owns(pipe, 1))
      broker.appendControl("orders", 0, 3)
      yield* settled("received", () => pipe.status().partitions[0]?.position === 3)
      expect(yield* commits("group", "orders", 1)).toMatchObject([{ offset: undefined }])
      yield* pass(2)
      expect(yield* commits("group", "orders", 1)).toMatchObject([{ offset: 3 }])
      expect(pipe.status().partitions[0]?.lag).toBe(0)
      // and then not again
      const before = pipe.status().counters.transactions
      yield* pass(5)
      expect(pipe.status().counters.transactions).toBe(before)
    }))

  test("begins where it is told, and at the beginning of partitions that come later", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.produce(records("orders", 10))
      const pipe = yield* startPipe({
        ...unhurried,
        start: "latest",
        transform: (record) => Effect.succeed(copy(record))
      })
      yield* settled("owned", () => owns(pipe, 1))
      yield* pass(2)
      expect(yield* commits("group", "orders", 1)).toMatchObject([{ offset: 10 }])
      broker.createTopic("orders", 2)
      yield* client.produce([{ topic: "orders", partition: 1, value: "new" }])
      yield* client.produce([{ topic: "orders", partition: 0, value: "next" }])
      yield* settled("done", () => isDone(pipe, 2) && pipe.status().counters.processed === 2)
      expect([...valuesIn(broker, "invoices")].sort()).toEqual(["new", "next"])
    }))

  test("counts what retention took, and goes on behind it", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      const at = { topic: "orders", partition: 0 }
      yield* client.produce(records("orders", 10))
      broker.setCommitted("group", at, 2)
      broker.deleteRecords("orders", 0, 5)
      const pipe = yield* startPipe({ ...unhurried, transform: (record) => Effect.succeed(copy(record)) })
      yield* settled("done", () => isDone(pipe, 1))
      expect(valuesIn(broker, "invoices")).toEqual(numbers(5, 5))
      expect(pipe.status().counters.lostToRetention).toBe(3)
    }))

  test("stops where the log ends before what was committed", () =>
    Effect.gen(function* () {
      const broker = yield* InProcessBroker
      broker.setCommitted("group", { topic: "orders", partition: 0 }, 12)
      const pipe = yield* startPipe({ ...unhurried, transform: (record) => Effect.succeed(copy(record)) })
      expect(Exit.findErrorOption(yield* pipe.exit)).toMatchObject(
        Option.some({ _tag: "LogWentBack", highest: 12, end: 0 })
      )
    }))

  test("stops at once where a topic does not exist", () =>
    Effect.gen(function* () {
      for (const missing of [{ from: "nothing" }, { to: "nothing" }]) {
        const transform = (record: KafkaRecord) => Effect.succeed(copy(record))
        const pipe = yield* startPipe({ ...unhurried, ...missing, transform })
        expect(Exit.findErrorOption(yield* pipe.exit)).toMatchObject(Option.some({ reason: "UnknownTopic" }))
      }
    }))

  test(
    "stops where the brokers refuse what is produced, and nothing of the batch is seen",
    () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const broker = yield* InProcessBroker
        yield* client.produce(records("orders", 5))
        const pipe = yield* startPipe({
          ...unhurried,
          transform: ({ value }) =>
            Effect.succeed([
              { value: "small" },
              { value: String(value) === "3" ? "x".repeat(2_000) : "small" }
            ])
        })
        expect(Exit.findErrorOption(yield* pipe.exit)).toMatchObject(
          Option.some({ reason: "RecordTooLarge" })
        )
        expect(valuesIn(broker, "invoices")).toEqual([])
        expect(yield* commits("group", "orders", 1)).toMatchObject([{ offset: undefined }])
      }),
    { maxRecordBytes: 1_000 }
  )

  test("lets what is at work end when it stops, and commits it", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.produce(records("orders", 5))
      const pipe = yield* startPipe({
        ...unhurried,
        transform: (record) => Effect.as(Effect.sleep("1 second"), copy(record))
      })
      yield* settled("at work", () => pipe.status().counters.received === 5)
      yield* pass(1.5)
      yield* Effect.forkScoped(pipe.stop)
      yield* pass(1)
      yield* settled("ended", pipe.hasEnded)
      expect(valuesIn(broker, "invoices")).toEqual(numbers(2))
      expect(yield* commits("group", "orders", 1)).toMatchObject([{ offset: 2 }])
    }))

  test("waits no longer for a transform that can't be interrupted, and leaves its group", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.produce(records("orders", 5))
      const log = logLines()
      const pipe = yield* Effect.provide(
        startPipe({ ...unhurried, transform: () => Effect.uninterruptible(Effect.never) }),
        log.layer
      )
      yield* settled("at work", () => pipe.status().counters.received === 5)
      yield* Effect.forkScoped(pipe.stop)
      yield* pass(4)
      yield* settled("ended", pipe.hasEnded)
      expect(broker.members("group")).toEqual([])
      expect(log.lines.join("\n")).toContain("can't be interrupted")
    }))

  test("interrupts what outlasts the drain timeout", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.produce(records("orders", 5))
      let interrupted = false
      const pipe = yield* startPipe({
        ...unhurried,
        transform: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => (interrupted = true)))
      })
      yield* settled("at work", () => pipe.status().counters.received === 5)
      yield* Effect.forkScoped(pipe.stop)
      yield* pass(1)
      expect(interrupted).toBe(false)
      yield* pass(2)
      yield* settled("ended", pipe.hasEnded)
      expect(interrupted).toBe(true)
      expect(valuesIn(broker, "invoices")).toEqual([])
      expect(broker.members("group")).toEqual([])
    }))
})

describe("KafkaPipe, when its transactions fail", () => {
  test("does nothing twice where the answer to a commit was lost", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      yield* client.produce(records("orders", 30))
      let commitsSent = 0
      const unsteady = withTransactions(broker.makeClient(), (step, call) => {
        const lost = Effect.fail(makeError("commit", "RequestTimedOut", "as told", true))
        if (step !== "commit") return call
        return Effect.suspend(() => (++commitsSent === 2 ? Effect.andThen(call, lost) : call))
      })
      const pipe = yield* startPipe(
        { ...unhurried, maxBatchRecords: 10, transform: (record) => Effect.succeed(copy(record)) },
        unsteady
      )
      yield* settled("two were sent", () => commitsSent === 2)
      yield* pass(1)
      yield* settled("done", () => isDone(pipe, 1))
      expect(valuesIn(broker, "invoices")).toEqual(numbers(30))
      expect(pipe.status().counters).toMatchObject({ abandoned: 1, fenced: 0 })
    }))

  for (const failing of ["begin", "send", "sendOffsets", "commit"] as const)
    test(`does again what had no effect, where ${failing} fails`, () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const broker = yield* InProcessBroker
        yield* client.produce(records("orders", 10))
        let failures = 0
        const unsteady = withTransactions(broker.makeClient(), (step, call) =>
          Effect.suspend(() =>
            step === failing && failures++ < 3
              ? Effect.fail(makeError(step, "Unreachable", "as told", true))
              : call
          )
        )
        const pipe = yield* startPipe(
          { ...unhurried, transform: (record) => Effect.succeed(copy(record)) },
          unsteady
        )
        yield* settled("the first failure", () => failures > 0)
        yield* pass(5)
        yield* settled("done", () => isDone(pipe, 1))
        expect(valuesIn(broker, "invoices")).toEqual(numbers(10))
        expect(pipe.status().counters).toMatchObject({ abandoned: 3, transactions: 1 })
      }))

  test("takes a partition again that another producer has fenced, once the group says that it is ours", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      const pipe = yield* startPipe({ ...unhurried, transform: (record) => Effect.succeed(copy(record)) })
      yield* settled("owned", () => owns(pipe, 1))
      yield* client.transactionalProducer({
        transactionalId: "kafka/group/orders/0",
        timeoutMillis: 1_000
      })
      yield* client.produce(records("orders", 10))
      yield* settled("fenced", () => pipe.status().counters.fenced === 1)
      expect(valuesIn(broker, "invoices")).toEqual([])
      yield* pass(3)
      yield* settled("done", () => isDone(pipe, 1))
      expect(valuesIn(broker, "invoices")).toEqual(numbers(10))
    }))

  test("a zombie's transaction has no effect, and it goes on as a member", () =>
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const broker = yield* InProcessBroker
      const mayCommit = yield* Deferred.make<void>()
      yield* client.produce(records("orders", 10))
      const slow = withTransactions(broker.makeClient({ clientId: "zombie" }), (step, call) =>
        step === "commit" ? Effect.andThen(Deferred.await(mayCommit), call) : call
      )
      const options = { ...unhurried, transform: (record: KafkaRecord) => Effect.succeed(copy(record)) }
      const zombie = yield* startPipe(options, slow)
      yield* settled("it has sent", () => zombie.status().counters.received === 10)
      const [{ memberId }] = broker.members("group")
      broker.isolate(memberId)
      const heir = yield* startPipe(options)
      yield* pass(12)
      yield* settled("the heir has done all", () => isDone(heir, 1))
      expect(zombie.status().counters.transactions).toBe(0)
      yield* Deferred.succeed(mayCommit, undefined)
      yield* settled("it was fenced", () => zombie.status().counters.fenced === 1)
      broker.heal(memberId)
      yield* pass(5)
      expect(zombie.hasEnded()).toBe(false)
      expect(broker.members("group").length).toBe(2)
      yield* heir.stop
      yield* client.produce(records("orders", 10, 50, 10))
      yield* pass(5)
      yield* settled("it has done the rest", () => isDone(zombie, 1))
      expect(valuesIn(broker, "invoices")).toEqual(numbers(20))
    }))

  test(
    "a partition that is taken away is free for its next owner at once",
    () =>
      Effect.gen(function* () {
        const client = yield* KafkaClient
        const broker = yield* InProcessBroker
        yield* client.produce(numbers(20).map((value) => ({ topic: "orders", partition: 1, value })))
        const first = yield* startPipe({ ...unhurried, transform: () => Effect.never })
        yield* settled("at work", () => first.status().counters.received === 20)
        const second = yield* startPipe({
          ...unhurried,
          transform: (record) => Effect.succeed(copy(record))
        })
        // no time passes, and the first owner's transform is at work
        yield* settled("the second has done all", () => isDone(second, 1))
        expect(valuesIn(broker, "invoices")).toEqual(numbers(20))
        yield* pass(3)
        expect(valuesIn(broker, "invoices")).toEqual(numbers(20))
        expect(first.hasEnded()).toBe(false)
      }),
    { topics: { orders: 2, invoices: 1 } }
  )
})

describe("KafkaPipe, traces", () => {
  const sender = { traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331" }
  const headers = {
    ...TraceContext.format({ ...sender, sampled: true, state: [["vendor", "opaque"]] })
  }

  const through = Effect.gen(function* () {
    const client = yield* KafkaClient
    const broker = yield* InProcessBroker
    yield* client.produce([
      { topic: "orders", value: "one", headers: { ...headers, other: "stays here" } },
      { topic: "orders", value: "two" }
    ])
    const own = "00-11111111111111111111111111111111-2222222222222222-00"
    const pipe = yield* startPipe({
      ...unhurried,
      transform: ({ value }) =>
        Effect.succeed([
          { value: `${value} as it comes`, headers: { mine: "goes along" } },
          { value: `${value} with its own`, headers: { traceparent: own } }
        ])
    })
    yield* settled("done", () => isDone(pipe, 1))
    return broker
      .records("invoices", 0)
      .map(({ headers }) =>
        Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]))
      )
  })

  test("pass on what came, where no tracer is installed", () =>
    Effect.gen(function* () {
      const [one, ownOne, two] = yield* through
      expect(one).toEqual({ ...headers, mine: "goes along" })
      expect(ownOne?.traceparent).toMatch(/^00-1+-2+-00$/)
      expect(two).toEqual({ mine: "goes along" })
    }))

  test("go on from the transform's span, where one is", () =>
    Effect.gen(function* () {
      const spans: Array<Tracer.Span> = []
      const span = (options: ConstructorParameters<typeof Tracer.NativeSpan>[0]) => {
        const made = new Tracer.NativeSpan(options)
        spans.push(made)
        return made
      }
      const [one, ownOne, two] = yield* Effect.provide(
        through,
        Layer.succeed(Tracer.Tracer, Tracer.make({ span }))
      )
      const [first, second] = spans.filter(({ name }) => name === "process orders")
      expect(first).toMatchObject({ traceId: sender.traceId, kind: "consumer" })
      expect(one).toEqual({
        traceparent: `00-${sender.traceId}-${first?.spanId}-01`,
        tracestate: "vendor=opaque",
        mine: "goes along"
      })
      expect(ownOne?.traceparent).toMatch(/^00-1+-2+-00$/)
      expect(two?.traceparent).toBe(`00-${second?.traceId}-${second?.spanId}-01`)
      expect(two?.tracestate).toBeUndefined()
    }))
})

describe("KafkaPipe, options", () => {
  const given = { ...unhurried, transform: (record: KafkaRecord) => Effect.succeed(copy(record)) }
  it.effect.each([
    [{ from: [] }, "from", "[]"],
    [{ from: "a b" }, "from", '"a b"'],
    [{ to: ["x", "x"] }, "to", '["x", "x"]'],
    [{ to: ["invoices", "orders"] }, "to", '"orders"'],
    [{ groupId: "" }, "groupId", '""'],
    [{ concurrency: 0 }, "concurrency", "0"],
    [{ maxBatchRecords: 1.5 }, "maxBatchRecords", "1.5"],
    [{ maxBatchBytes: -1 }, "maxBatchBytes", "-1"],
    [{ start: "middle" }, "start", '"middle"'],
    [{ sessionTimeout: 0.5 }, "sessionTimeout", "0.5"],
    [{ transactionTimeout: 0 }, "transactionTimeout", "0"],
    [{ transform: "text" }, "transform", '"text"'],
    [{ batch: 5 }, "option of KafkaPipe", '"batch"']
  ])("%j is refused", ([option, field, value]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(KafkaPipe.make({ ...given, ...(option as object) } as typeof given))
      expect(error).toMatchObject({ _tag: "InvalidInput", field, value })
    })
  )
})
