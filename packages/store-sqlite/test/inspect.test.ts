import { describe, expect, it } from "@effect/vitest"
import { IdempotencyStore, Inspect, OffsetRanges, OffsetStore } from "@tidemark/core"
import { SqliteStore } from "@tidemark/store-sqlite"
import { Effect, Stream } from "effect"
import { TestClock } from "effect/testing"

const terms = (claimId: string, leaseMillis = 30_000) => ({
  claimId,
  owner: `owner of ${claimId}`,
  leaseMillis
})

describe("Inspect", () => {
  it.effect("lists streams, and of these the untouched ones", () =>
    Effect.gen(function* () {
      const offsets = yield* OffsetStore
      const { streams } = yield* Inspect
      yield* offsets.claim("old", OffsetRanges.openEnded(5), terms("a"))
      yield* offsets.complete(
        { stream: "old", claimId: "a" },
        OffsetRanges.fromRanges([
          [5, 8],
          [10, 11]
        ])
      )
      yield* TestClock.adjust("1 hour")
      const { token } = yield* offsets.claim("new", OffsetRanges.of(0), terms("b"))
      yield* offsets.skip("new", OffsetRanges.of(3))
      yield* offsets.claim("new", OffsetRanges.of(0), terms("c"))
      const old = {
        stream: "old",
        origin: 5,
        watermark: 8,
        highest: 11,
        gapCount: 2,
        epoch: 0,
        lastToken: 1,
        liveClaims: 0,
        touchedAt: 0
      }
      const young = {
        stream: "new",
        origin: 0,
        watermark: 0,
        highest: 4,
        gapCount: 3,
        epoch: 1,
        lastToken: (token as number) + 1,
        liveClaims: 1,
        touchedAt: 3_600_000
      }
      expect(yield* Stream.runCollect(streams())).toEqual([old, young])
      expect(yield* Stream.runCollect(streams({ untouchedFor: "1 hour" }))).toEqual([old])
      expect(yield* Stream.runCollect(streams({ untouchedFor: "2 hours" }))).toEqual([])
    }).pipe(Effect.provide(SqliteStore.layer({ filename: ":memory:" })))
  )

  it.effect("lists keys of one namespace, or of all, unless their time is over", () =>
    Effect.gen(function* () {
      const store = yield* IdempotencyStore
      const { keys } = yield* Inspect
      yield* store.claim("n", [{ key: "a" }, { key: "b" }, { key: "held" }], terms("c"))
      yield* store.complete({ namespace: "n", claimId: "c" }, [{ key: "a", result: "7" }])
      yield* store.complete({ namespace: "n", claimId: "c" }, [{ key: "b" }], { retentionMillis: 1_000 })
      yield* store.claim("m", [{ key: "other" }], terms("d"))
      const a = { namespace: "n", key: "a", status: { _tag: "Completed", result: "7", until: 86_400_000 } }
      const b = { namespace: "n", key: "b", status: { _tag: "Completed", result: undefined, until: 1_000 } }
      const held = {
        namespace: "n",
        key: "held",
        status: { _tag: "InFlight", until: 30_000, owner: "owner of c" }
      }
      const other = {
        namespace: "m",
        key: "other",
        status: { _tag: "InFlight", until: 30_000, owner: "owner of d" }
      }
      expect(yield* Stream.runCollect(keys())).toEqual([a, b, held, other])
      expect(yield* Stream.runCollect(keys({ namespace: "n" }))).toEqual([a, b, held])
      expect(yield* Stream.runCollect(keys({ namespace: "m" }))).toEqual([other])
      expect(yield* Stream.runCollect(keys({ namespace: "unknown" }))).toEqual([])
      yield* TestClock.adjust("1 second")
      expect(yield* Stream.runCollect(keys({ namespace: "n" }))).toEqual([a, held])
      yield* TestClock.adjust("29 seconds")
      expect(yield* Stream.runCollect(keys())).toEqual([a])
    }).pipe(Effect.provide(SqliteStore.layer({ filename: ":memory:" })))
  )

  it.effect("lists live claims on positions and keys, with what they still hold", () =>
    Effect.gen(function* () {
      const offsets = yield* OffsetStore
      const store = yield* IdempotencyStore
      const { claims } = yield* Inspect
      const first = yield* offsets.claim("s", OffsetRanges.make(0, 10), terms("a"))
      yield* offsets.complete({ stream: "s", claimId: "a" }, OffsetRanges.make(2, 5))
      const second = yield* offsets.claim("s", OffsetRanges.openEnded(10), terms("b"))
      yield* offsets.claim("s", OffsetRanges.of(0), terms("refused"))
      const [third] = yield* store.claim("n", [{ key: "k" }, { key: "l" }], terms("c"))
      yield* store.complete({ namespace: "n", claimId: "c" }, [{ key: "k" }])
      yield* store.claim("m", [{ key: "k" }], terms("short", 1_000))
      yield* TestClock.adjust("1 second")
      const claim = (kind: string, of: string, claimId: string, token: unknown, held: number) => ({
        kind,
        of,
        claimId,
        owner: `owner of ${claimId}`,
        token,
        until: 30_000,
        held
      })
      const positions = [
        claim("offsets", "s", "a", first.token, 7),
        claim("offsets", "s", "b", second.token, Number.POSITIVE_INFINITY)
      ]
      const keys = [claim("keys", "n", "c", third._tag === "Claimed" && third.token, 1)]
      expect(yield* Stream.runCollect(claims())).toEqual([...positions, ...keys])
      expect(yield* Stream.runCollect(claims({ of: "s" }))).toEqual(positions)
      expect(yield* Stream.runCollect(claims({ of: "n" }))).toEqual(keys)
      expect(yield* Stream.runCollect(claims({ of: "m" }))).toEqual([])
    }).pipe(Effect.provide(SqliteStore.layer({ filename: ":memory:" })))
  )

  it.effect("goes through more than a page, each once", () =>
    Effect.gen(function* () {
      const offsets = yield* OffsetStore
      const store = yield* IdempotencyStore
      const { claims, keys, streams } = yield* Inspect
      const names = Array.from({ length: 1_203 }, (_, index) => `name ${String(index).padStart(4, "0")}`)
      yield* Effect.forEach(names, (name) => offsets.claim(name, OffsetRanges.of(0), terms(name)), {
        concurrency: "unbounded"
      })
      yield* store.claim(
        "n",
        names.map((key) => ({ key })),
        terms("c")
      )
      yield* Effect.forEach(names, (name) => store.claim("single", [{ key: name }], terms(name)), {
        concurrency: "unbounded"
      })
      expect((yield* Stream.runCollect(streams())).map(({ stream }) => stream)).toEqual(names)
      expect((yield* Stream.runCollect(keys({ namespace: "n" }))).map(({ key }) => key)).toEqual(names)
      expect(yield* Stream.runCollect(keys())).toHaveLength(2 * names.length)
      expect(yield* Stream.runCollect(claims())).toHaveLength(2 * names.length + 1)
      expect(yield* Stream.runCollect(Stream.take(keys(), 7))).toHaveLength(7)
    }).pipe(Effect.provide(SqliteStore.layer({ filename: ":memory:" })))
  )
})
