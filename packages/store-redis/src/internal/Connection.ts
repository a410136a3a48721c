/** Runs scripts and commands on Redis: a script by its hash, and by its text where Redis has forgotten it. */
import type { StoreError } from "@tidemark/core"
import { Effect, Exit } from "effect"
import { Cluster, Command } from "ioredis"
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

const isWrongType = (error: unknown): boolean =>
  error instanceof Error && /(^|[ -])WRONGTYPE /.test(error.message)

/** By the hash; and where Redis does not know it, by the text, which makes it known. */
const byHashOrText = <A>(
  { sha, text }: Script,
  again: boolean,
  send: (command: "evalsha" | "eval", script: string) => A
): A => (again ? send("eval", text) : send("evalsha", sha))

const lengthOf = (argument: Argument): number =>
  typeof argument === "string" ? Buffer.byteLength(argument) : argument.length

/** A call of a script, written at one go in the form that goes on the wire; ioredis puts many small parts together. */
class ScriptCall extends Command {
  private readonly bytes: Buffer

  constructor(command: string, script: string, keys: ReadonlyArray<string>, args: ReadonlyArray<Argument>) {
    const words = [script, String(keys.length), ...keys, ...args]
    super(command, words, { replyEncoding: "utf8" })
    const head = `*${words.length + 1}\r\n$${command.length}\r\n${command}\r\n`
    let size = head.length
    for (const word of words) size += lengthOf(word) + 16
    const bytes = Buffer.allocUnsafe(size)
    let at = bytes.write(head)
    for (const word of words) {
      if (typeof word === "string") {
        at += bytes.write(`$${lengthOf(word)}\r\n${word}\r\n`, at)
      } else {
        at += bytes.write(`$${word.length}\r\n`, at, "latin1")
        at += word.copy(bytes, at)
        at += bytes.write("\r\n", at, "latin1")
      }
    }
    this.bytes = bytes.subarray(0, at)
  }

  override toWritable(): Buffer {
    return this.bytes
  }
}

/** Runs it on a fiber of its own; gives what interrupts that. */
const startEffect = <A, E>(
  effect: Effect.Effect<A, E>,
  settle: (exit: Exit.Exit<A, E>) => void
): (() => void) => {
  const fiber = Effect.runFork(effect)
  fiber.addObserver(settle)
  return () => fiber.interruptUnsafe()
}

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
    return Effect.callback<unknown, StoreError>((resume) =>
      Effect.sync(this.startWrite(verb, script, keys, args, resume))
    )
  }

  /** The same without a fiber: tells the outcome once, and gives what stops it; then it tells that it was interrupted. */
  startWrite(
    verb: string,
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<Argument>,
    settle: (exit: Exit.Exit<unknown, StoreError>) => void
  ): () => void {
    const { waitReplicas } = this
    if (waitReplicas !== undefined) {
      return startEffect(this.writeAndWait(verb, script, keys, args, waitReplicas), settle)
    }
    let stopExplaining = (): void => {}
    const stopAsking = this.link.ask(
      verb,
      (client, again) =>
        client.sendCommand(
          byHashOrText(script, again, (command, text) => new ScriptCall(command, text, keys, args))
        ) as Promise<unknown>,
      (exit) => {
        if (Exit.isSuccess(exit)) settle(exit)
        else stopExplaining = startEffect(this.explained(verb, keys, exit), settle)
      }
    )
    return () => {
      stopAsking()
      stopExplaining()
    }
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
      (client, again) =>
        byHashOrText(script, again, (command, text) => client[command](text, keys.length, ...keys, ...args)),
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
      (client, again) =>
        byHashOrText(script, again, (command, text) =>
          client.callBuffer(command, text, keys.length, ...keys, ...args)
        ),
      keys
    )
  }

  /** Anything else; `keys` are those that it is about. */
  send(verb: string, send: Send, keys: ReadonlyArray<string> = []): Effect.Effect<unknown, StoreError> {
    return this.explained(verb, keys, this.link.send(verb, send))
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
      (client, again) =>
        byHashOrText(script, again, async (command, text) => {
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

  /** Names the key that is not ours, where that is what failed. */
  private explained<A>(
    verb: string,
    keys: ReadonlyArray<string>,
    asked: Effect.Effect<A, StoreError>
  ): Effect.Effect<A, StoreError> {
    return Effect.catch(asked, (error) =>
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
