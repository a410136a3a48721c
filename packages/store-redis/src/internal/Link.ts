/**
 * The state of a connection to Redis: whether one can ask, who waits until one can, and why one can't. Each call is
 * answered within the time-out. Nothing is queued while there is no connection: who gave up has not sent anything.
 */
import type { StoreError } from "@tidemark/core"
import { Effect } from "effect"
import { Cluster, type Redis } from "ioredis"
import { failure, fromRedis, isRefusal } from "./errors.ts"

export type Client = Redis | Cluster

/** Asks the client something. */
export type Send = (client: Client) => Promise<unknown>

/** A call that waits for a connection. */
interface WaitingCall {
  readonly go: () => void
  readonly ended: () => void
  readonly fail: (error: Error) => void
}

/** Of ioredis, where it has no queue for those who have no connection. */
const wasNotSent = (error: Error): boolean => /enableOfflineQueue options is false/.test(error.message)

export class Link {
  readonly client: Client
  readonly timeoutMillis: number
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

  constructor(client: Client, timeoutMillis: number) {
    this.client = client
    this.timeoutMillis = timeoutMillis
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

  /** Asks as soon as there is a connection; fails within the time-out. */
  send(verb: string, send: Send): Effect.Effect<unknown, StoreError> {
    return Effect.callback<unknown, StoreError>((resume) => {
      const { client } = this
      let isDone = false
      const settle = (exit: Effect.Effect<unknown, StoreError>): void => {
        if (isDone) return
        stop()
        resume(exit)
      }
      const fail = (error: Error): void => {
        // ioredis attaches what was sent: scripts, and keys of users, which are nothing for logs
        delete (error as { command?: unknown }).command
        settle(Effect.fail(fromRedis(verb, error)))
      }
      const ended = (): void => settle(Effect.fail(this.noConnection(verb)))
      const go = (): void => {
        this.waiting.delete(call)
        try {
          send(client).then((reply) => settle(Effect.succeed(reply)), failOrWait)
        } catch (error) {
          fail(error as Error)
        }
      }
      /** A connection that has just broken may not know it yet: what was not sent goes out on the next one. */
      const failOrWait = (error: Error): void => {
        if (isDone) return
        if (wasNotSent(error)) waitForConnection()
        else fail(error)
      }
      const waitForConnection = (): void => {
        const { lastError } = this
        if (this.closed || client.status === "end") {
          ended()
        } else if (lastError !== undefined && isRefusal(lastError)) {
          fail(lastError)
        } else {
          this.waiting.add(call)
          if (client.status === "wait") client.connect().catch(() => {})
        }
      }
      const call: WaitingCall = { go, ended, fail }
      const timer = setTimeout(() => settle(Effect.fail(this.timedOut(verb))), this.timeoutMillis)
      const stop = (): void => {
        isDone = true
        clearTimeout(timer)
        this.waiting.delete(call)
      }
      if (client.status === "ready" && !this.closed) go()
      else waitForConnection()
      return Effect.sync(stop)
    })
  }

  /** Why there is no answer now, when the time-out is over. */
  timedOut(verb: string): StoreError {
    if (this.client.status !== "ready") return this.noConnection(verb)
    return failure(
      verb,
      "Timeout",
      `no answer within ${this.timeoutMillis} ms; what was asked may have taken effect: ask again with the same claim id`,
      true
    )
  }

  private noConnection(verb: string): StoreError {
    const { lastError } = this
    const because = lastError === undefined ? "" : ` (${lastError.message})`
    if (this.closed || this.client.status === "end") {
      return failure(
        verb,
        lastError === undefined ? "Closed" : "Unavailable",
        `the connection to Redis has been closed${because}`,
        false,
        lastError
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
      `no connection to Redis within ${this.timeoutMillis} ms${because}; is it running, at this address?`,
      true,
      lastError
    )
  }
}
