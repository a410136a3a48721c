/** Consumers for tests: started, watched, stopped or killed, with a ledger of what their handlers did. */
import { it } from "@effect/vitest"
import { IdempotencyStore, type InvalidInput, Key, OffsetStore } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"
import { Cause, Effect, Exit, Fiber, Layer, Logger, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { expect } from "vitest"
import * as InProcessKafka from "../src/InProcessKafka.ts"
import { KafkaClient, type KafkaRecord, type ProducerRecord } from "../src/KafkaClient.ts"
import * as KafkaConsumer from "../src/KafkaConsumer.ts"

export type Services = KafkaClient | OffsetStore | IdempotencyStore

/** What a test has: a cluster in the process, stores in memory, and a Scope that ends all it has started. */
type TestEffect = Effect.Effect<void, unknown, Services | InProcessKafka.InProcessBroker | Scope.Scope>

type Test = (title: string, effect: () => TestEffect, options?: InProcessKafka.Options) => void

/** Tests on the live clock. */
export const liveTests =
  (common: InProcessKafka.Options, timeoutMillis?: number): Test =>
  (title, effect, options = {}) =>
    it.live(title, () => Effect.provide(effect(), layers({ ...common, ...options })), timeoutMillis)

/** Tests under the test clock. */
export const clockTests =
  (common: InProcessKafka.Options): Test =>
  (title, effect, options = {}) =>
    it.effect(title, () => Effect.provide(effect(), layers({ ...common, ...options })))

/** Lets other fibers run until `condition` holds, with the test clock standing still. */
export const settled = (what: string, condition: () => boolean): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (let turn = 0; turn < 10_000; turn++) {
      if (condition()) return
      yield* Effect.yieldNow
    }
    return yield* Effect.die(new Error(`still not so: ${what}`))
  })

/** Lets everything run that needs no time to pass. */
const quiet = Effect.forEach(Array.from({ length: 200 }), () => Effect.yieldNow, { discard: true })

/** Moves the test clock in steps, as time passes. */
export const pass = (seconds: number): Effect.Effect<void> =>
  Effect.forEach(Array.from({ length: seconds * 4 }), () => Effect.andThen(TestClock.adjust(250), quiet), {
    discard: true
  })

/** What is logged, in place of the console. */
export const logLines = (): {
  readonly lines: ReadonlyArray<string>
  readonly layer: Layer.Layer<never>
} => {
  const lines: Array<string> = []
  const layer = Logger.layer([
    Logger.make(({ cause, logLevel, message }) => {
      lines.push([logLevel, message, cause.reasons.length === 0 ? "" : Cause.pretty(cause)].flat().join(" "))
    })
  ])
  return { lines, layer }
}

/** Between 0 and `most`, anew each time. */
export const random = (most: number) => (): number => Math.random() * most

/** The stream of a partition of `orders` for the group `group`. */
export const streamOf = (partition: number): string =>
  Key.kafkaStream({ group: "group", topic: "orders", partition })

/** What took effect, told by the effects themselves. */
export class Ledger {
  /** Effects by record, as `topic/partition/offset`. */
  readonly byRecord = new Map<string, number>()
  /** Effects by the record's value. */
  readonly byValue = new Map<string, number>()
  /** The offsets that took effect, by topic, partition and key, in the order in which they did. */
  readonly byKey = new Map<string, Array<number>>()
  /** Records whose handlers have begun and not ended, by topic, partition and key. */
  readonly atWork = new Map<string, number>()
  /** Handlers of one key that were at work at once. */
  overlaps = 0
  count = 0

  begin(record: KafkaRecord): void {
    const lane = laneOf(record)
    const others = this.atWork.get(lane) ?? 0
    if (record.key !== undefined && others > 0) this.overlaps++
    this.atWork.set(lane, others + 1)
  }

  end(record: KafkaRecord): void {
    const lane = laneOf(record)
    this.atWork.set(lane, (this.atWork.get(lane) ?? 0) - 1)
  }

  note(record: KafkaRecord): void {
    const place = `${record.topic}/${record.partition}/${record.offset}`
    const value = String(record.value)
    this.count++
    this.byRecord.set(place, (this.byRecord.get(place) ?? 0) + 1)
    this.byValue.set(value, (this.byValue.get(value) ?? 0) + 1)
    const lane = laneOf(record)
    const offsets = this.byKey.get(lane)
    if (offsets === undefined) this.byKey.set(lane, [record.offset])
    else offsets.push(record.offset)
  }

  noteAll(records: ReadonlyArray<KafkaRecord>): void {
    for (const record of records) this.note(record)
  }

  get twice(): ReadonlyArray<string> {
    return [...this.byRecord].filter(([, count]) => count > 1).map(([place]) => place)
  }

  /** Keys whose records took effect in another order than that of their offsets. */
  get disordered(): ReadonlyArray<string> {
    return [...this.byKey]
      .filter(
        ([lane, offsets]) =>
          lane !== "" && offsets.some((offset, index) => index > 0 && offset < offsets[index - 1])
      )
      .map(([lane]) => lane)
  }
}

const laneOf = ({ key, partition, topic }: KafkaRecord): string =>
  key === undefined ? "" : `${topic}/${partition}/${String(key)}`

/** A handler that works for a while and then takes effect, at once and whole. */
export const work =
  (ledger: Ledger, millis: () => number, isDead: () => boolean = () => false) =>
  (record: KafkaRecord): Effect.Effect<void> =>
    Effect.suspend(() => {
      ledger.begin(record)
      const pause = millis()
      const act = Effect.suspend(() => {
        if (isDead()) return Effect.never
        ledger.note(record)
        return Effect.void
      })
      return Effect.ensuring(
        pause === 0 ? act : Effect.andThen(Effect.sleep(pause), act),
        Effect.sync(() => ledger.end(record))
      )
    })

export interface Running<E> {
  readonly handle: KafkaConsumer.ConsumerHandle
  readonly status: () => KafkaConsumer.ConsumerStatus
  /** Ends when the consumer does. */
  readonly exit: Effect.Effect<Exit.Exit<never, E | KafkaConsumer.ConsumerFailure>>
  readonly stop: Effect.Effect<void>
}

/** Quick enough for tests, on the live clock. */
export const quick = {
  topics: ["orders"] as ReadonlyArray<string>,
  groupId: "group",
  sessionTimeout: 1_000,
  commitInterval: 20,
  drainTimeout: 400
} as const

/** For the test clock. */
export const unhurried = {
  topics: ["orders"],
  groupId: "group",
  sessionTimeout: "10 seconds",
  drainTimeout: "2 seconds"
} as const

/** Starts a consumer on a client of its own; it is stopped with the Scope. */
export const start = Effect.fnUntraced(function* <E>(
  options: KafkaConsumer.ConsumerOptions<E, never> | KafkaConsumer.BatchOptions<E, never>,
  client?: KafkaClient["Service"]
): Effect.fn.Return<Running<E>, InvalidInput, Services | InProcessKafka.InProcessBroker | Scope.Scope> {
  return yield* begin(yield* KafkaConsumer.make(options), client)
})

/** The same for a consumer that was made elsewhere. */
export const begin = Effect.fnUntraced(function* <E>(
  consumer: KafkaConsumer.KafkaConsumer<E, never>,
  client?: KafkaClient["Service"]
): Effect.fn.Return<Running<E>, never, Services | InProcessKafka.InProcessBroker | Scope.Scope> {
  const broker = yield* InProcessKafka.InProcessBroker
  const own = client ?? broker.makeClient()
  const fiber = yield* Effect.forkScoped(Effect.provideService(consumer.run, KafkaClient, own))
  return {
    handle: consumer,
    status: () => Effect.runSync(consumer.status),
    exit: Fiber.await(fiber),
    stop: Effect.asVoid(Fiber.interrupt(fiber))
  }
})

/** Stores that can be cut off: their calls never end then, and no lease is renewed any more. */
export const mortal = Effect.gen(function* () {
  const offsets = yield* OffsetStore
  const keys = yield* IdempotencyStore
  let dead = false
  const cut: Array<() => void> = []
  const gate =
    <Args extends ReadonlyArray<unknown>, A, E>(call: (...args: Args) => Effect.Effect<A, E>) =>
    (...args: Args): Effect.Effect<A, E> =>
      Effect.suspend(() =>
        dead
          ? Effect.never
          : Effect.flatMap(call(...args), (value) => (dead ? Effect.never : Effect.succeed(value)))
      )
  const gatedKeeper = <Ref>(leases: typeof offsets.leases | typeof keys.leases) => {
    const keeper = leases as unknown as { hold: (lease: Ref) => void; drop: (lease: Ref) => void }
    return {
      drop: (lease: Ref) => keeper.drop(lease),
      hold: (lease: Ref) => {
        if (dead) return
        keeper.hold(lease)
        cut.push(() => keeper.drop(lease))
      }
    }
  }
  return {
    isDead: () => dead,
    kill: () => {
      dead = true
      for (const drop of cut) drop()
    },
    offsets: {
      ...offsets,
      claim: gate(offsets.claim),
      complete: gate(offsets.complete),
      release: gate(offsets.release),
      annotate: gate(offsets.annotate),
      progress: gate(offsets.progress),
      leases: gatedKeeper(offsets.leases) as typeof offsets.leases
    },
    keys: {
      ...keys,
      claim: gate(keys.claim),
      complete: gate(keys.complete),
      release: gate(keys.release),
      leases: gatedKeeper(keys.leases) as typeof keys.leases
    }
  }
})

/** What it has failed with. */
export const failureOf = (exit: Exit.Exit<unknown, unknown>): unknown =>
  Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isFailReason)?.error : undefined

/** Whether it owns this many partitions, and waits for none. */
export const owns = ({ status }: Running<unknown>, count: number): boolean => {
  const { partitions } = status()
  return partitions.length === count && partitions.every(({ phase }) => phase === "owned")
}

/** Whether everything that these partitions hold is completed. */
export const isDone = (consumer: Running<unknown>, count: number): boolean =>
  owns(consumer, count) &&
  consumer
    .status()
    .partitions.every(({ lag, unfinished }) => unfinished === 0 && (lag === 0 || lag === undefined))

/** Numbered records: `key` by number, the number as value. */
export const records = (topic: string, count: number, keys = 50, from = 0): ReadonlyArray<ProducerRecord> =>
  Array.from({ length: count }, (_, index) => ({
    topic,
    key: `key ${(from + index) % keys}`,
    value: `${from + index}`
  }))

export const commits = (groupId: string, topic: string, partitions: number) =>
  Effect.gen(function* () {
    const client = yield* KafkaClient
    return yield* client.committed(
      groupId,
      Array.from({ length: partitions }, (_, partition) => ({ topic, partition }))
    )
  })

/** Each record of these topics took effect, and once. */
export const expectOnce = (ledger: Ledger, count: number): void => {
  expect(ledger.twice).toEqual([])
  expect(ledger.byRecord.size).toBe(count)
}

export const layers = (options?: InProcessKafka.Options) =>
  Layer.mergeAll(InProcessKafka.layer(options), MemoryStore.layer())
