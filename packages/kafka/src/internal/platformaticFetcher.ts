/**
 * Fetches for one group member: long polls, side by side, each for the partitions that wait for one.
 *
 * A fetch waits for data up to `maxWaitMillis`, and can't be called back. So that a partition which is resumed
 * meanwhile need not wait for it, there are several lanes, with a connection each (brokers answer the requests of a
 * connection one after the other). A partition is in one fetch at a time.
 */
import {
  type Base,
  type ClusterMetadata,
  ConnectionPool,
  type fetchV17,
  protocolErrorsCodesById
} from "@platformatic/kafka"
import type { RecordBatch, TopicPartition } from "../KafkaClient.ts"
import type { KafkaError } from "../KafkaErrors.ts"
import { placeOf } from "./adminOperations.ts"
import { listOffsets } from "./platformaticAdmin.ts"
import {
  ask,
  type Connecting,
  earliest,
  metadataOf,
  readCommitted,
  versionOf
} from "./platformaticCluster.ts"
import { toKafkaError } from "./platformaticErrors.ts"
import { readPartition } from "./platformaticRecords.ts"
import { makeKafkaError, reasonOf } from "./protocolErrors.ts"
import { delayMillisAfter } from "./retrying.ts"

/** One partition of the assignment, as the member wants it fetched. */
export interface FetchedPartition extends TopicPartition {
  /** Where the next batch begins; `undefined` before the first `seek`. */
  position: number | undefined
  resumed: boolean
}

interface Wanted {
  readonly partition: FetchedPartition
  readonly offset: number
}

/** Of fetches to one broker at once. More would only cut what there is into smaller answers. */
const lanesPerBroker = 4
/** From this version on, requests name topics by their ids. */
const firstVersionWithIds = 13
const none = 0

export interface FetcherEvents {
  readonly onBatch: (batch: RecordBatch) => void
  /** A fetch failed; it is tried again in this time. */
  readonly onTrouble: (error: KafkaError, attempt: number, delayMillis: number) => void
  /** Trying again has not helped, or can't. */
  readonly onFailure: (error: KafkaError) => void
}

export class Fetcher {
  readonly #client: Base
  readonly #connecting: Connecting
  readonly #topics: ReadonlyArray<string>
  readonly #maxWaitMillis: number
  readonly #events: FetcherEvents
  readonly #pools: Array<ConnectionPool> = []
  #partitions: ReadonlyArray<FetchedPartition> = []
  /** Partitions that a fetch is under way for, or that rest after a failed one. */
  readonly #busy = new Set<FetchedPartition>()
  /** Lanes at work, by broker. */
  readonly #lanes = new Map<number, Set<number>>()
  readonly #failures = new Map<FetchedPartition, number>()
  #first = 0
  #metadata: ClusterMetadata | undefined
  #asking = false
  #due: NodeJS.Immediate | undefined
  #stopped = false

  constructor(
    client: Base,
    connecting: Connecting,
    topics: ReadonlyArray<string>,
    maxWaitMillis: number,
    events: FetcherEvents
  ) {
    this.#client = client
    this.#connecting = connecting
    this.#topics = topics
    this.#maxWaitMillis = maxWaitMillis
    this.#events = events
  }

  /** These are the partitions from now on; what is under way for others is dropped when it comes. */
  assign(partitions: ReadonlyArray<FetchedPartition>): void {
    this.#partitions = partitions
    this.#busy.clear()
    this.#failures.clear()
  }

  /** Something may be there to be fetched now. What is said in one go becomes one fetch. */
  wake(): void {
    if (this.#stopped) return
    this.#due ??= setImmediate(() => {
      this.#due = undefined
      this.#dispatch()
    })
  }

  /** Ends all fetches, and their connections. */
  stop(): void {
    if (this.#stopped) return
    this.#stopped = true
    clearImmediate(this.#due)
    this.cut()
    for (const pool of this.#pools) pool.close(() => {})
  }

  /** Ends the connections at once. */
  cut(): void {
    for (const pool of this.#pools) for (const [, connection] of pool) connection.socket?.destroy()
  }

  #dispatch(): void {
    if (this.#stopped) return
    const byLeader = new Map<number, Array<Wanted>>()
    const count = this.#partitions.length
    // Brokers fill an answer in the order of the request: nobody shall always be the last.
    this.#first = (this.#first + 1) % Math.max(1, count)
    for (let turn = 0; turn < count; turn++) {
      const partition = this.#partitions[(this.#first + turn) % count]!
      if (!partition.resumed || partition.position === undefined || this.#busy.has(partition)) continue
      const leader = this.#metadata?.topics.get(partition.topic)?.partitions[partition.partition]?.leader
      if (leader === undefined) {
        this.#learnLeaders()
        continue
      }
      const wanted = { partition, offset: partition.position }
      const before = byLeader.get(leader)
      if (before === undefined) byLeader.set(leader, [wanted])
      else before.push(wanted)
    }
    for (const [leader, wanted] of byLeader) {
      const lane = this.#freeLane(leader)
      if (lane !== undefined) void this.#run(leader, lane, wanted)
    }
  }

  #freeLane(leader: number): number | undefined {
    const atWork = this.#lanes.get(leader) ?? new Set()
    this.#lanes.set(leader, atWork)
    for (let lane = 0; lane < lanesPerBroker; lane++) {
      if (atWork.has(lane)) continue
      atWork.add(lane)
      return lane
    }
    return undefined
  }

  #poolOf(lane: number): ConnectionPool {
    const { client, requestTimeoutMillis } = this.#connecting
    this.#pools[lane] ??= new ConnectionPool(client.clientId, {
      ...client,
      requestTimeout: requestTimeoutMillis + this.#maxWaitMillis
    })
    return this.#pools[lane]
  }

  /** One fetch, from its request to what it brought. Never rejects. */
  async #run(leader: number, lane: number, wanted: ReadonlyArray<Wanted>): Promise<void> {
    for (const { partition } of wanted) this.#busy.add(partition)
    let failed: ReadonlyArray<FetchedPartition> = []
    let error: KafkaError | undefined
    try {
      const response = await this.#fetch(leader, lane, wanted)
      if (!this.#stopped) ({ failed, error } = await this.#receive(response, wanted))
    } catch (cause) {
      failed = wanted.map(({ partition }) => partition)
      error = toKafkaError(cause, this.#context())
    }
    this.#lanes.get(leader)?.delete(lane)
    for (const { partition } of wanted) if (!failed.includes(partition)) this.#busy.delete(partition)
    if (this.#stopped) return
    if (error !== undefined) void this.#recover(failed, error)
    this.#dispatch()
  }

  async #fetch(
    leader: number,
    lane: number,
    wanted: ReadonlyArray<Wanted>
  ): Promise<ReadonlyMap<string, fetchV17.FetchResponsePartition>> {
    const { maxBytes, maxBytesPerPartition } = this.#connecting
    const metadata = this.#metadata!
    const broker = metadata.brokers.get(leader)
    if (broker === undefined)
      throw new Error(`broker ${leader} leads a partition, and is not among the brokers`)
    const withIds = (await versionOf(this.#client, "Fetch")) >= firstVersionWithIds
    const names = new Map<string, string>()
    const topics = new Map<string, fetchV17.FetchRequestTopic>()
    for (const { partition, offset } of wanted) {
      const { topic } = partition
      const topicId = withIds ? (metadata.topics.get(topic)?.id ?? "") : topic
      names.set(topicId, topic)
      const requested = {
        partition: partition.partition,
        currentLeaderEpoch: -1,
        fetchOffset: BigInt(offset),
        lastFetchedEpoch: -1,
        partitionMaxBytes: maxBytesPerPartition
      }
      const before = topics.get(topicId)
      if (before === undefined) topics.set(topicId, { topicId, partitions: [requested] })
      else before.partitions.push(requested)
    }
    const connection = await this.#poolOf(lane).get(broker)
    // Session 0 with epoch -1: each fetch says all it wants, and the broker remembers nothing of it.
    const request = [
      this.#maxWaitMillis,
      1,
      maxBytes,
      readCommitted,
      0,
      -1,
      [...topics.values()],
      [],
      ""
    ] as const
    const answer = await ask(
      this.#client,
      connection,
      "Fetch",
      ...(request as unknown as Parameters<FetchRequest>)
    ).then(
      (fetched) => fetched.answer,
      // The library rejects where one partition has an error; the others are in the answer all the same.
      (error: { readonly response?: fetchV17.FetchResponse }) => {
        if (error?.response?.errorCode !== none) throw error
        return error.response
      }
    )
    const found = new Map<string, fetchV17.FetchResponsePartition>()
    for (const { topicId, partitions } of answer.responses)
      for (const one of partitions)
        found.set(placeOf({ topic: names.get(topicId) ?? "", partition: one.partitionIndex }), one)
    return found
  }

  /** Hands on what came; answers what failed. */
  async #receive(
    found: ReadonlyMap<string, fetchV17.FetchResponsePartition>,
    wanted: ReadonlyArray<Wanted>
  ): Promise<{ readonly failed: ReadonlyArray<FetchedPartition>; readonly error: KafkaError | undefined }> {
    const failed: Array<FetchedPartition> = []
    const outside: Array<Wanted> = []
    let error: KafkaError | undefined
    for (const one of wanted) {
      const { partition, offset } = one
      const response = found.get(placeOf(partition))
      // Sought, or taken away meanwhile: dropped.
      if (response === undefined || partition.position !== offset || !this.#partitions.includes(partition))
        continue
      if (response.errorCode === outOfRange) outside.push(one)
      else if (response.errorCode !== none) {
        failed.push(partition)
        error ??= this.#errorOf(response.errorCode, partition)
      } else {
        this.#failures.delete(partition)
        if (partition.resumed) this.#deliver(one, response)
      }
    }
    if (outside.length > 0) await this.#beginAgain(outside)
    return { failed, error }
  }

  #deliver({ partition, offset }: Wanted, response: fetchV17.FetchResponsePartition): void {
    const read = readPartition(partition.topic, partition.partition, offset, response)
    if (read === undefined) return
    partition.position = read.nextOffset
    this.#events.onBatch({
      topic: partition.topic,
      partition: partition.partition,
      records: read.records,
      fetchedOffset: offset,
      nextOffset: read.nextOffset,
      highWatermark: Number(response.highWatermark)
    })
  }

  /** Outside the log: on from its low end. The next batch tells, by where it begins. */
  async #beginAgain(outside: ReadonlyArray<Wanted>): Promise<void> {
    const topics = [...new Set(outside.map(({ partition }) => partition.topic))]
    const places = new Set(outside.map(({ partition }) => placeOf(partition)))
    const low = await listOffsets(this.#client, this.#metadata!, topics, places, earliest)
    for (const { partition, offset } of outside)
      if (partition.position === offset) partition.position = low.get(placeOf(partition)) ?? offset
  }

  /** After a pause, with the leaders asked for anew, the partitions are fetched again. */
  async #recover(partitions: ReadonlyArray<FetchedPartition>, error: KafkaError): Promise<void> {
    let attempt = 0
    for (const partition of partitions) {
      const count = (this.#failures.get(partition) ?? 0) + 1
      this.#failures.set(partition, count)
      attempt = Math.max(attempt, count)
    }
    const { retry } = this.#connecting
    if (error.reason === "Unauthorized" || (!error.retriable && attempt >= retry.attempts)) {
      this.#events.onFailure(error)
      return
    }
    const delayMillis = delayMillisAfter(retry, attempt)
    this.#events.onTrouble(error, attempt, delayMillis)
    await new Promise((resolve) => setTimeout(resolve, delayMillis))
    if (this.#stopped) return
    // only if it is no lasting trouble will the next fetch succeed
    await this.#refresh().catch(() => {})
    for (const partition of partitions) this.#busy.delete(partition)
    this.#dispatch()
  }

  #learnLeaders(): void {
    if (this.#asking) return
    this.#asking = true
    const resting = this.#partitions.filter((partition) => !this.#busy.has(partition))
    this.#refresh().then(
      () => {
        this.#asking = false
        const unknown = resting.filter(
          ({ topic, partition }) => this.#metadata?.topics.get(topic)?.partitions[partition] === undefined
        )
        if (unknown.length > 0) this.#rest(unknown, this.#errorOf(unknownTopic, unknown[0]!))
        this.#dispatch()
      },
      (error: unknown) => {
        this.#asking = false
        this.#rest(resting, toKafkaError(error, this.#context()))
      }
    )
  }

  #rest(partitions: ReadonlyArray<FetchedPartition>, error: KafkaError): void {
    if (this.#stopped) return
    for (const partition of partitions) this.#busy.add(partition)
    void this.#recover(partitions, error)
  }

  async #refresh(): Promise<void> {
    const metadata = await metadataOf(this.#client, this.#topics)
    if (!this.#stopped) this.#metadata = metadata
  }

  #context() {
    return { operation: "fetch", brokers: this.#connecting.brokers, topics: this.#topics }
  }

  #errorOf(errorCode: number, { partition, topic }: TopicPartition): KafkaError {
    const name = protocolErrorsCodesById[errorCode]
    const text = `partition ${partition} of topic "${topic}": ${name ?? `error ${errorCode}`}`
    return makeKafkaError(
      reasonOf(name) ?? "Protocol",
      text,
      { ...this.#context(), topics: [topic] },
      undefined
    )
  }
}

type FetchRequest = typeof fetchV17.createRequest
const outOfRange = 1
const unknownTopic = 3
