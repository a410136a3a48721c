/**
 * Where a consumer begins to read a partition: the table of positions, as one pure function.
 *
 * Two places know a position. The store's progress is authoritative. The group's commit in Kafka is advisory: it
 * serves lag tools, tells where a group that is being migrated stands, and shows when the store has lost something.
 * Our own commits carry metadata, `tidemark:1:<epoch>`, which no other client writes.
 *
 * The rows which need a history of our commits in the store (an operator's reset of a group that we commit for, a
 * commit that is gone, a topic that was made anew within the same offsets) are not decided here yet: such a reset
 * counts as a commit by another client, which moves a position forward and never back.
 */

/** What was found when a partition was assigned. */
export interface Findings {
  /** The store's progress; `undefined` where it has none. */
  readonly progress:
    | { readonly watermark: number; readonly highest: number; readonly epoch: number }
    | undefined
  /** The group's commit; `undefined` where there is none. */
  readonly commit: { readonly offset: number; readonly metadata: string | undefined } | undefined
  /** The log, `[low, high)`. */
  readonly log: { readonly low: number; readonly high: number }
  /** Whether the store's progress outlives the process. */
  readonly durable: boolean
  /** Where to begin what nobody has read before. */
  readonly start: "earliest" | "latest"
}

/** Which row of the table was found. */
export type Row =
  /** Nobody has read this partition: it begins where the start policy says. */
  | "new"
  /** Another client has read it: it begins at that client's commit. That is how one migrates. */
  | "migrated"
  /** We have committed, and the store knows nothing. */
  | "store-empty"
  /** The store and our commit agree, or the commit lags behind. */
  | "known"
  /** Our commit is ahead of the store, in the same epoch: the store lost writes. */
  | "store-behind"
  /** Our commit is of a newer epoch than the store's: the store lost an operator's act. */
  | "epoch-behind"
  /** Another client has committed further than the store knows. */
  | "overtaken"

/** Why offsets count as completed although no handler of ours ran for them. */
export type Passed = "lost-writes" | "foreign-commit" | "lost-to-retention"

export interface PassedRange {
  readonly why: Passed
  readonly from: number
  readonly to: number
}

export type Decision =
  | {
      readonly _tag: "Begin"
      readonly row: Row
      /** Where the claim begins; where the stream is new, its origin. */
      readonly claimFrom: number
      /** To be completed before anything runs; ascending. */
      readonly passed: ReadonlyArray<PassedRange>
    }
  /** The store is to be brought up to a newer epoch first, by `epochs` acts, and the position decided anew. */
  | {
      readonly _tag: "AdoptEpoch"
      readonly act: "rewind" | "skip"
      readonly position: number
      readonly epochs: number
    }
  /** The store should know this partition and doesn't. */
  | { readonly _tag: "StoreLost"; readonly committed: number }
  /** The log ends before what was completed in it. */
  | { readonly _tag: "LogWentBack"; readonly highest: number; readonly end: number }

const metadataPattern = /^tidemark:1:(\d{1,15})$/

/** The metadata of our commits. */
export const metadata = (epoch: number): string => `tidemark:1:${epoch}`

/** The epoch in a commit's metadata; `undefined` where another client made the commit. */
export const epochOf = (metadata: string | undefined): number | undefined => {
  const match = metadata === undefined ? null : metadataPattern.exec(metadata)
  return match === null ? undefined : Number(match[1])
}

/** What to do about a partition, by what was found. */
export const decide = (found: Findings): Decision => {
  const { commit, log, progress } = found
  const highest = Math.max(progress?.highest ?? 0, commit?.offset ?? 0)
  if (highest > log.high) return { _tag: "LogWentBack", highest, end: log.high }
  if (progress === undefined) return decideWithoutProgress(found)
  if (commit === undefined) return begin("known", progress.watermark, log.low)
  const epoch = epochOf(commit.metadata)
  if (epoch !== undefined && epoch > progress.epoch) {
    const act = commit.offset > progress.watermark ? "skip" : "rewind"
    return { _tag: "AdoptEpoch", act, position: commit.offset, epochs: epoch - progress.epoch }
  }
  if (commit.offset <= progress.watermark || (epoch !== undefined && epoch < progress.epoch))
    return begin("known", progress.watermark, log.low)
  return epoch === undefined
    ? begin("overtaken", progress.watermark, log.low, { why: "foreign-commit", to: commit.offset })
    : begin("store-behind", progress.watermark, log.low, { why: "lost-writes", to: commit.offset })
}

const decideWithoutProgress = ({ commit, durable, log, start }: Findings): Decision => {
  if (commit === undefined) return begin("new", start === "earliest" ? log.low : log.high, log.low)
  if (epochOf(commit.metadata) === undefined) return begin("migrated", commit.offset, log.low)
  if (durable) return { _tag: "StoreLost", committed: commit.offset }
  return begin("store-empty", commit.offset, log.low)
}

/** Where the store has lost a partition, and the operator has said to go on. */
export const resumeAtCommit = (committed: number, low: number): Decision =>
  begin("store-empty", committed, low)

const begin = (
  row: Row,
  claimFrom: number,
  low: number,
  ahead?: { readonly why: Passed; readonly to: number }
): Decision => {
  const passed: Array<PassedRange> = []
  let position = claimFrom
  if (ahead !== undefined) {
    passed.push({ why: ahead.why, from: position, to: ahead.to })
    position = ahead.to
  }
  if (position < low) passed.push({ why: "lost-to-retention", from: position, to: low })
  return { _tag: "Begin", row, claimFrom, passed }
}
