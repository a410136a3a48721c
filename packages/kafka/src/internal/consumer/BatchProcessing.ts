/**
 * What happens to a batch: what can't be decoded is set aside, the others are handled together, and tried again
 * together. Where that does not help, they are handled one by one in their order, so that only those are set aside which
 * fail by themselves.
 */
import { Cause, Effect, Exit } from "effect"
import { PartlyDone } from "../../ConsumerErrors.ts"
import type { KafkaRecord } from "../../KafkaClient.ts"
import type { BatchClaim } from "../../KafkaConsumer.ts"
import type { ConsumerFailure } from "./environment.ts"
import type { Processing } from "./Processing.ts"
import type { Batches, BatchHandler } from "./settings.ts"
import { setAside, undone } from "./verdicts.ts"

/** What has become of a batch's records so far. */
export interface BatchProgress {
  /** Those that have taken effect. */
  readonly done: Set<KafkaRecord>
  /** Those that were stored elsewhere. */
  readonly aside: Set<KafkaRecord>
}

/** A batch on its way. */
interface Batch extends BatchProgress {
  readonly records: ReadonlyArray<KafkaRecord>
  readonly claim: BatchClaim
  readonly values: Map<KafkaRecord, unknown>
}

/** Why the records failed that are not done. */
const inner = <E>(cause: Cause.Cause<E>): Cause.Cause<unknown> => {
  const failure = cause.reasons.find(Cause.isFailReason)?.error
  return failure instanceof PartlyDone ? Cause.fail(failure.cause) : cause
}

/** The offsets of the records that a batch handler says it has done, although it has failed; it may have copied them. */
export const offsetsDone = (cause: Cause.Cause<unknown>): ReadonlySet<number> => {
  const offsets = new Set<number>()
  for (const { error } of cause.reasons.filter(Cause.isFailReason))
    if (error instanceof PartlyDone) for (const { offset } of error.done) offsets.add(offset)
  return offsets
}

export class BatchProcessing<E, R> {
  /** Decodes, handles and settles a batch: what its handler answers, or a verdict. `progressOf` tells more. */
  readonly handler: BatchHandler<E | ConsumerFailure, R>
  readonly maxRecords: number
  private readonly processing: Processing<E, R>
  private readonly handle: Batches<E, R>["handleBatch"]
  private readonly underWay = new WeakMap<ReadonlyArray<KafkaRecord>, Batch>()

  constructor(processing: Processing<E, R>, { handleBatch, maxRecords }: Batches<E, R>) {
    this.maxRecords = maxRecords
    this.processing = processing
    this.handle = handleBatch
    this.handler = processing.isPlain
      ? (records, claim) => handleBatch(records, records, claim)
      : (records, claim) => this.process(records, claim)
  }

  /** What has become of these records, which were given to the handler; `undefined` where only its end tells. */
  progressOf(records: ReadonlyArray<KafkaRecord>): BatchProgress | undefined {
    return this.underWay.get(records)
  }

  private process(records: ReadonlyArray<KafkaRecord>, claim: BatchClaim) {
    const batch: Batch = { records, claim, values: new Map(), done: new Set(), aside: new Set() }
    this.underWay.set(records, batch)
    const attempt = Effect.suspend(() => this.attempt(batch, this.left(batch)))
    return Effect.flatMap(this.decode(batch), (isDecoded) => {
      if (!isDecoded) return Effect.succeed(undone)
      return Effect.catchCause(attempt, (cause) => this.onFailure(batch, cause, attempt))
    })
  }

  /** Those that are neither done nor set aside. */
  private left({ aside, done, records }: Batch): ReadonlyArray<KafkaRecord> {
    return records.filter((record) => !done.has(record) && !aside.has(record))
  }

  private decode(batch: Batch): Effect.Effect<boolean, E | ConsumerFailure, R> {
    const { processing } = this
    const { aside, records, values } = batch
    const { claimId } = batch.claim
    return Effect.gen(function* () {
      for (const record of records) {
        if (processing.passesOver(record)) {
          aside.add(record)
          continue
        }
        const decoding = processing.decoding(record, claimId)
        const decoded = yield* decoding
        if (decoded === undone) return false
        if (Exit.isSuccess(decoded.exit)) {
          values.set(record, decoded.exit.value)
          if (Exit.isExit(decoding)) continue
        } else {
          const answer = yield* processing.giveUp(record, batch.claim, decoded.exit.cause, decoded.count)
          if (answer === undone) return false
          aside.add(record)
        }
        // that took its time
        if (processing.isOver(claimId, records)) return false
      }
      return true
    })
  }

  private run({ claim, records, values }: Batch, some: ReadonlyArray<KafkaRecord>) {
    const { keyTokens } = claim
    const tokens = keyTokens.length === 0 ? [] : some.map((record) => keyTokens[records.indexOf(record)])
    return Effect.suspend(() =>
      this.handle(
        some.map((record) => values.get(record)),
        some,
        some.length === records.length ? claim : { ...claim, keyTokens: tokens }
      )
    )
  }

  /** Handles some of a batch; well, too, where the failure says that all of them are done. */
  private attempt(batch: Batch, some: ReadonlyArray<KafkaRecord>): Effect.Effect<void, E, R> {
    if (some.length === 0) return Effect.void
    return Effect.catchCause(Effect.asVoid(this.run(batch, some)), (cause) => {
      const offsets = offsetsDone(cause)
      const done = some.filter(({ offset }) => offsets.has(offset))
      for (const record of done) batch.done.add(record)
      return done.length === some.length ? Effect.void : Effect.failCause(cause)
    })
  }

  private onFailure(
    batch: Batch,
    cause: Cause.Cause<E>,
    attempt: Effect.Effect<void, E, R>
  ): Effect.Effect<unknown, E | ConsumerFailure, R> {
    const { processing } = this
    const { claimId } = batch.claim
    return Effect.flatMap(
      processing.persist(Exit.failCause(cause), attempt, claimId, () => this.left(batch)),
      (attempts): Effect.Effect<unknown, E | ConsumerFailure, R> => {
        if (attempts === undone) return Effect.succeed(undone)
        const { count, exit } = attempts
        if (Exit.isSuccess(exit)) return exit
        const left = this.left(batch)
        const [first] = left
        if (processing.isOver(claimId, left)) return processing.leave(first, exit.cause)
        if (processing.stopsAt(first, exit.cause)) return Effect.failCause(exit.cause)
        if (left.length > 1) return this.oneByOne(batch, count)
        return this.giveUp(batch, first, exit.cause, count)
      }
    )
  }

  private oneByOne(batch: Batch, count: number): Effect.Effect<unknown, E | ConsumerFailure, R> {
    return Effect.gen({ self: this }, function* () {
      for (const record of this.left(batch)) {
        if (this.processing.isOver(batch.claim.claimId, [record])) return undone
        const exit = yield* Effect.exit(this.attempt(batch, [record]))
        if (Exit.isSuccess(exit)) batch.done.add(record)
        else if ((yield* this.giveUp(batch, record, exit.cause, count + 1)) === undone) return undone
      }
    })
  }

  private giveUp(
    { aside, claim }: Batch,
    record: KafkaRecord,
    cause: Cause.Cause<E>,
    count: number
  ): Effect.Effect<typeof setAside | typeof undone, E | ConsumerFailure> {
    const why = inner(cause) as Cause.Cause<E>
    return Effect.map(this.processing.giveUp(record, claim, why, count), (answer) => {
      if (answer === setAside) aside.add(record)
      return answer
    })
  }
}
