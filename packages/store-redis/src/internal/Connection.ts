/**
 * A connection to Redis as the store sees it: runs a script or a command, and answers within the time-out, whatever
 * state the server is in. Nothing is queued while there is no connection: who gave up has not sent anything.
 */
import type { StoreError } from "@tidemark/core"
import { Effect } from "effect"
import { Cluster, type Redis } from "ioredis"
import { failure, fromRedis, isRefusal } from "./errors.ts"
import type { Script } from "./scripts.ts"

export type Client = Redis | Cluster

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

type Send = (client: Client) => Promise<unknown>

/** A call that waits for a connection. */
interface WaitingCall {
  readonly go: () => void
  readonly ended: () => void
  readonly fail: (error: Error) => void
}

const isMissingScript = (error: unknown): boolean =>
  error instanceof Error && /(^|[ -])NOSCRIPT /.test(error.message)

/** The connection has just ended, and the client does not know yet: the call can wait for the next one. */
const wasNotSent = (error: Error): boolean => /Stream isn't writeable/.test(error.message)

export class Connection {
  readonly client: Client
  readonly timeoutMillis: number
  private readonly waitReplicas: WaitReplicas | undefined
  private lastError: Error | undefined
  private closed = false
  /** Whether the server said of this connection that it still reads its data: until then the client is not ready. */
  private isLoading = false
  /** One listener serves all of them: Node takes many listeners on one client for a leak, and says so. */
  private readonly waiting = new Set<WaitingCall>()
  private readonly onError = (error: Error): void => {
    this.lastError = error
    if (isRefusal(error)) for (const call of this.waiting) call.fail(error)
  }
  private readonly onReady = (): void => {
    this.lastError = undefined
    this.isLoading = false
    for (const call of this.waiting) call.go()
  }
  private readonly onEnd = (): void => {
    for (const call of this.waiting) call.ended()
  }
  private readonly onConnect = (): void => {
    this.isLoading = false
    // the client asks the same, but tells nobody what it is waiting for
    const { client } = this
    if (client instanceof Cluster) return
    client.info("persistence").then(
      (info) => {
        this.isLoading = client.status === "connect" && /^loading:1/m.test(info)
      },
      () => {}
    )
  }

  constructor(client: Client, { timeoutMillis, waitReplicas }: ConnectionOptions) {
    this.client = client
    this.timeoutMillis = timeoutMillis
    this.waitReplicas = waitReplicas
    client.on("error", this.onError)
    client.on("ready", this.onReady)
    client.on("connect", this.onConnect)
    client.on("end", this.onEnd)
    // a cluster tells of its nodes' errors apart
    if (client instanceof Cluster) client.on("node error", this.onError)
  }

  /** Leaves the client as it was found. */
  close(): void {
    this.closed = true
    this.onEnd()
    this.client.off("error", this.onError)
    this.client.off("ready", this.onReady)
    this.client.off("connect", this.onConnect)
    this.client.off("end", this.onEnd)
    if (this.client instanceof Cluster) this.client.off("node error", this.onError)
  }

  /** Runs a script that writes, on one key and what belongs to it, and waits for replicas where that is asked for. */
  write(
    verb: string,
    script: Script,
    key: string,
    args: ReadonlyArray<Argument>
  ): Effect.Effect<unknown, StoreError> {
    const { waitReplicas } = this
    if (waitReplicas === undefined) return this.read(verb, script, key, args)
    const { count, timeoutMillis } = waitReplicas
    const sendAndWait = async (client: Client, name: "evalsha" | "eval"): Promise<unknown> => {
      const replies = await client
        .pipeline()
        [name](name === "eval" ? script.text : script.sha, 1, key, ...args)
        .wait(count, timeoutMillis)
        .exec()
      const [[error, answer], [waitError, acknowledged]] = replies as [
        [Error | null, unknown],
        [Error | null, number]
      ]
      if (error !== null) throw error
      if (waitError !== null) throw waitError
      return { answer, acknowledged }
    }
    const sent = this.send(verb, (client) =>
      sendAndWait(client, "evalsha").catch((error) => {
        if (!isMissingScript(error)) throw error
        return sendAndWait(client, "eval")
      })
    )
    return Effect.flatMap(sent, (reply) => {
      const { answer, acknowledged } = reply as { answer: unknown; acknowledged: number }
      return acknowledged >= count
        ? Effect.succeed(answer)
        : Effect.fail(
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

  /** Runs a script on one key and what belongs to it. */
  read(
    verb: string,
    script: Script,
    key: string,
    args: ReadonlyArray<Argument>
  ): Effect.Effect<unknown, StoreError> {
    return this.send(verb, (client) =>
      client.evalsha(script.sha, 1, key, ...args).catch((error: unknown) => {
        if (!isMissingScript(error)) throw error
        return client.eval(script.text, 1, key, ...args)
      })
    )
  }

  /** The same, with strings answered as bytes. */
  readBytes(verb: string, script: Script, key: string): Effect.Effect<unknown, StoreError> {
    return this.send(verb, (client) =>
      client.callBuffer("evalsha", script.sha, 1, key).catch((error: unknown) => {
        if (!isMissingScript(error)) throw error
        return client.callBuffer("eval", script.text, 1, key)
      })
    )
  }

  /** Anything else. */
  send(verb: string, send: Send): Effect.Effect<unknown, StoreError> {
    return Effect.callback<unknown, StoreError>((resume) => {
      const { client } = this
      let done = false
      const settle = (exit: Effect.Effect<unknown, StoreError>): void => {
        if (done) return
        done = true
        stop()
        resume(exit)
      }
      const fail = (error: Error): void => settle(Effect.fail(fromRedis(verb, error)))
      const failOrWait = (error: Error): void => {
        if (done) return
        if (wasNotSent(error) && !this.closed && client.status !== "end" && !(client instanceof Cluster)) {
          this.waiting.add(call)
        } else fail(error)
      }
      const go = (): void => {
        this.waiting.delete(call)
        try {
          send(client).then((reply) => settle(Effect.succeed(reply)), failOrWait)
        } catch (error) {
          fail(error as Error)
        }
      }
      const ended = (): void => settle(Effect.fail(this.noConnection(verb)))
      const call: WaitingCall = { go, ended, fail }
      const timer = setTimeout(() => {
        settle(Effect.fail(client.status === "ready" ? this.noAnswer(verb) : this.noConnection(verb)))
      }, this.timeoutMillis)
      const stop = (): void => {
        clearTimeout(timer)
        this.waiting.delete(call)
      }
      if (client.status === "ready") go()
      else if (this.closed || client.status === "end") ended()
      else if (this.lastError !== undefined && isRefusal(this.lastError)) fail(this.lastError)
      else {
        this.waiting.add(call)
        if (client.status === "wait") client.connect().catch(() => {})
      }
      return Effect.sync(() => {
        done = true
        stop()
      })
    })
  }

  /** For calls that wait for others before they are sent: the time-out counts from when they come. */
  patience(verb: string) {
    return {
      millis: this.timeoutMillis,
      onTimeout: (): StoreError =>
        this.client.status === "ready" ? this.noAnswer(verb) : this.noConnection(verb)
    }
  }

  private noAnswer(verb: string): StoreError {
    return failure(
      verb,
      "Timeout",
      `no answer within ${this.timeoutMillis} ms; what was asked may have taken effect: ask again with the same claim id`,
      true
    )
  }

  private noConnection(verb: string): StoreError {
    if (this.closed || this.client.status === "end") {
      return failure(
        verb,
        this.lastError === undefined ? "Closed" : "Unavailable",
        `the connection to Redis has been closed${this.lastError === undefined ? "" : ` (${this.lastError.message})`}`,
        false,
        this.lastError
      )
    }
    if (this.isLoading && this.client.status === "connect") {
      return failure(
        verb,
        "Loading",
        `Redis still reads its data from disk, and was not ready within ${this.timeoutMillis} ms`,
        true
      )
    }
    return failure(
      verb,
      "Unavailable",
      `no connection to Redis within ${this.timeoutMillis} ms${this.lastError === undefined ? "" : ` (${this.lastError.message})`}; is it running, at this address?`,
      true,
      this.lastError
    )
  }
}
