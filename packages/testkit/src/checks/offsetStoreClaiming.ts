/** Who is granted what of a stream: invariants 1, 2, 5, 7 (claims), 8. */
import { OffsetRanges, type OffsetStoreService, type Protocol } from "@tidemark/core"
import { Effect } from "effect"
import type { Check, ContractBroken } from "../Check.ts"
import { broken, ensure, failsWith, same } from "../internal/expect.ts"
import { endsAfter, terms, timed } from "./shared.ts"

const { make, of, openEnded } = OffsetRanges

/** All parts of an answer that another holds, as one set. */
export const heldOf = (answer: Protocol.OffsetClaimAnswer): OffsetRanges.OffsetRanges =>
  answer.held.reduce((all, part) => OffsetRanges.union(all, part.ranges), OffsetRanges.empty)

/** Fails unless the claim was granted exactly this; answers its token and end. */
export const granted = (
  what: string,
  answer: Protocol.OffsetClaimAnswer,
  ranges: OffsetRanges.OffsetRanges
): Effect.Effect<{ readonly token: number; readonly until: number }, ContractBroken> =>
  Effect.gen(function* () {
    yield* same(`${what}: granted`, answer.granted, ranges)
    const { token, until } = answer
    if (token === undefined || until === undefined) {
      return yield* broken(`${what}: ${ranges} was granted, but without a token or an end of its lease`)
    }
    return { token, until }
  })

/** Fails if anything was granted. */
export const refused = (
  what: string,
  answer: Protocol.OffsetClaimAnswer
): Effect.Effect<void, ContractBroken> =>
  Effect.gen(function* () {
    yield* same(`${what}: granted`, answer.granted, OffsetRanges.empty)
    yield* same(`${what}: the token of a claim that was granted nothing`, answer.token, undefined)
    yield* same(`${what}: the end of a claim that was granted nothing`, answer.until, undefined)
  })

export const offsetStoreClaiming: ReadonlyArray<Check<OffsetStoreService>> = [
  {
    invariant: 1,
    name: "a claim is granted what nobody holds, and is told who holds the rest and until when",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const a = name("a")
        const first = yield* timed(time, store.claim(stream, make(0, 10), terms(a, time.longMillis)))
        const { until } = yield* granted("the first claim", first.answer, make(0, 10))
        yield* endsAfter("the first claim's lease", until, time.longMillis, first)
        const second = yield* store.claim(stream, make(5, 15), terms(name("b"), time.longMillis))
        yield* granted("a claim that overlaps it", second, make(10, 15))
        yield* same("what it is told of the rest", second.held, [{ ranges: make(5, 10), until, owner: a }])
        const third = yield* store.claim(stream, make(2, 8), terms(name("c"), time.longMillis))
        yield* refused("a claim inside of it", third)
        yield* same("what that is told", heldOf(third), make(2, 8))
      })
  },
  {
    invariant: 1,
    name: "claims that touch don't overlap, and every part of an answer is told once",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const claim = (ranges: OffsetRanges.OffsetRanges) =>
          store.claim(stream, ranges, terms(name("claim"), time.longMillis))
        yield* granted("[10,20)", yield* claim(make(10, 20)), make(10, 20))
        yield* granted("[0,10), which touches it", yield* claim(make(0, 10)), make(0, 10))
        yield* granted("[20,21), which touches it", yield* claim(of(20)), of(20))
        const done = name("done")
        yield* store.claim(stream, make(30, 35), terms(done, time.longMillis))
        yield* store.complete({ stream, claimId: done }, make(30, 32))
        const asked = OffsetRanges.fromRanges([
          [8, 12],
          [25, 40],
          [50, 51]
        ])
        const answer = yield* claim(asked)
        yield* same("granted", String(answer.granted), "[25,30) [35,40) [50,51)")
        yield* same("completed", String(answer.completed), "[30,32)")
        yield* same("held by others", String(heldOf(answer)), "[8,12) [32,35)")
      })
  },
  {
    invariant: 1,
    name: "of many that ask at once each offset is granted to exactly one",
    liveClock: true,
    run: ({ another, name, store, time }) =>
      Effect.gen(function* () {
        const instances = store.durable ? [store, yield* another, yield* another] : [store]
        const stream = name("stream")
        const answers = yield* Effect.forEach(
          Array.from({ length: 30 }, (_, index) => index),
          (index) =>
            instances[index % instances.length].claim(
              stream,
              make(index, index + 30),
              terms(name("claim"), time.longMillis)
            ),
          { concurrency: "unbounded" }
        )
        let all = OffsetRanges.empty
        for (const { granted: part } of answers) {
          yield* ensure(!OffsetRanges.overlaps(all, part), () => `${part} was granted twice`)
          all = OffsetRanges.union(all, part)
        }
        yield* same("what was granted to anybody", all, make(0, 59))
        const tokens = answers.flatMap(({ token }) => (token === undefined ? [] : [token]))
        yield* same("different tokens", new Set(tokens).size, tokens.length)
      })
  },
  {
    invariant: 1,
    name: "an open-ended claim is granted whole, completed parts excepted, or not at all",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const batch = name("batch")
        yield* store.claim(stream, make(0, 20), terms(batch, time.longMillis))
        yield* store.complete({ stream, claimId: batch }, make(5, 10))
        const whole = yield* store.claim(stream, openEnded(5), terms(name("owner"), time.longMillis))
        yield* refused("an open-ended claim over one that is live", whole)
        yield* same("what it is told of the completed part", whole.completed, make(5, 10))
        yield* same("what it is told is held", heldOf(whole), make(10, 20))
        const above = name("above")
        const touching = yield* store.claim(stream, openEnded(20), terms(above, time.longMillis))
        yield* granted("an open-ended claim that only touches it", touching, openEnded(20))
        const inside = yield* store.claim(stream, of(1_000_000), terms(name("inside"), time.longMillis))
        yield* refused("an offset far inside the open-ended claim", inside)
        yield* store.release({ stream, claimId: batch })
        yield* store.release({ stream, claimId: above })
        const again = yield* store.claim(stream, openEnded(0), terms(name("again"), time.longMillis))
        yield* same(
          "granted when all was given back",
          again.granted,
          OffsetRanges.remove(openEnded(0), 5, 10)
        )
      })
  },
  {
    invariant: 1,
    name: "progress lists the live claims, with what of them is not completed",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        yield* same("a stream that nothing was claimed of", yield* store.progress(stream), undefined)
        const a = name("a")
        const b = name("b")
        const first = yield* store.claim(stream, make(0, 10), terms(a, time.longMillis))
        const second = yield* store.claim(stream, openEnded(10), terms(b, time.longMillis))
        yield* store.complete({ stream, claimId: a }, make(0, 4))
        const claims = (yield* store.progress(stream))?.claims.toSorted((x, y) => x.token - y.token)
        yield* same("the claims", claims, [
          { claimId: a, owner: a, token: first.token, until: first.until, ranges: make(4, 10) },
          { claimId: b, owner: b, token: second.token, until: second.until, ranges: openEnded(10) }
        ])
      })
  },
  {
    invariant: 2,
    name: "each claim's token is above every earlier one of its stream, and not below the store's time in microseconds",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        let last = (yield* time.now) * 1_000 - time.toleranceMillis * 1_000 - 1
        for (let index = 0; index < 30; index++) {
          const claimId = name("claim")
          const answer = yield* store.claim(stream, make(index % 3, 5), terms(claimId, time.longMillis))
          const { token } = yield* granted(`claim number ${index}`, answer, make(index % 3, 5))
          yield* ensure(
            Number.isSafeInteger(token) && token > last,
            () => `claim number ${index} has the token ${token}, but must have an integer above ${last}`
          )
          last = token
          yield* store.release({ stream, claimId })
        }
        yield* same("the last token that progress tells", (yield* store.progress(stream))?.lastToken, last)
      })
  },
  {
    invariant: 2,
    name: "tokens grow across expiry, rewind, skip and forget",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        let last = 0
        const claimed = (what: string) =>
          Effect.gen(function* () {
            const answer = yield* store.claim(stream, make(0, 9), terms(name("claim"), time.shortMillis))
            yield* ensure(
              answer.token !== undefined && answer.token > last,
              () => `${what}: the token ${answer.token} is not above ${last}`
            )
            last = answer.token as number
            return answer.until as number
          })
        yield* time.passTo(yield* claimed("the first claim"))
        yield* claimed("after the first one's lease")
        yield* store.rewind(stream, 0)
        yield* claimed("after a rewind")
        yield* store.skip(stream, of(0))
        yield* claimed("after a skip")
        yield* store.forget(stream)
        yield* claimed("after forget")
      })
  },
  {
    invariant: 2,
    name: "tokens grow across restarts, and from instance to instance",
    onlyDurable: true,
    run: ({ another, name, restarted, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const claim = (from: OffsetStoreService, offset: number) =>
          Effect.map(
            from.claim(stream, of(offset), terms(name("claim"), time.longMillis)),
            ({ token }) => token
          )
        const tokens = [yield* claim(store, 0), yield* claim(yield* another, 1), yield* claim(store, 2)]
        tokens.push(yield* claim(yield* restarted, 3))
        for (let index = 1; index < tokens.length; index++) {
          yield* ensure((tokens[index] as number) > (tokens[index - 1] as number), () => `tokens: ${tokens}`)
        }
      })
  },
  {
    invariant: 5,
    name: "a live claim outlasts whatever else is claimed, and much time while it is renewed",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const ref = { stream, claimId: name("owner") }
        yield* store.claim(stream, openEnded(0), terms(ref.claimId, time.longMillis))
        const rounds = time.exact ? 20 : 1
        for (let round = 0; round < rounds; round++) {
          for (let index = 0; index < 100; index++) {
            const other = name("other")
            yield* store.claim(other, of(index), terms(name("claim"), 1))
          }
          yield* time.pass(time.exact ? time.longMillis * 0.9 : 20)
          const [until] = yield* store.renew([{ ...ref, leaseMillis: time.longMillis }])
          yield* ensure(
            until !== undefined,
            () => `a claim that was renewed in time was lost in round ${round}`
          )
        }
        const other = yield* store.claim(stream, of(7), terms(name("other"), time.longMillis))
        yield* refused("another's claim on what is held", other)
        const answer = yield* store.complete(ref, make(0, 100))
        yield* same("what the holder completes", answer.completed, make(0, 100))
      })
  },
  {
    invariant: 7,
    name: "a claim asked for again answers the same, and its lease is not prolonged",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const other = name("other")
        yield* store.claim(stream, make(0, 3), terms(other, time.longMillis))
        const claimId = name("claim")
        const ask = (leaseMillis: number) => store.claim(stream, make(0, 10), terms(claimId, leaseMillis))
        const first = yield* ask(time.longMillis)
        yield* granted("the claim", first, make(3, 10))
        yield* time.pass(time.exact ? 10 : 5)
        yield* same("asked again", yield* ask(time.longMillis), first)
        yield* same("asked again with another lease", yield* ask(time.longMillis * 2), first)
        yield* store.complete({ stream, claimId }, make(3, 5))
        const partly = yield* ask(time.longMillis)
        yield* same("asked again when a part is completed: granted", partly.granted, make(5, 10))
        yield* same("asked again when a part is completed: completed", partly.completed, make(3, 5))
        yield* same("asked again when a part is completed: token", partly.token, first.token)
        yield* store.release({ stream, claimId }, make(8, 10))
        yield* store.release({ stream, claimId: other })
        const less = yield* ask(time.longMillis)
        yield* same(
          "asked again: what was given back, or not had at first, is not had later",
          less.granted,
          make(5, 8)
        )
        yield* same("asked again at last: until", less.until, first.until)
      })
  },
  {
    invariant: 7,
    name: "a claim asked for again after its lease, when nobody took it over, answers the same",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const claimId = name("claim")
        const ask = store.claim(stream, make(0, 10), terms(claimId, time.shortMillis))
        const first = yield* ask
        yield* time.passTo(first.until as number)
        yield* same("asked again", yield* ask, first)
        yield* store.claim(stream, of(3), terms(name("other"), time.longMillis))
        const anew = yield* timed(time, ask)
        yield* same(
          "asked again after another took a part over: granted",
          anew.answer.granted,
          OffsetRanges.remove(make(0, 10), 3, 4)
        )
        yield* ensure(
          (anew.answer.token as number) > (first.token as number),
          () => "it is a new claim then, but has not a new token"
        )
        yield* endsAfter("the new claim's lease", anew.answer.until, time.shortMillis, anew)
      })
  },
  {
    invariant: 7,
    name: "the same claim id with other ranges is ClaimIdReused, and changes nothing",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const claimId = name("claim")
        const first = yield* store.claim(stream, make(0, 10), terms(claimId, time.longMillis))
        const before = yield* store.progress(stream)
        for (const other of [make(0, 11), make(0, 9), make(20, 30), openEnded(0)]) {
          const call = store.claim(stream, other, terms(claimId, time.longMillis))
          yield* failsWith(`the claim id of [0,10) with ${other}`, call, "ClaimIdReused")
        }
        yield* same("progress after it", yield* store.progress(stream), before)
        const again = yield* store.claim(stream, make(0, 10), terms(claimId, time.longMillis))
        yield* same("asked again as at first", again, first)
        const elsewhere = yield* store.claim(name("stream"), make(0, 11), terms(claimId, time.longMillis))
        yield* granted(
          "the same claim id in another stream, where it is another claim",
          elsewhere,
          make(0, 11)
        )
      })
  },
  {
    invariant: 7,
    name: "what one instance claimed, another answers for, also after a restart",
    onlyDurable: true,
    run: ({ another, name, restarted, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const claimId = name("claim")
        const first = yield* store.claim(stream, make(0, 10), terms(claimId, time.longMillis))
        const second = yield* another
        yield* refused(
          "another's claim by another instance",
          yield* second.claim(stream, of(3), terms(name("b"), 1_000))
        )
        yield* same(
          "asked again of another instance",
          yield* second.claim(stream, make(0, 10), terms(claimId, time.longMillis)),
          first
        )
        yield* second.complete({ stream, claimId }, make(0, 4))
        const before = yield* store.progress(stream)
        const anew = yield* restarted
        yield* same("progress after a restart", yield* anew.progress(stream), before)
        const answer = yield* anew.complete({ stream, claimId }, make(0, 10))
        yield* same("completed after a restart", answer.completed, make(4, 10))
      })
  },
  {
    invariant: 8,
    name: "a lease holds until its end, and not beyond",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const stream = name("stream")
        const holder = name("holder")
        const first = yield* store.claim(stream, make(0, 10), terms(holder, time.shortMillis))
        const until = first.until as number
        if (time.exact) {
          yield* time.passTo(until - 1)
          const early = yield* store.claim(stream, openEnded(0), terms(name("early"), time.longMillis))
          yield* refused("asked for a millisecond before the lease's end", early)
        }
        yield* time.passTo(until)
        yield* same("the live claims at the lease's end", (yield* store.progress(stream))?.claims, [])
        const late = yield* store.claim(stream, of(4), terms(name("late"), time.longMillis))
        yield* granted("asked for at the lease's end", late, of(4))
      })
  }
]
