/** The names that keys of the store were made of, found by SCAN, page by page, on each node. */
import type { StoreError } from "@tidemark/core"
import { Effect, Option, Stream } from "effect"
import { Cluster, type Redis } from "ioredis"
import type { Connection } from "./Connection.ts"
import { nameInTag } from "./wire.ts"

const pageSize = 500

/** Goes on from a cursor of Redis; "0" is the end. */
export const onwards = (cursor: string): Option.Option<string> =>
  cursor === "0" ? Option.none() : Option.some(cursor)

/** The names in the keys that begin with `begin`, the brace of their hash tag included, and end with it. */
export const names = (
  connection: Connection,
  verb: string,
  begin: string
): Stream.Stream<string, StoreError> => {
  const onNode = (node: Redis) =>
    Stream.paginate("0", (cursor) =>
      Effect.map(
        connection.send(verb, () => node.scan(cursor, "MATCH", `${begin}*}`, "COUNT", pageSize)),
        (reply) => {
          const [next, keys] = reply as [string, Array<string>]
          return [keys.map((key) => nameInTag(key.slice(begin.length, -1))), onwards(next)] as const
        }
      )
    )
  return Stream.suspend(() => {
    const { client } = connection
    return Stream.flatMap(
      Stream.fromIterable(client instanceof Cluster ? client.nodes("master") : [client]),
      onNode
    )
  })
}
