/** Pipes for tests, and clients whose transactions fail or hang as a test says. */
import type { InvalidInput } from "@tidemark/core"
import { Effect, type Exit, Fiber, type Scope } from "effect"
import * as InProcessKafka from "../src/InProcessKafka.ts"
import { KafkaClient, type KafkaRecord, type TransactionalProducer } from "../src/KafkaClient.ts"
import type { KafkaError } from "../src/KafkaErrors.ts"
import * as KafkaPipe from "../src/KafkaPipe.ts"

export interface RunningPipe<E> {
  readonly status: () => KafkaPipe.PipeStatus
  /** Ends when the pipe does. */
  readonly exit: Effect.Effect<Exit.Exit<never, E | KafkaPipe.PipeFailure>>
  readonly hasEnded: () => boolean
  readonly stop: Effect.Effect<void>
}

/** What most tests have: from `orders` to `invoices`. */
export const unhurried = {
  from: "orders",
  to: "invoices",
  groupId: "group",
  sessionTimeout: "10 seconds",
  drainTimeout: "2 seconds"
} as const

/** Starts a pipe on a client of its own; it is stopped with the Scope. */
export const startPipe = Effect.fnUntraced(function* <E>(
  options: KafkaPipe.PipeOptions<E, never>,
  client?: KafkaClient["Service"]
): Effect.fn.Return<RunningPipe<E>, InvalidInput, InProcessKafka.InProcessBroker | Scope.Scope> {
  const broker = yield* InProcessKafka.InProcessBroker
  const pipe = yield* KafkaPipe.make(options)
  const own = client ?? broker.makeClient()
  const fiber = yield* Effect.forkScoped(Effect.provideService(pipe.run, KafkaClient, own))
  return {
    status: () => Effect.runSync(pipe.status),
    exit: Fiber.await(fiber),
    hasEnded: () => fiber.pollUnsafe() !== undefined,
    stop: Effect.asVoid(Fiber.interrupt(fiber))
  }
})

/** One record for each, with its value. */
export const copy = ({ key, value }: KafkaRecord): ReadonlyArray<KafkaPipe.OutputRecord> => [
  { ...(key === undefined ? {} : { key }), value: value ?? null }
]

/** Whether it owns this many partitions, and waits for none. */
export const owns = ({ status }: RunningPipe<unknown>, count: number): boolean => {
  const { partitions } = status()
  return partitions.length === count && partitions.every(({ phase }) => phase === "owned")
}

/** Whether all that its partitions hold has taken effect. */
export const isDone = (pipe: RunningPipe<unknown>, count: number): boolean =>
  owns(pipe, count) && pipe.status().partitions.every(({ lag }) => lag === 0)

/** The values that a `read_committed` reader of the topic sees, partition by partition. */
export const valuesIn = (
  broker: InProcessKafka.Broker,
  topic: string,
  partitions = 1
): ReadonlyArray<string> =>
  Array.from({ length: partitions }, (_, partition) => broker.records(topic, partition))
    .flat()
    .map(({ value }) => String(value))

export type Step = "begin" | "send" | "sendOffsets" | "commit" | "abort"

/** A client whose transactions go through `around`: to fail, to wait, to be counted. */
export const withTransactions = (
  client: KafkaClient["Service"],
  around: (step: Step, call: Effect.Effect<void, KafkaError>) => Effect.Effect<void, KafkaError>
): KafkaClient["Service"] => ({
  ...client,
  transactionalProducer: (options) =>
    Effect.map(
      client.transactionalProducer(options),
      (producer): TransactionalProducer => ({
        begin: around("begin", producer.begin),
        send: (records) => around("send", producer.send(records)),
        sendOffsets: (groupId, commits) => around("sendOffsets", producer.sendOffsets(groupId, commits)),
        commit: around("commit", producer.commit),
        abort: around("abort", producer.abort)
      })
    )
})
