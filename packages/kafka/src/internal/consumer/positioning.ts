/**
 * The table of positions, acted upon: reads what the rules ask for, does what they say to Kafka's commit and to the store,
 * and fails where only a person can decide.
 */
import { type InvalidInput, OffsetRanges, Patience, type Protocol, type StoreError } from "@tidemark/core"
import { Effect } from "effect"
import { LogWentBack, StoreLost } from "../../ConsumerErrors.ts"
import type { RecordBatch, TopicPartition } from "../../KafkaClient.ts"
import { KafkaError } from "../../KafkaErrors.ts"
import {
  beginAnew,
  type Decision,
  decide,
  epochOf,
  type Findings,
  resumeAtCommit
} from "../../PositionRules.ts"
import type { Environment } from "./environment.ts"
import { answered, nameOf, notHad } from "./patiently.ts"

/** A partition that the group has given us, and that is not claimed yet. */
export interface Positioned extends TopicPartition {
  /** Reads the log from there, once. */
  readonly peek: (offset: number) => Effect.Effect<RecordBatch>
}

type DecisionOf<Tag extends Decision["_tag"]> = Extract<Decision, { readonly _tag: Tag }>

export type Begin = DecisionOf<"Begin">
type AdoptEpoch = DecisionOf<"AdoptEpoch"> & BegunAnew
type Commit = DecisionOf<"Commit"> & BegunAnew

/** Why it begins anew, where it does. */
interface BegunAnew {
  readonly wentBack?: LogWentBack
}

/** What is to be done; where that is not to begin, the position is decided anew afterwards. */
export type Judged = Begin | AdoptEpoch | Commit | DecisionOf<"Look">

/** More epochs than operators ever make: such a commit is not one of ours. */
const mostEpochs = 1_000

/** Decides, or fails where only a person can. */
export const judge = (
  environment: Environment,
  { partition, topic }: TopicPartition,
  reading: Pick<Findings, "commit" | "log" | "seen">,
  progress: Protocol.Progress | undefined
): Effect.Effect<Judged, KafkaError | StoreLost | LogWentBack> => {
  const { client, clock, initialPartitions, offsets, settings } = environment
  const { groupId } = settings
  const place = { topic, partition, groupId }
  const settle = (found: Findings, decision: Decision): Effect.Effect<Judged, StoreLost | LogWentBack> => {
    switch (decision._tag) {
      case "LogWentBack": {
        const { changed, end, highest } = decision
        const error = new LogWentBack({
          ...place,
          highest,
          end,
          ...(changed === undefined ? {} : { changed: { ...changed } })
        })
        if (settings.whenLogWentBack === "stop") return Effect.fail(error)
        return Effect.map(settle(found, beginAnew(found)), (judged) => ({ ...judged, wentBack: error }))
      }
      case "StoreLost": {
        const { committed } = decision
        if (settings.whenStoreLost === "resume")
          return settle(found, resumeAtCommit(committed, found.log.low))
        const epoch = epochOf(found.commit?.metadata) ?? 0
        return Effect.fail(new StoreLost({ ...place, committed, epoch }))
      }
      case "AdoptEpoch": {
        const { epochs, position } = decision
        if (epochs <= mostEpochs) return Effect.succeed(decision)
        const epoch = (progress?.epoch ?? 0) + epochs
        return Effect.fail(new StoreLost({ ...place, committed: position, epoch }))
      }
      default:
        return Effect.succeed(decision)
    }
  }
  const found: Findings = {
    ...reading,
    progress,
    durable: offsets.durable,
    start: partition < initialPartitions(topic) ? settings.start : "earliest"
  }
  const decision = decide(found)
  if (decision._tag !== "LogWentBack") return settle(found, decision)
  // The log may have grown since it was read, and its previous owner have completed what is new.
  const giveUpAt = Patience.monotonicMillis(clock) + settings.leaseMillis
  const again = Patience.retryUntil(
    () => client.logBounds([{ topic, partition }]),
    () => giveUpAt
  )
  return Effect.flatMap(again, ([log]) => {
    const grown = { ...found, log }
    return settle(grown, decide(grown))
  })
}

/** What the log has at an offset within it. */
export const look = (
  { client, settings }: Environment,
  partition: Positioned,
  offset: number
): Effect.Effect<NonNullable<Findings["seen"]>, KafkaError> => {
  const { sessionTimeoutMillis } = settings
  const batch = Effect.timeoutOrElse(partition.peek(offset), {
    duration: sessionTimeoutMillis,
    orElse: () =>
      Effect.fail(
        new KafkaError({
          reason: "RequestTimedOut",
          operation: "fetch",
          brokers: client.brokers,
          detail: `offset ${offset} of ${nameOf(partition)} did not come within ${sessionTimeoutMillis} ms`,
          retriable: true
        })
      )
  })
  return Effect.map(batch, ({ records }) => ({
    offset,
    timestampMillis: records.find((record) => record.offset === offset)?.timestampMillis
  }))
}

/** Commits a position before anything runs. `false`: the group does not take it from us now. */
export const commitFirst = (
  environment: Environment,
  partition: TopicPartition,
  { epoch, position, watermark, wentBack }: Commit
): Effect.Effect<boolean, KafkaError> =>
  Effect.gen(function* () {
    const { clock, commit, counters, settings } = environment
    const giveUpAt = Patience.monotonicMillis(clock) + settings.sessionTimeoutMillis
    const committed = yield* Patience.retryUntil(
      () => commit(partition, position, epoch),
      () => giveUpAt
    )
    if (!committed) return false
    if (wentBack !== undefined) {
      yield* tellAnew(environment, wentBack, position)
      return true
    }
    counters.resets++
    const outcome =
      position < watermark
        ? `${watermark - position} offsets run again`
        : `${position - watermark || "no"} offsets count as completed`
    yield* Effect.logWarning(
      `tidemark: group "${settings.groupId}" was set to ${position} by another client for ${nameOf(partition)}, which ` +
        `stood at ${watermark}. That is taken for an operator's wish: ${outcome}`
    )
    return true
  })

const tellAnew = (
  { counters }: Environment,
  wentBack: LogWentBack,
  position: number
): Effect.Effect<void> => {
  counters.logsBegunAnew++
  return Effect.logWarning(`tidemark: ${wentBack.what}: it begins anew at ${position}`)
}

/** Does the acts that the store lacks, or has lost, until its epoch is the commit's. `isTold`: people know why. */
export const adoptEpoch = (
  environment: Environment,
  partition: TopicPartition,
  stream: string,
  { act, epochs, position, wentBack }: AdoptEpoch,
  isTold: boolean
): Effect.Effect<void, StoreError | InvalidInput> =>
  Effect.gen(function* () {
    const { counters, offsets } = environment
    const skip = Effect.flatMap(offsets.progress(stream), (progress) => {
      const from = Math.min(progress?.watermark ?? position, position - 1)
      return offsets.skip(stream, OffsetRanges.make(from, position))
    })
    const again = act === "rewind" ? offsets.rewind(stream, position) : skip
    for (let count = 0; count < epochs; count++) yield* answered(environment, act, notHad(partition), again)
    if (isTold) return
    if (wentBack !== undefined) return yield* tellAnew(environment, wentBack, position)
    counters.adoptedEpochs++
    yield* Effect.logWarning(
      `tidemark: the store had lost an operator's act on ${nameOf(partition)}: ${act} to ${position} was done again, ` +
        `as the group's commit says`
    )
  })
