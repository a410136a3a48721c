/**
 * What a partition has to commit, and what is noted in the store before: that we commit at all, and a record by which the
 * log is known again (see `PositionRules`).
 */
import type { OffsetClaimRef, OffsetNote } from "@tidemark/core"
import type { KafkaRecord, RecordBatch } from "../../KafkaClient.ts"
import { type CommitHistory, type Landmark, metadata, writeNote } from "../../PositionRules.ts"
import type { Acquired } from "./acquire.ts"

/** A commit whose time has come. */
export interface DueCommit {
  readonly offset: number
  readonly metadata: string
  /** To be written first. */
  readonly note: OffsetNote
  /** Kafka has it. Answers whether another is due at once, for what is noted with it. */
  readonly done: () => boolean
}

/** So many records are remembered until the watermark has passed them. */
const mostSeen = 64

export class CommitState {
  private readonly ref: OffsetClaimRef
  private readonly metadata: string
  private committed: number | undefined
  private history: CommitHistory
  /** Records that were received, ascending: the first and the last of a batch, while there is room. */
  private seen: Array<Landmark> = []

  constructor({ committed, epoch, history, ref }: Pick<Acquired, "committed" | "epoch" | "history" | "ref">) {
    this.ref = ref
    this.metadata = metadata(epoch)
    this.committed = committed
    this.history = history
  }

  /** Records were received. One of a batch would do, but for batches that are completed in parts. */
  see({ records }: RecordBatch): void {
    if (records.length === 0 || this.seen.length >= mostSeen) return
    this.remember(records[0])
    if (records.length > 1) this.remember(records[records.length - 1])
  }

  /** With the watermark there; `undefined` where it was committed. */
  due(watermark: number): DueCommit | undefined {
    if (this.committed === watermark) return undefined
    this.settleLandmark(watermark)
    return {
      offset: watermark,
      metadata: this.metadata,
      note: { ...this.ref, note: writeNote(this.history) },
      done: () => {
        this.committed = watermark
        if (this.history.replaces === undefined) return false
        // else a reset to what was replaced would look like a commit of ours that failed
        this.history = { ...this.history, replaces: undefined }
        this.committed = undefined
        return true
      }
    }
  }

  private remember({ offset, timestampMillis }: KafkaRecord): void {
    const newest = this.seen[this.seen.length - 1]
    // a rejoin brings some again
    if (newest !== undefined && offset <= newest.offset) return
    if (Number.isSafeInteger(timestampMillis)) this.seen.push({ offset, timestampMillis })
  }

  /** The newest record that the watermark has passed. */
  private settleLandmark(watermark: number): void {
    const { seen } = this
    let passed = 0
    while (passed < seen.length && seen[passed].offset < watermark) passed++
    if (passed === 0) return
    this.history = { ...this.history, landmark: seen[passed - 1] }
    this.seen = seen.slice(passed)
  }
}
