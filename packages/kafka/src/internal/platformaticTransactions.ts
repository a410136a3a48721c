/**
 * One transactional producer on @platformatic/kafka, by the protocol's requests: the library's own transactions send no
 * metadata with offsets, and ask for an id that another producer has held in a way that brokers refuse.
 */
import { Base, type Broker, type MessageRecord, NumericMap, type produceV11 } from "@platformatic/kafka"
import { Effect, type Scope } from "effect"
import type {
  OffsetCommit,
  ProducerRecord,
  TransactionalProducer,
  TransactionOptions
} from "../KafkaClient.ts"
import type { KafkaError } from "../KafkaErrors.ts"
import { validateTransactionOptions, wrongOffset } from "./memberOptions.ts"
import {
  ask,
  type Connecting,
  type Coordinated,
  connect,
  findCoordinator,
  metadataOf,
  toOffsets
} from "./platformaticCluster.ts"
import { toKafkaError } from "./platformaticErrors.ts"
import { makeToMessage } from "./platformaticProducer.ts"
import { type PartitionCheck, toRequests } from "./produceRequests.ts"
import { withRetry } from "./retrying.ts"
import { makeInOrder, makeInTurn } from "./transactionOrder.ts"

/** How long a producer may take to abort and to say goodbye, before its connections are cut. */
const closeTimeoutMillis = 5_000
/** How often a step is tried: what it tells brokers twice counts once. The pauses make some four seconds. */
const mostAttempts = 10
const delayMillisAfter = (attempt: number): number => Math.min(5 * 2 ** attempt, 1_000)

const none = 0
const duplicateSequence = 46
/** Sequence numbers go round. */
const lastSequence = 0x7fffffff

/** Who the brokers take this producer for. */
interface ProducerIdentity {
  readonly producerId: bigint
  readonly producerEpoch: number
}

class Transactions {
  readonly #connecting: Connecting
  readonly #client: Base
  readonly #id: string
  readonly #timeoutMillis: number
  readonly #coordinators = new Map<string, Broker>()
  /** By `topic:partition`, as the library names them: the number of the next record. */
  readonly #sequences = new NumericMap()
  #identity: ProducerIdentity = { producerId: -1n, producerEpoch: -1 }
  /** What the open transaction has told its coordinator. */
  readonly #partitions = new Set<string>()
  readonly #groups = new Set<string>()

  constructor(connecting: Connecting, { timeoutMillis, transactionalId }: TransactionOptions) {
    this.#connecting = connecting
    this.#client = new Base(connecting.client)
    this.#id = transactionalId
    this.#timeoutMillis = timeoutMillis
  }

  /** Fences the producers before this one, and settles what they left. */
  async init(): Promise<void> {
    const answer = await this.#persist("initTransactions", async () => {
      const coordinator = await this.#coordinator("transaction", this.#id)
      return ask(this.#client, coordinator, "InitProducerId", this.#id, this.#timeoutMillis, -1n, -1)
    })
    this.#identity = answer.answer
  }

  async send(messages: ReadonlyArray<MessageRecord>): Promise<void> {
    const pending = new Map<string, Array<MessageRecord>>()
    for (const message of messages) {
      const place = `${message.topic}:${message.partition}`
      const before = pending.get(place)
      if (before === undefined) pending.set(place, [message])
      else before.push(message)
    }
    await this.#addPartitions(pending)
    const topics = [...new Set(messages.map(({ topic }) => topic))]
    let metadata = await this.#client.metadata({ topics: [...topics], retries: 0 })
    await this.#persist("produce", async (attempt) => {
      if (attempt > 1) metadata = await metadataOf(this.#client, topics)
      const byLeader = new Map<number, Array<MessageRecord>>()
      for (const part of pending.values()) {
        const { partition = 0, topic } = part[0]!
        const leader = metadata.topics.get(topic)?.partitions[partition]?.leader ?? -1
        byLeader.set(leader, [...(byLeader.get(leader) ?? []), ...part])
      }
      const outcomes = await Promise.allSettled(
        [...byLeader].map(([leader, part]) => this.#produce(metadata.brokers.get(leader), part, pending))
      )
      for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason
    })
  }

  /** Sends to one broker; what it has taken is taken out of `pending`. */
  async #produce(
    broker: Broker | undefined,
    messages: Array<MessageRecord>,
    pending: Map<string, Array<MessageRecord>>
  ): Promise<void> {
    const { producerEpoch, producerId } = this.#identity
    const options = { producerId, producerEpoch, sequences: this.#sequences, transactionalId: this.#id }
    const connection = await connect(this.#client, broker)
    const settle = (answer: produceV11.ProduceResponse): void => {
      for (const { name, partitionResponses } of answer.responses)
        for (const { errorCode, index } of partitionResponses) {
          const place = `${name}:${index}`
          const taken = pending.get(place)
          if (taken === undefined || (errorCode !== none && errorCode !== duplicateSequence)) continue
          pending.delete(place)
          this.#sequences.set(place, (this.#sequences.getWithDefault(place, 0) + taken.length) & lastSequence)
        }
    }
    const timeoutMillis = this.#connecting.requestTimeoutMillis
    try {
      const { answer } = await ask(this.#client, connection, "Produce", -1, timeoutMillis, messages, options)
      settle(answer as produceV11.ProduceResponse)
    } catch (error) {
      const { response } = error as { readonly response?: produceV11.ProduceResponse }
      if (response === undefined) throw error
      settle(response)
      if (messages.some(({ partition, topic }) => pending.has(`${topic}:${partition}`))) throw error
    }
  }

  async #addPartitions(parts: ReadonlyMap<string, ReadonlyArray<MessageRecord>>): Promise<void> {
    const topics = new Map<string, Array<number>>()
    const added: Array<string> = []
    for (const [place, [first]] of parts) {
      if (first === undefined || this.#partitions.has(place)) continue
      added.push(place)
      topics.set(first.topic, [...(topics.get(first.topic) ?? []), first.partition ?? 0])
    }
    if (added.length === 0) return
    const transaction = {
      transactionalId: this.#id,
      ...this.#identity,
      verifyOnly: false,
      topics: [...topics].map(([name, partitions]) => ({ name, partitions }))
    }
    await this.#persist("produce", async () => {
      const coordinator = await this.#coordinator("transaction", this.#id)
      await ask(this.#client, coordinator, "AddPartitionsToTxn", [transaction])
    })
    for (const place of added) this.#partitions.add(place)
  }

  async sendOffsets(groupId: string, commits: ReadonlyArray<OffsetCommit>): Promise<void> {
    const { producerEpoch, producerId } = this.#identity
    if (!this.#groups.has(groupId)) {
      await this.#persist("sendOffsets", async () => {
        const coordinator = await this.#coordinator("transaction", this.#id)
        await ask(this.#client, coordinator, "AddOffsetsToTxn", this.#id, producerId, producerEpoch, groupId)
      })
      this.#groups.add(groupId)
    }
    const member = [-1, "", null] as const
    await this.#persist("sendOffsets", async () => {
      const coordinator = await this.#coordinator("group", groupId)
      const terms = [this.#id, groupId, producerId, producerEpoch, ...member, toOffsets(commits)] as const
      await ask(this.#client, coordinator, "TxnOffsetCommit", ...terms)
    })
  }

  /** Of a transaction in which nothing was sent, brokers know nothing. */
  async end(how: "commit" | "abort"): Promise<void> {
    const { producerEpoch, producerId } = this.#identity
    if (this.#partitions.size > 0 || this.#groups.size > 0)
      await this.#persist(how, async () => {
        const coordinator = await this.#coordinator("transaction", this.#id)
        await ask(this.#client, coordinator, "EndTxn", this.#id, producerId, producerEpoch, how === "commit")
      })
    this.#partitions.clear()
    this.#groups.clear()
  }

  async close(): Promise<void> {
    await this.end("abort").catch(() => {})
    await this.#client.close().catch(() => {})
  }

  cut(): void {
    for (const [, connection] of this.#client.connections) connection.socket?.destroy()
    this.#client.close(() => {})
  }

  /** Tries a step again while that may help. */
  async #persist<A>(operation: string, step: (attempt: number) => Promise<A>): Promise<A> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await step(attempt)
      } catch (cause) {
        const error = toKafkaError(cause, { operation, brokers: this.#connecting.brokers })
        if (attempt >= mostAttempts || !error.retriable || this.#client.closed) throw error
        // it may be another by now
        this.#coordinators.clear()
        await new Promise((resolve) => setTimeout(resolve, delayMillisAfter(attempt)))
      }
    }
  }

  async #coordinator(kind: Coordinated, name: string) {
    const key = `${kind} ${name}`
    const known = this.#coordinators.get(key) ?? (await findCoordinator(this.#client, kind, name))
    this.#coordinators.set(key, known)
    return connect(this.#client, known)
  }
}

/** A transactional producer, which has fenced those before it. */
export const makeTransactionalProducer = Effect.fnUntraced(function* (
  connecting: Connecting,
  partitionCheck: PartitionCheck,
  options: TransactionOptions
): Effect.fn.Return<TransactionalProducer, KafkaError, Scope.Scope> {
  const { brokers } = connecting
  const invalid = validateTransactionOptions(brokers, options)
  if (invalid !== undefined) return yield* invalid
  const inTurn = makeInTurn()
  const inOrder = makeInOrder(brokers)
  const toMessage = makeToMessage(partitionCheck)
  const transactions = yield* Effect.acquireRelease(
    Effect.sync(() => new Transactions(connecting, options)),
    (made) =>
      Effect.timeoutOrElse(
        Effect.promise(() => inTurn(() => made.close())),
        { duration: closeTimeoutMillis, orElse: () => Effect.sync(() => made.cut()) }
      )
  )
  const call = (operation: string, act: () => Promise<void>): Effect.Effect<void, KafkaError> =>
    Effect.tryPromise({
      try: () => inTurn(act),
      catch: (error) => toKafkaError(error, { operation, brokers })
    })
  const within = { before: true, after: true }
  const end = (how: "commit" | "abort") =>
    inOrder(
      how,
      { before: true, after: false },
      call(how, () => transactions.end(how))
    )
  yield* withRetry(
    connecting,
    call("initTransactions", () => transactions.init())
  )
  return {
    begin: inOrder("begin", { before: false, after: true }, Effect.void),
    send: (records: ReadonlyArray<ProducerRecord>) =>
      inOrder(
        "produce",
        within,
        Effect.andThen(
          partitionCheck.check(records),
          Effect.forEach(
            toRequests(records),
            (request) => call("produce", () => transactions.send(request.map(toMessage))),
            { discard: true }
          )
        )
      ),
    sendOffsets: (groupId, commits) => {
      const wrong = wrongOffset("sendOffsets", brokers, commits)
      if (wrong !== undefined) return Effect.fail(wrong)
      if (commits.length === 0) return inOrder("sendOffsets", within, Effect.void)
      return inOrder(
        "sendOffsets",
        within,
        call("sendOffsets", () => transactions.sendOffsets(groupId, commits))
      )
    },
    commit: end("commit"),
    abort: end("abort")
  }
})
