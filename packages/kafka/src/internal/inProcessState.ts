import { Clock, Effect, type Scope } from "effect"
import type { HeaderValue, KafkaRecord, ProducerRecord, TopicPartition } from "../KafkaClient.ts"
import { KafkaError, type KafkaErrorReason } from "../KafkaErrors.ts"
import {
  type AssignedPartition,
  type Assignor,
  assignPartitions,
  Group,
  type Member,
  partitionKey
} from "./inProcessGroup.ts"
import { PartitionLog } from "./inProcessLog.ts"
import { Transactions } from "./inProcessTransactions.ts"
import { partitionOf } from "./murmur2.ts"

/** What stands for addresses in errors. */
export const brokers = ["in-process"]

export const makeError = (
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

/** How the broker behaves; see `InProcessKafka.Options`. */
export interface BrokerSettings {
  readonly maxRecordsPerBatch: number
  readonly maxRecordBytes: number
  readonly assignor: Assignor
}

/** The state behind a `Broker`, and what its clients do to it. */
export class BrokerState {
  readonly topics = new Map<string, Array<PartitionLog>>()
  readonly groups = new Map<string, Group>()
  /** Every member that a client still runs, also those that their groups have dropped. */
  readonly members = new Map<string, { readonly group: Group; readonly member: Member }>()
  readonly transactions = new Transactions(this)
  readonly faults = new Map<string, Array<KafkaError>>()
  readonly clock: Clock.Clock
  readonly scope: Scope.Scope
  readonly settings: BrokerSettings
  #keylessTurns = new Map<string, number>()
  #memberCount = 0

  constructor(settings: BrokerSettings, clock: Clock.Clock, scope: Scope.Scope) {
    this.clock = clock
    this.scope = scope
    this.settings = settings
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
    if (logs.length >= partitions) return
    while (logs.length < partitions) logs.push(new PartitionLog())
    this.topics.set(topic, logs)
    for (const group of this.groups.values())
      if ([...group.members].some((member) => member.options.topics.includes(topic))) this.prepareRound(group)
  }

  wakeMembers(): void {
    for (const group of this.groups.values()) for (const member of group.members) member.wake.openUnsafe()
  }

  takeFault(operation: string): Effect.Effect<void, KafkaError> {
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
      const shares = assignPartitions(
        this.settings.assignor,
        members,
        (topic) => this.topics.get(topic)?.length ?? 0
      )
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
    const { records, nextOffset } = log.read(fetchedOffset, this.settings.maxRecordsPerBatch)
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

  /** All of them or none. Those of a transaction are read when it is committed. */
  append(records: ReadonlyArray<ProducerRecord>, transaction?: object): Effect.Effect<void, KafkaError> {
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
      if (bytes > this.settings.maxRecordBytes) {
        const detail = `a record for topic "${record.topic}" has ${bytes} bytes; allowed: ${this.settings.maxRecordBytes}`
        return Effect.fail(makeError("produce", "RecordTooLarge", detail))
      }
      targets.push({ log, record: stored })
    }
    for (const { log, record } of targets) log.append(record, transaction)
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
