import { Deferred, Effect, type Scope } from "effect"
import type { GroupMember, MemberEnd, MemberOptions, OffsetCommit, TopicPartition } from "../KafkaClient.ts"
import { KafkaError, type KafkaErrorReason } from "../KafkaErrors.ts"
import { validateMemberOptions, wrongOffset } from "./memberOptions.ts"
import type { ErrorContext } from "./protocolErrors.ts"
import { delayMillisAfter, type RetryBounds, settling, withRetry } from "./retrying.ts"

/** How long a session may take to say goodbye, before its connections are cut. */
const leaveTimeoutMillis = 5_000

/** How a session ended. `error` is missing where the end was asked for. */
export interface SessionEnd {
  readonly error: Error | undefined
  /** Whether it had been in the group. */
  readonly joined: boolean
}

/** What a session tells, besides the member's events. */
export interface SessionEvents {
  /** It can't know any more whether it is in the group; an `onEnd` follows. */
  readonly onLost: () => void
  readonly onEnd: (end: SessionEnd) => void
}

/** One membership, from its connection to its end; it does not join again by itself after a failure. */
export interface Session {
  /** Joins, and begins to fetch. What it rejects with ends the session. */
  readonly run: () => Promise<void>
  /** Whether it is a member of the group, as far as it knows. */
  readonly isIn: () => boolean
  readonly isAssigned: (partition: TopicPartition) => boolean
  readonly pause: (partitions: ReadonlyArray<TopicPartition>) => void
  readonly resume: (partitions: ReadonlyArray<TopicPartition>) => void
  readonly seek: (partition: TopicPartition, offset: number) => void
  /** One commit, under the generation of this moment. Answers whether it was the same member still, afterwards. */
  readonly commit: (commits: ReadonlyArray<OffsetCommit>) => Promise<boolean>
  readonly leave: () => Promise<void>
  /** It is over: nothing is told any more but its `onEnd`. */
  readonly end: (error: Error | undefined) => void
  /** Ends its connections at once. */
  readonly cut: () => void
  /** It is gone: what belongs to it alone is let go. */
  readonly release: () => void
}

/** What a driver adds to make members. */
export interface Driver {
  readonly brokers: ReadonlyArray<string>
  readonly retry: RetryBounds
  readonly openSession: (options: MemberOptions, events: SessionEvents) => Effect.Effect<Session, KafkaError>
  readonly toKafkaError: (error: unknown, context: ErrorContext) => KafkaError
  readonly partitionCounts: (
    topics: ReadonlyArray<string>,
    operation: string
  ) => Effect.Effect<ReadonlyMap<string, number>, KafkaError>
}

/** Keeps one member in its group: a session after the other, for as long as joining again may help. */
class Membership {
  session: Session | undefined
  leaving = false
  readonly driver: Driver
  readonly options: MemberOptions
  readonly joined = Deferred.makeUnsafe<void, KafkaError>()
  #hasJoined = false

  constructor(driver: Driver, options: MemberOptions) {
    this.driver = driver
    this.options = options
  }

  error(reason: KafkaErrorReason, operation: string, detail: string, retriable: boolean): KafkaError {
    return new KafkaError({ reason, operation, brokers: this.driver.brokers, detail, retriable })
  }

  /** Runs until the member left, or an error ends it for good. */
  supervise = Effect.fnUntraced(function* (this: Membership) {
    const { retry } = this.driver
    let failures = 0
    while (!this.leaving) {
      const end = yield* this.runSession()
      if (this.leaving) return
      if (end.joined) failures = 0
      failures++
      const error = this.driver.toKafkaError(end.error, {
        operation: "join",
        brokers: this.driver.brokers,
        topics: this.options.topics
      })
      // Before the first join it is the caller who waits, and who must learn of it; later on an outage is sat out.
      // Brokers that have just started may not know their topics yet, so a topic is not given up at once either.
      const bounded = !this.#hasJoined || !error.retriable
      const mayPass = error.retriable || (this.#hasJoined && error.reason === "UnknownTopic")
      const rejoins = mayPass && (!bounded || failures < retry.attempts)
      this.tellEnd({ reason: "crashed", error, rejoins })
      if (!rejoins) {
        Deferred.doneUnsafe(this.joined, Effect.fail(error))
        return
      }
      const delayMillis = delayMillisAfter(retry, failures)
      const bound = bounded ? ` of ${retry.attempts}` : ""
      const write = settling.has(error.reason) ? Effect.logInfo : Effect.logWarning
      yield* write(
        `Kafka: group "${this.options.groupId}": ${error.reason} at ${error.brokers.join(", ")}: ${error.detail}; ` +
          `joining again in ${delayMillis} ms (failure ${failures}${bound})`
      )
      yield* Effect.sleep(delayMillis)
    }
  })

  /** The first join's end is told by `joined`. */
  tellEnd(end: MemberEnd): void {
    if (this.#hasJoined) this.options.events.onEnd(end)
  }

  runSession = Effect.fnUntraced(function* (this: Membership): Effect.fn.Return<SessionEnd> {
    const ended = Deferred.makeUnsafe<SessionEnd>()
    const { events } = this.options
    const options: MemberOptions = {
      ...this.options,
      events: {
        ...events,
        onAssignment: (assignment) => {
          this.#hasJoined = true
          events.onAssignment(assignment)
          Deferred.doneUnsafe(this.joined, Effect.void)
        }
      }
    }
    const opened = yield* Effect.result(
      this.driver.openSession(options, {
        onLost: () => this.tellEnd({ reason: "disconnected", error: undefined, rejoins: true }),
        onEnd: (end) => Deferred.doneUnsafe(ended, Effect.succeed(end))
      })
    )
    if (opened._tag === "Failure") return { error: opened.failure, joined: false }
    const session = opened.success
    if (this.leaving) {
      session.release()
      return { error: undefined, joined: false }
    }
    this.session = session
    session.run().catch((error: unknown) => {
      session.end(error instanceof Error ? error : new Error(String(error)))
    })
    const forget = Effect.sync(() => {
      this.session = undefined
      session.release()
    })
    return yield* Effect.ensuring(Deferred.await(ended), forget)
  })

  /** Leaves the group. Where that is not done in time, the connections are cut. */
  leave: Effect.Effect<void> = Effect.suspend(() => {
    const first = !this.leaving
    this.leaving = true
    const { session } = this
    const left =
      session === undefined
        ? Effect.void
        : Effect.timeoutOrElse(
            Effect.promise(() => session.leave()),
            {
              duration: leaveTimeoutMillis,
              orElse: () =>
                Effect.suspend(() => {
                  session.cut()
                  session.end(undefined)
                  return Effect.logWarning(
                    `Kafka: group "${this.options.groupId}": leaving took more than ${leaveTimeoutMillis} ms; connections cut, ` +
                      "the group notices at the session timeout"
                  )
                })
            }
          )
    return Effect.andThen(
      left,
      Effect.sync(() => {
        if (first) this.tellEnd({ reason: "stopped", error: undefined, rejoins: false })
      })
    )
  })

  commit(commits: ReadonlyArray<OffsetCommit>): Effect.Effect<void, KafkaError> {
    const attempt = Effect.suspend(() => {
      const { session } = this
      if (this.leaving)
        return Effect.fail(
          this.error("MemberEnded", "commit", `the member has left group "${this.options.groupId}"`, false)
        )
      const out = () =>
        this.error("StaleMember", "commit", `the member is out of group "${this.options.groupId}"`, true)
      if (session === undefined || !session.isIn()) return Effect.fail(out())
      const wrong = wrongOffset("commit", this.driver.brokers, commits)
      if (wrong !== undefined) return Effect.fail(wrong)
      // Brokers take a member's commit for any partition, under the group's present generation.
      const foreign = commits.find((candidate) => !session.isAssigned(candidate))
      if (foreign !== undefined) {
        const detail = `partition ${foreign.partition} of topic "${foreign.topic}" is not assigned to this member`
        return Effect.fail(this.error("NotAssigned", "commit", detail, false))
      }
      const context = {
        operation: "commit",
        brokers: this.driver.brokers,
        topics: commits.map(({ topic }) => topic)
      }
      return Effect.flatMap(
        Effect.tryPromise({
          try: () => session.commit(commits),
          catch: (error) => this.driver.toKafkaError(error, context)
        }),
        (still) => (still ? Effect.void : Effect.fail(out()))
      )
    })
    if (commits.length === 0) return Effect.void
    return withRetry(this.driver, attempt, (error) => error.reason === "CoordinatorNotReady")
  }
}

/** Joins a group, and keeps the member in it until the Scope closes. */
export const join = Effect.fnUntraced(function* (
  driver: Driver,
  options: MemberOptions
): Effect.fn.Return<GroupMember, KafkaError, Scope.Scope> {
  const invalid = validateMemberOptions(driver.brokers, options)
  if (invalid !== undefined) return yield* invalid
  // Says at once what a session would find out slowly: no broker, no such topic.
  yield* driver.partitionCounts(options.topics, "join")
  const membership = new Membership(driver, options)
  yield* Effect.acquireRelease(Effect.forkScoped(membership.supervise()), () => membership.leave)
  yield* Deferred.await(membership.joined)
  return {
    pause: (partitions) => membership.session?.pause(partitions),
    resume: (partitions) => membership.session?.resume(partitions),
    seek: (partition: TopicPartition, offset) => {
      if (!Number.isSafeInteger(offset) || offset < 0)
        throw new RangeError(`offset is ${offset}; allowed: a safe integer from 0`)
      membership.session?.seek(partition, offset)
    },
    commit: (commits) => membership.commit(commits),
    leave: membership.leave
  }
})
