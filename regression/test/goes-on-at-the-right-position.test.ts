/**
 * Every row of the table of positions (docs/kafka.md), on a real broker, with positions in a file: what operators, retention
 * and losses do to the group's commit, to the log and to the store.
 */
import { it } from "@effect/vitest"
import { OffsetRanges } from "@tidemark/core"
import { PositionRules } from "@tidemark/kafka"
import { describeWithKafka } from "@tidemark/test-servers/vitest"
import { Effect, Schedule, type Scope } from "effect"
import { describe, expect } from "vitest"
import { until } from "./consumers.ts"
import { ask, atPlace, type Place, span } from "./positions.ts"

const { metadata } = PositionRules
const seconds = 1_000

// beside each other, since the admin client's reset waits for a fetch of 5 s
const concurrent = { concurrent: true }

await describeWithKafka("a consumer goes on at the right position", ({ brokers }) => {
  describe.each(["kafkajs", "platformatic"])("with the driver %s", concurrent, (driver) => {
    const test = (title: string, body: (place: Place) => Effect.Effect<void, unknown, Scope.Scope>): void =>
      it.live(title, () => atPlace(brokers, driver, body), 90 * seconds)

    /** Twenty records, all done, committed as ours. */
    const done = (place: Place) =>
      Effect.gen(function* () {
        yield* place.produce(20)
        expect((yield* place.run()).ran).toEqual(span(0, 20))
        expect(yield* place.commit).toMatchObject({ offset: 20, metadata: metadata(0) })
      })

    test("nobody has read it: where the start policy says", (place) =>
      Effect.gen(function* () {
        yield* place.produce(5)
        const latest = yield* Effect.scoped(
          Effect.gen(function* () {
            const running = yield* place.start({ start: "latest" })
            yield* until("owned", () => running.status().partitions[0]?.watermark === 5)
            yield* place.produce(3)
            yield* until("three", () => running.status().partitions[0]?.watermark === 8)
            return yield* running.end
          })
        )
        expect(latest.ran).toEqual(span(5, 8))
        expect(yield* place.commit).toMatchObject({ offset: 8, metadata: metadata(0) })
      }))

    test("another client has read it: at that client's commit", (place) =>
      Effect.gen(function* () {
        yield* place.produce(10)
        yield* place.reset(4)
        expect((yield* place.run()).ran).toEqual(span(4, 10))
        expect(yield* place.commit).toMatchObject({ offset: 10, metadata: metadata(0) })
      }))

    test("another client has read further, and we have never committed: at its commit", (place) =>
      Effect.gen(function* () {
        yield* place.produce(10)
        yield* place.withStore((store, stream) =>
          Effect.gen(function* () {
            const ref = { stream, claimId: "by hand" }
            const terms = { claimId: ref.claimId, owner: "by hand", leaseMillis: 60_000 }
            yield* store.claim(stream, OffsetRanges.openEnded(0), terms)
            yield* store.complete(ref, OffsetRanges.make(0, 3))
            yield* store.release(ref)
          })
        )
        yield* place.reset(7)
        const { counters, ran } = yield* place.run()
        expect(ran).toEqual(span(7, 10))
        expect(counters).toMatchObject({ passedByForeignCommit: 4, resets: 0 })
      }))

    test("an operator sets the group back, and forward: there", (place) =>
      Effect.gen(function* () {
        yield* done(place)
        yield* place.reset(15)
        const back = yield* place.run()
        expect(back.ran).toEqual(span(15, 20))
        expect(back.counters).toMatchObject({ resets: 1, adoptedEpochs: 0 })
        expect(yield* place.commit).toMatchObject({ offset: 20, metadata: metadata(1) })
        yield* place.produce(10)
        yield* place.reset(26)
        const forward = yield* place.run()
        expect(forward.ran).toEqual(span(26, 30))
        expect(forward.counters).toMatchObject({ resets: 1, passedByForeignCommit: 0 })
        expect(yield* place.commit).toMatchObject({ offset: 30, metadata: metadata(2) })
        expect((yield* place.run()).ran).toEqual([])
      }))

    test("the group's commits are deleted, and the log is the same: at the store's progress", (place) =>
      Effect.gen(function* () {
        yield* done(place)
        yield* ask(() => place.admin.deleteGroups([place.groupId]))
        expect((yield* place.commit).offset).toBeUndefined()
        yield* place.produce(3)
        expect((yield* place.run()).ran).toEqual(span(20, 23))
        expect(yield* place.commit).toMatchObject({ offset: 23, metadata: metadata(0) })
      }))

    /** Another topic of the same name; the brokers forget the group's commit with the one before. */
    const recreate = (place: Place, count: number) =>
      Effect.gen(function* () {
        yield* place.deleteTopic
        while (yield* place.hasCommit) yield* Effect.sleep(20)
        yield* place.createTopic()
        if (count > 0) yield* place.produce(count)
      })

    test("the topic is created anew and is shorter: stops, or begins anew if told to", (place) =>
      Effect.gen(function* () {
        yield* done(place)
        yield* recreate(place, 5)
        const stopped = yield* place.run()
        expect(stopped).toMatchObject({ ran: [], failure: { _tag: "LogWentBack", highest: 20, end: 5 } })
        const anew = yield* place.run({ whenLogWentBack: "reset" })
        expect(anew.ran).toEqual(span(0, 5))
        expect(anew.counters).toMatchObject({ logsBegunAnew: 1, resets: 0, adoptedEpochs: 0 })
        expect(yield* place.commit).toMatchObject({ offset: 5, metadata: metadata(1) })
        expect((yield* place.run()).ran).toEqual([])
      }))

    test("the topic is created anew and is longer: stops, or begins anew if told to", (place) =>
      Effect.gen(function* () {
        yield* done(place)
        yield* recreate(place, 30)
        const stopped = yield* place.run()
        expect(stopped).toMatchObject({
          ran: [],
          failure: { _tag: "LogWentBack", highest: 20, changed: { offset: 19 } }
        })
        const anew = yield* place.run({ whenLogWentBack: "reset" })
        expect(anew.ran).toEqual(span(0, 30))
        expect(anew.counters.logsBegunAnew).toBe(1)
        expect(yield* place.commit).toMatchObject({ offset: 30, metadata: metadata(1) })
      }))

    test("the topic is created anew while it runs: begins anew if told to", (place) =>
      Effect.gen(function* () {
        yield* place.produce(20)
        const running = yield* place.start({ whenLogWentBack: "reset" })
        yield* until("twenty", () => running.status().partitions[0]?.watermark === 20)
        yield* until("committed", () => running.status().counters.commits > 0)
        yield* place.deleteTopic
        yield* place.createTopic()
        yield* place.produce(5)
        yield* until("five of the other log", () => running.ran().length === 25, running.status)
        const { counters, ran } = yield* running.end
        expect(ran).toEqual(
          [...span(0, 5), ...span(0, 20)].toSorted((one, other) => Number(one) - Number(other))
        )
        expect(counters.logsBegunAnew).toBe(1)
        expect(yield* place.commit).toMatchObject({ offset: 5, metadata: metadata(1) })
      }))

    test("the store is wiped: stops, or resumes at the commit if told to", (place) =>
      Effect.gen(function* () {
        yield* done(place)
        place.wipeStore()
        yield* place.produce(4)
        expect(yield* place.run()).toMatchObject({ ran: [], failure: { _tag: "StoreLost", committed: 20 } })
        const resumed = yield* place.run({ whenStoreLost: "resume" })
        expect(resumed.ran).toEqual(span(20, 24))
        expect(resumed.counters.storeEmpty).toBe(1)
      }))

    test("the store has lost writes: at our commit", (place) =>
      Effect.gen(function* () {
        yield* done(place)
        const restore = place.backUp()
        yield* place.produce(6)
        yield* place.run()
        restore()
        yield* place.produce(4)
        const { counters, ran } = yield* place.run()
        expect(ran).toEqual(span(26, 30))
        expect(counters.lostWrites).toBe(6)
      }))

    test("the store has lost an operator's act: it is done again", (place) =>
      Effect.gen(function* () {
        yield* done(place)
        const restore = place.backUp()
        yield* place.withStore((store, stream) => store.skip(stream, OffsetRanges.make(20, 25)))
        yield* place.produce(5)
        yield* place.run()
        expect(yield* place.commit).toMatchObject({ offset: 25, metadata: metadata(1) })
        restore()
        yield* place.produce(3)
        const { counters, ran } = yield* place.run()
        expect(ran).toEqual(span(25, 28))
        expect(counters).toMatchObject({ adoptedEpochs: 1, lostWrites: 0 })
        expect((yield* place.progress)?.epoch).toBe(1)
      }))

    test("an operator rewinds the store: our commit, which is of an older epoch, does not count", (place) =>
      Effect.gen(function* () {
        yield* done(place)
        yield* place.withStore((store, stream) => store.rewind(stream, 12))
        const { counters, ran } = yield* place.run()
        expect(ran).toEqual(span(12, 20))
        expect(counters).toMatchObject({ lostWrites: 0, adoptedEpochs: 0, resets: 0 })
        expect(yield* place.commit).toMatchObject({ offset: 20, metadata: metadata(1) })
      }))

    test("retention overtakes it while it is away: what is lost is counted", (place) =>
      Effect.gen(function* () {
        yield* done(place)
        yield* place.produce(20)
        yield* place.deleteBelow(33)
        const { counters, ran } = yield* place.run()
        expect(ran).toEqual(span(33, 40))
        expect(counters.lostToRetention).toBe(13)
        expect(yield* place.commit).toMatchObject({ offset: 40, metadata: metadata(0) })
      }))

    test("retention overtakes it while it is away, and the commits expire: what is lost is counted", (place) =>
      Effect.gen(function* () {
        yield* done(place)
        yield* place.produce(20)
        yield* place.deleteBelow(33)
        yield* ask(() => place.admin.deleteGroups([place.groupId]))
        const { counters, ran } = yield* place.run()
        expect(ran).toEqual(span(33, 40))
        expect(counters.lostToRetention).toBe(13)
      }))

    test("retention overtakes it while it runs: what is lost is counted", (place) =>
      Effect.gen(function* () {
        let isOpen = false
        yield* place.produce(10)
        const running = yield* place.start({
          bounds: { maxInFlight: 10 },
          handler: () => until("open", () => isOpen)
        })
        yield* until("paused", () => running.status().partitions[0]?.pausedBy.bound !== undefined)
        yield* place.produce(20)
        yield* place.deleteBelow(24)
        isOpen = true
        yield* until("at the end", () => running.status().partitions[0]?.watermark === 30, running.status)
        const { counters, ran } = yield* running.end
        expect(ran).toEqual([...span(0, 10), ...span(24, 30)])
        expect(counters.lostToRetention).toBe(14)
        expect(yield* place.commit).toMatchObject({ offset: 30, metadata: metadata(0) })
      }))

    test("partitions are added while it runs: from their first record, whatever the start policy", (place) =>
      Effect.gen(function* () {
        yield* place.produce(5)
        const running = yield* place.start({ start: "latest" })
        yield* until("owned", () => running.status().partitions[0]?.watermark === 5)
        yield* ask(() =>
          place.admin.createPartitions({ topicPartitions: [{ topic: place.topic, count: 3 }] })
        )
        const logs = place.client.logBounds([1, 2].map((partition) => ({ topic: place.topic, partition })))
        // the brokers may not know them for a moment
        yield* Effect.retry(logs, { times: 50, schedule: Schedule.spaced(100) })
        for (const partition of [1, 2]) yield* place.produce(4, { partition })
        yield* until("the new ones", () => running.ran().length === 8, running.status)
        const { ran } = yield* running.end
        expect(ran).toEqual(
          [...span(0, 4), ...span(0, 4)].toSorted((one, other) => Number(one) - Number(other))
        )
      }))
  })
})
