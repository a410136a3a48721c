/**
 * The fibers that run handlers. Each takes one record after the other and runs its handler inline, so that a handler
 * that never waits costs no fiber and no turn of the event loop. A worker without a record parks; it is woken when
 * there is one again.
 *
 * Waking is synchronous: `spread` runs a worker until its handler waits, then the next worker, so that there are
 * never more awake than there is work for.
 */
import { type Cause, type Context, Effect, Exit, type Fiber, type Scheduler } from "effect"
import type { KafkaRecord } from "../../KafkaClient.ts"
import type { RecordClaim } from "../../KafkaConsumer.ts"
import type { Partition } from "./Partition.ts"

/** How many records start in one turn of the event loop, so that heartbeats and fetches get theirs. */
const recordsPerTurn = 1_000

/** What one worker is at. */
export interface Worker {
  /** The partition whose record it works on; `undefined` while it has none. */
  partition: Partition | undefined
  tile: number
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  /** Why it was interrupted by us: its record is no longer ours to process. */
  revoked: boolean
  wake: (() => void) | undefined
}

export interface WorkersOptions<E, R> {
  readonly concurrency: number
  readonly handler: (record: KafkaRecord, claim: RecordClaim) => Effect.Effect<unknown, E, R>
  readonly context: Context.Context<R>
  readonly dispatcher: Scheduler.SchedulerDispatcher
  /** A handler has failed, or was interrupted from within. */
  readonly onFailure: (partition: Partition, tile: number, cause: Cause.Cause<E>) => void
}

export class Workers<E, R> {
  private readonly options: WorkersOptions<E, R>
  private readonly fork: <A, E2>(effect: Effect.Effect<A, E2, R>) => Fiber.Fiber<A, E2>
  private readonly all = new Set<Worker>()
  private readonly idle: Array<Worker> = []
  /** The partitions that may have a record to start, in turns. */
  private readonly active: Array<Partition> = []
  private turn = 0
  private budget = recordsPerTurn
  private scheduled = false
  private stopped = false

  constructor(options: WorkersOptions<E, R>) {
    this.options = options
    this.fork = Effect.runForkWith(options.context)
  }

  /** How many records are at work. */
  get busy(): number {
    return this.all.size - this.idle.length
  }

  /** The partition may have a record to start. `spread`: for another worker than the one that tells. */
  activate(partition: Partition, spread: boolean): void {
    if (!partition.active) {
      partition.active = true
      this.active.push(partition)
    }
    if (spread) this.schedule()
  }

  /** No record starts from now on. Those at work go on. */
  stop(): void {
    this.stopped = true
    for (const worker of this.idle.splice(0)) {
      this.all.delete(worker)
      worker.fiber?.interruptUnsafe()
    }
  }

  /** Interrupts the handlers at work on this partition, or on one of its tiles. */
  revoke(partition: Partition, tile?: number): void {
    for (const worker of [...this.all]) {
      if (worker.partition !== partition || (tile !== undefined && worker.tile !== tile)) continue
      worker.revoked = true
      worker.fiber?.interruptUnsafe()
    }
  }

  private schedule(): void {
    if (this.scheduled || this.stopped) return
    this.scheduled = true
    this.options.dispatcher.scheduleTask(this.spread, 0)
  }

  private readonly spread = (): void => {
    this.scheduled = false
    this.budget = recordsPerTurn
    while (this.active.length > 0 && this.budget > 0 && !this.stopped) {
      const worker = this.idle.pop()
      if (worker !== undefined) worker.wake?.()
      else if (this.all.size < this.options.concurrency) this.startWorker()
      else return
    }
  }

  /** Gives the worker its next record. */
  private takeFor(worker: Worker): boolean {
    if (this.stopped) return false
    const { active } = this
    while (active.length > 0) {
      if (this.budget === 0) {
        this.schedule()
        return false
      }
      if (this.turn >= active.length) this.turn = 0
      const partition = active[this.turn]
      const tile = partition.take()
      if (tile !== -1) {
        this.budget--
        this.turn++
        worker.partition = partition
        worker.tile = tile
        return true
      }
      partition.active = false
      const last = active.pop() as Partition
      if (last !== partition) active[this.turn] = last
    }
    return false
  }

  private startWorker(): void {
    const { handler, onFailure } = this.options
    const worker: Worker = {
      partition: undefined,
      tile: -1,
      fiber: undefined,
      revoked: false,
      wake: undefined
    }
    this.all.add(worker)
    const run = Effect.whileLoop({
      while: () => this.takeFor(worker),
      body: () => {
        const partition = worker.partition as Partition
        return handler(partition.state.recordAt(worker.tile) as KafkaRecord, partition.claimFor(worker.tile))
      },
      step: () => {
        const partition = worker.partition as Partition
        worker.partition = undefined
        partition.finish(worker.tile)
      }
    })
    const park = Effect.callback<void>((resume) => {
      if (this.stopped) return
      worker.wake = () => resume(Effect.void)
      this.idle.push(worker)
    })
    // Parked first: what a fiber does before `fork` returns could not be interrupted.
    const fiber = this.fork(Effect.forever(Effect.andThen(park, run), { disableYield: true }))
    worker.fiber = fiber
    fiber.addObserver((exit) => this.onEnd(worker, exit as Exit.Exit<unknown, E>, onFailure))
    const at = this.idle.indexOf(worker)
    if (at === -1) return
    this.idle.splice(at, 1)
    worker.wake?.()
  }

  private onEnd(
    worker: Worker,
    exit: Exit.Exit<unknown, E>,
    onFailure: WorkersOptions<E, R>["onFailure"]
  ): void {
    this.all.delete(worker)
    const { partition, tile } = worker
    if (partition === undefined) return
    worker.partition = undefined
    if (worker.revoked || Exit.isSuccess(exit)) partition.abandon(tile)
    else onFailure(partition, tile, exit.cause)
    this.schedule()
  }
}
