import { Cause, Deferred, Effect } from "effect"
import type { GroupMember, KafkaClient, MemberOptions, OffsetCommit, TopicPartition } from "../KafkaClient.ts"
import type { KafkaError } from "../KafkaErrors.ts"
import { type Committed, type Group, Member, partitionKey } from "./inProcessGroup.ts"
import { type BrokerState, brokers, makeError } from "./inProcessState.ts"
import { makeTransactionalProducer } from "./inProcessTransactions.ts"
import { validateMemberOptions, wrongOffset } from "./memberOptions.ts"

const memberOf = (
  state: BrokerState,
  group: Group,
  member: Member,
  leave: Effect.Effect<void>
): GroupMember => {
  const assigned = (partition: TopicPartition) => member.assigned.get(partitionKey(partition))
  const setResumed = (resumed: boolean) => (partitions: ReadonlyArray<TopicPartition>) => {
    for (const partition of partitions) {
      const state = assigned(partition)
      if (state !== undefined) state.resumed = resumed
    }
    member.wake.openUnsafe()
  }
  return {
    pause: setResumed(false),
    resume: setResumed(true),
    seek: (partition, offset) => {
      if (!Number.isSafeInteger(offset) || offset < 0)
        throw new RangeError(`offset is ${offset}; allowed: a safe integer from 0`)
      const state = assigned(partition)
      if (state !== undefined) state.position = offset
      member.wake.openUnsafe()
    },
    commit: (commits) =>
      Effect.andThen(
        state.takeFault("commit"),
        Effect.suspend(() => commit(group, member, commits))
      ),
    leave
  }
}

const commit = (
  group: Group,
  member: Member,
  commits: ReadonlyArray<OffsetCommit>
): Effect.Effect<void, KafkaError> => {
  if (member.state === "ended")
    return Effect.fail(makeError("commit", "MemberEnded", `member ${member.id} has left group "${group.id}"`))
  if (member.state !== "alive")
    return Effect.fail(makeError("commit", "Unreachable", `member ${member.id} is cut off`, true))
  if (!group.members.has(member))
    return Effect.fail(
      makeError("commit", "StaleMember", `group "${group.id}" does not know member ${member.id}`, true)
    )
  if (group.preparing !== undefined && member.rejoined)
    return Effect.fail(makeError("commit", "StaleMember", `group "${group.id}" is rebalancing`, true))
  const wrong = wrongOffset("commit", brokers, commits)
  if (wrong !== undefined) return Effect.fail(wrong)
  for (const { topic, partition } of commits) {
    if (!member.assigned.has(partitionKey({ topic, partition })))
      return Effect.fail(
        makeError(
          "commit",
          "NotAssigned",
          `partition ${partition} of topic "${topic}" is not assigned to ${member.id}`
        )
      )
  }
  for (const { topic, partition, offset, metadata } of commits) {
    const entry: Committed = { topic, partition, offset, metadata }
    group.committed.set(partitionKey(entry), entry)
  }
  return Effect.void
}

const reportDefect = (cause: Cause.Cause<never>): Effect.Effect<void> =>
  Cause.hasDies(cause)
    ? Effect.logError("a callback of MemberEvents threw; its member is stuck", cause)
    : Effect.void

const join = Effect.fnUntraced(function* (state: BrokerState, clientId: string, options: MemberOptions) {
  yield* state.takeFault("join")
  const invalid = validateMemberOptions(brokers, options)
  if (invalid !== undefined) return yield* invalid
  yield* state.logs(
    "join",
    options.topics.map((topic) => ({ topic, partition: 0 }))
  )

  const group = state.group(options.groupId)
  const member = new Member("", clientId, options)
  const joined = Deferred.makeUnsafe<void>()
  const leave = Effect.sync(() => {
    if (member.state === "ended" || member.state === "dead") return
    member.state = "ended"
    state.exit(group, member)
    options.events.onEnd({ reason: "stopped", error: undefined, rejoins: false })
  })

  const pump = Effect.gen(function* () {
    while (true) {
      yield* member.wake.await
      member.wake.closeUnsafe()
      while (state.turn(group, member, () => Deferred.doneUnsafe(joined, Effect.void))) yield* Effect.yieldNow
    }
  })
  const heartbeats = Effect.forever(
    Effect.andThen(
      state.sleep(options.heartbeatIntervalMillis),
      Effect.sync(() => state.heartbeat(group, member))
    )
  )
  yield* Effect.acquireRelease(
    Effect.sync(() => state.enter(group, member)),
    () => leave
  )
  yield* Effect.forkScoped(Effect.tapCause(pump, reportDefect))
  yield* Effect.forkScoped(heartbeats)
  yield* Deferred.await(joined)
  return memberOf(state, group, member, leave)
})

/** A client of the broker, as another process would have. */
export const makeClient = (state: BrokerState, clientId: string): KafkaClient["Service"] => ({
  brokers,
  join: (options) => join(state, clientId, options),
  produce: (records) =>
    Effect.andThen(
      state.takeFault("produce"),
      Effect.suspend(() => state.append(records))
    ),
  transactionalProducer: (options) => makeTransactionalProducer(state, options),
  committed: (groupId, partitions) =>
    Effect.map(state.takeFault("committed"), () => {
      const committed = state.groups.get(groupId)?.committed
      return partitions.map(({ topic, partition }) => {
        const found = committed?.get(partitionKey({ topic, partition }))
        return { topic, partition, offset: found?.offset, metadata: found?.metadata }
      })
    }),
  logBounds: (partitions) =>
    Effect.gen(function* () {
      yield* state.takeFault("logBounds")
      const logs = yield* state.logs("logBounds", partitions)
      return partitions.map(({ topic, partition }, index) => ({
        topic,
        partition,
        low: logs[index]!.low,
        high: logs[index]!.lastStable
      }))
    }),
  createTopics: (topics) =>
    Effect.map(state.takeFault("createTopics"), () => {
      for (const { topic, partitions } of topics)
        if (!state.topics.has(topic)) state.createTopic(topic, partitions)
    }),
  partitionCounts: (topics) =>
    Effect.gen(function* () {
      yield* state.takeFault("partitionCounts")
      yield* state.logs(
        "partitionCounts",
        topics.map((topic) => ({ topic, partition: 0 }))
      )
      return new Map(topics.map((topic) => [topic, state.topics.get(topic)!.length]))
    })
})
