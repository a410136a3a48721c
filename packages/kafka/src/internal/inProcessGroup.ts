import { Latch } from "effect"
import type { Assignment, MemberOptions, TopicPartition } from "../KafkaClient.ts"
import type { PartitionLog } from "./inProcessLog.ts"

export const partitionKey = (partition: TopicPartition): string => `${partition.partition}/${partition.topic}`

/** A partition as its member sees it. Nothing is delivered before `position` and `resumed` are both set. */
export interface AssignedPartition extends TopicPartition {
  readonly log: PartitionLog
  position: number | undefined
  resumed: boolean
}

export interface Committed extends TopicPartition {
  readonly offset: number
  readonly metadata: string
}

/** A member, as its coordinator and its own client know it. */
export class Member {
  readonly options: MemberOptions
  readonly clientId: string
  /** Changes when the coordinator forgot the member, and it joined again. */
  id: string
  /** `dead`: no heartbeat, no delivery, no callback, for ever; `isolated`: so for a while. */
  state: "alive" | "isolated" | "dead" | "ended" = "alive"
  /** Whether it has sent its request to join the round that the group is preparing. */
  rejoined = true
  lastHeartbeatMillis = 0
  assigned = new Map<string, AssignedPartition>()
  /** What its client has not been told yet. */
  pendingAssignment: Assignment | undefined
  readonly wake = Latch.makeUnsafe(true)

  constructor(id: string, clientId: string, options: MemberOptions) {
    this.id = id
    this.clientId = clientId
    this.options = options
  }
}

export type Assignor = "round-robin" | "range"

/** The partitions of the members' topics, shared out; each goes to one member that subscribed to its topic. */
export const assignPartitions = (
  assignor: Assignor,
  members: ReadonlyArray<Member>,
  partitionCount: (topic: string) => number
): Map<Member, Array<TopicPartition>> => {
  const shares = new Map<Member, Array<TopicPartition>>(members.map((member) => [member, []]))
  const topics = [...new Set(members.flatMap((member) => member.options.topics))].sort()
  let turn = 0
  for (const topic of topics) {
    const subscribers = members.filter((member) => member.options.topics.includes(topic))
    const count = partitionCount(topic)
    for (let partition = 0; partition < count; partition++) {
      const at =
        assignor === "range"
          ? Math.floor((partition * subscribers.length) / count)
          : turn++ % subscribers.length
      shares.get(subscribers[at]!)!.push({ topic, partition })
    }
  }
  return shares
}

/**
 * A consumer group: who is in it, and the rounds by which it shares out its partitions. Eager, as Kafka's classic
 * protocol: a round ends when every member has asked to join it, or was dropped.
 */
export class Group {
  readonly id: string
  generation = 0
  /** The round being prepared, counted up; `undefined` while the group is stable. */
  preparing: number | undefined
  readonly members = new Set<Member>()
  readonly committed = new Map<string, Committed>()
  #rounds = 0

  constructor(id: string) {
    this.id = id
  }

  /** Begins a round, unless one is being prepared; answers its number. */
  prepare(): number {
    if (this.preparing === undefined) {
      this.preparing = ++this.#rounds
      for (const member of this.members) member.rejoined = false
    }
    for (const member of this.members) member.wake.openUnsafe()
    return this.preparing
  }

  /** Ends the round when nobody is missing any more. */
  completeRound(
    assign: (members: ReadonlyArray<Member>) => Map<Member, Array<AssignedPartition>>,
    nowMillis: number
  ): void {
    if (this.preparing === undefined) return
    const members = [...this.members]
    if (members.some((member) => !member.rejoined)) return
    this.preparing = undefined
    this.generation++
    for (const [member, partitions] of assign(members)) {
      member.assigned = new Map(partitions.map((partition) => [partitionKey(partition), partition]))
      member.lastHeartbeatMillis = nowMillis
      member.pendingAssignment = {
        memberId: member.id,
        generation: this.generation,
        partitions: partitions.map(({ topic, partition }) => ({ topic, partition }))
      }
      member.wake.openUnsafe()
    }
  }
}
