/** What is made sure of before a store says that it is there. */
import { randomBytes } from "node:crypto"
import type { StoreError } from "@tidemark/core"
import { Effect } from "effect"
import { Cluster, type Redis } from "ioredis"
import type { Connection } from "./Connection.ts"
import { failure, fromRedis, wrongVersion } from "./errors.ts"
import type { Settings } from "./options.ts"
import { startScripts } from "./scripts.ts"

const verb = "start"
const format = "1"
const oldest = [6, 2] as const

const lineOf = (info: string, name: string): string | undefined =>
  new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(info)?.[1]

const isTooOld = (version: string): boolean => {
  const [major, minor] = version.split(".").map(Number)
  return major < oldest[0] || (major === oldest[0] && minor < oldest[1])
}

const isNotAllowed = (error: StoreError): boolean => error.reason === "Refused"

/** Where INFO is forbidden, CONFIG GET may be allowed. */
const policyByConfig = (connection: Connection, node: Redis) =>
  Effect.map(
    connection.send(verb, () => node.config("GET", "maxmemory-policy")),
    (reply) => (reply as Array<string>)[1] as string | undefined
  )

const checkNode = (connection: Connection, node: Redis, acceptEviction: boolean) =>
  Effect.gen(function* () {
    const info = yield* connection
      .send(verb, () => node.info())
      .pipe(
        Effect.map(String),
        Effect.catch((error) => (isNotAllowed(error) ? Effect.succeed("") : Effect.fail(error)))
      )
    const version = lineOf(info, "redis_version")
    if (version !== undefined && isTooOld(version)) {
      return yield* failure(
        verb,
        "Misconfigured",
        `this is Redis ${version}; 6.2 or newer (or Valkey) is needed`,
        false
      )
    }
    if (acceptEviction) return
    const policy = lineOf(info, "maxmemory_policy") ?? (yield* policyByConfig(connection, node))
    if (policy !== "noeviction") {
      return yield* failure(
        verb,
        "Misconfigured",
        `maxmemory-policy is ${policy ?? "unknown"}: under memory pressure Redis would evict live claims and what is ` +
          "completed. Set it to noeviction, or give the store acceptEviction: true if you accept that",
        false
      )
    }
  })

/** Names the command that our user may not run. */
const checkRights = (connection: Connection, prefix: string): Effect.Effect<void, StoreError> => {
  const refused = (command: string, message: string): StoreError =>
    failure(
      verb,
      "Refused",
      `the user may not run ${command} on keys that begin with ${prefix}: (${message}); ` +
        "see the README of @tidemark/store-redis for the rights that are needed",
      false
    )
  const key = `${prefix}:s:{probe ${randomBytes(6).toString("hex")}}`
  return Effect.flatMap(
    Effect.mapError(connection.read(verb, startScripts.probe, [key], []), (error) =>
      isNotAllowed(error) ? refused("EVALSHA", error.detail) : error
    ),
    (reply) => {
      if (reply === null) return Effect.void
      const [command, message] = reply as [string, string]
      const error = fromRedis(verb, new Error(message))
      const isOurs = error.reason === "Corrupt" || isNotAllowed(error)
      return Effect.fail(isOurs ? refused(command, message) : error)
    }
  )
}

/** Shards of a namespace where they are spread over nodes: some for each, also when the cluster grows. */
const shardsOnCluster = 16

/** What all who share a prefix must agree on: the format, and in how many shards keys are, which is answered. */
const checkFormat = (
  connection: Connection,
  { prefix, shards }: Settings
): Effect.Effect<number, StoreError> =>
  Effect.gen(function* () {
    const first = shards ?? (connection.isCluster ? shardsOnCluster : 1)
    const reply = yield* connection.write(
      verb,
      startScripts.open,
      [`${prefix}:{format}`],
      [format, String(first)]
    )
    const [version, recorded] = reply as readonly [string, string]
    if (version !== format) return yield* wrongVersion(verb, String(version))
    const count = Number(recorded)
    if (shards !== undefined && shards !== count) {
      return yield* failure(
        verb,
        "Misconfigured",
        `keys under the prefix ${prefix} are in ${count} shards, and the option shards is ${shards}: give ${count} or ` +
          "nothing; another number needs another prefix",
        false
      )
    }
    return count
  })

/**
 * Checks the server, each node of a cluster, our rights, and the format of what is there. Answers in how many shards
 * the keys of a namespace are.
 */
export const start = (connection: Connection, settings: Settings): Effect.Effect<number, StoreError> =>
  Effect.gen(function* () {
    const { client } = connection
    // waits for the connection; a cluster then knows its nodes
    yield* connection.send(verb, () => client.ping())
    const nodes = client instanceof Cluster ? client.nodes("master") : [client]
    for (const node of nodes) yield* checkNode(connection, node, settings.acceptEviction)
    yield* checkRights(connection, settings.prefix)
    return yield* checkFormat(connection, settings)
  })
