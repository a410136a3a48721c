/**
 * Who waits for what another process gives back: woken by messages of Redis, which scripts publish only where somebody
 * was told to wait. A hint and no more: without it, or where the user may not subscribe, callers ask again by a timer.
 */
import { Wakeups } from "@tidemark/core"
import { Effect } from "effect"
import { Cluster } from "ioredis"
import type { Client } from "./Link.ts"

/** A message may come before its reader has begun to wait; so long it counts. */
const remembersMillis = 1_000
const remembersAtMost = 1_000

/** Names may hold any bytes. */
const asName = (bytes: Buffer): string => bytes.toString("latin1")

export class Waiters {
  private readonly wakeups = new Wakeups()
  /** Names that messages came for while nobody waited, and when. */
  private readonly early = new Map<string, number>()
  private readonly client: Client
  private readonly channel: string
  private subscriber: Client | undefined
  private closed = false

  constructor(client: Client, channel: string) {
    this.client = client
    this.channel = channel
  }

  /** Subscribes, on a connection of its own, from the first time that somebody is told to wait. */
  listen(): void {
    if (this.subscriber !== undefined || this.closed) return
    // its own queue: it subscribes again by itself after a failure
    const subscriber: Client =
      this.client instanceof Cluster
        ? this.client.duplicate()
        : this.client.duplicate({ enableOfflineQueue: true })
    this.subscriber = subscriber
    // what is wrong with the connection, the calls tell
    subscriber.on("error", () => {})
    subscriber.on("messageBuffer", (_channel: Buffer, name: Buffer) => this.noteMessage(asName(name)))
    const subscribe = (): void => {
      subscriber.subscribe(this.channel).catch(() => {})
    }
    if (subscriber.status === "ready") subscribe()
    else subscriber.once("ready", subscribe)
    if (subscriber.status === "wait") subscriber.connect().catch(() => {})
  }

  /** For a message about `base` (a stream, a namespace), and a packed key of it. */
  wait(base: string, key?: Buffer): Effect.Effect<void> {
    return Effect.suspend(() => {
      const name = asName(key === undefined ? Buffer.from(base) : Buffer.concat([Buffer.from(base), key]))
      this.listen()
      return this.wakeups.wait(name, () => this.cameEarly(name))
    })
  }

  close(): void {
    this.closed = true
    this.subscriber?.disconnect()
    this.subscriber = undefined
  }

  private noteMessage(name: string): void {
    if (this.wakeups.wake(name)) return
    this.early.delete(name)
    this.early.set(name, performance.now())
    if (this.early.size > remembersAtMost) this.early.delete(this.early.keys().next().value as string)
  }

  private cameEarly(name: string): boolean {
    const at = this.early.get(name)
    if (at === undefined) return false
    this.early.delete(name)
    return performance.now() - at < remembersMillis
  }
}
