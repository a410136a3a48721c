/** Plain numbers, counted as things happen and read when somebody asks. */

/** What a consumer has counted since it started. */
export interface Counters {
  /** Records that were delivered. */
  received: number
  /** Records whose handlers ended well. */
  processed: number
  /** Attempts in place, after the first of each record. */
  retries: number
  /** Records that were sent to a retry topic. */
  retried: number
  /** Records of retry topics that another group sent there, for itself. */
  ofOtherGroups: number
  /** Records that were sent to a dead-letter topic. */
  deadLettered: number
  /** Records that were parked in the store. */
  parked: number
  /** Records not handled, since their position was completed before. */
  duplicatesByPosition: number
  /** Records not handled, since their id was completed before. */
  duplicatesByKey: number
  /** Records dropped, since they had been received before: a rejoin fetches some again. */
  redelivered: number
  /** Handlers that were interrupted since they were at work for longer than `stallTimeout`. */
  stalled: number
  /** Assignments. */
  rebalances: number
  /** Partitions whose lease was lost while they were ours. */
  leaseLosses: number
  /** Claims on ids that were lost before their records were completed. */
  keyLeaseLosses: number
  /** Commits that Kafka has acknowledged, of one or more partitions each. */
  commits: number
  commitFailures: number
  /** Calls by which finished records were completed in the store. */
  completes: number
  /** Offsets taken as completed from our own commit, since the store had lost them. */
  lostWrites: number
  /** Offsets taken as completed from another client's commit. */
  passedByForeignCommit: number
  /** Offsets that the log's retention removed before they were read. */
  lostToRetention: number
  /** Operators' acts that the store had lost, and that were done again. */
  adoptedEpochs: number
  /** Resets of the group by another client that were followed. */
  resets: number
  /** Partitions whose log had become another one, and which began anew. */
  logsBegunAnew: number
  /** Partitions for which a store that forgets began again at our commit. */
  storeEmpty: number
}

export const makeCounters = (): Counters => ({
  received: 0,
  processed: 0,
  retries: 0,
  retried: 0,
  ofOtherGroups: 0,
  deadLettered: 0,
  parked: 0,
  duplicatesByPosition: 0,
  duplicatesByKey: 0,
  redelivered: 0,
  stalled: 0,
  rebalances: 0,
  leaseLosses: 0,
  keyLeaseLosses: 0,
  commits: 0,
  commitFailures: 0,
  completes: 0,
  lostWrites: 0,
  passedByForeignCommit: 0,
  lostToRetention: 0,
  adoptedEpochs: 0,
  resets: 0,
  logsBegunAnew: 0,
  storeEmpty: 0
})
