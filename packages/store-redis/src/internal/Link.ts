/**
 * The state of a connection to Redis: whether one can ask, who waits until one can, and why one can't. Each call is
 * answered within the time-out. Nothing is queued while there is no connection: who gave up has not sent anything.
 */
import { type StoreError, Timed, TimeLimit } from "@tidemark/core"
import { Effect, Exit } from "effect"
import { Cluster, type Redis } from "ioredis"
import { failure, fromRedis, isRefusal } from "./errors.ts"

export type Client = Redis | Cluster

/** Asks the client something; `again`: Redis said that it does not know the script. */
export type Send = (client: Client, again: boolean) => Promise<unknown>

type Settle = (exit: Exit.Exit<unknown, StoreError>) => void

const isMissingScript = (error: Error): boolean => /(^|[ -])NOSCRIPT /.test(error.message)

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
  private readonly waiting = new Set<Call>()
  private readonly limit: TimeLimit<Call>
  private readonly onError = (error: Error): void => {
    this.lastError = error
    if (isRefusal(error)) for (const call of this.waiting) call.fail(error)
  }
  private readonly onReady = (): void => {
    this.lastError = undefined
    this.isLoading = false
    const calls = [...this.waiting]
    this.waiting.clear()
    for (const call of calls) call.go()
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
    this.limit = new TimeLimit(timeoutMillis, (call) => call.settle(Exit.fail(this.timedOut(call.verb))))
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

  /**
   * Asks as soon as there is a connection; fails within the time-out. Tells how it went once, and gives what stops it:
   * then it tells that it was interrupted.
   */
  ask(verb: string, send: Send, settle: Settle): () => void {
    const call = new Call(this, verb, send, settle)
    this.limit.watch(call)
    call.begin()
    return () => call.settle(Exit.interrupt())
  }

  /** The same as an effect. */
  send(verb: string, send: Send): Effect.Effect<unknown, StoreError> {
    return Effect.callback<unknown, StoreError>((resume) => Effect.sync(this.ask(verb, send, resume)))
  }

  get canAsk(): boolean {
    return this.client.status === "ready" && !this.closed
  }

  /** Calls back when there is a connection, or when there will be none. */
  await(call: Call): void {
    const { client, lastError } = this
    if (this.closed || client.status === "end") {
      call.ended()
    } else if (lastError !== undefined && isRefusal(lastError)) {
      call.fail(lastError)
    } else {
      this.waiting.add(call)
      if (client.status === "wait") client.connect().catch(() => {})
    }
  }

  forget(call: Call): void {
    this.limit.forget(call)
    if (this.waiting.size > 0) this.waiting.delete(call)
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

  noConnection(verb: string): StoreError {
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

/** One that has not been answered. */
class Call extends Timed {
  readonly verb: string
  private readonly link: Link
  private readonly send: Send
  private readonly tell: Settle
  private isDone = false

  constructor(link: Link, verb: string, send: Send, tell: Settle) {
    super()
    this.link = link
    this.verb = verb
    this.send = send
    this.tell = tell
  }

  begin(): void {
    if (this.link.canAsk) this.go()
    else this.link.await(this)
  }

  go(again = false): void {
    try {
      this.send(this.link.client, again).then(
        (reply) => this.settle(Exit.succeed(reply)),
        (error: Error) => this.failed(error, again)
      )
    } catch (error) {
      this.fail(error as Error)
    }
  }

  /** There will be no connection any more. */
  ended(): void {
    this.settle(Exit.fail(this.link.noConnection(this.verb)))
  }

  fail(error: Error): void {
    // ioredis attaches what was sent: scripts, and keys of users, which are nothing for logs
    delete (error as { command?: unknown }).command
    this.settle(Exit.fail(fromRedis(this.verb, error)))
  }

  settle(exit: Exit.Exit<unknown, StoreError>): void {
    if (this.isDone) return
    this.isDone = true
    this.link.forget(this)
    this.tell(exit)
  }

  private failed(error: Error, again: boolean): void {
    // also where nobody waits any more: what was asked takes effect, late, before whatever is asked next
    if (isMissingScript(error) && !again) this.go(true)
    else if (this.isDone) return
    // a connection that has just broken may not know it yet: what was not sent goes out on the next one
    else if (wasNotSent(error)) this.link.await(this)
    else this.fail(error)
  }
}
