import { expect } from "@effect/vitest"
import { Effect, Layer, Option, Tracer } from "effect"
import { InProcessBroker } from "../src/InProcessKafka.ts"
import { KafkaClient } from "../src/KafkaClient.ts"
import * as TraceContext from "../src/TraceContext.ts"
import { clockTests, settled, start, unhurried } from "./consumerHarness.ts"

const test = clockTests({ topics: { orders: 1 } })

const sender = { traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331" }

/** Consumes a record that was sent within a span, and one that was not; gives the spans that handlers ran in. */
const consume = Effect.gen(function* () {
  const client = yield* KafkaClient
  const headers = { ...TraceContext.format({ ...sender, sampled: true, state: [] }) }
  yield* client.produce([
    { topic: "orders", value: "in a span", headers },
    { topic: "orders", value: "in none" }
  ])
  const seen: Array<Option.Option<Tracer.AnySpan>> = []
  yield* start({
    ...unhurried,
    handler: () => Effect.map(Effect.serviceOption(Tracer.ParentSpan), (span) => void seen.push(span))
  })
  yield* settled("both are handled", () => seen.length === 2)
  return seen
})

const tracer = Layer.succeed(
  Tracer.Tracer,
  Tracer.make({ span: (options) => new Tracer.NativeSpan(options) })
)

test("a handler's span is a child of the sender's, where a tracer is installed", () =>
  Effect.gen(function* () {
    const [first, second] = (yield* Effect.provide(consume, tracer)).map(
      Option.getOrThrow
    ) as Array<Tracer.Span>
    expect(first).toMatchObject({ name: "process orders", kind: "consumer", traceId: sender.traceId })
    expect(Option.getOrThrow(first!.parent)).toMatchObject({ ...sender, sampled: true })
    expect(Object.fromEntries(first!.attributes)).toEqual({
      "messaging.system": "kafka",
      "messaging.operation.type": "process",
      "messaging.destination.name": "orders",
      "messaging.destination.partition.id": "0",
      "messaging.kafka.offset": 0,
      "messaging.consumer.group.name": "group"
    })
    expect(second!.parent).toEqual(Option.none())
    expect(second!.traceId).not.toBe(sender.traceId)
  }))

test("the span of a record that was set aside says so, and the record keeps its sender's trace", () =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const broker = yield* InProcessBroker
    const headers = { ...TraceContext.format({ ...sender, sampled: true, state: [] }) }
    yield* client.produce([{ topic: "orders", value: "bad", headers }])
    const spans: Array<Tracer.Span> = []
    const noting = Tracer.make({
      span: (options) => {
        const span = new Tracer.NativeSpan(options)
        spans.push(span)
        return span
      }
    })
    yield* Effect.gen(function* () {
      const consumer = yield* start({
        ...unhurried,
        whenPoison: "dead-letter",
        handler: () => Effect.fail({ _tag: "Refused" })
      })
      yield* settled("set aside", () => consumer.status().counters.deadLettered === 1)
    }).pipe(Effect.provideService(Tracer.Tracer, noting))
    const span = spans.find(({ name }) => name === "process orders")
    expect(Object.fromEntries(span?.attributes ?? [])).toMatchObject({
      "error.type": "Refused",
      "tidemark.set_aside": "dead-lettered"
    })
    const [letter] = broker.records("orders.dead-letter", 0)
    expect(TraceContext.fromHeaders(letter.headers)).toMatchObject(sender)
  }))

test("a batch's span is linked to the senders' spans", () =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    const headers = { ...TraceContext.format({ ...sender, sampled: true, state: [] }) }
    const value = "in a span"
    yield* client.produce([
      { topic: "orders", value, headers },
      { topic: "orders", value: "in none" }
    ])
    const seen: Array<Tracer.AnySpan> = []
    const handleBatch = () => Effect.map(Effect.orDie(Effect.currentSpan), (span) => void seen.push(span))
    yield* start({ ...unhurried, order: "partition", handleBatch })
    yield* settled("both are handled", () => seen.length === 1)
    const [span] = seen as Array<Tracer.Span>
    expect(span!.links).toMatchObject([{ span: sender }])
    expect(span!.attributes.get("messaging.batch.message_count")).toBe(2)
    expect(span!.parent).toEqual(Option.none())
  }).pipe(Effect.provide(tracer)))

test("without a tracer there are no spans", () =>
  Effect.gen(function* () {
    expect(yield* consume).toEqual([Option.none(), Option.none()])
  }))
