/**
 * Requests to brokers by @platformatic/kafka: its connections, its metadata, its encoding of the protocol.
 *
 * The library's own verbs for offsets leave out what the driver lives by (a commit's metadata, the generation of the
 * moment, one try and no more), so the driver asks by the protocol's requests, which the library exports.
 */
import {
  type API,
  type addOffsetsToTxnV4,
  addPartitionsToTxnV3,
  type Base,
  type Broker,
  type BaseOptions as ClientOptions,
  type ClusterMetadata,
  type Connection,
  type createTopicsV7,
  type endTxnV4,
  type fetchV17,
  type findCoordinatorV6,
  type initProducerIdV5,
  kGetApi,
  kGetBootstrapConnection,
  kGetConnection,
  type leaveGroupV5,
  type listOffsetsV9,
  NetworkError,
  type offsetCommitV9,
  type offsetFetchV9,
  type produceV11,
  type txnOffsetCommitV4
} from "@platformatic/kafka"
import type { OffsetCommit } from "../KafkaClient.ts"
import type { ClientSettings } from "./clientOptions.ts"

/** What the parts of this driver share. */
export interface Connecting extends ClientSettings {
  readonly brokers: ReadonlyArray<string>
  readonly requestTimeoutMillis: number
  /** What each of the library's clients is made with. */
  readonly client: ClientOptions
}

/** The requests that the driver sends, each in the newest version that the brokers and the library share. */
interface Requests {
  readonly AddOffsetsToTxn: typeof addOffsetsToTxnV4.api
  readonly AddPartitionsToTxn: typeof addPartitionsToTxnV3.api
  readonly CreateTopics: typeof createTopicsV7.api
  readonly EndTxn: typeof endTxnV4.api
  readonly Fetch: typeof fetchV17.api
  readonly FindCoordinator: typeof findCoordinatorV6.api
  readonly InitProducerId: typeof initProducerIdV5.api
  readonly LeaveGroup: typeof leaveGroupV5.api
  readonly ListOffsets: typeof listOffsetsV9.api
  readonly OffsetCommit: typeof offsetCommitV9.api
  readonly OffsetFetch: typeof offsetFetchV9.api
  readonly Produce: typeof produceV11.api
  readonly TxnOffsetCommit: typeof txnOffsetCommitV4.api
}

type ArgumentsOf<Request> = Request extends API<infer Arguments, infer _> ? Arguments : never
type AnswerOf<Request> = Request extends API<infer _, infer Answer> ? Answer : never

const promise = <A>(start: (callback: (error: Error | null, value?: A) => void) => void): Promise<A> =>
  new Promise((resolve, reject) => {
    start((error, value) => (error === null || error === undefined ? resolve(value as A) : reject(error)))
  })

const requestOf = (client: Base, name: keyof Requests): Promise<API<Array<unknown>, unknown>> =>
  // AddPartitionsToTxn from version 4 on is for brokers among each other.
  name === "AddPartitionsToTxn"
    ? Promise.resolve(addPartitionsToTxnV3.api as unknown as API<Array<unknown>, unknown>)
    : promise((callback) => client[kGetApi](name, callback))

/** Sends one request on this connection, and gives its answer with the version that it was sent in. */
export const ask = async <Name extends keyof Requests>(
  client: Base,
  connection: Connection,
  name: Name,
  ...args: ArgumentsOf<Requests[Name]>
): Promise<{ readonly version: number; readonly answer: AnswerOf<Requests[Name]> }> => {
  type Arguments = ArgumentsOf<Requests[Name]>
  type Answer = AnswerOf<Requests[Name]>
  const request = (await requestOf(client, name)) as API<Arguments, Answer>
  return { version: request.version, answer: await request.async(connection, ...args) }
}

/** The version in which the brokers and the library share a request. */
export const versionOf = async (client: Base, name: keyof Requests): Promise<number> =>
  (await requestOf(client, name)).version

/** A connection to this broker; an error where it is not among the brokers that the metadata names. */
export const connect = (client: Base, broker: Broker | undefined): Promise<Connection> =>
  promise((callback) => client[kGetConnection](broker as Broker, callback))

const connectToAny = (client: Base): Promise<Connection> =>
  promise((callback) => client[kGetBootstrapConnection](callback))

/** What the brokers say now of these topics. */
export const metadataOf = (client: Base, topics: ReadonlyArray<string>): Promise<ClusterMetadata> =>
  client.metadata({ topics: [...topics], forceUpdate: true, retries: 0 })

/** What a coordinator is for. */
export type Coordinated = "group" | "transaction"

/** The broker that keeps a group, or the transactions of an id. */
export const findCoordinator = async (client: Base, kind: Coordinated, name: string): Promise<Broker> => {
  const any = await connectToAny(client)
  const { answer } = await ask(client, any, "FindCoordinator", kind === "group" ? 0 : 1, [name])
  const found = answer.coordinators[0]
  if (found === undefined) throw new NetworkError(`no coordinator was named for ${kind} "${name}"`)
  return found
}

/** Commits by topic, as requests have them. */
export const toOffsets = (commits: ReadonlyArray<OffsetCommit>) =>
  [...new Set(commits.map(({ topic }) => topic))].map((name) => ({
    name,
    partitions: commits
      .filter(({ topic }) => topic === name)
      .map(({ metadata, offset, partition }) => ({
        partitionIndex: partition,
        committedOffset: BigInt(offset),
        committedLeaderEpoch: -1,
        committedMetadata: metadata
      }))
  }))

/** For `Fetch` and `ListOffsets`: only what is committed. */
export const readCommitted = 1
/** For `ListOffsets`, in place of a time: the log's beginning, and its end. */
export const earliest = -2n
export const latest = -1n
