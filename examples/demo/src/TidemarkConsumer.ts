/** tidemark's side of the demo: its consumer, on stores that a dead consumer can't reach any more. */
import { IdempotencyStore, type LeaseKeeper, OffsetStore } from "@tidemark/core"
import { KafkaConsumer, type KafkaRecord } from "@tidemark/kafka"
import { Context, Effect } from "effect"
import type { Life } from "./Life.ts"

type Stores = OffsetStore | IdempotencyStore

/** A call of the living gets its answer; the dead wait for ever, and what they asked for is not done. */
const whileAlive = <A, E, R>(life: Life, call: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() =>
    life.isOver
      ? Effect.never
      : Effect.flatMap(call, (answer) => (life.isOver ? Effect.never : Effect.succeed(answer)))
  )

/** The same service, for one consumer: every verb may stay without an answer, and leases are not renewed any more. */
const mortal = <Service extends OffsetStore["Service"] | IdempotencyStore["Service"]>(
  service: Service,
  life: Life
): Service => {
  const verbs = Object.entries(service).map(([name, member]) => {
    if (name === "leases") return [name, mortalLeases(service.leases as LeaseKeeper<unknown>, life)]
    if (typeof member !== "function") return [name, member]
    const verb = member as (...args: ReadonlyArray<unknown>) => Effect.Effect<unknown, unknown>
    return [name, (...args: ReadonlyArray<unknown>) => whileAlive(life, verb(...args))]
  })
  return Object.fromEntries(verbs)
}

const mortalLeases = <Ref>(leases: LeaseKeeper<Ref>, life: Life): LeaseKeeper<Ref> => ({
  drop: leases.drop,
  hold: (lease) => {
    const { mayRenew } = lease
    leases.hold(Object.assign(lease, { mayRenew: () => !life.isOver && (mayRenew?.() ?? true) }))
  }
})

/** The stores as a mortal consumer has them. `onMarked` learns which orders were marked, when the answer is there. */
export const mortalStores = (
  stores: Context.Context<Stores>,
  life: Life,
  onMarked: (orderId: string) => void
): Context.Context<Stores> => {
  const keys = mortal(Context.get(stores, IdempotencyStore), life)
  return Context.make(OffsetStore, mortal(Context.get(stores, OffsetStore), life)).pipe(
    Context.add(
      IdempotencyStore,
      IdempotencyStore.of({
        ...keys,
        complete: (claim, items, options) =>
          Effect.tap(keys.complete(claim, items, options), () =>
            Effect.sync(() => {
              for (const { key } of items) onMarked(key)
            })
          )
      })
    )
  )
}

export interface TidemarkConsumerOptions {
  readonly topic: string
  readonly groupId: string
  readonly concurrency: number
  readonly sessionTimeoutMillis: number
  readonly owner: string
  readonly handle: (record: KafkaRecord) => Effect.Effect<void>
}

export const runTidemarkConsumer = (options: TidemarkConsumerOptions) =>
  KafkaConsumer.run({
    topics: [options.topic],
    groupId: options.groupId,
    owner: options.owner,
    order: "none",
    concurrency: options.concurrency,
    sessionTimeout: options.sessionTimeoutMillis,
    lease: options.sessionTimeoutMillis,
    identify: (record) => record.key?.toString(),
    handler: options.handle
  })
