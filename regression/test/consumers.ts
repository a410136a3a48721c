/** Consumers whose effects are counted where tidemark can't see it, on a real broker or in process. */
import { createConnection, type Socket } from "node:net"
import { describe, it } from "@effect/vitest"
import { type IdempotencyStore, OffsetStore } from "@tidemark/core"
import {
  InProcessKafka,
  KafkaClient,
  KafkaConsumer,
  type KafkaError,
  KafkaJs,
  type KafkaRecord
} from "@tidemark/kafka"
import { MemoryStore } from "@tidemark/store-memory"
import { uniqueName } from "@tidemark/test-servers"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Effect, type Exit, Fiber, Layer, Scope } from "effect"
import { expect } from "vitest"

/** One cluster, and ways to be its client. */
export interface Cluster {
  readonly topic: string
  readonly groupId: string
  /** A client of its own, as another process would have, which can be killed without a word. */
  readonly connect: Effect.Effect<
    { readonly client: KafkaClient["Service"]; readonly cut: () => void },
    KafkaError,
    Scope.Scope
  >
}

type Body = (
  cluster: Cluster
) => Effect.Effect<void, unknown, KafkaClient | OffsetStore | IdempotencyStore | Scope.Scope>

const partitions = 4

/** Runs a promise's test on both kinds of cluster. */
export const onEveryCluster = async (
  promise: string,
  body: Body,
  options?: { readonly seconds?: number }
) => {
  const seconds = options?.seconds ?? 90
  describe(`${promise}: in process`, () => {
    const layer = InProcessKafka.layer({ topics: { orders: partitions }, maxRecordsPerBatch: 50 })
    it.live(
      promise,
      () =>
        Effect.gen(function* () {
          const broker = yield* InProcessKafka.InProcessBroker
          let count = 0
          const connect = Effect.sync(() => {
            const clientId = `client ${++count}`
            const isMine = (member: InProcessKafka.MemberDescription) => member.clientId === clientId
            const cut = () => {
              for (const { memberId } of broker.members("group").filter(isMine)) broker.kill(memberId)
            }
            return { client: broker.makeClient({ clientId }), cut }
          })
          yield* body({ topic: "orders", groupId: "group", connect })
        }).pipe(Effect.provide(Layer.mergeAll(layer, MemoryStore.layer()))),
      seconds * 1_000
    )
  })
  await describeWithKafka(`${promise}: on Kafka`, ({ brokers }) => {
    it.live(
      promise,
      () =>
        Effect.gen(function* () {
          const client = yield* KafkaClient
          const topic = uniqueName("orders")
          yield* client.createTopics([{ topic, partitions }])
          yield* body({ topic, groupId: uniqueName("group"), connect: connectTo(brokers) })
        }).pipe(Effect.provide(Layer.mergeAll(KafkaJs.layer({ brokers }), MemoryStore.layer()))),
      seconds * 1_000
    )
  })
}

const connectTo = (brokers: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const sockets = new Set<Socket>()
    let isCut = false
    const layer = KafkaJs.layer({
      brokers,
      logLevel: "nothing",
      socketFactory: ({ host, onConnect, port }) => {
        const socket = createConnection({ host, port }, onConnect)
        socket.setMaxListeners(0)
        sockets.add(socket)
        socket.once("close", () => sockets.delete(socket))
        if (isCut) setImmediate(() => socket.destroy(new Error("cut off")))
        return socket
      }
    })
    const context = yield* Layer.buildWithScope(layer, yield* Scope.Scope)
    const cut = () => {
      isCut = true
      for (const socket of sockets) socket.destroy(new Error("cut off"))
    }
    return { client: yield* Effect.provideContext(KafkaClient, context), cut }
  })

/** What took effect. */
export class Ledger {
  readonly times = new Map<string, number>()
  /** The values of each key, in the order in which they took effect for the first time. */
  readonly byKey = new Map<string, Array<number>>()
  count = 0

  note({ key, value }: KafkaRecord): void {
    const name = String(value)
    const times = this.times.get(name) ?? 0
    this.times.set(name, times + 1)
    this.count++
    if (times > 0) return
    const lane = String(key)
    const values = this.byKey.get(lane)
    if (values === undefined) this.byKey.set(lane, [Number(name)])
    else values.push(Number(name))
  }

  get twice(): ReadonlyArray<string> {
    return [...this.times].filter(([, times]) => times > 1).map(([name]) => name)
  }

  expectInOrder(): void {
    for (const values of this.byKey.values())
      expect(values).toEqual(values.toSorted((one, other) => one - other))
  }
}

export interface Running {
  readonly status: () => KafkaConsumer.ConsumerStatus
  readonly stop: Effect.Effect<void>
  readonly exit: Effect.Effect<Exit.Exit<never, unknown>>
}

/** Starts a consumer on a client of its own. */
export const start = Effect.fnUntraced(function* <E>(
  { connect, groupId, topic }: Cluster,
  options: Omit<KafkaConsumer.ConsumerOptions<E, never>, "topics" | "groupId">,
  given?: KafkaClient["Service"]
) {
  const client = given ?? (yield* connect).client
  const consumer = yield* KafkaConsumer.make({
    topics: [topic],
    groupId,
    sessionTimeout: 6_000,
    commitInterval: 100,
    drainTimeout: 1_000,
    concurrency: 32,
    ...options
  })
  const fiber = yield* Effect.forkScoped(Effect.provideService(consumer.run, KafkaClient, client))
  const running: Running = {
    status: () => Effect.runSync(consumer.status),
    stop: Effect.asVoid(Fiber.interrupt(fiber)),
    exit: Fiber.await(fiber)
  }
  return running
})

/** A store that can be cut off: then no call ends, and no lease is renewed, as if the process were gone. */
export const mortalStore = Effect.gen(function* () {
  const store = yield* OffsetStore
  let isDead = false
  const drops: Array<() => void> = []
  const gated =
    <Args extends ReadonlyArray<unknown>, A, E>(call: (...args: Args) => Effect.Effect<A, E>) =>
    (...args: Args) =>
      Effect.suspend(() => (isDead ? Effect.never : call(...args)))
  const leases: typeof store.leases = {
    drop: (lease) => store.leases.drop(lease),
    hold: (lease) => {
      if (isDead) return
      store.leases.hold(lease)
      drops.push(() => store.leases.drop(lease))
    }
  }
  return {
    isDead: () => isDead,
    kill: () => {
      isDead = true
      for (const drop of drops) drop()
    },
    service: {
      ...store,
      leases,
      claim: gated(store.claim),
      complete: gated(store.complete),
      release: gated(store.release),
      progress: gated(store.progress)
    }
  }
})

/** All that comes in another topic, read by a group of its own. */
export const collect = Effect.fnUntraced(function* (cluster: Cluster, topic: string) {
  const records: Array<KafkaRecord> = []
  const reader = { ...cluster, topic, groupId: uniqueName("reader") }
  yield* start(reader, { handler: (record) => Effect.sync(() => void records.push(record)) })
  return records
})

/** Numbered messages, in order within their keys. */
export const messages = (topic: string, count: number, from = 0) =>
  Array.from({ length: count }, (_, index) => ({
    topic,
    key: `key ${(from + index) % 100}`,
    value: `${from + index}`
  }))

/** Waits until `condition` holds; dies after a minute with what it waited for, and how things stood. */
export const until = (what: string, condition: () => boolean, tell?: () => unknown): Effect.Effect<void> =>
  Effect.suspend(() => {
    const giveUpAt = Date.now() + 60_000
    const poll: Effect.Effect<void> = Effect.suspend(() => {
      if (condition()) return Effect.void
      if (Date.now() > giveUpAt)
        return Effect.die(new Error(`waited a minute for: ${what}; ${JSON.stringify(tell?.())}`))
      return Effect.andThen(Effect.sleep(10), poll)
    })
    return poll
  })

/** Whether these own all partitions between them. */
export const isShared = (consumers: ReadonlyArray<Running>): boolean => {
  const all = consumers.flatMap(({ status }) => status().partitions)
  return all.length === partitions && all.every(({ phase }) => phase === "owned")
}

/** Whether everything in these consumers' partitions is completed. */
export const isDone = (consumers: ReadonlyArray<Running>): boolean =>
  isShared(consumers) &&
  consumers
    .flatMap(({ status }) => status().partitions)
    .every(({ lag, unfinished }) => unfinished === 0 && (lag ?? 0) === 0)

/** The group's commits, by partition. */
export const commitsOf = ({ groupId, topic }: Cluster) =>
  Effect.flatMap(KafkaClient, (client) =>
    client.committed(
      groupId,
      Array.from({ length: partitions }, (_, partition) => ({ topic, partition }))
    )
  )

/** Where the logs end, by partition. */
export const endsOf = ({ topic }: Cluster) =>
  Effect.map(
    Effect.flatMap(KafkaClient, (client) =>
      client.logBounds(Array.from({ length: partitions }, (_, partition) => ({ topic, partition })))
    ),
    (bounds) => bounds.map(({ high }) => high)
  )
