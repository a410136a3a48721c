/**
 * Where a consumer begins to read a partition: the table of positions, as one pure function.
 *
 * Two places know a position. The store's progress is authoritative. The group's commit in Kafka is advisory: it
 * serves lag tools, tells where a group that is being migrated stands, and shows when the store has lost something or an
 * operator has reset the group. Our own commits carry metadata, `tidemark:1:<epoch>`, which no other client writes.
 *
 * Whether we have ever committed is told by a note on the stream in the store, which is written before each commit. It
 * also names a record that was completed, and its timestamp: a log in which that one is another, or not there, is not
 * the log that the store's progress is about.
 */

/** A record that a log can be known by. */
export interface Landmark {
  readonly offset: number
  /** Milliseconds since the epoch, as the log has it. */
  readonly timestampMillis: number
}

/** What the stream's note in the store tells: that we have committed, or were about to. */
export interface CommitHistory {
  /**
   * The offset of another client's commit, where ours was about to take its place for the first time and is not known to
   * have done so: that commit alone is no reset.
   */
  readonly replaces: number | undefined
  /** A record that was completed, one of the last. */
  readonly landmark: Landmark | undefined
}

/** What was found when a partition was assigned. */
export interface Findings {
  /** The store's progress; `undefined` where it has none. */
  readonly progress:
    | {
        readonly watermark: number
        readonly highest: number
        readonly epoch: number
        /** See {@link readNote}. */
        readonly note?: string | undefined
      }
    | undefined
  /** The group's commit; `undefined` where there is none. */
  readonly commit: { readonly offset: number; readonly metadata: string | undefined } | undefined
  /** The log, `[low, high)`. */
  readonly log: { readonly low: number; readonly high: number }
  /** Whether the store's progress outlives the process. */
  readonly durable: boolean
  /** Where to begin what nobody has read before. */
  readonly start: "earliest" | "latest"
  /** What the log has where the landmark should be, once somebody has looked there: a timestamp, or no record. */
  readonly seen?: { readonly offset: number; readonly timestampMillis: number | undefined } | undefined
}

/** Which row of the table was found. */
export type Row =
  /** Nobody has read this partition: it begins where the start policy says. */
  | "new"
  /** Another client has read it: it begins at that client's commit. That is how one migrates. */
  | "migrated"
  /** We have committed, and the store knows nothing. */
  | "store-empty"
  /** The store and our commit agree, or the commit lags behind, or is gone and the log is the same. */
  | "known"
  /** Our commit is ahead of the store, in the same epoch: the store lost writes. */
  | "store-behind"
  /** Another client has committed further than the store knows, and we never did. */
  | "overtaken"

/** Why offsets count as completed although no handler of ours ran for them. */
export type Passed = "lost-writes" | "foreign-commit" | "lost-to-retention"

export interface PassedRange {
  readonly why: Passed
  readonly from: number
  readonly to: number
}

/** Why we commit before anything else. */
export type CommitReason =
  /** An operator has reset the group: that is followed. */
  | "reset"
  /** The log is another one, and we were told to begin anew in it. */
  | "log-went-back"

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
  /**
   * This is to be committed first, and the position decided anew: where it is of a newer epoch, the store follows by
   * `AdoptEpoch`. In this order, since only the owner that the group has now can commit, and since whoever comes next
   * finds what is left to do, wherever we are interrupted.
   */
  | {
      readonly _tag: "Commit"
      readonly why: CommitReason
      readonly position: number
      readonly epoch: number
      /** Where the store stood. */
      readonly watermark: number
    }
  /** The log's record at this offset is to be looked at first, and the position decided anew. */
  | { readonly _tag: "Look"; readonly offset: number }
  /** The store should know this partition and doesn't. */
  | { readonly _tag: "StoreLost"; readonly committed: number }
  /** The log ends before what was completed in it, or has another record in the place of one that was. */
  | {
      readonly _tag: "LogWentBack"
      readonly highest: number
      readonly end: number
      readonly changed: ChangedRecord | undefined
    }

/** A record that was completed, and is not the same any more. */
export interface ChangedRecord extends Landmark {
  /** The timestamp that the log has there now; `undefined`: no record. */
  readonly nowMillis: number | undefined
}

const metadataPattern = /^tidemark:1:(\d{1,15})$/

/** The metadata of our commits. */
export const metadata = (epoch: number): string => `tidemark:1:${epoch}`

/** The epoch in a commit's metadata; `undefined` where another client made the commit. */
export const epochOf = (metadata: string | undefined): number | undefined => {
  const match = metadata === undefined ? null : metadataPattern.exec(metadata)
  return match === null ? undefined : Number(match[1])
}

const notePattern = /^tidemark:1 commits(?: replaces=(\d{1,16}))?(?: landmark=(\d{1,16})@(-?\d{1,16}))?$/

/** The note that is written before a commit, for people too: `tidemark:1 commits landmark=1233@1700000000000`. */
export const writeNote = ({ landmark, replaces }: CommitHistory): string =>
  "tidemark:1 commits" +
  (replaces === undefined ? "" : ` replaces=${replaces}`) +
  (landmark === undefined ? "" : ` landmark=${landmark.offset}@${landmark.timestampMillis}`)

/** The note where another client commits, though positions are completed in the store: so we have no history. */
export const othersCommit = "tidemark:1 guard"

/** What a note tells; `undefined` where there is none, or it is not ours. */
export const readNote = (note: string | undefined): CommitHistory | undefined => {
  const match = note === undefined ? null : notePattern.exec(note)
  if (match === null) return undefined
  const [, replaces, offset, timestamp] = match
  return {
    replaces: replaces === undefined ? undefined : Number(replaces),
    landmark:
      offset === undefined ? undefined : { offset: Number(offset), timestampMillis: Number(timestamp) }
  }
}

/** The landmark of a stream that still counts: what was rewound over may be of another log. */
export const landmarkOf = (progress: Findings["progress"]): Landmark | undefined => {
  const landmark = readNote(progress?.note)?.landmark
  return landmark !== undefined && landmark.offset < (progress?.highest ?? 0) ? landmark : undefined
}

/** What to do about a partition, by what was found. */
export const decide = (found: Findings): Decision => {
  const { commit, log, progress } = found
  const epoch = epochOf(commit?.metadata)
  if (progress !== undefined && commit !== undefined && commit.offset <= log.high) {
    if (epoch === undefined && isReset(progress, commit.offset)) return follow(found, progress, commit.offset)
    if (epoch !== undefined && epoch > progress.epoch) {
      // what is completed beyond the log's end is of another log, and only a rewind takes it away
      const act =
        commit.offset > progress.watermark && progress.highest <= log.high ? "skip" : ("rewind" as const)
      return { _tag: "AdoptEpoch", act, position: commit.offset, epochs: epoch - progress.epoch }
    }
  }
  // a commit of an older epoch tells of a time before an operator's act
  const committed = epoch !== undefined && epoch < (progress?.epoch ?? 0) ? undefined : commit
  const highest = Math.max(progress?.highest ?? 0, committed?.offset ?? 0)
  if (highest > log.high) return { _tag: "LogWentBack", highest, end: log.high, changed: undefined }
  if (progress === undefined) return decideWithoutProgress(found)
  if (commit === undefined) return decideWithoutCommit(found, progress)
  if (committed === undefined || committed.offset <= progress.watermark)
    return begin("known", progress.watermark, log.low)
  return epoch === undefined
    ? begin("overtaken", progress.watermark, log.low, { why: "foreign-commit", to: commit.offset })
    : begin("store-behind", progress.watermark, log.low, { why: "lost-writes", to: commit.offset })
}

/** Whether another client's commit came after one of ours: only an operator makes such a one. */
const isReset = (progress: NonNullable<Findings["progress"]>, committed: number): boolean => {
  const history = readNote(progress.note)
  return history !== undefined && history.replaces !== committed
}

const follow = (
  { log }: Findings,
  { epoch, highest, watermark }: NonNullable<Findings["progress"]>,
  position: number
): Decision => {
  // to where it stands already: the store has nothing to do, and Kafka is told that the commit is ours again
  const isThere = position === watermark && highest <= log.high
  return { _tag: "Commit", why: "reset", position, epoch: isThere ? epoch : epoch + 1, watermark }
}

const decideWithoutProgress = ({ commit, durable, log, start }: Findings): Decision => {
  if (commit === undefined) return begin("new", start === "earliest" ? log.low : log.high, log.low)
  if (epochOf(commit.metadata) === undefined) return begin("migrated", commit.offset, log.low)
  if (durable) return { _tag: "StoreLost", committed: commit.offset }
  return begin("store-empty", commit.offset, log.low)
}

/** We have committed, perhaps, and the commit is gone: with its topic, or by an operator's hand, or in the course of time. */
const decideWithoutCommit = (
  { log, seen }: Findings,
  progress: NonNullable<Findings["progress"]>
): Decision => {
  const { highest, watermark } = progress
  const landmark = landmarkOf(progress)
  // where the log begins above all that was completed, nothing in it can be mistaken for what was
  if (landmark === undefined || highest <= log.low) return begin("known", watermark, log.low)
  if (seen?.offset !== landmark.offset) return { _tag: "Look", offset: landmark.offset }
  return seen.timestampMillis === landmark.timestampMillis
    ? begin("known", watermark, log.low)
    : {
        _tag: "LogWentBack",
        highest,
        end: log.high,
        changed: { ...landmark, nowMillis: seen.timestampMillis }
      }
}

/** Where the store has lost a partition, and the operator has said to go on. */
export const resumeAtCommit = (committed: number, low: number): Decision =>
  begin("store-empty", committed, low)

/** Where the log is another one, and the operator has said to begin anew in it: at its low end, in a new epoch. */
export const beginAnew = ({ commit, log, progress }: Findings): Decision => {
  // not above the watermark: the store is to be rewound, so that nothing above counts as completed
  const position = Math.min(log.low, progress?.watermark ?? log.low)
  const epoch = epochOf(commit?.metadata) ?? 0
  // without progress, a commit of ours would look as if the store had been lost
  if (progress === undefined) return { _tag: "AdoptEpoch", act: "rewind", position, epochs: epoch + 1 }
  return {
    _tag: "Commit",
    why: "log-went-back",
    position,
    epoch: Math.max(progress.epoch, epoch) + 1,
    watermark: progress.watermark
  }
}

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
