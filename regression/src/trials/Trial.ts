/**
 * A promise, tried: records on a real broker, consumers in processes of their own, something that goes wrong again and
 * again, and a ledger that tells what took effect.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { KafkaClient, KafkaJs } from "@tidemark/kafka"
import {
  type KafkaServer,
  type OwnKafkaServer,
  type OwnRedisServer,
  startKafka,
  startOwnKafka,
  startOwnRedis,
  startTcpProxy,
  type TcpProxy,
  uniqueName
} from "@tidemark/test-servers"
import { Effect } from "effect"
import { Kafka, logLevel, type Producer } from "kafkajs"
import { Crew } from "./Crew.ts"
import { createEffects, FencedLedger, readEffects } from "./FencedLedger.ts"
import type { Instructions, StorePlace } from "./internal/consumerProgram.ts"
import { LedgerReader } from "./Ledger.ts"
import { judge, type Verdict } from "./verdict.ts"

/** How large a trial is. */
export interface TrialOptions {
  readonly seed: number
  readonly records: number
  readonly partitions: number
  readonly store: "redis" | "sqlite"
  /** How often what goes wrong goes wrong, in milliseconds. */
  readonly everyMillis: number
  /** How often at least. */
  readonly times: number
  /** Told now and then: what part is done, and in words. */
  readonly onProgress?: ((share: number, words: string) => void) | undefined
  /** A broker that is there already, for trials that need none of their own. */
  readonly brokers?: ReadonlyArray<string> | undefined
}

/** What a trial needs besides. */
export interface Needs {
  readonly effect?: Instructions["effect"]
  /** A broker that nobody else uses, to be killed. */
  readonly ownBroker?: true
  /** Between the consumers and their broker. */
  readonly network?: true
  readonly workMillis?: number
}

/** What came of it. */
export interface Outcome extends Verdict {
  readonly rebalances: number
  readonly deaths: number
  /** The longest that one took which was asked to stop, in milliseconds. */
  readonly longestStopMillis: number
  readonly refused: number
  readonly failures: ReadonlyArray<string>
  readonly seconds: number
}

export const sessionMillis = 6_000
export const drainMillis = 1_500
const concurrency = 32
const maxUnmarked = 64
const keys = 200
const produceAtOnce = 500

/** A small generator, so that a seed gives the same trial: mulberry32. */
const randomOf = (seed: number): (() => number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

const pause = (millis: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, millis))

/** Answers when each partition's leader does. */
const createTopic = (brokers: ReadonlyArray<string>, topic: string, partitions: number): Promise<void> =>
  Effect.runPromise(
    Effect.flatMap(KafkaClient, (client) => client.createTopics([{ topic, partitions }])).pipe(
      Effect.provide(KafkaJs.layer({ brokers, logLevel: "nothing" }))
    )
  )

type Broker = Pick<KafkaServer, "brokers" | "stop"> | OwnKafkaServer

const openBroker = async ({ brokers }: TrialOptions, { ownBroker }: Needs): Promise<Broker> => {
  if (ownBroker) return startOwnKafka()
  return brokers === undefined ? startKafka() : { brokers, stop: async () => {} }
}

/** A trial under way. */
export class Stage implements AsyncDisposable {
  readonly random: () => number
  readonly crew: Crew
  readonly options: TrialOptions
  readonly broker: Broker
  readonly redis: OwnRedisServer | undefined
  /** Between the consumers and the broker, and between them and Redis. */
  readonly networks: ReadonlyArray<TcpProxy>
  sent = 0
  private readonly ledger: LedgerReader
  private readonly producer: Producer
  private readonly topic: string
  private readonly effectsFile: string | undefined
  private readonly disposal: ReadonlyArray<() => Promise<void> | void>
  private feedEnded = false

  private constructor(parts: {
    readonly crew: Crew
    readonly options: TrialOptions
    readonly broker: Broker
    readonly redis: OwnRedisServer | undefined
    readonly networks: ReadonlyArray<TcpProxy>
    readonly folder: string
    readonly producer: Producer
    readonly topic: string
    readonly effectsFile: string | undefined
    readonly disposal: ReadonlyArray<() => Promise<void> | void>
  }) {
    this.crew = parts.crew
    this.options = parts.options
    this.broker = parts.broker
    this.redis = parts.redis
    this.networks = parts.networks
    this.producer = parts.producer
    this.topic = parts.topic
    this.effectsFile = parts.effectsFile
    this.disposal = parts.disposal
    this.random = randomOf(parts.options.seed)
    this.ledger = new LedgerReader(parts.folder)
  }

  static async open(options: TrialOptions, needs: Needs): Promise<Stage> {
    const disposal: Array<() => Promise<void> | void> = []
    try {
      const folder = mkdtempSync(join(tmpdir(), "tidemark-trial-"))
      disposal.push(() => rmSync(folder, { recursive: true, force: true }))
      const broker = await openBroker(options, needs)
      disposal.push(() => broker.stop())
      const { networks, redis, store } = await openStore(options, needs, folder, disposal)
      const routes: Record<string, string> = {}
      const toBroker: Array<TcpProxy> = []
      if (needs.network) {
        for (const address of broker.brokers) {
          const network = await startTcpProxy(address)
          disposal.push(() => network.stop())
          // the broker tells its address by the name of its host as it likes
          routes[address] = network.address
          routes[address.replace("localhost", "127.0.0.1")] = network.address
          toBroker.push(network)
        }
      }
      const effect = needs.effect ?? "file"
      const effectsFile =
        effect === "file"
          ? undefined
          : effect === "fenced"
            ? FencedLedger.fileIn(folder)
            : (store as { readonly filename: string }).filename
      if (effectsFile !== undefined) prepareEffects(effectsFile, effect)
      const topic = uniqueName("trial")
      const kafka = new Kafka({
        brokers: [...broker.brokers],
        logLevel: logLevel.NOTHING,
        retry: { retries: 30 }
      })
      await createTopic(broker.brokers, topic, options.partitions)
      const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
      await producer.connect()
      disposal.push(() => producer.disconnect().catch(() => {}))
      const crew = new Crew({
        brokers: broker.brokers,
        routes,
        topic,
        groupId: uniqueName("trial"),
        store,
        folder,
        effect,
        workMillis: needs.workMillis ?? 4,
        concurrency,
        maxUnmarked,
        sessionMillis,
        drainMillis
      })
      disposal.push(() => crew.end())
      const all = [...toBroker, ...networks]
      return new Stage({
        crew,
        options,
        broker,
        redis,
        networks: all,
        folder,
        producer,
        topic,
        effectsFile,
        disposal
      })
    } catch (error) {
      await disposeAll(disposal)
      throw error
    }
  }

  /** Sends so many records more, in order within their keys. */
  async send(count: number): Promise<void> {
    for (let left = Math.min(count, this.options.records - this.sent); left > 0; ) {
      const messages = Array.from({ length: Math.min(left, produceAtOnce) }, () => {
        const value = this.sent++
        return { key: `k${value % keys}`, value: `${value}` }
      })
      left -= messages.length
      await this.producer.send({ topic: this.topic, acks: -1, messages })
    }
  }

  /** How many records took effect. */
  get done(): number {
    this.read()
    return this.effectsFile === undefined
      ? this.ledger.times.size
      : new Set(this.effects().map(({ value }) => value)).size
  }

  /** Waits for a while, with a look at the consumers. */
  async pass(millis: number): Promise<void> {
    const until = performance.now() + millis
    for (;;) {
      this.crew.check()
      const { done } = this
      const { onProgress, records } = this.options
      onProgress?.(
        done / records,
        `${done} of ${records} took effect, ${this.crew.rebalances} rebalances, ${this.crew.deaths.length} deaths`
      )
      const left = until - performance.now()
      if (left <= 0) return
      await pause(Math.min(left, 250))
    }
  }

  /** Waits for the condition; fails after so long with what it waited for. */
  async until(what: string, condition: () => boolean, patienceMillis = 120_000): Promise<void> {
    const giveUpAt = performance.now() + patienceMillis
    while (!condition()) {
      if (performance.now() > giveUpAt) {
        const told = [...this.crew.living].map(({ name, told }) => `${name} ${JSON.stringify(told)}`)
        throw new Error(
          `waited ${patienceMillis / 1_000} s for: ${what}; ${this.done} of ${this.sent} done; ${told.join("; ")}`
        )
      }
      await this.pass(100)
    }
  }

  /** Waits until all that was sent has taken effect, and the consumers have nothing left. */
  async finish(): Promise<void> {
    await this.send(this.options.records)
    this.feedEnded = true
    await this.until("all took effect, and is completed", () => this.done >= this.sent && this.isSettled)
  }

  /** Records come while it is run, until all have been sent. */
  feeding(ratePerSecond: number): Promise<void> {
    const each = Math.max(50, Math.floor(ratePerSecond / 10))
    const feed = async (): Promise<void> => {
      while (this.sent < this.options.records && !this.feedEnded) {
        await this.send(each)
        await pause(100)
      }
    }
    return feed()
  }

  outcome(startedAt: number): Outcome {
    this.read()
    const verdict = judge(this.effects(), { sent: this.sent, deaths: this.crew.deaths, atRisk: maxUnmarked })
    return {
      ...verdict,
      rebalances: this.crew.rebalances,
      deaths: this.crew.deaths.length,
      longestStopMillis: Math.round(Math.max(0, ...this.crew.stops)),
      refused: this.crew.refused,
      failures: this.crew.failures,
      seconds: Math.round((performance.now() - startedAt) / 1_000)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.feedEnded = true
    this.ledger.close()
    await disposeAll(this.disposal)
  }

  private get isSettled(): boolean {
    return (
      this.crew.owned === this.options.partitions &&
      [...this.crew.living].every(({ told }) => told.unfinished === 0)
    )
  }

  private read(): void {
    if (this.effectsFile === undefined) this.ledger.read()
  }

  private effects() {
    return this.effectsFile === undefined ? this.ledger.effects : readEffects(this.effectsFile)
  }
}

const disposeAll = async (disposal: ReadonlyArray<() => Promise<void> | void>): Promise<void> => {
  for (const dispose of disposal.toReversed()) await dispose()
}

const openStore = async (
  { store }: TrialOptions,
  { network }: Needs,
  folder: string,
  disposal: Array<() => Promise<void> | void>
): Promise<{
  readonly store: StorePlace
  readonly redis: OwnRedisServer | undefined
  readonly networks: ReadonlyArray<TcpProxy>
}> => {
  if (store === "sqlite") {
    return { store: { kind: "sqlite", filename: join(folder, "store.db") }, redis: undefined, networks: [] }
  }
  const redis = await startOwnRedis({ appendonly: true })
  disposal.push(() => redis.stop())
  const prefix = uniqueName("trial")
  if (!network) return { store: { kind: "redis", url: redis.url, prefix }, redis, networks: [] }
  const toRedis = await startTcpProxy(redis.address)
  disposal.push(() => toRedis.stop())
  return { store: { kind: "redis", url: `redis://${toRedis.address}`, prefix }, redis, networks: [toRedis] }
}

const prepareEffects = (filename: string, effect: Instructions["effect"]): void => {
  const db = new DatabaseSync(filename)
  if (effect === "transaction") db.exec("PRAGMA journal_mode = WAL")
  db.exec(createEffects)
  db.close()
}
