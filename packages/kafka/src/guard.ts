/**
 * The claim for people who keep their own kafkajs code: plain async handlers in, plain async handlers out.
 *
 * @example
 * const guarded = await guard({ store: RedisStore.layer({ url }), groupId: "billing" })   // new
 * await consumer.run({
 *   eachMessage: guarded.eachMessage(async ({ message }) => charge(message))               // changed
 * })
 */
import { hostname } from "node:os"
import { type IdempotencyStore, type OffsetStore, Policies } from "@tidemark/core"
import { type Duration, type Layer, ManagedRuntime } from "effect"
import type { EachBatchPayload, EachMessagePayload } from "kafkajs"
import type { GuardTerms } from "./internal/guarding.ts"
import { checkFunction, checkKnown, fail, millis, text, word } from "./internal/optionChecks.ts"
import { PlainGuard } from "./internal/PlainGuard.ts"

/** A message as kafkajs has it, and whoever else has an offset. */
export interface GuardedMessage {
  readonly offset: string | number | bigint
  readonly key?: Buffer | null
  readonly value?: Buffer | null
  readonly headers?: unknown
}

/** What `eachMessage` needs of its payload: any client's messages can be handed to it. */
export interface GuardedPayload {
  readonly topic: string
  readonly partition: number
  readonly message: GuardedMessage
  /** kafkajs's own: called while a message waits for another owner, so that the group does not lose this member. */
  readonly heartbeat?: () => Promise<void>
}

/** What a handler may know of its claim. */
export interface GuardClaim {
  /**
   * The fencing token: greater than that of every earlier claim on this partition's stream. A database that refuses
   * smaller ones turns a late writer away. `undefined` where the handler runs unprotected, and in shadow mode.
   */
  readonly token: number | undefined
  /** Aborts when the lease is lost: hand it to `fetch`, to a query, to whatever can stop. */
  readonly signal: AbortSignal
}

export interface GuardOptions {
  /** The layer of a store: `RedisStore.layer({ url })`. */
  readonly store: Layer.Layer<OffsetStore | IdempotencyStore, unknown>
  /** The consumer's group: positions, and ids, are remembered for it. */
  readonly groupId: string
  /**
   * A business or message id, on top of the position: a producer's second try has another offset, and the same id.
   * `undefined`: this message has none.
   */
  readonly identify?: (
    message: GuardedMessage,
    place: { readonly topic: string; readonly partition: number }
  ) => string | undefined
  /** Decide and count, and let every message through. See docs/kafka.md. Default: false. */
  readonly shadow?: boolean
  /** Needed only where one store serves groups of the same name on several clusters. */
  readonly cluster?: string
  /** A label for people. Default: host and process id. */
  readonly owner?: string
  /** How long a claim lasts unless renewed; renewed at a third while the handler runs. Default: 30 s. */
  readonly lease?: Duration.Input
  /** How long a completed id is remembered. Default: the store's. Positions need none. */
  readonly retention?: Duration.Input
  /** When another owner is at work on the message: wait for it (default), or reject with `InFlightElsewhere`. */
  readonly whenInFlight?: "wait" | "fail"
  /** How long `wait` waits before it rejects. Default: for ever, with heartbeats. */
  readonly waitAtMost?: Duration.Input
  /**
   * When the store can't be asked: reject with `StoreError` (default), so that kafkajs tries again; run the handler
   * unprotected, counted; or ask again until the store answers.
   */
  readonly whenStoreFails?: Policies.WhenStoreFails
}

/** What a guard has counted since it was made. */
export interface GuardCounts {
  /** Messages that were delivered. */
  readonly seen: number
  /** Messages whose handler ran and succeeded. */
  readonly processed: number
  /** Delivered again, and completed before: a rebalance, a crash, a seek. */
  readonly duplicatesByPosition: number
  /** New by their position, and known by their id: a producer's retry. */
  readonly duplicatesById: number
  /** Deliveries that another owner was at work on; a shadow counts messages, and does not wait. */
  readonly inFlightElsewhere: number
  /** Deliveries whose handler failed; their claims were given back. */
  readonly failed: number
  /** Messages that ran without a claim, since the store failed. */
  readonly unprotected: number
  /** Messages about which a shadow could not decide: the store failed, or was too slow. */
  readonly undecided: number
}

/** How far a partition has come, by the store. */
export interface PartitionReport {
  readonly topic: string
  readonly partition: number
  /** Everything below is completed, from where the guard began. */
  readonly watermark: number
  /** One past the highest completed offset. */
  readonly highest: number
  /**
   * Offsets in between that are not completed: messages at work or failed, or passed over; and, with `eachMessage`,
   * offsets at which there is no message (markers of transactions, compaction).
   */
  readonly gaps: number
}

export interface GuardReport extends GuardCounts {
  readonly shadow: boolean
  /** The partitions that this guard has seen messages of. */
  readonly partitions: ReadonlyArray<PartitionReport>
}

export interface Guard extends AsyncDisposable, Disposable {
  /**
   * Wraps an `eachMessage` handler: it runs only for messages that are new. Rejects as the handler does, and kafkajs
   * delivers again; the claim is given back at once.
   */
  readonly eachMessage: <Payload extends GuardedPayload = EachMessagePayload>(
    handler: (payload: Payload, claim: GuardClaim) => Promise<unknown> | unknown
  ) => (payload: Payload) => Promise<void>
  /**
   * Wraps an `eachBatch` handler: `payload.batch.messages` are those that are new, under one claim; where none is, the
   * handler does not run. What it resolves counts as done also when it fails afterwards.
   *
   * @param options.autoResolve - kafkajs's `eachBatchAutoResolve`, and true like that: a handler that returns has
   * done the whole batch. With `false`, what it has resolved.
   */
  readonly eachBatch: (
    handler: (payload: EachBatchPayload, claim: GuardClaim) => Promise<unknown> | unknown,
    options?: { readonly autoResolve?: boolean }
  ) => (payload: EachBatchPayload) => Promise<void>
  readonly counts: () => GuardCounts
  /** The counts, and how far the partitions have come, which asks the store. */
  readonly report: () => Promise<GuardReport>
  /**
   * Closes the store; again is no harm. Disconnect the consumer first: what is delivered later is rejected with
   * `StoreError` `Closed`. `await using` closes by itself; `using` begins to, and does not wait.
   */
  readonly close: () => Promise<void>
}

const known: Readonly<Record<keyof GuardOptions, true>> = {
  store: true,
  groupId: true,
  identify: true,
  shadow: true,
  cluster: true,
  owner: true,
  lease: true,
  retention: true,
  whenInFlight: true,
  waitAtMost: true,
  whenStoreFails: true
}

const hundredYears = 100 * 365 * 86_400_000

const readTerms = (options: GuardOptions): GuardTerms => {
  checkKnown("option of the guard", options, known)
  const groupId = text("groupId", options.groupId)
  if (options.identify !== undefined) checkFunction("identify", options.identify)
  if (options.cluster !== undefined) text("cluster", options.cluster)
  if (options.shadow !== undefined && typeof options.shadow !== "boolean")
    fail("shadow", options.shadow, "true or false")
  const { retention, waitAtMost } = options
  return {
    namespace: groupId,
    owner: options.owner === undefined ? `${hostname()}:${process.pid}` : text("owner", options.owner),
    leaseMillis: millis("lease", options.lease, Policies.defaultLeaseMillis),
    retentionMillis: retention === undefined ? undefined : millis("retention", retention, 1, hundredYears),
    whenInFlight: word("whenInFlight", options.whenInFlight, ["wait", "fail"]),
    noted: new Map(),
    waitAtMostMillis:
      waitAtMost === undefined ? Number.POSITIVE_INFINITY : millis("waitAtMost", waitAtMost, 1, hundredYears)
  }
}

/**
 * A guard for plain kafkajs code. Rejects with `InvalidInput` for a bad or unknown option, and with the store's own
 * error where it can't be opened.
 */
export const guard = async (options: GuardOptions): Promise<Guard> => {
  const terms = readTerms(options)
  const whenStoreFails = word("whenStoreFails", options.whenStoreFails, ["fail", "run", "wait"])
  const runtime = ManagedRuntime.make(options.store)
  try {
    await runtime.context()
  } catch (error) {
    await runtime.dispose()
    throw error
  }
  return new PlainGuard(options, terms, whenStoreFails, runtime)
}
