/**
 * Brings what has finished in one partition to the store: ids first, then offsets, so that a crash between the two
 * repeats nothing. Each of the two is one call at a time; the ids of what finishes meanwhile are completed while offsets
 * are under way.
 */
import { type InvalidInput, type OffsetClaimRef, OffsetRanges, type StoreError } from "@tidemark/core"
import { type Cause, Effect, Exit } from "effect"
import type { TopicPartition } from "../../KafkaClient.ts"
import type { Environment } from "./environment.ts"
import type { PartitionKeys } from "./PartitionKeys.ts"
import { type Finished, join, type PartitionState, type Settlement } from "./PartitionState.ts"
import { patiently } from "./patiently.ts"

type SettleError = StoreError | InvalidInput

/** The partition whose records these are. */
export interface Settled extends TopicPartition {
  readonly state: PartitionState
  /** When the lease ends, on the monotonic clock; it moves as the lease is renewed. */
  readonly deadline: number
  /** The store has these now. */
  readonly onSettled: (settlement: Settlement) => void
  /** Another owner has some of them. */
  readonly onTaken: (ranges: OffsetRanges.OffsetRanges) => void
  readonly onSettleFailed: (cause: Cause.Cause<SettleError>) => void
  /** Nothing is under way any more. */
  readonly onIdle: () => void
}

/** Work that is done one piece after the other. */
interface Stage {
  busy: boolean
  /** The next piece; `undefined` where there is none. */
  readonly next: () => Effect.Effect<void, SettleError> | undefined
}

export class Settling {
  private readonly environment: Environment
  private readonly partition: Settled
  private readonly keys: PartitionKeys | undefined
  private readonly ref: OffsetClaimRef
  private scheduled = false
  private failed = false
  /** Records whose handlers have ended well, and that the store does not have. */
  private unmarked = 0
  /** Those whose ids are completed, and whose offsets are not. */
  private marked: Finished | undefined

  constructor(
    environment: Environment,
    partition: Settled,
    ref: OffsetClaimRef,
    keys: PartitionKeys | undefined
  ) {
    this.environment = environment
    this.partition = partition
    this.ref = ref
    this.keys = keys
  }

  /** Whether what has finished is in the store, or can't be brought there. */
  get isIdle(): boolean {
    return this.failed || !(this.scheduled || this.ids.busy || this.offsets.busy)
  }

  /** So many handlers have ended well. */
  add(records: number): void {
    if (!this.failed) this.count(records)
    this.soon()
  }

  /** Soon, so that what finishes in the same turn goes along. */
  soon(): void {
    if (this.scheduled || this.failed) return
    this.scheduled = true
    this.environment.dispatcher.scheduleTask(() => {
      this.scheduled = false
      this.go(this.ids)
      this.go(this.offsets)
      if (this.isIdle) this.partition.onIdle()
    }, 0)
  }

  private readonly ids: Stage = {
    busy: false,
    next: () => {
      const { keys } = this
      const finished = keys === undefined ? undefined : this.partition.state.takeFinished()
      return finished === undefined
        ? undefined
        : Effect.map(keys?.complete(finished, () => this.partition.deadline) ?? Effect.void, () => {
            this.marked = this.marked === undefined ? finished : join(this.marked, finished)
            this.go(this.offsets)
          })
    }
  }

  private readonly offsets: Stage = {
    busy: false,
    next: () => {
      const finished = this.keys === undefined ? this.partition.state.takeFinished() : this.marked
      this.marked = undefined
      return finished === undefined ? undefined : this.complete(this.partition.state.settlementOf(finished))
    }
  }

  private go(stage: Stage): void {
    if (stage.busy || this.failed) return
    const piece = stage.next()
    if (piece === undefined) return
    stage.busy = true
    this.environment.fork(piece).addObserver((exit) => {
      stage.busy = false
      if (Exit.isFailure(exit)) this.fail(exit.cause)
      else this.go(stage)
      if (this.isIdle) this.partition.onIdle()
    })
  }

  private complete(settlement: Settlement): Effect.Effect<void, SettleError> {
    const { environment, partition, ref } = this
    const { counters, offsets } = environment
    const completed = patiently(
      environment,
      "complete",
      `${partition} has records that took effect and could not be completed`,
      Effect.suspend(() => offsets.complete(ref, settlement.ranges)),
      () => partition.deadline
    )
    return Effect.map(completed, ({ leaseLost }) => {
      counters.completes++
      // after a failure none of them counts any more
      if (!this.failed) this.count(-settlement.handled)
      if (OffsetRanges.isEmpty(leaseLost)) partition.onSettled(settlement)
      else partition.onTaken(leaseLost)
    })
  }

  /** The store did not take what has finished, for as long as our lease lasted. */
  private fail(cause: Cause.Cause<SettleError>): void {
    if (this.failed) return
    this.failed = true
    this.count(-this.unmarked)
    this.partition.onSettleFailed(cause)
  }

  private count(records: number): void {
    this.unmarked += records
    this.environment.addUnmarked(records)
  }
}
