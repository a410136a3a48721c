/**
 * One consumer of @platformatic/kafka, from its connection to its end: the library keeps it in its group (join, sync,
 * heartbeats), and the driver fetches and commits.
 *
 * The rules that this file follows were read in the source of version 2.12; each is named where it matters.
 */
import { ConnectionPool, Consumer } from "@platformatic/kafka"
import type { MemberOptions, OffsetCommit, TopicPartition } from "../KafkaClient.ts"
import type { KafkaError } from "../KafkaErrors.ts"
import { placeOf } from "./adminOperations.ts"
import type { Session, SessionEvents } from "./membership.ts"
import { ask, type Connecting, connect, metadataOf, toOffsets } from "./platformaticCluster.ts"
import { type FetchedPartition, Fetcher } from "./platformaticFetcher.ts"

/** What a member's sessions hand on to each other. */
export interface Identity {
  /** Under its old name a member that comes back takes its own place, which nobody has to wait for. */
  memberId: string | null
}

/** kafkajs's name for the same rule, so that members of both drivers can be in one group. */
const protocols = [{ name: "RoundRobinAssigner", version: 0 }]

/** A member rides out a blink; what lasts longer ends its session, and is seen. */
const aBlink = { retries: 3, retryDelay: 200 }

/** How long a member that leaves while it joins waits to learn by which name the group knows it. */
const nameTimeoutMillis = 1_000

export class PlatformaticSession implements Session {
  readonly consumer: Consumer
  readonly #connecting: Connecting
  readonly #options: MemberOptions
  readonly #session: SessionEvents
  readonly #identity: Identity
  readonly #fetcher: Fetcher
  #partitions = new Map<string, FetchedPartition>()
  /** Counts joins. */
  #epoch = 0
  #joining = true
  #joined = false
  #lost = false
  #leaving = false
  #ended = false
  #watch: NodeJS.Timeout | undefined

  constructor(
    connecting: Connecting,
    options: MemberOptions,
    session: SessionEvents,
    identity: Identity,
    onTrouble: (error: KafkaError, attempt: number, delayMillis: number) => void
  ) {
    this.#connecting = connecting
    this.#options = options
    this.#session = session
    this.#identity = identity
    const { groupId, heartbeatIntervalMillis, sessionTimeoutMillis, topics } = options
    // The library wants it so; a rebalance that waits for less than a session could not wait for anyone.
    const rebalanceTimeout = Math.max(options.rebalanceTimeoutMillis, sessionTimeoutMillis)
    this.consumer = new Consumer({
      ...connecting.client,
      ...aBlink,
      groupId,
      sessionTimeout: sessionTimeoutMillis,
      rebalanceTimeout,
      heartbeatInterval: heartbeatIntervalMillis,
      heartbeatStallTimeout: sessionTimeoutMillis,
      protocols,
      autocommit: false,
      // The answer to a join comes when all others have joined too.
      requestTimeout: Math.max(connecting.requestTimeoutMillis, rebalanceTimeout + 5_000)
    })
    this.consumer.memberId = identity.memberId
    this.consumer.topics.trackAll(...topics)
    this.#fetcher = new Fetcher(this.consumer, connecting, topics, options.maxWaitMillis, {
      onBatch: options.events.onBatch,
      onTrouble,
      onFailure: (error) => this.#fail(error)
    })
    this.consumer.on("consumer:group:join", ({ assignments, generationId, isLeader, memberId }) =>
      this.#onGroupJoin(memberId, generationId, assignments ?? [], isLeader === true)
    )
    this.consumer.on("consumer:heartbeat:end", () => {
      if (this.isIn()) options.events.onHeartbeat()
    })
    this.consumer.on("consumer:heartbeat:error", ({ error }) => this.#fail(error))
    this.consumer.on("consumer:heartbeat:stalled", ({ lastError, stalledFor }) =>
      this.#fail(lastError ?? new Error(`no heartbeat was acknowledged for ${stalledFor} ms`))
    )
    // A heartbeat told to join again, and that failed: the library does nothing more by itself.
    this.consumer.on("error", (error) => this.#fail(error))
  }

  async run(): Promise<void> {
    try {
      await this.consumer.joinGroup()
    } finally {
      this.#joining = false
    }
  }

  isIn(): boolean {
    return this.#joined && !this.#lost && !this.#leaving && !this.#ended
  }

  isAssigned(partition: TopicPartition): boolean {
    return this.#partitions.has(placeOf(partition))
  }

  pause(partitions: ReadonlyArray<TopicPartition>): void {
    for (const place of partitions) {
      const partition = this.#partitions.get(placeOf(place))
      if (partition !== undefined) partition.resumed = false
    }
  }

  resume(partitions: ReadonlyArray<TopicPartition>): void {
    for (const place of partitions) {
      const partition = this.#partitions.get(placeOf(place))
      if (partition !== undefined) partition.resumed = true
    }
    this.#fetcher.wake()
  }

  seek(place: TopicPartition, offset: number): void {
    const partition = this.#partitions.get(placeOf(place))
    if (partition === undefined) return
    partition.position = offset
    this.#fetcher.wake()
  }

  /**
   * By the protocol's request: the library's own verb sends no metadata, and where the generation is over it joins again
   * and sends the same commit under the new one.
   */
  async commit(commits: ReadonlyArray<OffsetCommit>): Promise<boolean> {
    const epoch = this.#epoch
    const { generationId, memberId } = this.consumer
    if (memberId === null) return false
    const coordinator = await this.consumer.findGroupCoordinator()
    const metadata = this.consumer.currentMetadata ?? (await metadataOf(this.consumer, this.#options.topics))
    const connection = await connect(this.consumer, metadata.brokers.get(coordinator))
    const { groupId } = this.#options
    await ask(
      this.consumer,
      connection,
      "OffsetCommit",
      groupId,
      generationId,
      memberId,
      null,
      toOffsets(commits)
    )
    return this.isIn() && this.#epoch === epoch
  }

  /** Leaves the group, and closes the connections. */
  async leave(): Promise<void> {
    this.#leaving = true
    this.#fetcher.stop()
    clearInterval(this.#watch)
    if (this.#ended) return
    if (this.#joining) await this.#leaveJoining()
    // Where the group can't be told, it notices at the session timeout.
    else await this.consumer.close().catch(() => {})
    this.end(undefined)
  }

  end(error: Error | undefined): void {
    if (this.#ended) return
    this.#ended = true
    this.#fetcher.stop()
    clearInterval(this.#watch)
    if (!this.consumer.closed) {
      this.#identity.memberId = this.consumer.memberId
      this.#abandon()
      this.consumer.close(() => {})
    }
    this.#session.onEnd({ error: this.#leaving ? undefined : error, joined: this.#joined })
  }

  cut(): void {
    this.#fetcher.cut()
    for (const [, connection] of this.consumer.connections) connection.socket?.destroy()
  }

  release(): void {}

  /** Stops the library's heartbeats and joins without a word to the group. */
  #abandon(): string | null {
    const { memberId } = this.consumer
    // Without a name there is nobody to leave.
    this.consumer.memberId = null
    this.consumer.leaveGroup(() => {})
    return memberId
  }

  /**
   * While a join waits for its answer, brokers read nothing more from that connection: the leave takes another one.
   * Before its first answer the group has no name for the member; that comes at once.
   */
  async #leaveJoining(): Promise<void> {
    const giveUpAt = Date.now() + nameTimeoutMillis
    while (this.#joining && this.consumer.memberId === null && Date.now() < giveUpAt)
      await new Promise((resolve) => setTimeout(resolve, 5))
    const { coordinatorId, currentMetadata } = this.consumer
    const memberId = this.#abandon()
    const broker = coordinatorId === null ? undefined : currentMetadata?.brokers.get(coordinatorId)
    if (memberId !== null && broker !== undefined) {
      const pool = new ConnectionPool(this.#connecting.client.clientId, this.#connecting.client)
      try {
        await ask(this.consumer, await pool.get(broker), "LeaveGroup", this.#options.groupId, [{ memberId }])
      } catch {
        // The group notices at the session timeout.
      }
      pool.close(() => {})
    }
  }

  #fail(error: Error): void {
    if (this.#ended || this.#leaving) return
    if (this.isIn()) {
      this.#lost = true
      this.#session.onLost()
    }
    this.end(error)
  }

  /** The library tells of a join before anything else can happen in the new generation. */
  #onGroupJoin(
    memberId: string,
    generation: number | undefined,
    assignments: ReadonlyArray<{ readonly topic: string; readonly partitions: ReadonlyArray<number> }>,
    isLeader: boolean
  ): void {
    this.#epoch++
    const assigned = assignments.flatMap(({ topic, partitions }) =>
      [...partitions].sort((left, right) => left - right).map((partition) => ({ topic, partition }))
    )
    const partitions = assigned.map((place) => ({ ...place, position: undefined, resumed: false }))
    this.#partitions = new Map(partitions.map((partition) => [placeOf(partition), partition]))
    this.#fetcher.assign(partitions)
    this.#joined = true
    if (!this.isIn()) return
    this.#watchPartitions(isLeader)
    this.#options.events.onHeartbeat()
    this.#options.events.onAssignment({ memberId, generation, partitions: assigned })
  }

  /** The group's leader has it join again when topics have got more partitions, which the library does not do. */
  #watchPartitions(isLeader: boolean): void {
    clearInterval(this.#watch)
    if (!isLeader) return
    const epoch = this.#epoch
    const { topics } = this.#options
    const count = async (): Promise<string> => {
      const metadata = await metadataOf(this.consumer, topics)
      return topics.map((topic) => metadata.topics.get(topic)?.partitionsCount ?? 0).join(" ")
    }
    const mayAct = (): boolean => this.isIn() && this.#epoch === epoch
    const before = count()
    const look = async (): Promise<void> => {
      const [known, now] = await Promise.all([before, count()])
      if (known === now || !mayAct()) return
      this.consumer.joinGroup().catch((error: Error) => this.#fail(error))
    }
    before.catch(() => {})
    // What brokers can't tell now, they will tell next time.
    this.#watch = setInterval(() => look().catch(() => {}), this.#connecting.metadataMaxAgeMillis)
  }
}
