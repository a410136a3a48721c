/**
 * One partition in the hands of one consumer, from its assignment until it is let go: waits for its claim, takes
 * batches in, hands records to workers, settles what has finished, drains.
 */
import {
  type HeldLease,
  type InvalidInput,
  Key,
  type OffsetClaimRef,
  OffsetRanges,
  Patience,
  type StoreError
} from "@tidemark/core"
import { Cause, Effect, Exit, type Fiber } from "effect"
import { LogWentBack } from "../../ConsumerErrors.ts"
import type { KafkaRecord, RecordBatch, TopicPartition } from "../../KafkaClient.ts"
import type { BatchClaim, PartitionStatus, RecordClaim } from "../../KafkaConsumer.ts"
import { type Acquired, acquire, giveBackWithin, type Holder, type Reading } from "./acquire.ts"
import { CommitState, type DueCommit } from "./CommitState.ts"
import type { Environment } from "./environment.ts"
import { type KeyRing, PartitionKeys, remind } from "./PartitionKeys.ts"
import { PartitionState, type Settlement } from "./PartitionState.ts"
import { nameOf } from "./patiently.ts"
import type { Positioned } from "./positioning.ts"
import { RetryHold } from "./RetryHold.ts"
import { Settling } from "./Settling.ts"
import type { Bounds } from "./settings.ts"

/** How long handlers that were interrupted may take to end, before their partition is left to its lease. */
const interruptPatienceMillis = 1_000

/**
 * `waiting`: for its claim; `owned`: at work; `draining`: what is at work ends, nothing starts; `closed`: no longer
 * ours.
 */
export type Phase = "waiting" | "owned" | "draining" | "closed"

/** Somebody waits for what the log has at an offset, before the partition is ours. */
interface Looking {
  readonly offset: number
  readonly onBatch: (batch: RecordBatch) => void
}

export class Partition implements Positioned {
  readonly topic: string
  readonly partition: number
  readonly stream: string
  phase: Phase = "waiting"
  /** Whether the workers have it on their list. */
  active = false
  state: PartitionState
  private readonly environment: Environment
  private readonly keys: PartitionKeys | undefined
  private readonly delay: RetryHold | undefined
  private ref: OffsetClaimRef | undefined
  private lease: HeldLease<OffsetClaimRef> | undefined
  private recordClaim: RecordClaim | undefined
  private acquiring: Fiber.Fiber<unknown, unknown> | undefined
  /** Whether it is to be let go: a claim that comes now is only given back. */
  private unwanted = false
  /** Whether what was at work after the drain timeout has been told to stop. */
  private overdue = false
  /** Whether it is closed, and what can be given back has been. */
  private letGo = false
  private settling: Settling | undefined
  /** The bound at which it has paused. */
  private bound: keyof Bounds | undefined
  /** Whether somebody has paused it. */
  private held: boolean
  private holder: Holder | undefined
  private highWatermark: number | undefined
  private commits: CommitState | undefined
  private looking: Looking | undefined
  private readonly waiters = new Set<{ readonly condition: () => boolean; readonly resume: () => void }>()

  constructor(environment: Environment, ring: KeyRing | undefined, { partition, topic }: TopicPartition) {
    this.environment = environment
    this.topic = topic
    this.partition = partition
    const { cluster, groupId, order } = environment.settings
    const place = { group: groupId, topic, partition }
    this.held = environment.isHeld(this)
    this.stream = Key.kafkaStream(cluster === undefined ? place : { ...place, cluster })
    this.keys = ring === undefined ? undefined : new PartitionKeys(environment, ring, this)
    this.state = new PartitionState(0, OffsetRanges.empty, order)
    const delayMillis = environment.settings.routes.get(topic)?.delayMillis ?? 0
    this.delay = delayMillis === 0 ? undefined : new RetryHold(environment, delayMillis, () => this.admit())
  }

  /** When our lease ends, on the monotonic clock. */
  get deadline(): number {
    return this.lease?.deadline ?? 0
  }

  toString(): string {
    return nameOf(this)
  }

  // --- getting it

  /** Claims it, for as long as that takes; then reads from where it stands. */
  begin(reading: Reading): void {
    if (this.phase !== "waiting") return
    const { fail, fork } = this.environment
    const own = (acquired: Acquired): void => this.own(acquired)
    const fiber = fork(
      acquire(this.environment, this, this.stream, reading, own, (holder) => {
        this.holder = holder
      })
    )
    this.acquiring = fiber
    fiber.addObserver((exit) => {
      this.acquiring = undefined
      if (Exit.isFailure(exit) && this.phase === "waiting" && !Cause.hasInterruptsOnly(exit.cause))
        fail(exit.cause)
    })
  }

  peek(offset: number): Effect.Effect<RecordBatch> {
    return Effect.callback<RecordBatch>((resume) => {
      this.looking = { offset, onBatch: (batch) => resume(Effect.succeed(batch)) }
      this.read()
      return Effect.sync(() => this.lookAway())
    })
  }

  private lookAway(): void {
    this.looking = undefined
    this.environment.pause(this)
  }

  private own(acquired: Acquired): void {
    const { completed, deadline, epoch, position, ref, token } = acquired
    const { isOurs, offsets, settings } = this.environment
    const { keys } = this
    this.ref = ref
    this.holder = undefined
    this.commits = new CommitState(acquired)
    this.recordClaim = { stream: ref.stream, claimId: ref.claimId, token, epoch, keyToken: undefined }
    this.state = new PartitionState(
      position,
      completed,
      settings.order,
      keys === undefined ? undefined : (tile, isItsTurn) => keys.gate(tile, isItsTurn),
      this.delay !== undefined
    )
    this.lease = {
      ref,
      leaseMillis: settings.leaseMillis,
      deadline,
      mayRenew: () => (this.phase === "owned" || this.phase === "draining") && isOurs(this),
      onLost: () => this.lose("its lease ended"),
      index: -1
    }
    offsets.leases.hold(this.lease)
    this.settling = new Settling(this.environment, this, ref, keys)
    this.phase = this.unwanted ? "draining" : "owned"
    if (this.phase === "owned") this.environment.claims.begin(ref.claimId, this)
    this.read()
  }

  /** Tells the driver where to go on; after each assignment, since a rejoin makes it forget. */
  read(): void {
    const { resume, seek } = this.environment
    if (this.looking !== undefined) {
      seek(this, this.looking.offset)
      resume(this)
    }
    if (this.phase !== "owned") return
    seek(this, this.state.received)
    if (this.isReading) resume(this)
  }

  /** Lets the keepers look again whether they may renew. */
  remindKeeper(): void {
    if (this.lease !== undefined) remind(this.environment.offsets.leases, this.lease)
    this.keys?.remindKeeper()
  }

  // --- records

  onBatch(batch: RecordBatch): void {
    if (this.looking !== undefined) {
      const { onBatch } = this.looking
      this.lookAway()
      onBatch(batch)
      return
    }
    if (this.phase !== "owned") return
    const { state } = this
    const { clock, counters, seek } = this.environment
    this.highWatermark = batch.highWatermark
    if (batch.fetchedOffset < state.received && batch.highWatermark < state.received) {
      this.onLogWentBack(batch.highWatermark)
      return
    }
    if (batch.fetchedOffset > state.received) this.jump(batch.fetchedOffset)
    this.commits?.see(batch)
    counters.received += batch.records.length
    const { alreadyCompleted, redelivered } = state.receive(batch, Patience.monotonicMillis(clock))
    // what follows is completed, and longer than a fetch: it need not be fetched
    if (state.passIsland(batch.nextOffset - batch.fetchedOffset)) seek(this, state.received)
    counters.redelivered += redelivered
    counters.duplicatesByPosition += alreadyCompleted
    if (state.hasFinished) this.settling?.soon()
    this.admit()
    this.pauseAtBound()
  }

  /** Lets records start whose time has come. */
  private admit(): void {
    if (this.phase !== "owned") return
    if (this.keys !== undefined) {
      this.keys.admit()
      return
    }
    if (this.delay !== undefined) this.state.admit(this.admissible[1])
    this.environment.activate(this, true)
  }

  /** The first tile that waits to be admitted, and one past the last that may be. */
  get admissible(): readonly [first: number, end: number] {
    return this.delay?.within(this.state) ?? this.state.admissible
  }

  /** The log ends below what we have received of it: it is another one. */
  private onLogWentBack(end: number): void {
    const { fail, fork, offsets, settings } = this.environment
    const { partition, ref, topic } = this
    const { drainTimeoutMillis, groupId, whenLogWentBack } = settings
    const error = new LogWentBack({ topic, partition, groupId, highest: this.state.received, end })
    if (whenLogWentBack === "stop") {
      fail(Cause.fail(error))
      return
    }
    // claimed anew it is judged anew, and begins where the log does
    this.lose(error.what)
    if (ref === undefined) return
    const giveBack = giveBackWithin(offsets.release(ref), `the claim on ${this}`, drainTimeoutMillis)
    fork(Effect.andThen(this.gone, giveBack))
  }

  /** The log no longer holds what was to come next: retention overtook us. */
  private jump(to: number): void {
    const { counters, fork } = this.environment
    const from = this.state.received
    counters.lostToRetention += to - from
    this.state.skipTo(to)
    fork(
      Effect.logWarning(
        `tidemark: ${to - from} offsets of ${this}, in [${from}, ${to}), were removed by the log's retention before they ` +
          "were read: they are lost"
      )
    )
  }

  /** Starts the next record whose turn it is. */
  take(): number {
    return this.phase === "owned" && !this.held ? this.state.take() : -1
  }

  /** Starts the next records that go together. */
  takeBatch(most: number): ReadonlyArray<number> {
    return this.phase === "owned" && !this.held ? this.state.takeBatch(most) : []
  }

  /** The claim on the partition, as handlers see it. */
  get ownClaim(): RecordClaim {
    return this.recordClaim as RecordClaim
  }

  claimFor(tile: number): RecordClaim {
    return this.keys?.claimFor(tile) ?? this.ownClaim
  }

  claimForBatch(tiles: ReadonlyArray<number>): BatchClaim {
    const { claimId, epoch, stream, token } = this.ownClaim
    const { keys } = this
    const keyTokens = keys === undefined ? [] : tiles.map((tile) => keys.claimFor(tile)?.keyToken)
    return { stream, claimId, token, epoch, keyTokens }
  }

  /**
   * A handler has ended well. Where the claim was lost meanwhile, the store judges: what nobody has taken over is
   * completed all the same. `setAside`: its record was stored elsewhere instead, and its id was not processed.
   */
  finish(tile: number, setAside = false): void {
    if (setAside) this.keys?.setAside(tile)
    else this.environment.counters.processed++
    this.state.finish(tile)
    this.afterFinish(1)
  }

  /** The same for a batch; `aside`: those of its records that were stored elsewhere instead. */
  finishBatch(tiles: ReadonlyArray<number>, aside: ReadonlySet<number>): void {
    for (const tile of aside) this.keys?.setAside(tile)
    this.environment.counters.processed += tiles.length - aside.size
    this.state.finishBatch(tiles)
    this.afterFinish(tiles.length)
  }

  private afterFinish(records: number): void {
    this.settling?.add(records)
    if (this.waiters.size > 0) this.tellWaiters()
    if (this.phase === "closed") return
    if (!this.active) this.environment.activate(this, false)
    if (this.bound !== undefined) this.resumeBelowBound()
  }

  /** A handler has ended, and its record stays undone, with everything behind it in its lane. */
  abandon(tile: number): void {
    this.state.abandon(tile)
    this.onUndone([tile])
  }

  /** The handler of a batch has ended, and only some of its records are done, or were stored elsewhere instead. */
  abandonBatch(tiles: ReadonlyArray<number>, done: ReadonlySet<number>, aside: ReadonlySet<number>): void {
    for (const tile of aside) this.keys?.setAside(tile)
    const ended = done.union(aside)
    const undone = this.state.abandonBatch(tiles, ended)
    this.environment.counters.processed += done.size
    if (ended.size > 0) this.afterFinish(ended.size)
    this.onUndone(undone)
  }

  /** They take their turn again, where they still may. */
  private onUndone(tiles: ReadonlyArray<number>): void {
    for (const tile of tiles) this.keys?.onUndone(tile)
    this.tellWaiters()
    if (this.phase !== "owned" || tiles.length === 0) return
    this.state.retry(tiles[0])
    this.environment.activate(this, true)
  }

  // --- pauses

  private get isReading(): boolean {
    return this.bound === undefined && !this.held
  }

  /** Somebody has paused it, or has it go on: what is at work is left alone. */
  hold(held: boolean): void {
    if (held === this.held) return
    this.held = held
    if (this.phase !== "owned") return
    if (held) this.environment.pause(this)
    else {
      this.environment.activate(this, true)
      if (this.isReading) this.environment.resume(this)
    }
  }

  private pauseAtBound(): void {
    if (this.bound !== undefined) return
    this.bound = this.boundReached(1)
    if (this.bound !== undefined) this.environment.pause(this)
  }

  private resumeBelowBound(): void {
    if (this.phase !== "owned" || this.boundReached(2) !== undefined) return
    this.bound = undefined
    if (this.isReading) this.environment.resume(this)
  }

  /** The first bound of which a `part`th is reached. */
  private boundReached(part: number): keyof Bounds | undefined {
    const { maxBytes, maxInFlight, maxSpan, maxUnfinishedOffsets } = this.environment.settings.bounds
    const { state } = this
    if (state.inFlight * part >= maxInFlight) return "maxInFlight"
    if (state.inFlightBytes * part >= maxBytes) return "maxBytes"
    if (state.unfinished * part >= maxUnfinishedOffsets) return "maxUnfinishedOffsets"
    return state.span * part >= maxSpan ? "maxSpan" : undefined
  }

  // --- settling

  onSettled(settlement: Settlement): void {
    if (this.phase === "closed") return
    this.state.markCompleted(settlement)
    if (this.bound !== undefined) this.resumeBelowBound()
  }

  onTaken(ranges: OffsetRanges.OffsetRanges): void {
    this.lose(`another owner holds ${ranges}`)
  }

  onSettleFailed(cause: Cause.Cause<StoreError | InvalidInput>): void {
    const { fail, fork, isOurs } = this.environment
    if (this.phase === "closed") {
      fork(
        Effect.logWarning(
          `tidemark: records of ${this} took effect after its claim was lost, and could not be completed: they run again`,
          cause
        )
      )
      return
    }
    const error = cause.reasons.find(Cause.isFailReason)?.error
    // Cut off from the group as well, we are no owner any more, which is no reason to stop.
    if (error?.retriable === true && !isOurs(this)) this.lose(error.message)
    else fail(cause)
  }

  onIdle(): void {
    this.tellWaiters()
  }

  /** An id of a record has turned out to be completed: the record needs no handler. */
  settleSoon(): void {
    this.settling?.soon()
  }

  /** What is to be committed, if that has changed; `done` says that Kafka has it. */
  get toCommit(): DueCommit | undefined {
    if (this.phase === "waiting" || this.phase === "closed") return undefined
    return this.commits?.due(this.state.watermark)
  }

  // --- letting go

  /** Whether its claim is lost, or its lease over by now: then it is lost. */
  loseIfOver(): boolean {
    const { clock } = this.environment
    if (this.lease !== undefined && Patience.monotonicMillis(clock) >= this.lease.deadline) {
      this.lose("its lease ended")
    }
    return this.phase === "closed"
  }

  /** Whether these records, which are at work, are no longer ours to process. */
  isOver(records: ReadonlyArray<KafkaRecord>): boolean {
    return this.loseIfOver() || this.overdue || this.keys?.loseIfOver(records) === true
  }

  /** The claim is no longer ours: what is queued is dropped, and what is at work interrupted. */
  private lose(why: string): void {
    if (this.phase === "closed") return
    const { counters, fork, onLost, pause, revoke } = this.environment
    const { inFlight, running } = this.state
    this.phase = "closed"
    this.delay?.end()
    this.forgetClaim()
    counters.leaseLosses++
    if (this.lease !== undefined) this.environment.offsets.leases.drop(this.lease)
    pause(this)
    revoke(this)
    fork(
      Effect.logWarning(
        `tidemark: the claim on ${this} was lost (${why}): ${running} records at work are interrupted, ` +
          `${inFlight - running} queued ones dropped; their next owner runs them`
      )
    )
    if (this.keys !== undefined) fork(this.keys.close)
    this.letGo = true
    onLost(this)
    this.tellWaiters()
  }

  /** Nothing starts from now on; what is at work goes on. */
  stopStarting(): void {
    this.unwanted = true
    if (this.phase === "owned") this.phase = "draining"
    this.delay?.end()
    if (this.ref !== undefined) this.environment.claims.end(this.ref.claimId)
  }

  private forgetClaim(): void {
    if (this.ref !== undefined) this.environment.claims.forget(this.ref.claimId)
  }

  /** Whether what has finished is in the store, or can't be brought there. */
  private readonly isSettled = (): boolean => this.settling?.isIdle !== false

  private readonly isIdle = (): boolean => this.state.running === 0

  private tellWaiters(): void {
    for (const waiter of [...this.waiters]) {
      if (!waiter.condition()) continue
      this.waiters.delete(waiter)
      waiter.resume()
    }
  }

  private awaitThat(condition: () => boolean): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (condition()) return resume(Effect.void)
      const waiter = { condition, resume: () => resume(Effect.void) }
      this.waiters.add(waiter)
      return Effect.sync(() => void this.waiters.delete(waiter))
    })
  }

  /** Ends when nothing of it is at work and what has finished is in the store, or when it is no longer ours. */
  readonly atRest: Effect.Effect<void> = Effect.suspend(() =>
    this.awaitThat(() => this.phase === "closed" || (this.isIdle() && this.isSettled()))
  )

  /** Waits for the condition, for a bounded time. */
  private await(condition: () => boolean, millis: number): Effect.Effect<void> {
    return Effect.timeoutOrElse(this.awaitThat(condition), { duration: millis, orElse: () => Effect.void })
  }

  /**
   * Ends when it is no longer ours and none of its handlers is at work any more, however long one takes that can't be
   * interrupted; and when what has ended well is in the store, or a lease's time was not enough to bring it there.
   */
  readonly gone: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    yield* this.awaitThat(() => this.letGo && this.isIdle())
    yield* this.await(this.isSettled, this.environment.settings.leaseMillis)
    this.keys?.leaveRest()
  })

  /**
   * Lets the records at work end, for a bounded time, and interrupts those that don't. Then brings what has finished
   * to the store, for as long as a lease may last: it has taken effect, and would do so again if it were given back.
   */
  readonly drain: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    this.stopStarting()
    const { revoke, settings } = this.environment
    this.acquiring?.interruptUnsafe()
    if (this.phase !== "draining") return
    yield* this.await(this.isIdle, settings.drainTimeoutMillis)
    const { running } = this.state
    if (running > 0) {
      this.overdue = true
      revoke(this)
      yield* Effect.logWarning(
        `tidemark: ${running} records of ${this} were still at work after ${settings.drainTimeoutMillis} ms and are ` +
          "interrupted; their next owner runs those that don't end well"
      )
      yield* this.await(this.isIdle, interruptPatienceMillis)
    }
    yield* this.await(this.isSettled, settings.leaseMillis)
  })

  /** Gives back what is not completed, so that the next owner can begin. After `drain`. */
  readonly release: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    const { acquiring } = this
    if (acquiring !== undefined) {
      acquiring.interruptUnsafe()
      yield* Effect.exit(
        Effect.callback<void>((resume) => void acquiring.addObserver(() => resume(Effect.void)))
      )
    }
    if (this.phase === "closed") return
    this.phase = "closed"
    this.forgetClaim()
    const { offsets, settings } = this.environment
    if (this.lease !== undefined) offsets.leases.drop(this.lease)
    const { ref } = this
    const { running } = this.state
    if (running > 0)
      yield* Effect.logWarning(
        `tidemark: ${running} handlers of ${this} don't stop: its claim is left to end with its lease`
      )
    // beside each other: a store that fails for one does not keep the other
    const giveBack = Effect.all(
      [
        this.keys?.close ?? Effect.void,
        ref === undefined || running > 0 ? Effect.void : offsets.release(ref)
      ],
      { concurrency: "unbounded", discard: true }
    )
    yield* giveBackWithin(giveBack, `the claim on ${this}`, settings.drainTimeoutMillis)
    this.letGo = true
    this.tellWaiters()
  })

  // --- for people

  status(): PartitionStatus {
    const { bound, held, highWatermark, holder, state } = this
    const { oldest } = state
    const now = Patience.monotonicMillis(this.environment.clock)
    return {
      topic: this.topic,
      partition: this.partition,
      phase: this.phase,
      position: this.ref === undefined ? undefined : state.received,
      watermark: this.ref === undefined ? undefined : state.watermark,
      gaps: state.gaps,
      unfinished: state.unfinished,
      inFlight: state.inFlight,
      running: state.running,
      oldest: oldest && { offset: oldest.offset, ageMillis: Math.max(0, now - oldest.receivedAt) },
      pausedBy: { user: held, bound },
      stalledAt: bound === undefined ? undefined : oldest?.offset,
      heldBy: this.phase === "waiting" ? holder : undefined,
      heldUntil: this.delay?.until,
      lag: highWatermark === undefined ? undefined : Math.max(0, highWatermark - state.watermark)
    }
  }
}
