import { Deferred, Effect, type Scope } from "effect"
import type { GroupMember, MemberEnd, MemberOptions, OffsetCommit, TopicPartition } from "../KafkaClient.ts"
import { KafkaError, type KafkaErrorReason } from "../KafkaErrors.ts"
import type { AdminOperations } from "./kafkajsAdmin.ts"
import { type Connection, call, delayMillisAfter, settling, withRetry } from "./kafkajsConnection.ts"
import { toKafkaError } from "./kafkajsErrors.ts"
import { Session, type SessionEnd } from "./kafkajsSession.ts"
import { validateMemberOptions } from "./memberOptions.ts"

/** How long kafkajs may take to say goodbye, before its connections are cut. */
const leaveTimeoutMillis = 5_000

/** Keeps one member in its group: a session after the other, for as long as joining again may help. */
class Membership {
  session: Session | undefined
  leaving = false
  readonly connection: Connection
  readonly options: MemberOptions
  readonly joined = Deferred.makeUnsafe<void, KafkaError>()
  #hasJoined = false
  /** Ends the current session's connections at once. */
  #destroySockets: (() => void) | undefined

  constructor(connection: Connection, options: MemberOptions) {
    this.connection = connection
    this.options = options
  }

  error(reason: KafkaErrorReason, operation: string, detail: string, retriable: boolean): KafkaError {
    return new KafkaError({ reason, operation, brokers: this.connection.brokers, detail, retriable })
  }

  /** Runs until the member left, or an error ends it for good. */
  supervise = Effect.fnUntraced(function* (this: Membership) {
    const { retry } = this.connection
    let failures = 0
    while (!this.leaving) {
      const end = yield* this.runSession()
      if (this.leaving) return
      if (end.joined) failures = 0
      failures++
      const error = toKafkaError(end.error, {
        operation: "join",
        brokers: this.connection.brokers,
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
    const made = yield* Effect.result(this.connection.makeMemberKafka(this.options.groupId))
    if (made._tag === "Failure") return { error: made.failure, joined: false }
    const { kafka, destroySockets, release } = made.success
    if (this.leaving) {
      release()
      return { error: undefined, joined: false }
    }
    const ended = Deferred.makeUnsafe<SessionEnd>()
    const { events } = this.options
    const session = new Session(
      kafka,
      this.connection,
      {
        ...this.options,
        events: {
          ...events,
          onAssignment: (assignment) => {
            this.#hasJoined = true
            events.onAssignment(assignment)
            Deferred.doneUnsafe(this.joined, Effect.void)
          }
        }
      },
      () => this.tellEnd({ reason: "disconnected", error: undefined, rejoins: true }),
      (end) => Deferred.doneUnsafe(ended, Effect.succeed(end))
    )
    this.session = session
    this.#destroySockets = destroySockets
    session.run().catch((error: unknown) => {
      session.end(error instanceof Error ? error : new Error(String(error)))
    })
    const forget = Effect.sync(() => {
      this.session = undefined
      this.#destroySockets = undefined
      release()
    })
    return yield* Effect.ensuring(Deferred.await(ended), forget)
  })

  /** Leaves the group. Where kafkajs does not get it done in time, its connections are cut. */
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
                  this.#destroySockets?.()
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
      const wrong = commits.find(
        (candidate) => !Number.isSafeInteger(candidate.offset) || candidate.offset < 0
      )
      if (wrong !== undefined)
        return Effect.fail(
          this.error(
            "InvalidRequest",
            "commit",
            `offset is ${wrong.offset}; allowed: a safe integer from 0`,
            false
          )
        )
      // kafkajs would send a commit for any partition under the group's present generation.
      const foreign = commits.find((candidate) => !session.isAssigned(candidate))
      if (foreign !== undefined) {
        const detail = `partition ${foreign.partition} of topic "${foreign.topic}" is not assigned to this member`
        return Effect.fail(this.error("NotAssigned", "commit", detail, false))
      }
      const context = {
        operation: "commit",
        brokers: this.connection.brokers,
        topics: commits.map(({ topic }) => topic)
      }
      return Effect.flatMap(
        call(() => session.commit(commits), context),
        (still) => (still ? Effect.void : Effect.fail(out()))
      )
    })
    if (commits.length === 0) return Effect.void
    return withRetry(this.connection, attempt, (error) => error.reason === "CoordinatorNotReady")
  }
}

/** Joins a group, and keeps the member in it until the Scope closes. */
export const join = Effect.fnUntraced(function* (
  connection: Connection,
  admin: AdminOperations,
  options: MemberOptions
): Effect.fn.Return<GroupMember, KafkaError, Scope.Scope> {
  const invalid = validateMemberOptions(connection.brokers, options)
  if (invalid !== undefined) return yield* invalid
  // Says at once what kafkajs would find out slowly: no broker, no such topic.
  yield* admin.partitionCounts(options.topics, "join")
  const membership = new Membership(connection, options)
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
