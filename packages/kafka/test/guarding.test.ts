/** What the guard notes of a stream, under the test clock. */
import { it } from "@effect/vitest"
import { ClaimId, Key, OffsetRanges, OffsetStore, type OffsetStoreService } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { expect } from "vitest"
import { type GuardTerms, guarded } from "../src/internal/guarding.ts"
import { othersCommit, writeNote } from "../src/PositionRules.ts"

const stream = Key.kafkaStream({ group: "group", topic: "orders", partition: 0 })

const terms = (): GuardTerms => ({
  namespace: "group",
  owner: "guard",
  leaseMillis: 30_000,
  retentionMillis: undefined,
  whenInFlight: "fail",
  waitAtMostMillis: 0,
  noted: new Map()
})

/** One message under the guard. */
const deliver = (terms: GuardTerms, offset: number) =>
  guarded<never>(
    {
      stream,
      items: [{ offset, id: undefined }],
      ranges: OffsetRanges.make(offset, offset + 1),
      from: offset,
      to: offset + 1
    },
    terms,
    () => Effect.succeed({ through: offset + 1, failure: undefined }),
    () => {}
  )

/** `KafkaConsumer` owns the partition for a while, and commits. */
const ownedByConsumer = Effect.gen(function* () {
  const store = yield* OffsetStore
  const claimId = ClaimId.make()
  yield* store.claim(stream, OffsetRanges.openEnded(0), { claimId, owner: "consumer", leaseMillis: 30_000 })
  const note = writeNote({ replaces: undefined, landmark: undefined })
  expect(yield* store.annotate([{ stream, claimId, note }])).toEqual([true])
  yield* store.release({ stream, claimId })
})

const noteOf = Effect.flatMap(OffsetStore, (store) =>
  Effect.map(store.progress(stream), (progress) => progress?.note)
)

/** The same store; `annotate` is counted, and `before` comes first. */
const watching = (before: (store: OffsetStoreService, call: number) => Effect.Effect<unknown, unknown>) =>
  Effect.map(OffsetStore, (store) => {
    const seen = { calls: 0 }
    const watched: OffsetStoreService = {
      ...store,
      annotate: (notes) =>
        Effect.andThen(
          Effect.suspend(() => Effect.orDie(before(store, ++seen.calls))),
          store.annotate(notes)
        )
    }
    return { seen, watched }
  })

it.effect("a guard that lives on while KafkaConsumer owns the partition notes again that it commits", () =>
  Effect.gen(function* () {
    const { seen, watched } = yield* watching(() => Effect.void)
    const own = terms()
    yield* Effect.gen(function* () {
      for (const offset of [0, 1, 2]) yield* deliver(own, offset)
      expect(seen.calls).toBe(1)
      yield* ownedByConsumer
      expect(yield* noteOf).not.toBe(othersCommit)
      yield* TestClock.adjust("1 minute")
      for (const offset of [3, 4]) yield* deliver(own, offset)
      expect(yield* noteOf).toBe(othersCommit)
    }).pipe(Effect.provideService(OffsetStore, watched))
    // those of the guard, and the consumer's
    expect(seen.calls).toBe(3)
  }).pipe(Effect.provide(MemoryStore.layer()))
)

it.effect("what could not be noted, since the claim was lost, is noted with the next message", () =>
  Effect.gen(function* () {
    const { seen, watched } = yield* watching((store, call) =>
      call === 1 ? store.rewind(stream, 0) : Effect.void
    )
    const own = terms()
    yield* Effect.gen(function* () {
      expect(yield* Effect.flip(deliver(own, 0))).toMatchObject({ _tag: "LeaseLost" })
      expect(yield* noteOf).toBeUndefined()
      yield* deliver(own, 0)
      expect(yield* noteOf).toBe(othersCommit)
    }).pipe(Effect.provideService(OffsetStore, watched))
    expect(seen.calls).toBe(2)
  }).pipe(Effect.provide(MemoryStore.layer()))
)
