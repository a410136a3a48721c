/** Consumers of plain kafkajs on a real broker, with the two lines changed. */
import type { IdempotencyStore, OffsetStore } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { type Context, Effect, Fiber, Layer, Scope } from "effect"
import kafkajs, { type Consumer } from "kafkajs"
import { afterEach, expect, it, vi } from "vitest"
import { type Guard, type GuardOptions, guard } from "../src/guard.ts"
import * as KafkaConsumer from "../src/KafkaConsumer.ts"
import * as KafkaJs from "../src/KafkaJs.ts"
import { plainKafka } from "./brokerSuite.ts"
import { range, uniqueName } from "./kafkaClientSuite.ts"

await describeWithKafka("the guard on Kafka", ({ brokers }) => {
  const closing: Array<() => Promise<unknown>> = []
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close()
  })

  const setUp = async (partitions: number) => {
    const context = await Effect.runPromise(Layer.buildWithScope(MemoryStore.layer(), Scope.makeUnsafe()))
    const store: GuardOptions["store"] = Layer.succeedContext(
      context as Context.Context<OffsetStore | IdempotencyStore>
    )
    const topic = uniqueName("orders")
    const groupId = uniqueName("billing")
    const admin = plainKafka(brokers).admin()
    await admin.connect()
    closing.push(() => admin.disconnect())
    await admin.createTopics({ topics: [{ topic, numPartitions: partitions }], waitForLeaders: false })
    await vi.waitFor(() => admin.fetchTopicOffsets(topic), { timeout: 10_000 })
    const producer = plainKafka(brokers).producer({
      createPartitioner: kafkajs.Partitioners.DefaultPartitioner
    })
    await producer.connect()
    closing.push(() => producer.disconnect())
    const produce = (values: ReadonlyArray<number>) =>
      producer.send({
        topic,
        messages: values.map((value) => ({ partition: value % partitions, value: String(value) }))
      })
    return { admin, context, groupId, produce, store, topic }
  }

  const consumerOf = async (groupId: string, topic: string): Promise<Consumer> => {
    const consumer = plainKafka(brokers).consumer({
      groupId,
      sessionTimeout: 6_000,
      rebalanceTimeout: 6_000,
      heartbeatInterval: 200,
      maxWaitTimeInMs: 100
    })
    closing.push(() => consumer.disconnect())
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    return consumer
  }

  const effects = () => {
    const times = new Map<string, number>()
    return {
      times,
      note: (value: Buffer | null) => {
        const name = String(value)
        times.set(name, (times.get(name) ?? 0) + 1)
      },
      twice: () => [...times].filter(([, count]) => count > 1).map(([name]) => name)
    }
  }

  it("what rebalances deliver again takes effect once, with eachMessage and with eachBatch", async () => {
    const { groupId, produce, store, topic } = await setUp(4)
    const total = 400
    const { note, times, twice } = effects()
    const guards: Array<Guard> = []
    const run = async (kind: "eachMessage" | "eachBatch") => {
      const guarded = await guard({ store, groupId })
      closing.push(guarded.close)
      guards.push(guarded)
      const consumer = await consumerOf(groupId, topic)
      await consumer.run({
        autoCommit: false,
        ...(kind === "eachMessage"
          ? {
              eachMessage: guarded.eachMessage(async ({ message }) => {
                await new Promise(setImmediate)
                note(message.value)
              })
            }
          : {
              eachBatch: guarded.eachBatch(async ({ batch, heartbeat, resolveOffset }) => {
                for (const message of batch.messages) {
                  await new Promise(setImmediate)
                  note(message.value)
                  resolveOffset(message.offset)
                  await heartbeat()
                }
              })
            })
      })
      return consumer
    }
    const again = () => guards.reduce((count, { counts }) => count + counts().duplicatesByPosition, 0)
    await produce(range(0, total / 2))
    await run("eachMessage")
    await vi.waitUntil(() => times.size >= total / 4, { timeout: 20_000 })
    // each join makes all fetch again from the last commit, and there is none
    const second = await run("eachBatch")
    await vi.waitUntil(() => again() > 0 && times.size >= total / 2, { timeout: 20_000 })
    await produce(range(total / 2, total))
    const third = await run("eachMessage")
    await second.stop()
    await third.stop()
    await vi.waitUntil(() => times.size === total, { timeout: 20_000 })
    expect(twice()).toEqual([])
  }, 60_000)

  it("KafkaConsumer goes on where a guard was, and repeats nothing", async () => {
    const { context, groupId, produce, store, topic } = await setUp(1)
    const { note, times, twice } = effects()
    await produce(range(0, 50))
    const guarded = await guard({ store, groupId })
    closing.push(guarded.close)
    const consumer = await consumerOf(groupId, topic)
    await consumer.run({
      autoCommit: false,
      eachMessage: guarded.eachMessage(async ({ message }) => note(message.value))
    })
    await vi.waitUntil(() => times.size === 50, { timeout: 20_000 })
    await consumer.disconnect()
    await produce(range(50, 60))
    await goOn(context, groupId, topic, note, () => times.size === 60)
    expect(twice()).toEqual([])
  }, 60_000)

  it("a guard that took over from KafkaConsumer commits less than it did: KafkaConsumer repeats nothing", async () => {
    const { context, groupId, produce, store, topic } = await setUp(1)
    const { note, times, twice } = effects()
    await produce(range(0, 50))
    await goOn(context, groupId, topic, note, () => times.size === 50)
    await produce(range(50, 60))
    const guarded = await guard({ store, groupId })
    closing.push(guarded.close)
    const consumer = await consumerOf(groupId, topic)
    await consumer.run({
      autoCommit: false,
      eachMessage: guarded.eachMessage(async ({ message }) => note(message.value))
    })
    await vi.waitUntil(() => times.size === 60, { timeout: 20_000 })
    await consumer.commitOffsets([{ topic, partition: 0, offset: "52" }])
    await consumer.disconnect()
    await produce(range(60, 70))
    await goOn(context, groupId, topic, note, () => times.size === 70)
    expect(twice()).toEqual([])
  }, 60_000)

  it.each([
    ["that committed less than it did", 20],
    ["that committed all it did", 50]
  ])(
    "a shadow watched a consumer %s: what follows it repeats nothing",
    async (_, committed) => {
      const { admin, context, groupId, produce, store, topic } = await setUp(1)
      const { note, times, twice } = effects()
      await produce(range(0, 50))
      const shadow = await guard({ store, groupId, shadow: true })
      closing.push(shadow.close)
      const consumer = await consumerOf(groupId, topic)
      await consumer.run({
        autoCommit: false,
        eachMessage: shadow.eachMessage(async ({ message }) => note(message.value))
      })
      const [at] = await vi.waitUntil(
        async () => {
          const { partitions } = await shadow.report()
          return partitions[0]?.watermark === 50 && partitions
        },
        { timeout: 20_000 }
      )
      expect(at?.gaps).toBe(0)
      expect(shadow.counts()).toMatchObject({
        seen: 50,
        processed: 50,
        duplicatesByPosition: 0,
        undecided: 0
      })
      await consumer.commitOffsets([{ topic, partition: 0, offset: String(committed) }])
      await consumer.disconnect()
      await produce(range(50, 60))
      await goOn(context, groupId, topic, note, () => times.size === 60)
      expect(twice()).toEqual([])
      // its commits are ours from now on
      const [offsets] = await admin.fetchOffsets({ groupId, topics: [topic] })
      expect(offsets?.partitions[0]).toMatchObject({ offset: "60" })
      expect(offsets?.partitions[0]?.metadata).toMatch(/^tidemark:/)
    },
    60_000
  )

  /** Runs `KafkaConsumer` in the same group, on the same store, until that is so. */
  const goOn = async (
    context: Context.Context<OffsetStore | IdempotencyStore>,
    groupId: string,
    topic: string,
    note: (value: Buffer | null) => void,
    isDone: () => boolean
  ): Promise<void> => {
    const program = Effect.gen(function* () {
      const running = yield* Effect.forkChild(
        KafkaConsumer.run({
          topics: [topic],
          groupId,
          sessionTimeout: 6_000,
          commitInterval: 50,
          handler: (record) => Effect.sync(() => note(record.value ?? null))
        })
      )
      yield* Effect.promise(() => vi.waitUntil(isDone, { timeout: 20_000 }))
      yield* Fiber.interrupt(running)
    })
    await Effect.runPromise(
      program.pipe(Effect.provide(KafkaJs.layer({ brokers })), Effect.provideContext(context), Effect.scoped)
    )
  }
})
