/**
 * A plain at-least-once consumer, as a careful team writes it around its tracker: a bounded number of records in
 * work, commits of what is done without a gap, every second and when it stops. On the same client as tidemark's
 * consumer, so that the trackers alone differ.
 */
import {
  type Assignment,
  type GroupMember,
  KafkaClient,
  type KafkaError,
  type KafkaRecord,
  type MemberEvents,
  type RecordBatch
} from "@tidemark/kafka"
import { Effect } from "effect"

/** Why a commit may be refused without anything being wrong. */
const rebalanced: ReadonlyArray<KafkaError["reason"]> = ["StaleMember", "NotAssigned", "MemberEnded"]

interface Owned {
  readonly partition: number
  received: number
  committed: number
  /** Offsets received and not done, ascending. */
  readonly open: Set<number>
}

export interface PlainConsumerOptions {
  readonly topic: string
  readonly groupId: string
  readonly concurrency: number
  readonly sessionTimeoutMillis: number
  readonly handle: (record: KafkaRecord) => Promise<void>
}

export const runPlainConsumer = (options: PlainConsumerOptions): Effect.Effect<void, unknown, KafkaClient> =>
  Effect.scoped(
    Effect.gen(function* () {
      const client = yield* KafkaClient
      const { concurrency, groupId, handle, topic } = options
      const owned = new Map<number, Owned>()
      const waiting: Array<readonly [KafkaRecord, Owned]> = []
      let inWork = 0
      let member: GroupMember | undefined
      let assignment: Assignment | undefined
      const run = Effect.runForkWith(yield* Effect.context())
      let fail: (error: unknown) => void = () => {}
      const failed = Effect.callback<never, unknown>((resume) => {
        fail = (error) => resume(Effect.fail(error))
      })

      const work = (): void => {
        while (inWork < concurrency) {
          const next = waiting.shift()
          if (next === undefined) return
          const [record, mine] = next
          inWork++
          handle(record).then(
            () => {
              inWork--
              mine.open.delete(record.offset)
              work()
            },
            (error: unknown) => fail(error)
          )
        }
      }

      const commit = Effect.suspend((): Effect.Effect<void, KafkaError> => {
        const due = [...owned.values()].flatMap((mine) => {
          const [lowest = mine.received] = mine.open
          return lowest > mine.committed ? [{ mine, offset: lowest }] : []
        })
        if (due.length === 0 || member === undefined) return Effect.void
        return Effect.matchEffect(
          member.commit(
            due.map(({ mine, offset }) => ({ topic, partition: mine.partition, offset, metadata: "" }))
          ),
          {
            // where a rebalance came in between, the next owner goes on from the last commit
            onFailure: (error) =>
              error.retriable || rebalanced.includes(error.reason) ? Effect.void : Effect.fail(error),
            onSuccess: () =>
              Effect.sync(() => {
                for (const { mine, offset } of due) mine.committed = offset
              })
          }
        )
      })

      const begin = (joined: GroupMember, { partitions }: Assignment): Effect.Effect<void, KafkaError> =>
        Effect.gen(function* () {
          const now = new Set(partitions.map(({ partition }) => partition))
          for (const partition of [...owned.keys()]) if (!now.has(partition)) owned.delete(partition)
          const fresh = partitions.filter(({ partition }) => !owned.has(partition))
          for (const { offset, partition } of fresh.length === 0
            ? []
            : yield* client.committed(groupId, fresh)) {
            const position = offset ?? 0
            owned.set(partition, { partition, received: position, committed: position, open: new Set() })
          }
          if (assignment?.partitions !== partitions) return
          for (const mine of owned.values()) joined.seek({ topic, partition: mine.partition }, mine.received)
          joined.resume(partitions)
        })

      const take = (batch: RecordBatch): void => {
        const mine = owned.get(batch.partition)
        if (mine === undefined) return
        for (const record of batch.records) {
          if (record.offset < mine.received) continue
          mine.open.add(record.offset)
          waiting.push([record, mine])
        }
        mine.received = Math.max(mine.received, batch.nextOffset)
        work()
      }

      const events: MemberEvents = {
        onAssignment: (given) => {
          assignment = given
          if (member !== undefined)
            run(Effect.catch(begin(member, given), (error) => Effect.sync(() => fail(error))))
        },
        onBatch: take,
        onHeartbeat: () => {},
        onEnd: ({ error, rejoins }) => {
          if (!rejoins && error !== undefined) fail(error)
        }
      }
      member = yield* client.join({
        groupId,
        topics: [topic],
        sessionTimeoutMillis: options.sessionTimeoutMillis,
        rebalanceTimeoutMillis: options.sessionTimeoutMillis,
        heartbeatIntervalMillis: 500,
        maxWaitMillis: 250,
        events
      })
      if (assignment !== undefined) yield* begin(member, assignment)
      const commits = Effect.forever(Effect.andThen(Effect.sleep("1 seconds"), commit))
      yield* Effect.onExit(Effect.raceFirst(commits, failed), () => commit)
    })
  )
