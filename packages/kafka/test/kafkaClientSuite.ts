/**
 * What every driver of `KafkaClient` must do, as one suite. It runs on live time: a real broker has its own.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, type Layer, Scope } from "effect"
import type {
  Assignment,
  GroupMember,
  KafkaRecord,
  MemberEnd,
  MemberEvents,
  MemberOptions,
  RecordBatch,
  TopicPartition
} from "../src/KafkaClient.ts"
import { KafkaClient } from "../src/KafkaClient.ts"
import { KafkaError } from "../src/KafkaErrors.ts"

let names = 0
/** A name that nobody has used on this cluster. */
export const uniqueName = (prefix: string): string =>
  `${prefix}-${process.pid}-${Date.now().toString(36)}-${++names}-${Math.random().toString(36).slice(2, 8)}`

/** Waits until `condition` holds; dies after 30 s with what it waited for. */
export const until = (what: string, condition: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => {
    const giveUpAt = Date.now() + 30_000
    const poll: Effect.Effect<void> = Effect.suspend(() => {
      if (condition()) return Effect.void
      if (Date.now() > giveUpAt) return Effect.die(new Error(`waited 30 s for: ${what}`))
      return Effect.andThen(Effect.sleep(5), poll)
    })
    return poll
  })

/** Everything that a member told, in order. */
export class Probe implements MemberEvents {
  readonly assignments: Array<Assignment> = []
  readonly batches: Array<RecordBatch> = []
  readonly ends: Array<MemberEnd> = []
  heartbeats = 0
  /** Called within `onAssignment` and `onBatch`, after they were noted. */
  react: { onAssignment?: (assignment: Assignment) => void; onBatch?: (batch: RecordBatch) => void } = {}

  onAssignment = (assignment: Assignment): void => {
    this.assignments.push(assignment)
    this.react.onAssignment?.(assignment)
  }
  onBatch = (batch: RecordBatch): void => {
    this.batches.push(batch)
    this.react.onBatch?.(batch)
  }
  onHeartbeat = (): void => {
    this.heartbeats++
  }
  onEnd = (end: MemberEnd): void => {
    this.ends.push(end)
  }

  get assigned(): ReadonlyArray<TopicPartition> {
    return this.assignments.at(-1)?.partitions ?? []
  }
  records(partition: number): ReadonlyArray<KafkaRecord> {
    return this.batches.filter((batch) => batch.partition === partition).flatMap((batch) => batch.records)
  }
  offsets(partition: number): ReadonlyArray<number> {
    return this.records(partition).map((record) => record.offset)
  }
  get count(): number {
    return this.batches.reduce((count, batch) => count + batch.records.length, 0)
  }
}

export const memberOptions = (
  groupId: string,
  topics: ReadonlyArray<string>,
  events: MemberEvents
): MemberOptions => ({
  groupId,
  topics,
  sessionTimeoutMillis: 6_000,
  rebalanceTimeoutMillis: 6_000,
  heartbeatIntervalMillis: 100,
  maxWaitMillis: 100,
  events
})

export const range = (from: number, to: number): Array<number> =>
  Array.from({ length: to - from }, (_, index) => from + index)
const texts = (count: number): Array<string> => range(0, count).map((index) => `value ${index}`)

interface Entered {
  readonly member: GroupMember
  readonly probe: Probe
  readonly close: Effect.Effect<void>
}

/** A joined member with its probe, in a Scope that the test can close before its own ends. */
export const enter = Effect.fnUntraced(function* (
  client: KafkaClient["Service"],
  groupId: string,
  topics: ReadonlyArray<string>,
  probe: Probe = new Probe()
): Effect.fn.Return<Entered, KafkaError, Scope.Scope> {
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const member = yield* Scope.provide(client.join(memberOptions(groupId, topics, probe)), scope)
  return { member, probe, close: Scope.close(scope, Exit.void) }
})

export const startAll = (
  member: GroupMember,
  partitions: ReadonlyArray<TopicPartition>,
  offset = 0
): void => {
  for (const partition of partitions) member.seek(partition, offset)
  member.resume(partitions)
}

/**
 * Reads all that the member has, from the beginning, and goes on after each join: on a machine that is slow enough the
 * group throws a member out, which joins again, and everything is paused then.
 */
const readAll = (member: GroupMember, probe: Probe): void => {
  const go = (): void => {
    for (const place of probe.assigned) {
      const last = probe.batches.findLast((batch) => batch.partition === place.partition)
      member.seek(place, last?.nextOffset ?? 0)
    }
    member.resume(probe.assigned)
  }
  probe.react.onAssignment = go
  go()
}

const topicWith = Effect.fnUntraced(function* (partitions: number, values: ReadonlyArray<string> = []) {
  const client = yield* KafkaClient
  const topic = uniqueName("topic")
  yield* client.createTopics([{ topic, partitions }])
  yield* client.produce(values.map((value) => ({ topic, partition: 0, value })))
  return { client, topic, groupId: uniqueName("group"), at: { topic, partition: 0 } }
})

/** The suite for a driver; `layer` makes one client, on a cluster that may hold other topics. */
export const kafkaClientSuite = <E>(name: string, layer: Layer.Layer<KafkaClient, E>): void => {
  describe(name, () => {
    const test = (title: string, effect: () => Effect.Effect<void, unknown, KafkaClient | Scope.Scope>) =>
      it.live(title, () => Effect.provide(effect(), layer), 60_000)

    test("a join gives all partitions, paused: nothing comes before seek and resume", () =>
      Effect.gen(function* () {
        const { client, topic, groupId, at } = yield* topicWith(3, texts(5))
        const { member, probe } = yield* enter(client, groupId, [topic])
        expect(probe.assigned.map(({ partition }) => partition).sort()).toEqual([0, 1, 2])
        expect(probe.heartbeats).toBeGreaterThan(0)

        const heartbeats = probe.heartbeats
        yield* until("three heartbeats", () => probe.heartbeats >= heartbeats + 3)
        expect(probe.batches).toEqual([])
        member.resume([at])
        yield* until("three more", () => probe.heartbeats >= heartbeats + 6)
        expect(probe.batches).toEqual([])
        member.seek(at, 0)
        yield* until("the records", () => probe.count === 5)
        expect(probe.offsets(0)).toEqual([0, 1, 2, 3, 4])
        expect(probe.batches[0]).toMatchObject({ ...at, fetchedOffset: 0, highWatermark: 5 })
        expect(probe.batches.at(-1)?.nextOffset).toBe(5)
      }))

    test("seek decides where reading begins, forwards and back again", () =>
      Effect.gen(function* () {
        const { client, topic, groupId, at } = yield* topicWith(1, texts(10))
        const { member, probe } = yield* enter(client, groupId, [topic])
        member.seek(at, 7)
        member.resume([at])
        yield* until("the tail", () => probe.count === 3)
        expect(probe.offsets(0)).toEqual([7, 8, 9])
        member.seek(at, 2)
        yield* until("the rest again", () => probe.count === 11)
        expect(probe.offsets(0).slice(3)).toEqual(range(2, 10))
        expect(probe.batches.find((batch) => batch.fetchedOffset === 2)).toBeDefined()
        expect(() => member.seek(at, -1)).toThrow(RangeError)
        expect(() => member.seek(at, 1.5)).toThrow(RangeError)
      }))

    test("each batch begins where the one before ended", () =>
      Effect.gen(function* () {
        const { client, topic, groupId, at } = yield* topicWith(1)
        const { member, probe } = yield* enter(client, groupId, [topic])
        startAll(member, [at])
        for (const round of range(0, 4)) {
          yield* client.produce(texts(20).map((value) => ({ topic, partition: 0, value })))
          yield* until(`round ${round}`, () => probe.count === (round + 1) * 20)
        }
        let position = 0
        for (const batch of probe.batches) {
          expect(batch.fetchedOffset).toBe(position)
          expect(batch.nextOffset).toBeGreaterThan(position)
          position = batch.nextOffset
        }
        expect(position).toBe(80)
      }))

    test("after any seek the next batch begins exactly there, however many are on their way", () =>
      Effect.gen(function* () {
        const { client, topic, groupId } = yield* topicWith(2)
        yield* client.produce(
          range(0, 3_000).map((index) => ({ topic, partition: index % 2, value: "x".repeat(100) }))
        )
        const { member, probe } = yield* enter(client, groupId, [topic])
        const sought = new Map<number, number>()
        let seeks = 0
        const seek = (partition: number) => {
          const offset = (seeks * 677) % 1_500
          seeks++
          sought.set(partition, offset)
          member.seek({ topic, partition }, offset)
        }
        const wrong: Array<string> = []
        probe.react.onBatch = (batch) => {
          const expected = sought.get(batch.partition)
          sought.delete(batch.partition)
          if (expected !== undefined && batch.fetchedOffset !== expected)
            wrong.push(`sought ${expected}, got ${batch.fetchedOffset}`)
          if (expected !== undefined && batch.records[0]?.offset !== expected)
            wrong.push(`no record at ${expected}`)
          if (seeks >= 60) return
          // Some at once, within the callback; some when the next batch may be on its way already.
          if (seeks % 2 === 0) seek(batch.partition)
          else setTimeout(() => seek(batch.partition), seeks % 7)
          if (seeks % 5 === 0) seek(1 - batch.partition)
        }
        member.resume(probe.assigned)
        seek(0)
        seek(1)
        yield* until("60 seeks, and the batches after them", () => seeks >= 60 && sought.size === 0)
        expect(wrong).toEqual([])
      }))

    test("a pause within onBatch holds the partition, and no other", () =>
      Effect.gen(function* () {
        const { client, topic, groupId, at } = yield* topicWith(2, texts(4))
        const other = { topic, partition: 1 }
        const { member, probe } = yield* enter(client, groupId, [topic])
        probe.react.onBatch = (batch) => {
          if (batch.partition === 0) member.pause([at])
        }
        startAll(member, [at, other])
        yield* until("the first batch", () => probe.count === 4)
        yield* client.produce(texts(3).map((value) => ({ topic, partition: 0, value })))
        yield* client.produce(texts(6).map((value) => ({ topic, partition: 1, value })))
        yield* until("the other partition", () => probe.offsets(1).length === 6)
        const heartbeats = probe.heartbeats
        yield* until("three heartbeats", () => probe.heartbeats >= heartbeats + 3)
        expect(probe.offsets(0)).toEqual([0, 1, 2, 3])
        member.resume([at])
        yield* until("the held records", () => probe.offsets(0).length === 7)
        expect(probe.offsets(0)).toEqual(range(0, 7))
      }))

    test("bytes, headers, keys, timestamps and tombstones come back as they were sent", () =>
      Effect.gen(function* () {
        const { client, topic, groupId, at } = yield* topicWith(1)
        const bytes = Buffer.from(range(0, 256))
        const timestampMillis = 1_700_000_000_123
        yield* client.produce([
          {
            topic,
            partition: 0,
            key: bytes,
            value: bytes,
            timestampMillis,
            headers: { one: "1", bytes, many: ["a", Buffer.from([0, 255])] }
          },
          { topic, partition: 0, key: "gone", value: null },
          { topic, partition: 0, value: "" }
        ])
        const { member, probe } = yield* enter(client, groupId, [topic])
        startAll(member, [at])
        yield* until("the records", () => probe.count === 3)
        const [first, tombstone, empty] = probe.records(0)
        expect(first?.key?.equals(bytes)).toBe(true)
        expect(first?.value?.equals(bytes)).toBe(true)
        expect(first?.timestampMillis).toBe(timestampMillis)
        expect(Object.keys(first?.headers ?? {}).sort()).toEqual(["bytes", "many", "one"])
        expect(String(first?.headers.one)).toBe("1")
        expect(bytes.equals(first?.headers.bytes as Buffer)).toBe(true)
        const many = first?.headers.many as ReadonlyArray<Buffer>
        expect(many.map((part) => Buffer.from(part).toString("hex"))).toEqual(["61", "00ff"])
        expect(tombstone?.value).toBeUndefined()
        expect(String(tombstone?.key)).toBe("gone")
        expect(empty?.key).toBeUndefined()
        expect(empty?.value?.length).toBe(0)
        expect(empty?.headers).toEqual({})
        expect(Math.abs((empty?.timestampMillis ?? 0) - Date.now())).toBeLessThan(60_000)
      }))

    test("equal keys go to one partition, and no key to all in turn", () =>
      Effect.gen(function* () {
        const { client, topic, groupId } = yield* topicWith(4)
        yield* client.produce(
          range(0, 40).map((index) => ({ topic, key: `key ${index % 8}`, value: `keyed ${index}` }))
        )
        yield* client.produce(range(0, 40).map((index) => ({ topic, value: `keyless ${index}` })))
        const { member, probe } = yield* enter(client, groupId, [topic])
        readAll(member, probe)
        // Values, not records: a producer sends a request again that a new partition's leader has refused in part.
        const values = (partition: number) =>
          new Set(probe.records(partition).map(({ value }) => String(value)))
        const received = () => new Set(range(0, 4).flatMap((partition) => [...values(partition)]))
        yield* until("all records", () => received().size === 80)
        const partitionsByKey = new Map<string, Set<number>>()
        for (const partition of range(0, 4)) {
          const keyless = [...values(partition)].filter((value) => value.startsWith("keyless"))
          expect(keyless.length).toBeGreaterThanOrEqual(10)
          for (const { key } of probe.records(partition))
            if (key)
              partitionsByKey.set(String(key), (partitionsByKey.get(String(key)) ?? new Set()).add(partition))
        }
        expect(partitionsByKey.size).toBe(8)
        for (const partitions of partitionsByKey.values()) expect(partitions.size).toBe(1)
      }))

    test("a second member shares the partitions, and its leaving gives them back", () =>
      Effect.gen(function* () {
        const { client, topic, groupId } = yield* topicWith(4)
        const first = yield* enter(client, groupId, [topic])
        expect(first.probe.assigned.length).toBe(4)
        const second = yield* enter(client, groupId, [topic])
        const share = () =>
          [...first.probe.assigned, ...second.probe.assigned].map(({ partition }) => partition).sort()
        yield* until("both have their share", () => first.probe.assignments.length > 1)
        expect(share()).toEqual([0, 1, 2, 3])
        expect(first.probe.assigned.length).toBe(2)
        expect(first.probe.assignments.at(-1)?.memberId).not.toBe(second.probe.assignments.at(-1)?.memberId)

        yield* second.close
        expect(second.probe.ends).toEqual([{ reason: "stopped", error: undefined, rejoins: false }])
        yield* until("the first has all again", () => first.probe.assigned.length === 4)
        yield* second.member.leave
        expect(second.probe.ends.length).toBe(1)
      }))

    test("after a join even kept partitions are silent until seek and resume, and then begin at the seek", () =>
      Effect.gen(function* () {
        const { client, topic, groupId } = yield* topicWith(2)
        const first = yield* enter(client, groupId, [topic])
        startAll(first.member, first.probe.assigned)
        yield* client.produce(range(0, 20).map((index) => ({ topic, partition: index % 2, value: "before" })))
        yield* until("all records", () => first.probe.count === 20)
        const second = yield* enter(client, groupId, [topic])
        yield* until("a new assignment", () => first.probe.assignments.length > 1)
        const kept = first.probe.assigned[0]!
        yield* client.produce(range(0, 20).map((index) => ({ topic, partition: index % 2, value: "after" })))
        const heartbeats = first.probe.heartbeats
        yield* until("three heartbeats", () => first.probe.heartbeats >= heartbeats + 3)
        expect(first.probe.count).toBe(20)
        expect(second.probe.count).toBe(0)
        startAll(first.member, [kept], 10)
        yield* until("the new records", () => first.probe.count === 30)
        expect(first.probe.offsets(kept.partition)).toEqual(range(0, 20))
      }))

    test("commits are seen by others, with their metadata, and only for what is assigned", () =>
      Effect.gen(function* () {
        const { client, topic, groupId, at } = yield* topicWith(2, texts(9))
        const other = { topic, partition: 1 }
        const nothing = { offset: undefined, metadata: undefined }
        expect(yield* client.committed(groupId, [at, other])).toEqual([
          { ...at, ...nothing },
          { ...other, ...nothing }
        ])
        const first = yield* enter(client, groupId, [topic])
        yield* first.member.commit([{ ...at, offset: 5, metadata: "tidemark:1:3" }])
        startAll(first.member, [at])
        yield* until("the records", () => first.probe.count === 9)
        yield* first.member.commit([
          { ...at, offset: 9, metadata: "tidemark:1:3" },
          { ...other, offset: 0, metadata: "" }
        ])
        expect(yield* client.committed(groupId, [other, at])).toEqual([
          { ...other, offset: 0, metadata: "" },
          { ...at, offset: 9, metadata: "tidemark:1:3" }
        ])

        const second = yield* enter(client, groupId, [topic])
        yield* until("a new assignment", () => first.probe.assignments.length > 1)
        const lost = second.probe.assigned[0]!
        const refused = yield* Effect.flip(first.member.commit([{ ...lost, offset: 1, metadata: "" }]))
        expect(refused).toBeInstanceOf(KafkaError)
        expect(refused.reason).toBe("NotAssigned")
        yield* second.member.commit([{ ...lost, offset: 4, metadata: "second" }])
        expect(yield* client.committed(groupId, [lost])).toEqual([{ ...lost, offset: 4, metadata: "second" }])

        yield* first.member.leave
        const left = yield* Effect.flip(first.member.commit([{ ...at, offset: 6, metadata: "" }]))
        expect(left.reason).toBe("MemberEnded")
      }))

    test("log bounds and partition counts", () =>
      Effect.gen(function* () {
        const { client, topic, at } = yield* topicWith(3, texts(7))
        expect(yield* client.logBounds([{ topic, partition: 2 }, at])).toEqual([
          { topic, partition: 2, low: 0, high: 0 },
          { ...at, low: 0, high: 7 }
        ])
        expect([...(yield* client.partitionCounts([topic]))]).toEqual([[topic, 3]])
        yield* client.createTopics([{ topic, partitions: 8 }])
        expect([...(yield* client.partitionCounts([topic]))]).toEqual([[topic, 3]])
      }))

    test("a topic or partition that does not exist is named", () =>
      Effect.gen(function* () {
        const { client, topic } = yield* topicWith(1)
        const missing = uniqueName("missing")
        const errors = [
          yield* Effect.flip(
            Effect.scoped(client.join(memberOptions(uniqueName("group"), [topic, missing], new Probe())))
          ),
          yield* Effect.flip(client.partitionCounts([missing])),
          yield* Effect.flip(client.produce([{ topic: missing, value: "lost?" }])),
          yield* Effect.flip(client.logBounds([{ topic: missing, partition: 0 }]))
        ]
        for (const error of errors) {
          expect(error.reason).toBe("UnknownTopic")
          expect(error.message).toContain(missing)
        }
        const partition = yield* Effect.flip(client.produce([{ topic, partition: 9, value: "lost?" }]))
        expect(partition.reason).toBe("UnknownTopic")
        expect(partition.message).toContain("none numbered 9")
        expect((yield* Effect.flip(client.logBounds([{ topic, partition: 9 }]))).reason).toBe("UnknownTopic")
      }))

    test("bad input is refused before anything is sent", () =>
      Effect.gen(function* () {
        const { client, topic } = yield* topicWith(1)
        const good = memberOptions(uniqueName("group"), [topic], new Probe())
        for (const bad of [
          { ...good, groupId: "" },
          { ...good, topics: [] },
          { ...good, heartbeatIntervalMillis: 6_000 },
          { ...good, sessionTimeoutMillis: Number.NaN },
          { ...good, maxWaitMillis: 0 },
          Object.assign({}, good, { fromBeginning: true })
        ]) {
          const error = yield* Effect.flip(Effect.scoped(client.join(bad)))
          expect(error.reason).toBe("InvalidRequest")
          expect(error.message).toMatch(/allowed: /)
        }
      }))

    test("5,000 records on 4 partitions arrive once each and in order, through pauses and resumes", () =>
      Effect.gen(function* () {
        const { client, topic, groupId } = yield* topicWith(4)
        const { member, probe } = yield* enter(client, groupId, [topic])
        let turn = 0
        probe.react.onBatch = ({ partition }) => {
          const at = { topic, partition }
          member.pause([at])
          // By turns at once, in a moment, and later: the driver must not care.
          const resume = () => member.resume([at])
          if (turn++ % 3 === 0) resume()
          else if (turn % 3 === 1) setImmediate(resume)
          else setTimeout(resume, turn % 50)
        }
        startAll(member, probe.assigned)
        const records = range(0, 5_000).map((index) => ({
          topic,
          key: `key ${index % 97}`,
          value: String(index)
        }))
        yield* Effect.forEach(range(0, 10), (part) =>
          client.produce(records.slice(part * 500, (part + 1) * 500))
        )
        yield* until("all records", () => probe.count >= 5_000)
        expect(probe.count).toBe(5_000)
        const seen = new Set<string>()
        for (const partition of range(0, 4)) {
          expect(probe.offsets(partition)).toEqual(range(0, probe.offsets(partition).length))
          let last = -1
          for (const record of probe.records(partition)) {
            expect(Number(record.value)).toBeGreaterThan(last)
            last = Number(record.value)
            seen.add(String(record.value))
          }
        }
        expect(seen.size).toBe(5_000)
      }))
  })
}
