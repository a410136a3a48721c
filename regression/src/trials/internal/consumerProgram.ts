/**
 * One consumer, in a process of its own, which `Crew.ts` starts and sends its instructions. SIGTERM stops it as one
 * stops a consumer; it ends with the process that started it, however that ended.
 */
import { createConnection } from "node:net"
import { OffsetRanges } from "@tidemark/core"
import { KafkaConsumer, type KafkaRecord } from "@tidemark/kafka"
import { RedisStore } from "@tidemark/store-redis"
import { SqliteDatabase, SqliteStore } from "@tidemark/store-sqlite"
import { Cause, Effect, Exit, type Fiber, Layer, Logger, Option } from "effect"
import type { ISocketFactory } from "kafkajs"
import { kafkaLayer } from "../../driver.ts"
import { FencedLedger } from "../FencedLedger.ts"
import { openLedger } from "../Ledger.ts"

/** Where the store is. */
export type StorePlace =
  | { readonly kind: "sqlite"; readonly filename: string }
  | { readonly kind: "redis"; readonly url: string; readonly prefix: string }

/** The first message. */
export interface Instructions {
  readonly member: string
  readonly brokers: ReadonlyArray<string>
  /** Where a connection to a broker really goes, by its address: over a network that can be cut. */
  readonly routes: Readonly<Record<string, string>>
  readonly topic: string
  readonly groupId: string
  readonly store: StorePlace
  /** The folder of the ledgers. */
  readonly folder: string
  /**
   * `file`: an effect is a line in a file; `fenced`: a row of a database that refuses tokens below the greatest it has
   * seen; `transaction`: a row of the store's own database, written with the mark.
   */
  readonly effect: "file" | "fenced" | "transaction"
  /** How long a handler works before its effect, at most, in milliseconds. */
  readonly workMillis: number
  readonly concurrency: number
  readonly maxUnmarked: number
  readonly sessionMillis: number
  readonly drainMillis: number
}

/** What a consumer tells now and then, and at its end. */
export interface Telling {
  readonly rebalances: number
  readonly leaseLosses: number
  readonly processed: number
  /** Partitions that it owns. */
  readonly owned: number
  readonly unfinished: number
  readonly refused: number
}

const tellEachMillis = 100

const storeOf = (store: StorePlace) =>
  store.kind === "sqlite"
    ? SqliteStore.layer({ filename: store.filename, synchronous: "normal", lockTimeout: "20 seconds" })
    : RedisStore.layer({ url: store.url, prefix: store.prefix })

const clientOf = ({ brokers, member, routes }: Instructions) =>
  kafkaLayer({
    brokers,
    clientId: member,
    logLevel: "nothing",
    ...(Object.keys(routes).length === 0 ? {} : { socketFactory: ledThrough(routes) })
  })

const ledThrough =
  (routes: Instructions["routes"]): ISocketFactory =>
  ({ host, onConnect, port }) => {
    const [to, at] = (routes[`${host}:${port}`] ?? `${host}:${port}`).split(":")
    return createConnection({ host: to, port: Number(at) }, onConnect).setMaxListeners(0)
  }

/** Answers how many effects were refused so far, and the handler. */
const handlerOf = (instructions: Instructions) =>
  Effect.gen(function* () {
    const { effect, folder, member, workMillis } = instructions
    const work = Effect.suspend(() =>
      workMillis === 0 ? Effect.void : Effect.sleep(Math.random() * workMillis)
    )
    const seen = ({ key, offset, partition, value }: KafkaRecord, token: number) => ({
      value: Number(String(value)),
      key: String(key),
      partition,
      offset,
      token,
      at: Date.now()
    })
    const refused = { count: 0 }
    switch (effect) {
      case "file": {
        const write = openLedger(folder, member)
        return {
          refused,
          handler: (record: KafkaRecord, claim: KafkaConsumer.RecordClaim) =>
            Effect.map(work, () => write(seen(record, claim.token)))
        }
      }
      case "fenced": {
        const ledger = new FencedLedger(folder)
        return {
          refused,
          handler: (record: KafkaRecord, claim: KafkaConsumer.RecordClaim) =>
            Effect.flatMap(work, () => {
              if (ledger.write(claim.stream, { ...seen(record, claim.token), member })) return Effect.void
              refused.count++
              return Effect.fail(new Error(`the ledger has seen a later owner than token ${claim.token}`))
            })
        }
      }
      case "transaction": {
        const database = Option.getOrThrow(yield* Effect.serviceOption(SqliteDatabase))
        return {
          refused,
          handler: (record: KafkaRecord, claim: KafkaConsumer.RecordClaim) =>
            Effect.andThen(
              work,
              database.completeWith(claim, OffsetRanges.of(record.offset), (db) => {
                const { at, key, offset, partition, token, value } = seen(record, claim.token)
                db.prepare("INSERT INTO effects VALUES (?, ?, ?, ?, ?, ?, ?)").run(
                  member,
                  value,
                  key,
                  partition,
                  offset,
                  token,
                  at
                )
              })
            )
        }
      }
    }
  })

const consume = (instructions: Instructions) =>
  Effect.gen(function* () {
    const { handler, refused } = yield* handlerOf(instructions)
    const consumer = yield* KafkaConsumer.make({
      topics: [instructions.topic],
      groupId: instructions.groupId,
      concurrency: instructions.concurrency,
      maxUnmarked: instructions.maxUnmarked,
      sessionTimeout: instructions.sessionMillis,
      drainTimeout: instructions.drainMillis,
      commitInterval: 200,
      handler
    })
    const tell = Effect.map(consumer.status, ({ counters, partitions }) => {
      const { leaseLosses, processed, rebalances } = counters
      const owned = partitions.filter(({ phase }) => phase === "owned").length
      const unfinished = partitions.reduce((sum, one) => sum + one.unfinished, 0)
      const telling: Telling = {
        rebalances,
        leaseLosses,
        processed,
        owned,
        unfinished,
        refused: refused.count
      }
      process.send?.(telling)
    })
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(tellEachMillis), tell)))
    return yield* Effect.ensuring(consumer.run, tell)
  })

const end = (exit: Exit.Exit<unknown, unknown>): void => {
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) process.exit(0)
  process.stderr.write(`${Cause.pretty(exit.cause)}\n`)
  process.exit(1)
}

let fiber: Fiber.Fiber<unknown, unknown> | undefined
process.once("disconnect", () => process.exit(1))
process.once("SIGTERM", () => (fiber === undefined ? process.exit(0) : fiber.interruptUnsafe()))
process.once("message", (instructions: Instructions) => {
  const layers = Layer.mergeAll(clientOf(instructions), storeOf(instructions.store), Logger.layer([]))
  fiber = Effect.runFork(Effect.provide(Effect.scoped(consume(instructions)), layers))
  fiber.addObserver(end)
})
