/**
 * One process of a pipe, as its test starts, stops and kills it. Prints how it stands, a line of JSON each time; and
 * stops or kills itself in the middle of a transaction, where it is told to.
 */
import { KafkaClient, KafkaPipe, type TransactionalProducer } from "@tidemark/kafka"
import { Effect, Layer, Schedule } from "effect"
import { kafkaLayer } from "../../src/driver.ts"

export interface Orders {
  readonly brokers: ReadonlyArray<string>
  readonly from: string
  readonly to: string
  readonly groupId: string
  /** At which of its commits something befalls it. */
  readonly atCommit?: number
  /** Before the commit is sent, or when the brokers may have got it and the answer is not there yet. */
  readonly when?: "before" | "during"
  readonly signal?: "SIGSTOP" | "SIGKILL"
}

const orders = JSON.parse(process.argv[2] as string) as Orders

const befall = (): void => {
  console.log(JSON.stringify({ befallen: true }))
  process.kill(process.pid, orders.signal)
}

let commits = 0
const withFate = (producer: TransactionalProducer): TransactionalProducer => ({
  ...producer,
  commit: Effect.suspend(() => {
    if (++commits !== orders.atCommit) return producer.commit
    if (orders.when === "during") setImmediate(befall)
    else befall()
    return producer.commit
  })
})

const client = Layer.effect(
  KafkaClient,
  Effect.map(KafkaClient, (real) => ({
    ...real,
    transactionalProducer: (options) => Effect.map(real.transactionalProducer(options), withFate)
  }))
).pipe(Layer.provide(kafkaLayer({ brokers: orders.brokers, logLevel: "nothing" })))

const program = Effect.gen(function* () {
  const pipe = yield* KafkaPipe.make({
    from: orders.from,
    to: orders.to,
    groupId: orders.groupId,
    sessionTimeout: 6_000,
    drainTimeout: 1_000,
    maxBatchRecords: 100,
    retry: Schedule.spaced(5),
    // as many records as the number's remainder says; now and then it fails, and is tried again
    transform: ({ key, value }) =>
      Effect.suspend(() =>
        Math.random() < 0.005
          ? Effect.fail("refused")
          : Effect.succeed(
              Array.from({ length: Number(String(value)) % 3 }, (_, index) => ({
                key: key as Buffer,
                value: `${value}.${index}`
              }))
            )
      )
  })
  const tell = Effect.map(pipe.status, ({ counters, partitions }) =>
    console.log(JSON.stringify({ counters, partitions: partitions.length }))
  )
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(tell, Effect.sleep(100))))
  yield* Effect.ensuring(pipe.run, tell)
})

const fiber = Effect.runFork(Effect.scoped(Effect.provide(program, client)))
process.once("SIGTERM", () => fiber.interruptUnsafe())
