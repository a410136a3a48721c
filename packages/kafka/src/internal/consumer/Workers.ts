/**
 * The fibers that run handlers. Each takes one record (or batch) after the other and runs its handler inline, so that a handler
 * that never waits costs no fiber and no turn of the event loop. A worker without a record parks; it is woken when
 * there is one again.
 *
 * Waking is synchronous: `spread` runs a worker until its handler waits, then the next worker, so that there are
 * never more awake than there is work for.
 */
import { interruptAtRest } from "@tidemark/core"
import { Cause, type Context, Effect, Exit, type Fiber, type Scheduler } from "effect"
import { atWorkFor } from "./deadline.ts"
import type { Handling } from "./Handling.ts"
import type { Partition } from "./Partition.ts"

/** How many records start in one turn of the event loop, so that heartbeats and fetches get theirs. */
const recordsPerTurn = 1_000

/** What one worker is at. */
export interface Worker {
  /** The partition whose record it works on; `undefined` while it has none. */
  partition: Partition | undefined
  /** The record's tile, or that of the first of a batch. */
  tile: number
  /** How many records it works on. */
  records: number
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  /** Why it was interrupted by us: its record is no longer ours to process. */
  revoked: boolean
  wake: (() => void) | undefined
}

export interface WorkersOptions<E, R> {
  readonly concurrency: number
  /** How many records may at most be at work, or processed and not completed in the store. */
  readonly maxUnmarked: number
  readonly handling: Handling<E, R>
  readonly context: Context.Context<R>
  readonly dispatcher: Scheduler.SchedulerDispatcher
  /** A handler has failed, or was interrupted from within; without a partition: the worker itself has. */
  readonly onFailure: (cause: Cause.Cause<E>, partition: Partition | undefined, tile: number) => void
}

export class Workers<E, R> {
  private readonly options: WorkersOptions<E, R>
  private readonly fork: <A, E2>(effect: Effect.Effect<A, E2, R>) => Fiber.Fiber<A, E2>
  private readonly all = new Set<Worker>()
  private readonly idle: Array<Worker> = []
  /** The partitions that may have a record to start, in turns. */
  private readonly active: Array<Partition> = []
  /** Records at work. */
  running = 0
  /** Records processed, and not completed in the store. */
  unmarked = 0
  private turn = 0
  private budget = recordsPerTurn
  private scheduled = false
  /** Whether it was looked, in this turn of the event loop, which leases are over. */
  private looked = false
  private stopped = false

  constructor(options: WorkersOptions<E, R>) {
    this.options = options
    this.fork = Effect.runForkWith(options.context)
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

  /** Interrupts the handlers at work on this partition, or on one of its tiles, as soon as they can be. */
  revoke(partition: Partition, tile?: number): void {
    for (const worker of [...this.all]) {
      if (worker.partition !== partition) continue
      if (tile !== undefined && !this.options.handling.has(worker, tile)) continue
      if (worker.revoked) continue
      worker.revoked = true
      this.interrupt(worker)
    }
  }

  /** In an uninterruptible region it is left alone, and if its record ends well, it goes on with another. */
  private interrupt(worker: Worker): void {
    const { fiber } = worker
    if (fiber === undefined || !worker.revoked) return
    const atWork = atWorkFor(fiber)
    interruptAtRest(atWork, () => worker.revoked)
    // it may end well, and its record go on
    if (atWork !== fiber) atWork.addObserver(() => this.interrupt(worker))
  }

  /** Interrupts what is still at work, once and for all: nobody will look at it again. */
  end(): void {
    for (const worker of [...this.all]) {
      worker.revoked = true
      if (worker.fiber === undefined) continue
      atWorkFor(worker.fiber).interruptUnsafe()
      worker.fiber.interruptUnsafe()
    }
  }

  /** So many more (or fewer) records have been processed, and are not completed in the store. */
  addUnmarked(records: number): void {
    this.unmarked += records
    if (records < 0 && this.active.length > 0) this.schedule()
  }

  /** How many more records may be at work. */
  private get room(): number {
    return this.options.maxUnmarked - this.running - this.unmarked
  }

  private schedule(): void {
    if (this.scheduled || this.stopped) return
    this.scheduled = true
    this.options.dispatcher.scheduleTask(this.spread, 0)
  }

  private readonly spread = (): void => {
    this.scheduled = false
    this.budget = recordsPerTurn
    while (this.active.length > 0 && this.budget > 0 && !this.stopped && this.room > 0) {
      const worker = this.idle.pop()
      if (worker !== undefined) worker.wake?.()
      else if (this.all.size < this.options.concurrency) this.startWorker()
      else return
    }
  }

  /** In a process that was frozen, nothing starts under a claim that is over before its keeper has looked at the clock. */
  private loseOver(): void {
    if (this.looked || this.active.length === 0) return
    this.looked = true
    this.options.dispatcher.scheduleTask(() => {
      this.looked = false
    }, 0)
    for (const partition of [...this.active]) partition.loseIfOver()
  }

  /** Gives the worker its next work. */
  private takeFor(worker: Worker): boolean {
    const { room } = this
    if (this.stopped || room <= 0) return false
    const { active } = this
    this.loseOver()
    while (active.length > 0) {
      if (this.budget <= 0) {
        this.schedule()
        return false
      }
      if (this.turn >= active.length) this.turn = 0
      const partition = active[this.turn]
      const taken = this.options.handling.take(worker, partition, room)
      if (taken > 0) {
        this.budget -= taken
        this.running += taken
        this.turn++
        worker.partition = partition
        worker.records = taken
        return true
      }
      partition.active = false
      const last = active.pop() as Partition
      if (last !== partition) active[this.turn] = last
    }
    return false
  }

  private startWorker(): void {
    const { handling } = this.options
    const worker: Worker = {
      partition: undefined,
      tile: -1,
      records: 0,
      fiber: undefined,
      revoked: false,
      wake: undefined
    }
    this.all.add(worker)
    const run = Effect.whileLoop({
      while: () => this.takeFor(worker),
      body: () => handling.run(worker, worker.partition as Partition),
      step: (answer) => {
        const partition = worker.partition as Partition
        worker.partition = undefined
        worker.revoked = false
        this.running -= worker.records
        handling.finish(worker, partition, answer)
      }
    })
    const park = Effect.callback<void>((resume) => {
      worker.wake = () => resume(Effect.void)
      this.idle.push(worker)
    })
    // Parked first: what a fiber does before `fork` returns could not be interrupted.
    const turn = Effect.andThen(park, run)
    const fiber = this.fork(
      Effect.whileLoop({ while: () => !this.stopped, body: () => turn, step: () => {} })
    )
    worker.fiber = fiber
    fiber.addObserver((exit) => this.onEnd(worker, exit))
    const at = this.idle.indexOf(worker)
    if (at === -1) return
    this.idle.splice(at, 1)
    worker.wake?.()
  }

  private onEnd(worker: Worker, exit: Exit.Exit<unknown, E>): void {
    this.all.delete(worker)
    const { partition, revoked, tile } = worker
    worker.partition = undefined
    if (Exit.isSuccess(exit)) return
    const { cause } = exit
    const onlyInterrupted = Cause.hasInterruptsOnly(cause)
    if (partition === undefined) {
      if (!onlyInterrupted) this.options.onFailure(cause, undefined, tile)
      return
    }
    this.running -= worker.records
    // a late writer is turned away before its keeper has looked at the clock, where the process was frozen
    const { handling, onFailure } = this.options
    if (!revoked && !partition.isOver(handling.recordsOf(worker, partition)))
      onFailure(cause, partition, tile)
    else if (!onlyInterrupted) this.tellOfFailure(partition, cause)
    handling.abandon(worker, partition, cause)
    this.schedule()
  }

  /** Not ours to process any more, so no reason to stop: whoever refuses a late writer fails its handler. */
  private tellOfFailure(partition: Partition, cause: Cause.Cause<E>): void {
    this.fork(
      Effect.logWarning(
        `tidemark: a handler of ${partition} failed after it was told to stop; its record is not done`,
        cause
      )
    )
  }
}
