import { Deferred, Effect, type Scope } from "effect"
import type {
  OffsetCommit,
  ProducerRecord,
  TransactionalProducer,
  TransactionOptions
} from "../KafkaClient.ts"
import type { KafkaError } from "../KafkaErrors.ts"
import { type Committed, partitionKey } from "./inProcessGroup.ts"
import { type BrokerState, brokers, makeError } from "./inProcessState.ts"
import { validateTransactionOptions, wrongOffset } from "./memberOptions.ts"

/** A transaction that is open, and the offsets that it will commit. */
interface OpenTransaction {
  readonly offsets: Array<{ readonly groupId: string; readonly commit: Committed }>
  readonly ended: Deferred.Deferred<void>
}

/** What the coordinator knows of one transactional id. */
class TransactionalId {
  epoch = 0
  open: OpenTransaction | undefined
}

/** The coordinator of all transactions. */
export class Transactions {
  readonly #state: BrokerState
  readonly #ids = new Map<string, TransactionalId>()

  constructor(state: BrokerState) {
    this.#state = state
  }

  /** Fences whoever had this id, and aborts what it has left open. */
  init(id: string): number {
    let known = this.#ids.get(id)
    if (known === undefined) this.#ids.set(id, (known = new TransactionalId()))
    this.end(known, "abort")
    return ++known.epoch
  }

  /** The id, for its latest producer; the others are fenced. */
  of(id: string, epoch: number): TransactionalId | undefined {
    const known = this.#ids.get(id)
    return known?.epoch === epoch ? known : undefined
  }

  begin(known: TransactionalId, timeoutMillis: number): void {
    const open: OpenTransaction = { offsets: [], ended: Deferred.makeUnsafe() }
    known.open = open
    const expire = Effect.sync(() => {
      if (known.open !== open) return
      known.epoch++
      this.end(known, "abort")
    })
    const timeout = Effect.andThen(this.#state.sleep(timeoutMillis), expire)
    this.#state.fork(Effect.raceFirst(timeout, Deferred.await(open.ended)))
  }

  end(known: TransactionalId, how: "commit" | "abort"): void {
    const { open } = known
    if (open === undefined) return
    known.open = undefined
    Deferred.doneUnsafe(open.ended, Effect.void)
    for (const logs of this.#state.topics.values()) for (const log of logs) log.endTransaction(open, how)
    if (how === "commit")
      for (const { groupId, commit } of open.offsets)
        this.#state.group(groupId).committed.set(partitionKey(commit), commit)
    this.#state.wakeMembers()
  }
}

/** One producer, with the epoch that it was given. */
class Producer {
  readonly #state: BrokerState
  readonly #options: TransactionOptions
  readonly #epoch: number

  constructor(state: BrokerState, options: TransactionOptions) {
    this.#state = state
    this.#options = options
    this.#epoch = state.transactions.init(options.transactionalId)
  }

  readonly begin = this.#guarded("begin", false, (known) =>
    Effect.sync(() => this.#state.transactions.begin(known, this.#options.timeoutMillis))
  )

  send(records: ReadonlyArray<ProducerRecord>): Effect.Effect<void, KafkaError> {
    return this.#guarded("produce", true, ({ open }) => this.#state.append(records, open))
  }

  sendOffsets(groupId: string, commits: ReadonlyArray<OffsetCommit>): Effect.Effect<void, KafkaError> {
    const wrong = wrongOffset("sendOffsets", brokers, commits)
    if (wrong !== undefined) return Effect.fail(wrong)
    return this.#guarded("sendOffsets", true, ({ open }) =>
      Effect.sync(() => {
        for (const commit of commits) open?.offsets.push({ groupId, commit })
      })
    )
  }

  readonly commit = this.#end("commit")

  readonly abort = this.#end("abort")

  /** Its client goes, and ends what is open. */
  readonly close: Effect.Effect<void> = Effect.sync(() => {
    const known = this.#state.transactions.of(this.#options.transactionalId, this.#epoch)
    if (known !== undefined) this.#state.transactions.end(known, "abort")
  })

  #end(how: "commit" | "abort"): Effect.Effect<void, KafkaError> {
    return this.#guarded(how, true, (known) => Effect.sync(() => this.#state.transactions.end(known, how)))
  }

  #guarded(
    operation: "begin" | "produce" | "sendOffsets" | "commit" | "abort",
    whenOpen: boolean,
    act: (known: TransactionalId) => Effect.Effect<void, KafkaError>
  ): Effect.Effect<void, KafkaError> {
    return Effect.suspend(() => {
      const { transactionalId } = this.#options
      const known = this.#state.transactions.of(transactionalId, this.#epoch)
      if (known === undefined) {
        const detail = `a newer producer has the id "${transactionalId}", or its transaction has timed out`
        return Effect.fail(makeError(operation, "Fenced", detail))
      }
      if (whenOpen !== (known.open !== undefined)) {
        const detail = whenOpen ? "no transaction is open" : "a transaction is open already"
        return Effect.fail(makeError(operation, "InvalidRequest", detail))
      }
      return act(known)
    })
  }
}

/** A transactional producer, which has fenced those before it. */
export const makeTransactionalProducer = Effect.fnUntraced(function* (
  state: BrokerState,
  options: TransactionOptions
): Effect.fn.Return<TransactionalProducer, KafkaError, Scope.Scope> {
  yield* state.takeFault("initTransactions")
  const invalid = validateTransactionOptions(brokers, options)
  if (invalid !== undefined) return yield* invalid
  const producer = yield* Effect.acquireRelease(
    Effect.sync(() => new Producer(state, options)),
    (made) => made.close
  )
  return {
    begin: producer.begin,
    send: (records) => producer.send(records),
    sendOffsets: (groupId, commits) => producer.sendOffsets(groupId, commits),
    commit: producer.commit,
    abort: producer.abort
  }
})
