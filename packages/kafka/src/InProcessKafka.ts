/**
 * Kafka without a broker: topics, partitions and consumer groups inside this process, behind the same
 * `KafkaClient`. For tests, which hold the broker in hand and make it misbehave, and for a first try without Kafka.
 *
 * It keeps Kafka's order of events (eager rebalances, generations, session timeouts, retention, holes left by
 * compaction and by transactions) and none of its durability: everything is gone with the process. Time comes from
 * Effect's `Clock`, so `TestClock` drives it.
 */
import { Cause, Clock, Context, Deferred, Effect, Layer, Scope } from "effect"
import {
  assignPartitions,
  type Assignor,
  type AssignedPartition,
  type Committed
} from "./internal/inProcessGroup.ts"
import { Group, Member, partitionKey } from "./internal/inProcessGroup.ts"
import { PartitionLog } from "./internal/inProcessLog.ts"
import { validateMemberOptions } from "./internal/memberOptions.ts"
import { partitionOf } from "./internal/murmur2.ts"
import { KafkaClient } from "./KafkaClient.ts"
import type {
  GroupMember,
  HeaderValue,
  KafkaRecord,
  MemberOptions,
  OffsetCommit,
  ProducerRecord,
  TopicPartition
} from "./KafkaClient.ts"
import { KafkaError, type KafkaErrorReason } from "./KafkaErrors.ts"

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
  /** The records that a partition holds. */
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

const brokers = ["in-process"]

const makeError = (
  operation: string,
  reason: KafkaErrorReason,
  detail: string,
  retriable = false
): KafkaError => new KafkaError({ operation, reason, detail, retriable, brokers })

const bytesOf = (value: Buffer | string): Buffer => (typeof value === "string" ? Buffer.from(value) : value)

const headerBytes = (value: HeaderValue): Buffer | ReadonlyArray<Buffer> =>
  typeof value === "string" || Buffer.isBuffer(value) ? bytesOf(value) : value.map(bytesOf)

const sizeOf = (record: Omit<KafkaRecord, "offset">): number => {
  let bytes = (record.key?.length ?? 0) + (record.value?.length ?? 0)
  for (const [name, value] of Object.entries(record.headers)) {
    bytes += name.length
    for (const part of Array.isArray(value) ? value : [value]) bytes += part?.length ?? 0
  }
  return bytes
}

/** The state behind a `Broker`, and what its clients do to it. */
class BrokerState {
  readonly topics = new Map<string, Array<PartitionLog>>()
  readonly groups = new Map<string, Group>()
  /** Every member that a client still runs, also those that their groups have dropped. */
  readonly members = new Map<string, { readonly group: Group; readonly member: Member }>()
  readonly faults = new Map<Operation, Array<KafkaError>>()
  readonly clock: Clock.Clock
  readonly scope: Scope.Scope
  readonly maxRecordsPerBatch: number
  readonly maxRecordBytes: number
  readonly assignor: Assignor
  #keylessTurns = new Map<string, number>()
  #memberCount = 0

  constructor(options: Options, clock: Clock.Clock, scope: Scope.Scope) {
    this.clock = clock
    this.scope = scope
    this.maxRecordsPerBatch = options.maxRecordsPerBatch ?? 500
    this.maxRecordBytes = options.maxRecordBytes ?? 1_048_588
    this.assignor = options.assignor ?? "round-robin"
    for (const [topic, partitions] of Object.entries(options.topics ?? {}))
      this.createTopic(topic, partitions)
  }

  nowMillis(): number {
    return this.clock.currentTimeMillisUnsafe()
  }

  group(groupId: string): Group {
    let group = this.groups.get(groupId)
    if (group === undefined) this.groups.set(groupId, (group = new Group(groupId)))
    return group
  }

  findMember(memberId: string): { readonly group: Group; readonly member: Member } {
    const found = this.members.get(memberId)
    if (found === undefined) throw new RangeError(`the in-process broker has no member ${memberId}`)
    return found
  }

  log(topic: string, partition: number): PartitionLog {
    const log = this.topics.get(topic)?.[partition]
    if (log === undefined)
      throw new RangeError(`the in-process broker has no partition ${partition} of topic "${topic}"`)
    return log
  }

  /** The logs of these partitions, or the error that names the one which does not exist. */
  logs(
    operation: string,
    partitions: ReadonlyArray<TopicPartition>
  ): Effect.Effect<Array<PartitionLog>, KafkaError> {
    const logs: Array<PartitionLog> = []
    for (const { topic, partition } of partitions) {
      const log = this.topics.get(topic)?.[partition]
      if (log === undefined) return Effect.fail(this.unknownPartition(operation, topic, partition))
      logs.push(log)
    }
    return Effect.succeed(logs)
  }

  unknownPartition(operation: string, topic: string, partition: number): KafkaError {
    const logs = this.topics.get(topic)
    return logs === undefined
      ? makeError(operation, "UnknownTopic", `topic "${topic}" does not exist`)
      : makeError(
          operation,
          "UnknownTopic",
          `topic "${topic}" has ${logs.length} partitions, none numbered ${partition}`
        )
  }

  createTopic(topic: string, partitions: number): void {
    if (!Number.isSafeInteger(partitions) || partitions < 1)
      throw new RangeError(`partitions is ${partitions}; allowed: an integer from 1`)
    const logs = this.topics.get(topic) ?? []
    const isNew = logs.length === 0
    while (logs.length < partitions) logs.push(new PartitionLog())
    this.topics.set(topic, logs)
    if (isNew) return
    for (const group of this.groups.values())
      if ([...group.members].some((member) => member.options.topics.includes(topic))) this.prepareRound(group)
  }

  wakeMembers(): void {
    for (const group of this.groups.values()) for (const member of group.members) member.wake.openUnsafe()
  }

  takeFault(operation: Operation): Effect.Effect<void, KafkaError> {
    return Effect.suspend(() => {
      const fault = this.faults.get(operation)?.shift()
      return fault === undefined ? Effect.void : Effect.fail(fault)
    })
  }

  // --- groups

  enter(group: Group, member: Member): void {
    this.members.delete(member.id)
    member.id = `${member.clientId}-${++this.#memberCount}`
    this.members.set(member.id, { group, member })
    group.members.add(member)
    this.prepareRound(group)
    member.rejoined = true
    this.watchSession(group, member)
    this.completeRound(group)
  }

  /** The member goes by itself, and says so. */
  exit(group: Group, member: Member): void {
    this.members.delete(member.id)
    member.assigned = new Map()
    member.pendingAssignment = undefined
    this.drop(group, member)
  }

  drop(group: Group, member: Member): void {
    if (!group.members.delete(member)) return
    if (group.members.size === 0) group.preparing = undefined
    else this.prepareRound(group)
    this.completeRound(group)
  }

  prepareRound(group: Group): void {
    const already = group.preparing
    const round = group.prepare()
    if (already === round) return
    const timeoutMillis = Math.max(
      ...[...group.members].map((member) => member.options.rebalanceTimeoutMillis)
    )
    this.fork(
      Effect.andThen(
        this.sleep(timeoutMillis),
        Effect.sync(() => {
          if (group.preparing !== round) return
          for (const member of [...group.members]) if (!member.rejoined) group.members.delete(member)
          this.completeRound(group)
        })
      )
    )
  }

  completeRound(group: Group): void {
    group.completeRound((members) => {
      const shares = assignPartitions(this.assignor, members, (topic) => this.topics.get(topic)?.length ?? 0)
      return new Map(
        [...shares].map(([member, partitions]) => [
          member,
          partitions.map(
            ({ topic, partition }): AssignedPartition => ({
              topic,
              partition,
              log: this.log(topic, partition),
              position: undefined,
              resumed: false
            })
          )
        ])
      )
    }, this.nowMillis())
  }

  /** Drops the member when it was silent for its session timeout; one that waits to join is not expected to speak. */
  watchSession(group: Group, member: Member): void {
    const id = member.id
    member.lastHeartbeatMillis = this.nowMillis()
    const watch: Effect.Effect<void> = Effect.suspend(() => {
      if (!group.members.has(member) || member.id !== id) return Effect.void
      const waits = group.preparing !== undefined && member.rejoined && member.state === "alive"
      if (waits) member.lastHeartbeatMillis = this.nowMillis()
      const leftMillis = member.lastHeartbeatMillis + member.options.sessionTimeoutMillis - this.nowMillis()
      if (leftMillis > 0) return Effect.andThen(this.sleep(leftMillis), watch)
      return Effect.sync(() => this.drop(group, member))
    })
    this.fork(watch)
  }

  fork(effect: Effect.Effect<void>): void {
    Effect.runFork(Effect.forkIn(effect, this.scope))
  }

  sleep(millis: number): Effect.Effect<void> {
    return Effect.provideService(Effect.sleep(millis), Clock.Clock, this.clock)
  }

  // --- delivery

  /** One step of a member's client; answers whether there may be more to do at once. */
  turn(group: Group, member: Member, onFirstAssignment: () => void): boolean {
    if (member.state !== "alive") return false
    if (group.preparing !== undefined && group.members.has(member) && !member.rejoined) {
      member.rejoined = true
      member.assigned = new Map()
      member.pendingAssignment = undefined
      this.completeRound(group)
    }
    const assignment = member.pendingAssignment
    if (assignment !== undefined) {
      member.pendingAssignment = undefined
      member.options.events.onHeartbeat()
      member.options.events.onAssignment(assignment)
      onFirstAssignment()
      return true
    }
    let delivered = false
    for (const partition of [...member.assigned.values()]) {
      if (member.state !== "alive" || member.pendingAssignment !== undefined) break
      if (member.assigned.get(partitionKey(partition)) !== partition) continue
      delivered = this.deliver(group, member, partition) || delivered
    }
    return delivered
  }

  deliver(group: Group, member: Member, partition: AssignedPartition): boolean {
    const { log } = partition
    if (partition.position === undefined || !partition.resumed) return false
    if (partition.position < log.low || partition.position > log.high) {
      partition.position = log.low
      group.committed.delete(partitionKey(partition))
    }
    const fetchedOffset = partition.position
    const { records, nextOffset } = log.read(fetchedOffset, this.maxRecordsPerBatch)
    if (nextOffset === fetchedOffset) return false
    partition.position = nextOffset
    member.options.events.onBatch({
      topic: partition.topic,
      partition: partition.partition,
      records,
      fetchedOffset,
      nextOffset,
      highWatermark: log.high
    })
    return true
  }

  heartbeat(group: Group, member: Member): void {
    if (member.state !== "alive") return
    if (!group.members.has(member)) {
      member.assigned = new Map()
      member.pendingAssignment = undefined
      this.enter(group, member)
      return
    }
    if (group.preparing !== undefined) return
    member.lastHeartbeatMillis = this.nowMillis()
    member.options.events.onHeartbeat()
  }

  // --- records

  append(records: ReadonlyArray<ProducerRecord>): Effect.Effect<void, KafkaError> {
    const targets: Array<{ readonly log: PartitionLog; readonly record: Omit<KafkaRecord, "offset"> }> = []
    for (const record of records) {
      const partition = this.partitionFor(record)
      const log = this.topics.get(record.topic)?.[partition]
      if (log === undefined) return Effect.fail(this.unknownPartition("produce", record.topic, partition))
      const stored = {
        topic: record.topic,
        partition,
        key: record.key === undefined ? undefined : bytesOf(record.key),
        value: record.value === null ? undefined : bytesOf(record.value),
        timestampMillis: record.timestampMillis ?? this.nowMillis(),
        headers: Object.fromEntries(
          Object.entries(record.headers ?? {}).map(([name, value]) => [name, headerBytes(value)])
        )
      }
      const bytes = sizeOf(stored)
      if (bytes > this.maxRecordBytes) {
        const detail = `a record for topic "${record.topic}" has ${bytes} bytes; allowed: ${this.maxRecordBytes}`
        return Effect.fail(makeError("produce", "RecordTooLarge", detail))
      }
      targets.push({ log, record: stored })
    }
    for (const { log, record } of targets) log.append(record)
    this.wakeMembers()
    return Effect.void
  }

  partitionFor(record: ProducerRecord): number {
    if (record.partition !== undefined) return record.partition
    const count = this.topics.get(record.topic)?.length ?? 1
    if (record.key !== undefined) return partitionOf(bytesOf(record.key), count)
    const turn = this.#keylessTurns.get(record.topic) ?? 0
    this.#keylessTurns.set(record.topic, turn + 1)
    return turn % count
  }
}

const memberOf = (
  state: BrokerState,
  group: Group,
  member: Member,
  leave: Effect.Effect<void>
): GroupMember => {
  const assigned = (partition: TopicPartition) => member.assigned.get(partitionKey(partition))
  const setResumed = (resumed: boolean) => (partitions: ReadonlyArray<TopicPartition>) => {
    for (const partition of partitions) {
      const state = assigned(partition)
      if (state !== undefined) state.resumed = resumed
    }
    member.wake.openUnsafe()
  }
  return {
    pause: setResumed(false),
    resume: setResumed(true),
    seek: (partition, offset) => {
      if (!Number.isSafeInteger(offset) || offset < 0)
        throw new RangeError(`offset is ${offset}; allowed: a safe integer from 0`)
      const state = assigned(partition)
      if (state !== undefined) state.position = offset
      member.wake.openUnsafe()
    },
    commit: (commits) =>
      Effect.andThen(
        state.takeFault("commit"),
        Effect.suspend(() => commit(group, member, commits))
      ),
    leave
  }
}

const commit = (
  group: Group,
  member: Member,
  commits: ReadonlyArray<OffsetCommit>
): Effect.Effect<void, KafkaError> => {
  if (member.state === "ended")
    return Effect.fail(makeError("commit", "MemberEnded", `member ${member.id} has left group "${group.id}"`))
  if (member.state !== "alive")
    return Effect.fail(makeError("commit", "Unreachable", `member ${member.id} is cut off`, true))
  if (!group.members.has(member))
    return Effect.fail(
      makeError("commit", "StaleMember", `group "${group.id}" does not know member ${member.id}`, true)
    )
  for (const { topic, partition, offset } of commits) {
    if (!Number.isSafeInteger(offset) || offset < 0)
      return Effect.fail(
        makeError("commit", "InvalidRequest", `offset is ${offset}; allowed: a safe integer from 0`)
      )
    if (!member.assigned.has(partitionKey({ topic, partition })))
      return Effect.fail(
        makeError(
          "commit",
          "NotAssigned",
          `partition ${partition} of topic "${topic}" is not assigned to ${member.id}`
        )
      )
  }
  for (const { topic, partition, offset, metadata } of commits) {
    const entry: Committed = { topic, partition, offset, metadata }
    group.committed.set(partitionKey(entry), entry)
  }
  return Effect.void
}

const reportDefect = (cause: Cause.Cause<never>): Effect.Effect<void> =>
  Cause.hasDies(cause)
    ? Effect.logError("a callback of MemberEvents threw; its member is stuck", cause)
    : Effect.void

const join = Effect.fnUntraced(function* (state: BrokerState, clientId: string, options: MemberOptions) {
  yield* state.takeFault("join")
  const invalid = validateMemberOptions(brokers, options)
  if (invalid !== undefined) return yield* invalid
  yield* state.logs(
    "join",
    options.topics.map((topic) => ({ topic, partition: 0 }))
  )

  const group = state.group(options.groupId)
  const member = new Member("", clientId, options)
  const joined = Deferred.makeUnsafe<void>()
  const leave = Effect.sync(() => {
    if (member.state === "ended" || member.state === "dead") return
    member.state = "ended"
    state.exit(group, member)
    options.events.onEnd({ reason: "stopped", error: undefined, rejoins: false })
  })

  const pump = Effect.gen(function* () {
    while (true) {
      yield* member.wake.await
      member.wake.closeUnsafe()
      while (state.turn(group, member, () => Deferred.doneUnsafe(joined, Effect.void))) yield* Effect.yieldNow
    }
  })
  const heartbeats = Effect.forever(
    Effect.andThen(
      state.sleep(options.heartbeatIntervalMillis),
      Effect.sync(() => state.heartbeat(group, member))
    )
  )
  yield* Effect.acquireRelease(
    Effect.sync(() => state.enter(group, member)),
    () => leave
  )
  yield* Effect.forkScoped(Effect.tapCause(pump, reportDefect))
  yield* Effect.forkScoped(heartbeats)
  yield* Deferred.await(joined)
  return memberOf(state, group, member, leave)
})

const makeClient = (state: BrokerState, clientId: string): KafkaClient["Service"] => ({
  brokers,
  join: (options) => join(state, clientId, options),
  produce: (records) =>
    Effect.andThen(
      state.takeFault("produce"),
      Effect.suspend(() => state.append(records))
    ),
  committed: (groupId, partitions) =>
    Effect.map(state.takeFault("committed"), () => {
      const committed = state.groups.get(groupId)?.committed
      return partitions.map(({ topic, partition }) => {
        const found = committed?.get(partitionKey({ topic, partition }))
        return { topic, partition, offset: found?.offset, metadata: found?.metadata }
      })
    }),
  logBounds: (partitions) =>
    Effect.gen(function* () {
      yield* state.takeFault("logBounds")
      const logs = yield* state.logs("logBounds", partitions)
      return partitions.map(({ topic, partition }, index) => ({
        topic,
        partition,
        low: logs[index]!.low,
        high: logs[index]!.high
      }))
    }),
  createTopics: (topics) =>
    Effect.map(state.takeFault("createTopics"), () => {
      for (const { topic, partitions } of topics)
        if (!state.topics.has(topic)) state.createTopic(topic, partitions)
    }),
  partitionCounts: (topics) =>
    Effect.gen(function* () {
      yield* state.takeFault("partitionCounts")
      yield* state.logs(
        "partitionCounts",
        topics.map((topic) => ({ topic, partition: 0 }))
      )
      return new Map(topics.map((topic) => [topic, state.topics.get(topic)!.length]))
    })
})

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
  return makeBroker(new BrokerState(options, yield* Clock.Clock, yield* Scope.Scope))
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
