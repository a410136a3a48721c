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
import { LogWentBack, StoreLost } from "../../ConsumerErrors.ts"
import type { TopicPartition } from "../../KafkaClient.ts"
import type { KafkaError } from "../../KafkaErrors.ts"
import {
  type Decision,
  decide,
  epochOf,
  type Findings,
  type PassedRange,
  resumeAtCommit
} from "../../PositionRules.ts"
import type { Counters } from "./counters.ts"
import type { ConsumerFailure, Environment } from "./environment.ts"
import { answered, nameOf, patiently } from "./patiently.ts"

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
}

/** Who has a partition that we wait for. */
export interface Holder {
  /** The label that it gave itself. */
  readonly owner: string
  /** When its lease ends unless it is renewed, in milliseconds since the epoch, by the store's clock. */
  readonly until: number
}

/** More epochs than operators ever make: such a commit is not one of ours. */
const mostEpochs = 1_000

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
  partition: TopicPartition,
  stream: string,
  reading: Reading,
  use: (acquired: Acquired) => void,
  onHeld: (holder: Holder) => void
): Effect.Effect<void, ConsumerFailure> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const { offsets } = environment
      for (let attempt = 0; ; attempt++) {
        const progress = yield* restore(
          patiently(environment, "progress", notHad(partition), offsets.progress(stream))
        )
        const decision = yield* restore(judge(environment, partition, reading, progress))
        const wait = (holder: Holder) => {
          onHeld(holder)
          return restore(Patience.untilWorthAsking(offsets.awaitRelease(stream), attempt, holder.until))
        }
        if (decision._tag === "AdoptEpoch") {
          const holder = progress?.claims[0]
          if (holder !== undefined) yield* wait(holder)
          else yield* restore(adoptEpoch(environment, partition, stream, decision))
          continue
        }
        const lostEpoch = decision.row === "store-empty" ? (epochOf(reading.commit?.metadata) ?? 0) : 0
        if (progress === undefined && lostEpoch > 0) {
          // else our next commit would look older than the one that is there, and be undone by the next owner
          environment.counters.storeEmpty++
          const position = decision.claimFrom
          yield* restore(
            adoptEpoch(environment, partition, stream, {
              _tag: "AdoptEpoch",
              act: "rewind",
              position,
              epochs: lostEpoch
            })
          )
          continue
        }
        const ref: OffsetClaimRef = { stream, claimId: ClaimId.make() }
        const claimed = yield* Effect.onError(
          restore(claim(environment, partition, ref, reading, progress, decision)),
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
  { claimFrom, passed, row }: Extract<Decision, { readonly _tag: "Begin" }>
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
    return { _tag: "Owned", acquired: { ref, token, deadline, position, completed, epoch, committed } }
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

const notHad = (partition: TopicPartition): string => `${nameOf(partition)} could not be had`

type Settled = Extract<Decision, { readonly _tag: "Begin" | "AdoptEpoch" }>

/** Decides, or fails where only a person can. */
const judge = (
  environment: Environment,
  { partition, topic }: TopicPartition,
  reading: Reading,
  progress: Protocol.Progress | undefined
): Effect.Effect<Settled, KafkaError | StoreLost | LogWentBack> => {
  const { client, clock, initialPartitions, offsets, settings } = environment
  const found: Findings = {
    ...reading,
    progress,
    durable: offsets.durable,
    start: partition < initialPartitions(topic) ? settings.start : "earliest"
  }
  const { groupId } = settings
  const settle = (decision: Decision): Effect.Effect<Settled, StoreLost | LogWentBack> => {
    switch (decision._tag) {
      case "LogWentBack":
        return Effect.fail(
          new LogWentBack({ topic, partition, groupId, highest: decision.highest, end: decision.end })
        )
      case "StoreLost": {
        if (settings.whenStoreLost === "resume")
          return settle(resumeAtCommit(decision.committed, found.log.low))
        const epoch = epochOf(found.commit?.metadata) ?? 0
        return Effect.fail(new StoreLost({ topic, partition, groupId, committed: decision.committed, epoch }))
      }
      case "AdoptEpoch":
        if (decision.epochs <= mostEpochs) return Effect.succeed(decision)
        return Effect.fail(
          new StoreLost({
            topic,
            partition,
            groupId,
            committed: decision.position,
            epoch: (progress?.epoch ?? 0) + decision.epochs
          })
        )
      default:
        return Effect.succeed(decision)
    }
  }
  const decision = decide(found)
  if (decision._tag !== "LogWentBack") return settle(decision)
  // The log may have grown since it was read, and its previous owner have completed what is new.
  const giveUpAt = Patience.monotonicMillis(clock) + settings.leaseMillis
  const again = Patience.retryUntil(
    () => client.logBounds([{ topic, partition }]),
    () => giveUpAt
  )
  return Effect.flatMap(again, ([log]) => settle(decide({ ...found, log })))
}

/** Does again the operator's acts that the store has lost, until its epoch is the commit's. */
const adoptEpoch = (
  environment: Environment,
  partition: TopicPartition,
  stream: string,
  { act, epochs, position }: Extract<Decision, { readonly _tag: "AdoptEpoch" }>
): Effect.Effect<void, StoreError | InvalidInput> =>
  Effect.gen(function* () {
    const { counters, offsets } = environment
    const skip = Effect.flatMap(offsets.progress(stream), (progress) => {
      const from = Math.min(progress?.watermark ?? position, position - 1)
      return offsets.skip(stream, OffsetRanges.make(from, position))
    })
    const again = act === "rewind" ? offsets.rewind(stream, position) : skip
    for (let count = 0; count < epochs; count++) yield* answered(environment, act, notHad(partition), again)
    counters.adoptedEpochs++
    yield* Effect.logWarning(
      `tidemark: the store had lost an operator's act on ${nameOf(partition)}: ${act} to ${position} was done again, ` +
        `as the group's commit says`
    )
  })

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
