/**
 * Invariant 7, for real: ioredis sends again, after it has reconnected, what was not answered. The answer to the first
 * is lost, and meanwhile the network is gone, so that others may do what they like before the second arrives.
 */
import { describe, it } from "@effect/vitest"
import { OffsetRanges } from "@tidemark/core"
import { describeWithOwnRedis } from "@tidemark/test-servers/vitest"
import { Effect, Fiber } from "effect"
import { expect } from "vitest"
import {
  claimKey,
  eachSucceeds,
  expectFailure,
  holding,
  networkBefore,
  openStore,
  ownRedis,
  type Store,
  termsOf
} from "./harness.ts"

const ranges = OffsetRanges.make(0, 10)
const items = [{ key: "one" }]

const setting = (timeout = 20_000) =>
  Effect.gen(function* () {
    const redis = yield* ownRedis()
    const network = yield* networkBefore(redis.address)
    /** Whose calls arrive twice, or late. */
    const ours = yield* openStore({ url: `redis://${network.address}`, timeout })
    const theirs = yield* openStore({ url: redis.url })
    // else the first answer, which is lost, would be that the script is not known
    const { asking, settling } = yield* holding(theirs)
    yield* eachSucceeds({ ...asking, ...settling })
    /** Lets `call` take effect and loses its answer; then `meanwhile`, then it arrives again, and is answered. */
    const sentTwice = <A, E, E2>(call: Effect.Effect<A, E>, meanwhile: Effect.Effect<unknown, E2>) =>
      Effect.gen(function* () {
        const lost = network.loseNextAnswer("evalsha").then(() => network.refuse())
        const answer = yield* Effect.forkChild(call, { startImmediately: true })
        yield* Effect.promise(() => lost)
        yield* meanwhile
        yield* Effect.promise(() => network.heal())
        return yield* Fiber.join(answer)
      })
    /** Sends a call whose caller gives up before it arrives; `meanwhile`; then it arrives. */
    const arrivesLate = <A, E, E2>(call: Effect.Effect<A, E>, meanwhile: Effect.Effect<unknown, E2>) =>
      Effect.gen(function* () {
        network.halfOpen()
        expectFailure(yield* Effect.flip(call), { reason: "Timeout", retriable: true })
        yield* meanwhile
        yield* Effect.promise(() => network.heal())
        // whatever was on its way before it has arrived
        yield* ours.offsets.progress("anything")
      })
    return { ours, theirs, sentTwice, arrivesLate }
  })

const keyUntil = ({ keys }: Store) =>
  Effect.map(keys.lookup("orders", ["one"]), ([status]) =>
    status!._tag === "InFlight" ? status!.until : undefined
  )

const streamClaims = ({ offsets }: Store) =>
  Effect.map(offsets.progress("orders"), (progress) => progress?.claims ?? [])

/** Until the lease of whoever holds them is over. */
const takesOver = (store: Store, terms: ReturnType<typeof termsOf>) =>
  Effect.gen(function* () {
    while ((yield* keyUntil(store)) !== undefined || (yield* streamClaims(store)).length > 0) {
      yield* Effect.sleep("10 millis")
    }
    const token = yield* claimKey(store, "orders", "one", terms)
    const answer = yield* store.offsets.claim("orders", ranges, terms)
    expect(answer.granted).toEqual(ranges)
    return { key: token, stream: answer.token! }
  })

/** What they hold is theirs still, and they can settle it. */
const expectTheirs = (store: Store, { claimId }: { readonly claimId: string }) =>
  Effect.gen(function* () {
    const settled = yield* store.keys.complete({ namespace: "orders", claimId }, [
      { key: "one", result: '"theirs"' }
    ])
    expect(settled).toEqual(["Completed"])
    const { completed } = yield* store.offsets.complete({ stream: "orders", claimId }, ranges)
    expect(completed).toEqual(ranges)
    expect(yield* store.keys.lookup("orders", ["one"])).toMatchObject([{ result: '"theirs"' }])
  })

await describeWithOwnRedis("a call that ioredis sends again", () => {
  describe.concurrent("each on servers of its own", () => {
    it.live("claim of keys: the same token, and the lease is not prolonged", () =>
      Effect.gen(function* () {
        const { ours, sentTwice, theirs } = yield* setting()
        const terms = termsOf()
        let until: number | undefined
        const [answer] = yield* sentTwice(
          ours.keys.claim("orders", items, terms),
          Effect.gen(function* () {
            until = yield* keyUntil(theirs)
            expect(until).toBeGreaterThan(0)
            // time passes, which a lease that is prolonged would show
            while ((yield* keyUntil(theirs)) === undefined || Date.now() < until! - 29_900)
              yield* Effect.sleep(5)
          })
        )
        expect(answer).toMatchObject({ _tag: "Claimed", until })
        expect(yield* keyUntil(theirs)).toBe(until)
        expect(yield* ours.keys.claim("orders", items, terms)).toEqual([answer])
        expect(yield* claimKey(theirs, "orders", "other")).toBeGreaterThan(
          (answer as { readonly token: number }).token
        )
      })
    )

    it.live("claim of offsets: the same token and ranges, and the lease is not prolonged", () =>
      Effect.gen(function* () {
        const { ours, sentTwice, theirs } = yield* setting()
        const terms = termsOf()
        let first: { readonly token: number; readonly until: number } | undefined
        const answer = yield* sentTwice(
          ours.offsets.claim("orders", ranges, terms),
          Effect.gen(function* () {
            const progress = yield* theirs.offsets.progress("orders")
            first = { token: progress!.lastToken, until: progress!.claims[0]!.until }
            while (Date.now() < first.until - 29_900) yield* Effect.sleep(5)
          })
        )
        expect(answer).toMatchObject({ ...first, granted: ranges })
        expect(yield* streamClaims(theirs)).toMatchObject([{ until: first!.until }])
      })
    )

    it.live("complete: done once, and its result stays", () =>
      Effect.gen(function* () {
        const { ours, sentTwice, theirs } = yield* setting()
        const terms = termsOf()
        yield* ours.keys.claim("orders", items, terms)
        yield* ours.offsets.claim("orders", ranges, terms)
        const ofKeys = yield* sentTwice(
          ours.keys.complete({ namespace: "orders", claimId: terms.claimId }, [
            { key: "one", result: '"ours"' }
          ]),
          Effect.map(theirs.keys.claim("orders", items, termsOf()), (answers) =>
            expect(answers).toEqual([{ _tag: "Completed", result: '"ours"' }])
          )
        )
        expect(ofKeys).toEqual(["AlreadyCompleted"])
        const ofOffsets = yield* sentTwice(
          ours.offsets.complete({ stream: "orders", claimId: terms.claimId }, ranges),
          Effect.map(theirs.offsets.claim("orders", ranges, termsOf()), ({ completed }) =>
            expect(completed).toEqual(ranges)
          )
        )
        expect(ofOffsets).toMatchObject({ alreadyCompleted: ranges, leaseLost: OffsetRanges.empty })
      })
    )

    it.live("release: what another has claimed meanwhile stays his", () =>
      Effect.gen(function* () {
        const { ours, sentTwice, theirs } = yield* setting()
        const [terms, other] = [termsOf(), termsOf()]
        const ref = { namespace: "orders", stream: "orders", claimId: terms.claimId }
        // of a claim that goes on: one that is over is not even known
        const [answer] = yield* ours.keys.claim("orders", [...items, { key: "two" }], terms)
        const { token } = answer as { readonly token: number }
        yield* ours.offsets.claim("orders", OffsetRanges.make(0, 20), terms)
        yield* sentTwice(
          ours.keys.release(ref, ["one"]),
          Effect.map(claimKey(theirs, "orders", "one", other), (next) => expect(next).toBeGreaterThan(token))
        )
        yield* sentTwice(
          ours.offsets.release(ref, ranges),
          Effect.map(theirs.offsets.claim("orders", ranges, other), ({ granted }) =>
            expect(granted).toEqual(ranges)
          )
        )
        yield* expectTheirs(theirs, other)
      })
    )

    it.live("renew: our lease lasts on; what another took over when it ended stays his", () =>
      Effect.gen(function* () {
        const { ours, sentTwice, theirs } = yield* setting()
        const [terms, other] = [termsOf(), termsOf()]
        const { claimId } = terms
        yield* claimKey(ours, "orders", "one", terms)
        yield* ours.offsets.claim("orders", ranges, terms)
        const renewed = yield* sentTwice(
          ours.keys.renew([{ namespace: "orders", claimId, leaseMillis: 30_000 }]),
          Effect.void
        )
        expect(yield* keyUntil(theirs)).toBe(renewed[0])
        yield* ours.keys.release({ namespace: "orders", claimId })
        yield* ours.offsets.release({ stream: "orders", claimId })

        const short = termsOf(300)
        yield* claimKey(ours, "orders", "one", short)
        yield* ours.offsets.claim("orders", ranges, short)
        const ref = { claimId: short.claimId, leaseMillis: 300 }
        const ofKeys = yield* sentTwice(
          ours.keys.renew([{ ...ref, namespace: "orders" }]),
          takesOver(theirs, other)
        )
        expect(ofKeys).toEqual([undefined])
        const ofOffsets = yield* sentTwice(ours.offsets.renew([{ ...ref, stream: "orders" }]), Effect.void)
        expect(ofOffsets).toEqual([undefined])
        yield* expectTheirs(theirs, other)
      })
    )

    it.live("claim whose lease was over when it arrived again gets nothing that another took over", () =>
      Effect.gen(function* () {
        const { ours, sentTwice, theirs } = yield* setting()
        const [short, other] = [termsOf(300), termsOf()]
        const answers = yield* sentTwice(ours.keys.claim("orders", items, short), takesOver(theirs, other))
        expect(answers).toMatchObject([{ _tag: "InFlight" }])
        yield* expectTheirs(theirs, other)
        const late = yield* sentTwice(
          ours.offsets.claim("orders", OffsetRanges.make(10, 20), termsOf(300)),
          Effect.gen(function* () {
            while ((yield* streamClaims(theirs)).length > 0) yield* Effect.sleep(10)
            yield* theirs.offsets.claim("orders", OffsetRanges.make(10, 20), other)
          })
        )
        expect(late).toMatchObject({ granted: OffsetRanges.empty, token: undefined })
        expect(late.held.length).toBe(1)
      })
    )
  })
})

await describeWithOwnRedis("a call that arrives after its caller gave up", () => {
  describe.concurrent("each on servers of its own", () => {
    it.live("claim: holds for one lease and no longer, and its successor's token is greater", () =>
      Effect.gen(function* () {
        const { arrivesLate, ours, theirs } = yield* setting(300)
        const lease = 400
        yield* arrivesLate(
          Effect.all(
            [
              ours.keys.claim("orders", items, termsOf(lease)),
              ours.offsets.claim("orders", ranges, termsOf(lease))
            ],
            { concurrency: "unbounded" }
          ),
          Effect.void
        )
        const arrived = Date.now()
        const before = yield* theirs.offsets.progress("orders")
        const { stream } = yield* takesOver(theirs, termsOf())
        expect(stream).toBeGreaterThan(before!.lastToken)
        // a busy machine's delay included
        expect(Date.now() - arrived).toBeLessThan(lease + 2_000)
      })
    )

    it.live("complete, release and renew: change nothing of what another took over", () =>
      Effect.gen(function* () {
        const { arrivesLate, ours, theirs } = yield* setting(300)
        const [short, other] = [termsOf(500), termsOf()]
        const { claimId } = short
        const token = yield* claimKey(ours, "orders", "one", short)
        const claimed = yield* ours.offsets.claim("orders", ranges, short)
        yield* arrivesLate(
          Effect.all(
            [
              ours.keys.complete({ namespace: "orders", claimId }, [{ key: "one", result: '"ours"' }]),
              ours.offsets.complete({ stream: "orders", claimId }, ranges),
              ours.keys.release({ namespace: "orders", claimId }),
              ours.offsets.release({ stream: "orders", claimId }),
              ours.keys.renew([{ namespace: "orders", claimId, leaseMillis: 60_000 }]),
              ours.offsets.renew([{ stream: "orders", claimId, leaseMillis: 60_000 }])
            ],
            { concurrency: "unbounded" }
          ),
          Effect.map(takesOver(theirs, other), (tokens) => {
            expect(tokens.key).toBeGreaterThan(token)
            expect(tokens.stream).toBeGreaterThan(claimed.token!)
          })
        )
        expect(yield* ours.offsets.isCompleted("orders", 5)).toBe(false)
        yield* expectTheirs(theirs, other)
      })
    )

    it.live("complete that nobody has overtaken: counts, since nobody else did it", () =>
      Effect.gen(function* () {
        const { arrivesLate, ours, theirs } = yield* setting(300)
        const terms = termsOf()
        yield* claimKey(ours, "orders", "one", terms)
        yield* arrivesLate(
          ours.keys.complete({ namespace: "orders", claimId: terms.claimId }, [{ key: "one" }]),
          Effect.void
        )
        expect(yield* theirs.keys.claim("orders", items, termsOf())).toMatchObject([{ _tag: "Completed" }])
      })
    )
  })
})
