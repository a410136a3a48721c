/**
 * Becoming a partition's owner: decide where it begins, claim everything from there on, and complete what the
 * position passes over.
 *
 * The order of the questions matters. The commit is read before the store's progress, which it must never be ahead
 * of; the log's end is read after it when it seems to be too low.
 */
import {
  ClaimId,
  type ClaimIdReused,
  type InvalidInput,
  type OffsetClaimRef,
  OffsetRanges,
  Patience,
  type Protocol,
  type StoreError
} from "@tidemark/core"
import { Effect } from "effect"
import type { TopicPartition } from "../../KafkaClient.ts"
import type { KafkaError } from "../../KafkaErrors.ts"
import {
  type CommitHistory,
  epochOf,
  type Findings,
  landmarkOf,
  type PassedRange
} from "../../PositionRules.ts"
import type { Counters } from "./counters.ts"
import type { ConsumerFailure, Environment } from "./environment.ts"
import { nameOf, notHad, patiently } from "./patiently.ts"
import {
  adoptEpoch,
  type Begin,
  commitFirst,
  type Judged,
  judge,
  look,
  type Positioned
} from "./positioning.ts"

/** What Kafka tells of a partition when it is assigned. */
export interface Reading {
  readonly commit: { readonly offset: number; readonly metadata: string | undefined } | undefined
  readonly log: { readonly low: number; readonly high: number }
}

/** A partition that we own. */
export interface Acquired {
  readonly ref: OffsetClaimRef
  readonly token: number
  /** When the lease ends by our own reckoning, on the monotonic clock. */
  readonly deadline: number
  /** The lowest offset that is not completed. */
  readonly position: number
  /** What is completed above it. */
  readonly completed: OffsetRanges.OffsetRanges
  readonly epoch: number
  /** What our last commit was, where there is one in this epoch. */
  readonly committed: number | undefined
  /** What is to be noted before the next one. */
  readonly history: CommitHistory
}

/** Who has a partition that we wait for. */
export interface Holder {
  /** The label that it gave itself. */
  readonly owner: string
  /** When its lease ends unless it is renewed, in milliseconds since the epoch, by the store's clock. */
  readonly until: number
}

/** Reads the commits and the logs' bounds of partitions that were just assigned. */
export const readKafka = (
  environment: Environment,
  partitions: ReadonlyArray<TopicPartition>
): Effect.Effect<ReadonlyArray<Reading>, KafkaError> => {
  const { client, clock, settings } = environment
  const giveUpAt = Patience.monotonicMillis(clock) + settings.sessionTimeoutMillis
  const reading = Effect.all([client.committed(settings.groupId, partitions), client.logBounds(partitions)], {
    concurrency: "unbounded"
  })
  return Effect.map(
    Patience.retryUntil(
      () => reading,
      () => giveUpAt
    ),
    ([commits, logs]) =>
      partitions.map((_, index) => {
        const { offset, metadata } = commits[index]
        const { high, low } = logs[index]
        return { commit: offset === undefined ? undefined : { offset, metadata }, log: { low, high } }
      })
  )
}

/**
 * Claims a partition, and waits for as long as another holds it; interrupting it leaves nothing held. `use` gets the
 * claim at once when it was made, so that there is no moment in which nobody is responsible for it.
 */
export const acquire = (
  environment: Environment,
  partition: Positioned,
  stream: string,
  reading: Reading,
  use: (acquired: Acquired) => void,
  onHeld: (holder: Holder) => void
): Effect.Effect<void, ConsumerFailure> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const { offsets } = environment
      let found = reading
      /** Whether nobody can have committed since the commit was read, as far as the group goes. */
      let isFresh = false
      let seen: Findings["seen"]
      /** Whether we have committed a newer epoch, which the store is to follow. */
      let isTold = false
      for (let attempt = 0; ; attempt++) {
        const progress = yield* restore(
          patiently(environment, "progress", notHad(partition), offsets.progress(stream))
        )
        const wait = (holder: Holder) => {
          onHeld(holder)
          return restore(Patience.untilWorthAsking(offsets.awaitRelease(stream), attempt, holder.until))
        }
        const reread = Effect.map(readKafka(environment, [partition]), ([again]) => again)
        const judged: Judged = yield* restore(judge(environment, partition, { ...found, seen }, progress))
        const holder = progress?.claims[0]
        if (judged._tag === "Look") {
          seen = yield* restore(look(environment, partition, judged.offset))
          continue
        }
        if (judged._tag !== "Begin" && holder !== undefined) {
          yield* wait(holder)
          isFresh = false
          continue
        }
        if (judged._tag === "Commit") {
          // an owner before us may have done so since the commit was read
          if (isFresh) {
            if (yield* restore(commitFirst(environment, partition, judged))) isTold = true
            else yield* restore(Patience.untilWorthAsking(Effect.never, attempt, Number.MAX_SAFE_INTEGER))
          }
          found = yield* restore(reread)
          isFresh = true
          continue
        }
        if (judged._tag === "AdoptEpoch") {
          yield* restore(adoptEpoch(environment, partition, stream, judged, isTold))
          continue
        }
        const lostEpoch = judged.row === "store-empty" ? (epochOf(found.commit?.metadata) ?? 0) : 0
        if (progress === undefined && lostEpoch > 0) {
          // else our next commit would look older than the one that is there, and be undone by the next owner
          environment.counters.storeEmpty++
          const position = judged.claimFrom
          const act = { _tag: "AdoptEpoch", act: "rewind", position, epochs: lostEpoch } as const
          yield* restore(adoptEpoch(environment, partition, stream, act, isTold))
          continue
        }
        const ref: OffsetClaimRef = { stream, claimId: ClaimId.make() }
        const claimed = yield* Effect.onError(
          restore(claim(environment, partition, ref, found, progress, judged)),
          () => giveBack(environment, partition, ref)
        )
        if (claimed._tag === "Held") {
          yield* wait(claimed.holder)
          continue
        }
        if (claimed._tag === "BegunElsewhere") {
          yield* giveBack(environment, partition, ref)
          continue
        }
        use(claimed.acquired)
        return
      }
    })
  )

type Claimed =
  | { readonly _tag: "Held"; readonly holder: Holder }
  /** The stream has changed since its progress was read: begun by another, or moved by an operator. */
  | { readonly _tag: "BegunElsewhere" }
  | { readonly _tag: "Owned"; readonly acquired: Acquired }

const claim = (
  environment: Environment,
  partition: TopicPartition,
  ref: OffsetClaimRef,
  { commit }: Reading,
  progress: Protocol.Progress | undefined,
  { claimFrom, passed, row }: Begin
): Effect.Effect<Claimed, StoreError | InvalidInput | ClaimIdReused> =>
  Effect.gen(function* () {
    const { clock, counters, offsets, settings } = environment
    const { groupId, leaseMillis, owner } = settings
    const deadline = Patience.monotonicMillis(clock) + leaseMillis
    const wanted = OffsetRanges.openEnded(claimFrom)
    const terms = { claimId: ref.claimId, owner, leaseMillis }
    const answer = yield* patiently(
      environment,
      "claim",
      notHad(partition),
      offsets.claim(ref.stream, wanted, terms)
    )
    const { token } = answer
    if (token === undefined) return { _tag: "Held", holder: answer.held[0] ?? { owner: "unknown", until: 0 } }
    // What was read before the claim may be old by now: an operator may have rewound, another owner have begun.
    const begun = yield* patiently(environment, "progress", notHad(partition), offsets.progress(ref.stream))
    const moved =
      progress === undefined
        ? begun?.origin !== claimFrom
        : begun?.epoch !== progress.epoch || begun.watermark < claimFrom
    if (moved) return { _tag: "BegunElsewhere" }
    const skipped = yield* patiently(
      environment,
      "complete",
      notHad(partition),
      pass(environment, partition, ref, passed)
    )
    const completed = OffsetRanges.union(answer.completed, skipped)
    const position = OffsetRanges.first(OffsetRanges.subtract(wanted, completed)) as number
    const epoch = begun?.epoch ?? 0
    if (row === "store-empty") {
      counters.storeEmpty++
      yield* Effect.logWarning(
        `tidemark: the store knows nothing of ${nameOf(partition)}, where group "${groupId}" has committed ${claimFrom}: ` +
          "it begins there, and what was completed above it runs again"
      )
    }
    const committed = commit !== undefined && epochOf(commit.metadata) === epoch ? commit.offset : undefined
    const history: CommitHistory = {
      replaces: commit !== undefined && epochOf(commit.metadata) === undefined ? commit.offset : undefined,
      landmark: landmarkOf(begun)
    }
    const acquired = { ref, token, deadline, position, completed, epoch, committed, history }
    return { _tag: "Owned", acquired }
  })

/** Gives back what was claimed, and does not wait for a store without bound: what it does not take ends with its lease. */
export const giveBackWithin = (
  release: Effect.Effect<void, StoreError | InvalidInput>,
  what: string,
  millis: number
): Effect.Effect<void> => {
  const left = (why: string) =>
    Effect.logWarning(`tidemark: ${what} could not be given back; it ends with its lease: ${why}`)
  return Effect.catch(
    Effect.timeoutOrElse(Effect.interruptible(release), {
      duration: millis,
      orElse: () => left(`the store has not answered for ${millis} ms`)
    }),
    (error) => left(error.message)
  )
}

const giveBack = (
  { offsets, settings }: Environment,
  partition: TopicPartition,
  ref: OffsetClaimRef
): Effect.Effect<void> =>
  giveBackWithin(offsets.release(ref), `the claim on ${nameOf(partition)}`, settings.drainTimeoutMillis)

const counterOf = {
  "lost-writes": "lostWrites",
  "foreign-commit": "passedByForeignCommit",
  "lost-to-retention": "lostToRetention"
} as const satisfies Record<PassedRange["why"], keyof Counters>

const sayings: Record<PassedRange["why"], string> = {
  "lost-writes": "had been committed, and the store had lost them: they count as completed",
  "foreign-commit": "were committed by another client of the group: they count as completed",
  "lost-to-retention": "were removed by the log's retention before they were read: they are lost"
}

/** Completes what the position passes over, and gives it. */
const pass = (
  { counters, offsets }: Environment,
  partition: TopicPartition,
  ref: OffsetClaimRef,
  passed: ReadonlyArray<PassedRange>
): Effect.Effect<OffsetRanges.OffsetRanges, StoreError | InvalidInput> =>
  Effect.gen(function* () {
    let all = OffsetRanges.empty
    for (const { from, to, why } of passed) {
      const answer = yield* offsets.complete(ref, OffsetRanges.make(from, to))
      const count = OffsetRanges.size(answer.completed)
      counters[counterOf[why]] += count
      all = OffsetRanges.add(all, from, to)
      if (count > 0)
        yield* Effect.logWarning(
          `tidemark: ${count} offsets of ${nameOf(partition)}, in [${from}, ${to}), ${sayings[why]}`
        )
    }
    return all
  })
