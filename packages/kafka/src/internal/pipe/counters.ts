/** What a pipe has counted since it started. */
export interface Counters {
  /** Records that were delivered. */
  received: number
  /** Records whose outputs, were they none, have taken effect. */
  processed: number
  /** Records that were produced, in transactions that were committed. */
  produced: number
  /** Transactions that were committed. */
  transactions: number
  /** Transactions that were not, whatever the reason: their records were processed again, by this owner or the next. */
  abandoned: number
  /** How often a newer owner of a partition, or the brokers, have fenced us. */
  fenced: number
  /** Records dropped, since they had been received before: a rejoin fetches some again. */
  redelivered: number
  /** Assignments. */
  rebalances: number
  /** Offsets that the log's retention removed before they were read. */
  lostToRetention: number
}

export const makeCounters = (): Counters => ({
  received: 0,
  processed: 0,
  produced: 0,
  transactions: 0,
  abandoned: 0,
  fenced: 0,
  redelivered: 0,
  rebalances: 0,
  lostToRetention: 0
})
