/** Runs scripts and commands on Redis: a script by its hash, and by its text where Redis has forgotten it. */
import type { StoreError } from "@tidemark/core"
import { Effect } from "effect"
import { Cluster } from "ioredis"
import { failure } from "./errors.ts"
import { type Client, Link, type Send } from "./Link.ts"
import type { Script } from "./scripts.ts"

export type Argument = string | Buffer

export interface WaitReplicas {
  /** How many replicas must have a write before it counts as done. */
  readonly count: number
  /** How long to wait for them, in milliseconds. */
  readonly timeoutMillis: number
}

export interface ConnectionOptions {
  readonly timeoutMillis: number
  readonly waitReplicas: WaitReplicas | undefined
}

const saysOf = (code: string) => (error: unknown) =>
  error instanceof Error && new RegExp(`(^|[ -])${code} `).test(error.message)

const isMissingScript = saysOf("NOSCRIPT")
const isWrongType = saysOf("WRONGTYPE")

/** By the hash; and where Redis does not know it, by the text, which makes it known. */
const byHashOrText = <A>(
  script: Script,
  send: (command: "evalsha" | "eval", script: string) => Promise<A>
): Promise<A> =>
  send("evalsha", script.sha).catch((error: unknown) => {
    if (!isMissingScript(error)) throw error
    return send("eval", script.text)
  })

/** The scripts keep hardly anything but hashes: of a stream's parked records there is a sorted set too. */
const typeOf = (key: string): string => (key.endsWith("}:i") ? "zset" : "hash")

export class Connection {
  private readonly link: Link
  private readonly waitReplicas: WaitReplicas | undefined

  constructor(client: Client, { timeoutMillis, waitReplicas }: ConnectionOptions) {
    this.link = new Link(client, timeoutMillis)
    this.waitReplicas = waitReplicas
  }

  get client(): Client {
    return this.link.client
  }

  get isCluster(): boolean {
    return this.client instanceof Cluster
  }

  /** Leaves the client as it was found. */
  close(): void {
    this.link.close()
  }

  /** Runs a script that writes, on keys of one slot, and waits for replicas where that is asked for. */
  write(
    verb: string,
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<Argument>
  ): Effect.Effect<unknown, StoreError> {
    const { waitReplicas } = this
    return waitReplicas === undefined
      ? this.read(verb, script, keys, args)
      : this.writeAndWait(verb, script, keys, args, waitReplicas)
  }

  /** Runs a script on keys of one slot. */
  read(
    verb: string,
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<Argument>
  ): Effect.Effect<unknown, StoreError> {
    return this.send(
      verb,
      (client) =>
        byHashOrText(script, (command, text) => client[command](text, keys.length, ...keys, ...args)),
      keys
    )
  }

  /** The same, with strings answered as bytes. */
  readBytes(
    verb: string,
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<Argument> = []
  ): Effect.Effect<unknown, StoreError> {
    return this.send(
      verb,
      (client) =>
        byHashOrText(script, (command, text) =>
          client.callBuffer(command, text, keys.length, ...keys, ...args)
        ),
      keys
    )
  }

  /** Anything else; `keys` are those that it is about. */
  send(verb: string, send: Send, keys: ReadonlyArray<string> = []): Effect.Effect<unknown, StoreError> {
    return Effect.catch(this.link.send(verb, send), (error) =>
      isWrongType(error.cause) && keys.length > 0
        ? Effect.flatMap(this.notOurs(verb, keys), (key) =>
            Effect.fail(
              failure(
                verb,
                "Corrupt",
                `${key} is not ours, though its name begins with our prefix; delete it, or give the store a prefix of its own`,
                false,
                error.cause
              )
            )
          )
        : Effect.fail(error)
    )
  }

  /** For calls that wait for others before they are sent: the time-out counts from when they come. */
  patience(verb: string) {
    return { millis: this.link.timeoutMillis, onTimeout: (): StoreError => this.link.timedOut(verb) }
  }

  private writeAndWait(
    verb: string,
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<Argument>,
    { count, timeoutMillis }: WaitReplicas
  ): Effect.Effect<unknown, StoreError> {
    // one after the other on the same connection, which is the one that WAIT is about
    const written = this.send(
      verb,
      (client) =>
        byHashOrText(script, async (command, text) => {
          const replies = await client
            .pipeline()
            [command](text, keys.length, ...keys, ...args)
            .wait(count, timeoutMillis)
            .exec()
          const [answer, acknowledged] = (replies ?? []).map(([error, reply]) => {
            if (error !== null) throw error
            return reply
          })
          return { answer, acknowledged: Number(acknowledged) }
        }),
      keys
    )
    return Effect.flatMap(written, (reply) => {
      const { acknowledged, answer } = reply as { answer: unknown; acknowledged: number }
      if (acknowledged >= count) return Effect.succeed(answer)
      return Effect.fail(
        failure(
          verb,
          "NotReplicated",
          `written, but only ${acknowledged} of ${count} replicas acknowledged it within ${timeoutMillis} ms; ` +
            "ask again with the same claim id",
          true
        )
      )
    })
  }

  /** The key that is not of the type that ours have, for people. */
  private notOurs(verb: string, keys: ReadonlyArray<string>): Effect.Effect<string, StoreError> {
    return Effect.map(
      this.link.send(verb, (client) => Promise.all(keys.map((key) => client.type(key)))),
      (reply) => {
        const types = reply as ReadonlyArray<string>
        const at = types.findIndex((type, index) => type !== typeOf(keys[index]) && type !== "none")
        return at < 0 ? `a key that begins with ${keys[0]}:` : `${keys[at]}, a ${types[at]},`
      }
    )
  }
}
