/** One topic and one group on a real broker, with positions in a SQLite file, and what operators do to all three. */
import { copyFileSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { IdempotencyStore, Key, OffsetStore, type Protocol } from "@tidemark/core"
import { KafkaClient, KafkaConsumer, type KafkaRecord, type ProducerRecord } from "@tidemark/kafka"
import { SqliteStore } from "@tidemark/store-sqlite"
import { uniqueName } from "@tidemark/test-servers"
import { Cause, Context, Effect, Exit, Fiber, Layer, type Scope } from "effect"
import kafkajs, { type Admin, type Kafka } from "kafkajs"
import { kafkaLayer } from "../src/driver.ts"
import { until } from "./consumers.ts"

type Options = Omit<Partial<KafkaConsumer.ConsumerOptions<never, never>>, "retry">

/** What a consumer has done from its start to its end. */
interface Life {
  /** The offsets that its handler was given, ascending, as `partition/offset` where there are several partitions. */
  readonly ran: ReadonlyArray<string>
  readonly counters: KafkaConsumer.Counters
  /** What it has failed with. */
  readonly failure: unknown
}

export interface Place {
  readonly topic: string
  readonly groupId: string
  readonly kafka: Kafka
  readonly admin: Admin
  readonly client: KafkaClient["Service"]
  /** Runs a consumer until all that the log holds is completed, and `also` holds; or until it fails. */
  readonly run: (options?: Options, also?: (running: Running) => boolean) => Effect.Effect<Life>
  /** Runs one for as long as the Scope is open. */
  readonly start: (options?: Options) => Effect.Effect<Running, unknown, Scope.Scope>
  readonly produce: (count: number, more?: Partial<ProducerRecord>) => Effect.Effect<void, unknown>
  readonly createTopic: (
    partitions?: number,
    config?: Readonly<Record<string, string>>
  ) => Effect.Effect<void, unknown>
  readonly commit: Effect.Effect<
    { readonly offset: number | undefined; readonly metadata: string | undefined },
    unknown
  >
  /** Whether the group has a commit for the topic, whether that exists or not. */
  readonly hasCommit: Effect.Effect<boolean>
  /** An operator's tool. */
  readonly reset: (offset: number) => Effect.Effect<void>
  readonly deleteTopic: Effect.Effect<void>
  /** Retention. */
  readonly deleteBelow: (offset: number) => Effect.Effect<void>
  /** The store, as an operator reaches it; nobody else has it open. */
  readonly withStore: <A>(
    act: (store: OffsetStore["Service"], stream: string) => Effect.Effect<A, unknown>
  ) => Effect.Effect<A, unknown>
  readonly progress: Effect.Effect<Protocol.Progress | undefined, unknown>
  /** Puts the file aside; gives what puts it back. */
  readonly backUp: () => () => void
  readonly wipeStore: () => void
}

interface Running {
  readonly status: () => KafkaConsumer.ConsumerStatus
  readonly ran: () => ReadonlyArray<string>
  readonly end: Effect.Effect<Life>
}

/** The promise of kafkajs's admin, whose failure is a defect of the test. */
export const ask = <A>(promise: () => Promise<A>): Effect.Effect<A> => Effect.promise(promise)

const failureOf = (exit: Exit.Exit<unknown, unknown>): unknown =>
  Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isFailReason)?.error : undefined

/** The offsets from one to another, as `ran` has them. */
export const span = (from: number, to: number): ReadonlyArray<string> =>
  Array.from({ length: to - from }, (_, index) => `${from + index}`)

const byPlace = (one: string, other: string): number => {
  const [left, right] = [one, other].map((text) => text.split("/").map(Number))
  return (left[0] ?? 0) - (right[0] ?? 0) || (left[1] ?? 0) - (right[1] ?? 0)
}

const temporaryFolder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "tidemark-positions-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

/** A new topic with one partition, which `body` may replace; positions in a file of their own. */
export const atPlace = (
  brokers: ReadonlyArray<string>,
  driver: string,
  body: (place: Place) => Effect.Effect<void, unknown, Scope.Scope>
): Effect.Effect<void, unknown> =>
  Effect.scoped(
    Effect.gen(function* () {
      const [topic, groupId] = [uniqueName("orders"), uniqueName("group")]
      const filename = join(yield* temporaryFolder, "positions.db")
      const services = yield* Layer.build(
        kafkaLayer({ brokers: [...brokers], logLevel: "nothing", metadataMaxAgeMillis: 500 }, driver)
      )
      const client = Context.get(services, KafkaClient)
      const kafka = new kafkajs.Kafka({ brokers: [...brokers], logLevel: kafkajs.logLevel.NOTHING })
      const admin = yield* Effect.acquireRelease(
        Effect.sync(() => kafka.admin()),
        (made) => Effect.ignore(Effect.tryPromise(() => made.disconnect()))
      )
      yield* ask(() => admin.connect())

      const start = Effect.fnUntraced(function* (options: Options = {}) {
        const store = yield* Layer.build(SqliteStore.layer({ filename, synchronous: "normal" }))
        const ran: Array<string> = []
        const { handler } = options
        const consumer = yield* KafkaConsumer.make({
          topics: [topic],
          groupId,
          sessionTimeout: 6_000,
          commitInterval: 50,
          drainTimeout: 1_000,
          ...options,
          handler: (record: KafkaRecord, claim) => {
            const several = partitions > 1 ? `${record.partition}/` : ""
            ran.push(`${several}${record.offset}`)
            return handler?.(record, claim) ?? Effect.void
          }
        })
        const fiber = yield* Effect.forkScoped(
          consumer.run.pipe(
            Effect.provideService(KafkaClient, client),
            Effect.provideService(OffsetStore, Context.get(store, OffsetStore)),
            Effect.provideService(IdempotencyStore, Context.get(store, IdempotencyStore))
          )
        )
        const status = () => Effect.runSync(consumer.status)
        const sorted = () => ran.toSorted(byPlace)
        const running: Running = {
          status,
          ran: sorted,
          end: Effect.gen(function* () {
            yield* Fiber.interrupt(fiber)
            const failure = failureOf(yield* Fiber.await(fiber))
            return { ran: sorted(), counters: status().counters, failure }
          })
        }
        return { ...running, hasEnded: () => fiber.pollUnsafe() !== undefined }
      })

      let partitions = 1
      const place: Place = {
        topic,
        groupId,
        kafka,
        admin,
        client,
        start,
        run: (options, also = () => true) =>
          Effect.orDie(
            Effect.scoped(
              Effect.gen(function* () {
                const bounds = yield* client.logBounds(
                  Array.from({ length: partitions }, (_, partition) => ({ topic, partition }))
                )
                const running = yield* start(options)
                const isThere = () => {
                  const { partitions } = running.status()
                  return bounds.every(({ high, partition }) =>
                    partitions.some((one) => one.partition === partition && one.watermark === high)
                  )
                }
                yield* until(
                  "done or ended",
                  () => running.hasEnded() || (isThere() && also(running)),
                  running.status
                )
                return yield* running.end
              })
            )
          ),
        createTopic: (count = 1, config = {}) => {
          partitions = count
          return client.createTopics([{ topic, partitions, config }])
        },
        produce: (count, more = {}) =>
          client.produce(
            Array.from({ length: count }, (_, index) => ({ topic, key: `key ${index}`, value: "v", ...more }))
          ),
        commit: Effect.map(client.committed(groupId, [{ topic, partition: 0 }]), ([commit]) => commit),
        hasCommit: Effect.map(
          ask(() => admin.fetchOffsets({ groupId })),
          (topics) =>
            topics.some((one) => one.topic === topic && one.partitions.some(({ offset }) => offset !== "-1"))
        ),
        reset: (offset) =>
          ask(() =>
            admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: String(offset) }] })
          ),
        deleteTopic: ask(() => admin.deleteTopics({ topics: [topic] })),
        deleteBelow: (offset) =>
          ask(async () => {
            // kafkajs wants to know the topic before
            await admin.fetchTopicOffsets(topic)
            await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: String(offset) }] })
          }),
        withStore: (act) =>
          Effect.scoped(
            Effect.flatMap(Layer.build(SqliteStore.layer({ filename })), (store) =>
              act(Context.get(store, OffsetStore), Key.kafkaStream({ group: groupId, topic, partition: 0 }))
            )
          ),
        progress: Effect.suspend(() => place.withStore((store, stream) => store.progress(stream))),
        backUp: () => {
          copyFileSync(filename, `${filename}.old`)
          return () => copyFileSync(`${filename}.old`, filename)
        },
        wipeStore: () => rmSync(filename)
      }
      yield* place.createTopic()
      yield* body(place)
    })
  )
