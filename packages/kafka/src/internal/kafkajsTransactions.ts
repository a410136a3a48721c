/**
 * One transactional producer on kafkajs 2.2.4. What this file follows was read in its source:
 *
 * - `producer.transaction()` asks the brokers for the producer's epoch the first time, which fences the older one, and
 *   nothing afterwards; nothing is sent for a transaction without records and offsets.
 * - After `commit` or `abort` has failed, no call helps a producer back into a state from which it can go on.
 * - When it sends again what was not acknowledged, it chooses the partitions again, also where a part of them was
 *   written: so here a message keeps the partition that was chosen first.
 */
import { Effect, Schedule, type Scope } from "effect"
import kafkajs, { type ICustomPartitioner, type Producer, type Transaction } from "kafkajs"
import type {
  OffsetCommit,
  ProducerRecord,
  TransactionalProducer,
  TransactionOptions
} from "../KafkaClient.ts"
import type { KafkaError } from "../KafkaErrors.ts"
import { type Connection, call } from "./kafkajsConnection.ts"
import { makeProducerWithCluster, rememberCoordinators } from "./kafkajsCoordinators.ts"
import { orUnsent, sendAll } from "./kafkajsProducer.ts"
import { validateTransactionOptions, wrongOffset } from "./memberOptions.ts"
import type { PartitionCheck } from "./produceRequests.ts"
import { withRetry } from "./retrying.ts"
import { type InOrder, makeInOrder, makeInTurn } from "./transactionOrder.ts"

/** How long a producer may take to abort and to say goodbye, before its connections are cut. */
const closeTimeoutMillis = 5_000

/** The transaction before this one is still being ended: kafkajs does not wait for that where offsets come first. */
const whilePending = {
  schedule: Schedule.exponential(1).pipe(Schedule.upTo({ times: 12 })),
  while: (error: KafkaError) => error.reason === "TransactionPending"
}

const stablePartitioner: ICustomPartitioner = () => {
  const choose = kafkajs.Partitioners.DefaultPartitioner()
  return (args) => {
    args.message.partition ??= choose(args)
    return args.message.partition
  }
}

const toOffsets = (consumerGroupId: string, commits: ReadonlyArray<OffsetCommit>) => ({
  consumerGroupId,
  topics: [...new Set(commits.map(({ topic }) => topic))].map((topic) => ({
    topic,
    partitions: commits
      .filter((commit) => commit.topic === topic)
      .map(({ partition, offset, metadata }) => ({ partition, offset: String(offset), metadata }))
  }))
})

class Transactions {
  readonly #connection: Connection
  readonly #partitionCheck: PartitionCheck
  readonly #producer: Producer
  readonly #destroySockets: () => void
  readonly #rememberCoordinators: () => void
  readonly #inOrder: InOrder
  readonly #inTurn = makeInTurn()
  /** The one that came with the epoch, until it is begun. */
  #spare: Transaction | undefined
  #open: Transaction | undefined

  constructor(connection: Connection, partitionCheck: PartitionCheck, options: TransactionOptions) {
    this.#connection = connection
    this.#partitionCheck = partitionCheck
    this.#inOrder = makeInOrder(connection.brokers)
    const { kafka, destroySockets } = connection.makeProducerKafka()
    this.#destroySockets = destroySockets
    const { cluster, producer } = makeProducerWithCluster(kafka, () =>
      kafka.producer({
        transactionalId: options.transactionalId,
        transactionTimeout: options.timeoutMillis,
        allowAutoTopicCreation: connection.allowAutoTopicCreation,
        metadataMaxAge: connection.metadataMaxAgeMillis,
        createPartitioner: stablePartitioner
      })
    )
    this.#producer = producer
    this.#rememberCoordinators = () => {
      if (cluster !== undefined) rememberCoordinators(cluster)
    }
  }

  #call<A>(operation: string, act: () => Promise<A>): Effect.Effect<A, KafkaError> {
    return call(() => this.#inTurn(act), { operation, brokers: this.#connection.brokers })
  }

  init(): Effect.Effect<void, KafkaError> {
    const operation = "initTransactions"
    const connect = this.#call(operation, () => this.#producer.connect())
    const fence = this.#call(operation, async () => {
      this.#spare = await this.#producer.transaction()
    })
    return Effect.andThen(
      withRetry(this.#connection, Effect.andThen(connect, fence)),
      Effect.sync(this.#rememberCoordinators)
    )
  }

  /** Aborts what is open, once what is under way has ended, and disconnects. */
  close(): Effect.Effect<void> {
    const goodbye = Effect.promise(() =>
      this.#inTurn(async () => {
        if (this.#open?.isActive()) await this.#open.abort().catch(() => {})
        await this.#producer.disconnect().catch(() => {})
      })
    )
    return Effect.timeoutOrElse(goodbye, {
      duration: closeTimeoutMillis,
      orElse: () => Effect.sync(this.#destroySockets)
    })
  }

  begin(): Effect.Effect<void, KafkaError> {
    const begin = this.#call("begin", async () => {
      this.#open = this.#spare ?? (await this.#producer.transaction())
      this.#spare = undefined
    })
    return this.#inOrder("begin", { before: false, after: true }, begin)
  }

  send(records: ReadonlyArray<ProducerRecord>): Effect.Effect<void, KafkaError> {
    const send = Effect.andThen(
      this.#partitionCheck.check(records),
      Effect.flatMap(
        sendAll(this.#connection, this.#partitionCheck, records, (batch) =>
          this.#inTurn(async () => (await this.#open?.sendBatch(batch)) ?? [])
        ),
        (unsent) => orUnsent(this.#connection, unsent)
      )
    )
    return this.#inOrder("produce", { before: true, after: true }, send)
  }

  sendOffsets(groupId: string, commits: ReadonlyArray<OffsetCommit>): Effect.Effect<void, KafkaError> {
    const operation = "sendOffsets"
    const wrong = wrongOffset(operation, this.#connection.brokers, commits)
    if (wrong !== undefined) return Effect.fail(wrong)
    const send = this.#call(operation, async () => this.#open?.sendOffsets(toOffsets(groupId, commits)))
    return this.#inOrder(operation, { before: true, after: true }, Effect.retry(send, whilePending))
  }

  end(how: "commit" | "abort"): Effect.Effect<void, KafkaError> {
    const end = this.#call(how, async () => {
      await this.#open?.[how]()
      this.#open = undefined
    })
    return this.#inOrder(how, { before: true, after: false }, end)
  }
}

/** A transactional producer, which has fenced those before it. */
export const makeTransactionalProducer = Effect.fnUntraced(function* (
  connection: Connection,
  partitionCheck: PartitionCheck,
  options: TransactionOptions
): Effect.fn.Return<TransactionalProducer, KafkaError, Scope.Scope> {
  const invalid = validateTransactionOptions(connection.brokers, options)
  if (invalid !== undefined) return yield* invalid
  const transactions = yield* Effect.acquireRelease(
    Effect.sync(() => new Transactions(connection, partitionCheck, options)),
    (made) => made.close()
  )
  yield* transactions.init()
  return {
    begin: transactions.begin(),
    send: (records) => transactions.send(records),
    sendOffsets: (groupId, commits) => transactions.sendOffsets(groupId, commits),
    commit: transactions.end("commit"),
    abort: transactions.end("abort")
  }
})
