/**
 * Kafka without a broker: topics, partitions and consumer groups inside this process, behind the same
 * `KafkaClient`. For tests, which hold the broker in hand and make it misbehave, and for a first try without Kafka.
 *
 * It keeps Kafka's order of events (eager rebalances, generations, session timeouts, retention, holes left by
 * compaction, transactions and their fences) and none of its durability: everything is gone with the process. Time comes from
 * Effect's `Clock`, so `TestClock` drives it.
 */
import { Clock, Context, Effect, Layer, Scope } from "effect"
import { makeClient } from "./internal/inProcessClient.ts"
import type { Assignor } from "./internal/inProcessGroup.ts"
import { partitionKey } from "./internal/inProcessGroup.ts"
import { BrokerState, makeError } from "./internal/inProcessState.ts"
import { KafkaClient, type KafkaRecord, type TopicPartition } from "./KafkaClient.ts"
import type { KafkaError } from "./KafkaErrors.ts"

/** How the in-process broker behaves. */
export interface Options {
  /** Topics that exist from the start, with their numbers of partitions. */
  readonly topics?: Readonly<Record<string, number>>
  /** How many records one batch holds at most; 500 by default. */
  readonly maxRecordsPerBatch?: number
  /** How large a record's key, value and headers may be together, in bytes; 1,048,588 by default, as in Kafka. */
  readonly maxRecordBytes?: number
  /** How partitions are shared out; `round-robin` by default. */
  readonly assignor?: Assignor
}

/** The operations in which a fault can be planted. */
export type Operation =
  | "join"
  | "commit"
  | "produce"
  | "initTransactions"
  | "committed"
  | "logBounds"
  | "createTopics"
  | "partitionCounts"

/** A member of a group, for assertions. */
export interface MemberDescription {
  readonly memberId: string
  readonly clientId: string
  readonly partitions: ReadonlyArray<TopicPartition>
}

/** What a test can do to the in-process broker. All of it takes effect at once; members learn of it asynchronously. */
export interface Broker {
  /** A client of its own, as another process would have; all share the broker. */
  readonly makeClient: (options?: { readonly clientId?: string }) => KafkaClient["Service"]
  /** Creates a topic, or adds partitions to it (its groups then rebalance); never takes any away. */
  readonly createTopic: (topic: string, partitions: number) => void
  /** Deletes a topic with its records; created again, it begins at offset 0. Commits stay, as in Kafka. */
  readonly deleteTopic: (topic: string) => void
  /** The records that a partition holds, as a `read_committed` reader sees them. */
  readonly records: (topic: string, partition: number) => ReadonlyArray<KafkaRecord>
  /** Writes offsets that hold no visible record, as a transaction's markers or an aborted transaction do. */
  readonly appendControl: (topic: string, partition: number, count?: number) => void
  /** Removes single records, as compaction does; their offsets stay empty. */
  readonly compact: (topic: string, partition: number, offsets: Iterable<number>) => void
  /** Removes the records below an offset, as retention does. */
  readonly deleteRecords: (topic: string, partition: number, beforeOffset: number) => void
  /** Sets a group's commit from outside, as an operator's tool does: without metadata, unless it is given. */
  readonly setCommitted: (
    groupId: string,
    partition: TopicPartition,
    offset: number | undefined,
    metadata?: string
  ) => void
  /** The group's members, in the order in which they joined. */
  readonly members: (groupId: string) => ReadonlyArray<MemberDescription>
  /** Whether the group shares out its partitions anew, and waits for members to join. */
  readonly isRebalancing: (groupId: string) => boolean
  /** Makes a group share out its partitions anew. */
  readonly rebalance: (groupId: string) => void
  /** The member dies without a word: no more heartbeats, deliveries or callbacks, and its Scope releases nothing. */
  readonly kill: (memberId: string) => void
  /** Cuts a living member off; it goes on with what it has, and finds out when it is `heal`ed. */
  readonly isolate: (memberId: string) => void
  readonly heal: (memberId: string) => void
  /** The member's client crashes: `onEnd` tells it, and with `rejoins` it joins again by itself. */
  readonly crash: (memberId: string, options?: { readonly rejoins?: boolean }) => void
  /** The next call of this operation, by any client, fails with this error. Several calls queue up. */
  readonly failNext: (operation: Operation, error: KafkaError) => void
}

/** The in-process broker as a service: the handle by which a test reaches behind its `KafkaClient`. */
export class InProcessBroker extends Context.Service<InProcessBroker, Broker>()(
  "@tidemark/kafka/InProcessKafka/InProcessBroker"
) {}

const makeBroker = (state: BrokerState): Broker => ({
  makeClient: (options) => makeClient(state, options?.clientId ?? "tidemark"),
  createTopic: (topic, partitions) => state.createTopic(topic, partitions),
  deleteTopic: (topic) => void state.topics.delete(topic),
  records: (topic, partition) => state.log(topic, partition).all(),
  appendControl: (topic, partition, count = 1) => {
    state.log(topic, partition).skip(count)
    state.wakeMembers()
  },
  compact: (topic, partition, offsets) => state.log(topic, partition).compact(new Set(offsets)),
  deleteRecords: (topic, partition, beforeOffset) => state.log(topic, partition).deleteBefore(beforeOffset),
  setCommitted: (groupId, { topic, partition }, offset, metadata = "") => {
    const { committed } = state.group(groupId)
    const key = partitionKey({ topic, partition })
    if (offset === undefined) committed.delete(key)
    else committed.set(key, { topic, partition, offset, metadata })
  },
  members: (groupId) =>
    [...(state.groups.get(groupId)?.members ?? [])].map((member) => ({
      memberId: member.id,
      clientId: member.clientId,
      partitions: [...member.assigned.values()].map(({ topic, partition }) => ({ topic, partition }))
    })),
  isRebalancing: (groupId) => state.groups.get(groupId)?.preparing !== undefined,
  rebalance: (groupId) => {
    const group = state.groups.get(groupId)
    if (group !== undefined && group.members.size > 0) state.prepareRound(group)
  },
  kill: (memberId) => {
    state.findMember(memberId).member.state = "dead"
  },
  isolate: (memberId) => {
    const { member } = state.findMember(memberId)
    if (member.state === "alive") member.state = "isolated"
  },
  heal: (memberId) => {
    const { member } = state.findMember(memberId)
    if (member.state === "isolated") member.state = "alive"
    member.wake.openUnsafe()
  },
  crash: (memberId, options) => {
    const { group, member } = state.findMember(memberId)
    if (member.state !== "alive") return
    const rejoins = options?.rejoins ?? false
    const error = makeError(
      "fetch",
      "Unreachable",
      "the in-process broker was told to crash this member",
      rejoins
    )
    state.exit(group, member)
    member.state = rejoins ? "alive" : "ended"
    member.options.events.onEnd({ reason: "crashed", error, rejoins })
    if (rejoins) state.enter(group, member)
  },
  failNext: (operation, error) => {
    const faults = state.faults.get(operation)
    if (faults === undefined) state.faults.set(operation, [error])
    else faults.push(error)
  }
})

/**
 * Makes an in-process broker, which lives as long as the Scope.
 *
 * @example
 * const broker = yield* InProcessKafka.make({ topics: { orders: 4 } })
 * const client = broker.makeClient()
 * yield* client.produce([{ topic: "orders", key: "customer-1", value: "one coffee" }])
 */
export const make = Effect.fnUntraced(function* (options: Options = {}) {
  const settings = {
    maxRecordsPerBatch: options.maxRecordsPerBatch ?? 500,
    maxRecordBytes: options.maxRecordBytes ?? 1_048_588,
    assignor: options.assignor ?? "round-robin"
  }
  for (const field of ["maxRecordsPerBatch", "maxRecordBytes"] as const)
    if (!(Number.isSafeInteger(settings[field]) && settings[field] > 0))
      throw new RangeError(`${field} is ${settings[field]}; allowed: a whole number above 0`)
  const state = new BrokerState(settings, yield* Clock.Clock, yield* Scope.Scope)
  for (const [topic, partitions] of Object.entries(options.topics ?? {})) state.createTopic(topic, partitions)
  return makeBroker(state)
})

/** A `KafkaClient` on an in-process broker that exists already: one more client of it. */
export const layerClient = (options?: {
  readonly clientId?: string
}): Layer.Layer<KafkaClient, never, InProcessBroker> =>
  Layer.effect(
    KafkaClient,
    Effect.map(InProcessBroker, (broker) => broker.makeClient(options))
  )

/** An in-process broker, and a `KafkaClient` on it. */
export const layer = (options?: Options): Layer.Layer<KafkaClient | InProcessBroker> =>
  Layer.provideMerge(layerClient(), Layer.effect(InProcessBroker, make(options)))
