/**
 * Consumers that live in this process, since the memory store does. One that is killed dies as if by `kill -9`, and
 * takes no other along: its connections are cut and refused, its store never answers again, its effects stop, and
 * nothing of it is cleaned up.
 */
import { IdempotencyStore, type LeaseKeeper, OffsetStore } from "@tidemark/core"
import { KafkaClient } from "@tidemark/kafka"
import { MemoryStore } from "@tidemark/store-memory"
import { Context, Effect, Exit, Fiber, Layer, Scope } from "effect"
import type { Cluster } from "./Cluster.ts"
import { type Consumer, RaceFailed, type StartConsumer, type Store } from "./Consumers.ts"
import { type Job, runTidemark, runUsual } from "./Contestants.ts"
import type { Ledger } from "./Ledger.ts"
import { Life } from "./Life.ts"
import { monotonicMillis, type Note, type Tell } from "./Notes.ts"
import { type KeyStore, makeKeyStore } from "./Trackers.ts"

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

const mortalStores = (stores: Context.Context<Stores>, life: Life): Context.Context<Stores> =>
  Context.make(OffsetStore, mortal(Context.get(stores, OffsetStore), life)).pipe(
    Context.add(IdempotencyStore, mortal(Context.get(stores, IdempotencyStore), life))
  )

/** After the consumer's end it never answers again. */
const mortalKeyStore = (store: KeyStore, life: Life): KeyStore => ({
  has: (key) => life.call(() => store.has(key)),
  add: (key) => life.call(() => store.add(key)),
  addIfAbsent: (key) => life.call(() => store.addIfAbsent(key)),
  remove: (key) => life.call(() => store.remove(key))
})

/** A client from which the dead hear nothing. */
const mortalClient = (client: KafkaClient["Service"], life: Life): KafkaClient["Service"] => ({
  ...client,
  join: (options) => {
    life.groups.push(options.groupId)
    const { onAssignment, onBatch } = options.events
    return client.join({
      ...options,
      events: {
        ...options.events,
        onAssignment: (assignment) => {
          if (!life.isOver) onAssignment(assignment)
        },
        onBatch: (batch) => {
          if (!life.isOver) onBatch(batch)
        }
      }
    })
  }
})

class MortalConsumer implements Consumer {
  readonly name: string
  readonly life: Life
  assigned = -1
  private readonly ledger: Ledger
  private stopping = false
  private fiber: Fiber.Fiber<unknown, unknown> | undefined

  constructor(name: string, ledger: Ledger) {
    this.name = name
    this.life = new Life(name)
    this.ledger = ledger
  }

  readonly tell: Tell = (note: Note) => {
    if (this.life.isOver) return
    if (note.what === "assigned") this.assigned = note.partitions
    else if (note.what !== "failed") this.ledger.note(this.name, note)
  }

  run(work: Effect.Effect<unknown, unknown>): Effect.Effect<void> {
    return Effect.map(Effect.forkDetach(work), (fiber) => {
      this.fiber = fiber
    })
  }

  readonly kill = Effect.sync(() => {
    this.ledger.kill(this.name, monotonicMillis())
    this.life.end()
  })

  readonly stop = Effect.suspend(() => {
    this.stopping = true
    return this.fiber === undefined
      ? Effect.void
      : Effect.ignore(Effect.timeout(Fiber.interrupt(this.fiber), "10 seconds"))
  })

  readonly failure = Effect.suspend((): Effect.Effect<never, unknown> => {
    if (this.fiber === undefined) return Effect.never
    return Effect.flatMap(Fiber.await(this.fiber), (exit) => {
      if (this.life.isOver || this.stopping) return Effect.never
      return Exit.isFailure(exit)
        ? Effect.failCause(exit.cause)
        : Effect.fail(new RaceFailed(`${this.name} stopped by itself`))
    })
  })
}

const startIn =
  (cluster: Cluster, stores: Context.Context<Stores>, keys: KeyStore): StartConsumer =>
  (job: Job, ledger: Ledger) =>
    Effect.gen(function* () {
      const consumer = new MortalConsumer(job.name, ledger)
      const { life, tell } = consumer
      // a scope that is closed for the living only: the dead run no finalizer
      const scope = yield* Scope.make()
      const client = mortalClient(yield* Scope.provide(cluster.connect(life), scope), life)
      const { contestant } = job
      const work =
        contestant === "tidemark"
          ? Effect.provide(runTidemark(job, tell), mortalStores(stores, life))
          : runUsual({ ...job, contestant }, mortalKeyStore(keys, life), tell)
      yield* consumer.run(
        Effect.onExit(Effect.provideService(work, KafkaClient, client), (exit) =>
          life.isOver ? Effect.void : Scope.close(scope, exit)
        )
      )
      return consumer
    })

/** The memory store, and all consumers with it in this process. */
export const sameProcess = (cluster: Cluster): Store => ({
  description: "in this process's memory, and all consumers in this process with it",
  death: "has died without a word",
  open: (_, orders) =>
    Effect.map(
      Layer.build(MemoryStore.layer({ maxTrackedOffsets: Math.max(50_000, orders * 2) })),
      (stores) => startIn(cluster, stores, makeKeyStore())
    )
})
