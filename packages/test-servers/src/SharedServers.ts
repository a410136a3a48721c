import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { text } from "node:stream/consumers"
import { findOwnKafka, type KafkaServer, startKafka } from "./Kafka.ts"
import { findOwnRedis, findRedisPrograms, type RedisServer, startRedis, startValkey } from "./Redis.ts"
import { startRedisCluster } from "./RedisCluster.ts"
import { ServerUnavailable } from "./ServerUnavailable.ts"

/** What test files are told of each kind of server. */
export interface ServerDescriptions {
  readonly kafka: Pick<KafkaServer, "brokers" | "kind">
  /** Nothing is shared: a test starts its own, which is known to be possible. */
  readonly ownKafka: Record<never, never>
  readonly redis: Pick<RedisServer, "url" | "kind">
  readonly valkey: Pick<RedisServer, "url" | "kind">
  readonly ownRedis: Record<never, never>
  readonly redisCluster: { readonly urls: ReadonlyArray<string> }
  readonly ownRedisCluster: Record<never, never>
}

export type ServerKind = keyof ServerDescriptions

interface StartedServer {
  readonly description: ServerDescriptions[ServerKind]
  readonly stop: () => Promise<void>
}

/** Of servers that each test starts for itself: only finds out whether it could. */
const startedByTests = async (find: () => Promise<unknown>): Promise<StartedServer> => {
  await find()
  return { description: {}, stop: () => Promise.resolve() }
}

const startedRedis = async (start: () => Promise<RedisServer>): Promise<StartedServer> => {
  const { kind, stop, url } = await start()
  return { description: { kind, url }, stop }
}

const starts: Record<ServerKind, () => Promise<StartedServer>> = {
  kafka: async () => {
    const { brokers, kind, stop } = await startKafka()
    return { description: { brokers, kind }, stop }
  },
  ownKafka: () => startedByTests(findOwnKafka),
  redis: () => startedRedis(startRedis),
  valkey: () => startedRedis(startValkey),
  ownRedis: () => startedByTests(findOwnRedis),
  redisCluster: async () => {
    const { nodes, stop } = await startRedisCluster()
    return { description: { urls: nodes.map(({ url }) => url) }, stop }
  },
  ownRedisCluster: () => startedByTests(findRedisPrograms)
}

/** The answer to a test file that asks for a server. */
export type ServerAnswer<Kind extends ServerKind> =
  | { readonly type: "available"; readonly server: ServerDescriptions[Kind] }
  | { readonly type: "unavailable"; readonly message: string }
  | { readonly type: "failed"; readonly message: string }

/** The servers of one test run. */
export interface SharedServers {
  /** Where test files, which run in other processes, ask. */
  readonly url: string
  /** Ends what was started; answers what was asked for and not to be had: `KAFKA (why, why)`. */
  readonly stop: () => Promise<ReadonlyArray<string>>
}

const answer = async (started: Promise<StartedServer>): Promise<ServerAnswer<ServerKind>> => {
  try {
    return { type: "available", server: (await started).description }
  } catch (error) {
    if (error instanceof ServerUnavailable) return { type: "unavailable", message: error.message }
    return { type: "failed", message: String(error) }
  }
}

/** Opens the door; a server starts when the first test file asks for it, and only then. */
export const openSharedServers = async (): Promise<SharedServers> => {
  const started = new Map<ServerKind, Promise<StartedServer>>()
  const told = new Set<string>()
  const door = createServer(async (request, response) => {
    if (request.method === "POST") {
      told.add(await text(request))
      response.end()
      return
    }
    const kind = request.url?.slice(1) as ServerKind
    const server = started.get(kind) ?? starts[kind]()
    started.set(kind, server)
    response.setHeader("content-type", "application/json").end(JSON.stringify(await answer(server)))
  })
  door.listen(0, "127.0.0.1")
  await once(door, "listening")
  return {
    url: `http://127.0.0.1:${(door.address() as AddressInfo).port}`,
    stop: async () => {
      door.close()
      door.closeAllConnections()
      const notRun = new Set(told)
      for (const result of await Promise.allSettled(started.values())) {
        if (result.status === "fulfilled") await result.value.stop()
        else if (result.reason instanceof ServerUnavailable) notRun.add(result.reason.message)
      }
      return [...notRun]
    }
  }
}

/** Asks at the door for a server of the run. */
export const askForServer = async <Kind extends ServerKind>(
  url: string,
  kind: Kind
): Promise<ServerAnswer<Kind>> => {
  const response = await fetch(`${url}/${kind}`)
  return (await response.json()) as ServerAnswer<Kind>
}

/** Tells at the door of what a test file needs and the machine has not: `MOUNTING (takes Linux and root)`. */
export const tellNotRun = async (url: string, message: string): Promise<void> => {
  await fetch(url, { method: "POST", body: message })
}
