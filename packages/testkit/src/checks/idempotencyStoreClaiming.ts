/** Who is granted which key: invariants 1, 2, 5, 6, 7 (claims), 8. */
import type { IdempotencyStoreService, InvalidKey, Protocol } from "@tidemark/core"
import { Effect } from "effect"
import type { Check, ContractBroken } from "../Check.ts"
import { broken, ensure, failsWith, same } from "../internal/expect.ts"
import { endsAfter, terms, timed } from "./shared.ts"

type Answer = Protocol.KeyClaimAnswer | InvalidKey
type Claimed = Protocol.KeyClaimAnswer & { readonly _tag: "Claimed" }

/** Keys as the items of a claim. */
export const items = (...keys: ReadonlyArray<string>): ReadonlyArray<Protocol.KeyItem> =>
  keys.map((key) => ({ key }))

/** The answers' tags, for comparing. */
export const tags = (answers: ReadonlyArray<Answer>): string => answers.map(({ _tag }) => _tag).join(" ")

/** Fails unless the answer is `Claimed`; answers it. */
export const claimed = (what: string, answer: Answer | undefined): Effect.Effect<Claimed, ContractBroken> =>
  answer?._tag === "Claimed"
    ? Effect.succeed(answer)
    : broken(
        `${what}: expected Claimed, found ${answer === undefined ? "no answer" : JSON.stringify(answer)}`
      )

/** Keys of which a store that keeps them in shards has all in one: what a claim has in several is judged in each. */
const ofOneShard = ({ shardOf }: IdempotencyStoreService, ...names: ReadonlyArray<string>): Array<string> =>
  names.map((name) => {
    if (shardOf === undefined) return name
    for (let index = 0; ; index++) {
      const key = `${name} ${index}`
      if (shardOf(key) === 0) return key
    }
  })

export const idempotencyStoreClaiming: ReadonlyArray<Check<IdempotencyStoreService>> = [
  {
    invariant: 1,
    name: "a key is one claim's at a time, and others are told whose and until when",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const a = name("a")
        const first = yield* timed(time, store.claim(namespace, items("k", "l"), terms(a, time.longMillis)))
        const { until } = yield* claimed("the first claim on k", first.answer[0])
        yield* endsAfter("its lease", until, time.longMillis, first)
        const second = yield* store.claim(namespace, items("l", "m", "k"), terms(name("b"), time.longMillis))
        yield* same("another's claim", tags(second), "InFlight Claimed InFlight")
        yield* same("what it is told of k", second[2], { _tag: "InFlight", until, owner: a })
        const elsewhere = yield* store.claim(name("namespace"), items("k"), terms(name("c"), time.longMillis))
        yield* same("the same key in another namespace", tags(elsewhere), "Claimed")
        const status = yield* store.lookup(namespace, ["k", "m", "n"])
        yield* same("lookup", tags(status as never), "InFlight InFlight Unknown")
        yield* same("what lookup tells of k", status[0], { _tag: "InFlight", until, owner: a })
      })
  },
  {
    invariant: 1,
    name: "of many that ask at once each key is granted to exactly one",
    liveClock: true,
    run: ({ another, name, store, time }) =>
      Effect.gen(function* () {
        const instances = store.durable ? [store, yield* another, yield* another] : [store]
        const namespace = name("namespace")
        const keys = Array.from({ length: 40 }, (_, index) => `k${index}`)
        const answers = yield* Effect.forEach(
          Array.from({ length: 30 }, (_, index) => index),
          (index) =>
            instances[index % instances.length].claim(
              namespace,
              items(...keys.slice(index), ...keys.slice(0, index)),
              terms(name("claim"), time.longMillis)
            ),
          { concurrency: "unbounded" }
        )
        for (const [index, key] of keys.entries()) {
          const winners = answers.filter((answer, asker) => answer.at(index - asker)?._tag === "Claimed")
          yield* ensure(winners.length === 1, () => `${key} was granted ${winners.length} times`)
        }
      })
  },
  {
    invariant: 2,
    name: "each claim's token is above every earlier one of its key, and not below the store's time in microseconds",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        let last = (yield* time.now) * 1_000 - time.toleranceMillis * 1_000 - 1
        for (let index = 0; index < 30; index++) {
          const claimId = name("claim")
          const [answer] = yield* store.claim(
            namespace,
            items("k", `other-${index}`),
            terms(claimId, time.longMillis)
          )
          const { token } = yield* claimed(`claim number ${index}`, answer)
          yield* ensure(
            Number.isSafeInteger(token) && token > last,
            () => `claim number ${index} has the token ${token}, but must have an integer above ${last}`
          )
          last = token
          yield* store.release({ namespace, claimId })
        }
      })
  },
  {
    invariant: 2,
    name: "tokens grow across expiry, completion and its retention, and forget",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        let last = 0
        const next = (what: string) =>
          Effect.gen(function* () {
            const claimId = name("claim")
            const [answer] = yield* store.claim(namespace, items("k"), terms(claimId, time.shortMillis))
            const { token, until } = yield* claimed(what, answer)
            yield* ensure(token > last, () => `${what}: the token ${token} is not above ${last}`)
            last = token
            return { claimId, until }
          })
        yield* time.passTo((yield* next("the first claim")).until)
        const { claimId } = yield* next("after the first one's lease")
        const done = yield* timed(
          time,
          store.complete({ namespace, claimId }, [{ key: "k" }], { retentionMillis: time.shortMillis })
        )
        yield* same("complete", done.answer, ["Completed"])
        yield* time.passTo(done.to + time.shortMillis)
        yield* next("after the retention")
        yield* store.forget(namespace, ["k"])
        yield* next("after forget")
      })
  },
  {
    invariant: 2,
    name: "tokens grow across restarts, and from instance to instance",
    onlyDurable: true,
    run: ({ another, name, restarted, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        let last = 0
        const next = (what: string, from: IdempotencyStoreService) =>
          Effect.gen(function* () {
            const claimId = name("claim")
            const [answer] = yield* from.claim(namespace, items("k"), terms(claimId, time.longMillis))
            const { token } = yield* claimed(what, answer)
            yield* ensure(token > last, () => `${what}: the token ${token} is not above ${last}`)
            last = token
            yield* from.release({ namespace, claimId })
          })
        const second = yield* another
        yield* next("one instance", store)
        yield* next("another instance", second)
        yield* next("the first instance again", store)
        yield* next("a restarted instance", yield* restarted)
      })
  },
  {
    invariant: 5,
    name: "a live claim outlasts whatever else is claimed, and much time while it is renewed",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const ref = { namespace: name("namespace"), claimId: name("owner") }
        yield* store.claim(ref.namespace, items("k", "l"), terms(ref.claimId, time.longMillis))
        const rounds = time.exact ? 20 : 1
        for (let round = 0; round < rounds; round++) {
          for (let index = 0; index < 20; index++) {
            const other = { namespace: name("other"), claimId: name("claim") }
            const keys = Array.from({ length: 20 }, (_, key) => ({ key: `k${key}` }))
            yield* store.claim(other.namespace, keys, terms(other.claimId, 1))
            yield* store.complete(other, keys.slice(0, 10), { retentionMillis: 1 })
          }
          yield* time.pass(time.exact ? time.longMillis * 0.9 : 20)
          const [until] = yield* store.renew([{ ...ref, leaseMillis: time.longMillis }])
          yield* ensure(
            until !== undefined,
            () => `a claim that was renewed in time was lost in round ${round}`
          )
        }
        const other = yield* store.claim(
          ref.namespace,
          items("k", "l"),
          terms(name("other"), time.longMillis)
        )
        yield* same("another's claim on what is held", tags(other), "InFlight InFlight")
        const answer = yield* store.complete(ref, items("k", "l"))
        yield* same("what the holder completes", answer, ["Completed", "Completed"])
      })
  },
  {
    invariant: 6,
    name: "of equal keys in one call the first gets the claim",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const claimId = name("claim")
        const ask = store.claim(namespace, items("k", "k", "l", "k"), terms(claimId, time.longMillis))
        const first = yield* ask
        yield* same("k, k, l, k", tags(first), "Claimed InFlight Claimed InFlight")
        yield* same("asked again", tags(yield* ask), "Claimed InFlight Claimed InFlight")
        const answers = yield* store.complete({ namespace, claimId }, items("k", "k", "l"))
        yield* same("complete of k, k, l", answers, ["Completed", "AlreadyCompleted", "Completed"])
      })
  },
  {
    invariant: 6,
    name: "a thousand keys in one call are answered each by itself, in order",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const keys = Array.from({ length: 1_000 }, (_, index) => `key-${index}`)
        const a = name("a")
        const b = name("b")
        const thirds = keys.filter((_, index) => index % 3 === 0)
        yield* store.claim(namespace, items(...thirds), terms(a, time.longMillis))
        const answers = yield* store.claim(namespace, items(...keys), terms(b, time.longMillis))
        yield* same("the number of answers", answers.length, keys.length)
        for (const [index, answer] of answers.entries()) {
          yield* same(`the claim on ${keys[index]}`, answer._tag, index % 3 === 0 ? "InFlight" : "Claimed")
        }
        const done = yield* store.complete(
          { namespace, claimId: b },
          keys.map((key, index) => ({ key, result: index % 2 === 0 ? `"${index}"` : undefined }))
        )
        for (const [index, answer] of done.entries()) {
          yield* same(`the completion of ${keys[index]}`, answer, index % 3 === 0 ? "LeaseLost" : "Completed")
        }
        const statuses = yield* store.lookup(namespace, keys)
        for (const [index, status] of statuses.entries()) {
          const result = index % 2 === 0 ? `"${index}"` : undefined
          yield* same(
            `what is known of ${keys[index]}`,
            status._tag === "Completed" ? status.result : status._tag,
            index % 3 === 0 ? "InFlight" : result
          )
        }
        yield* same(
          "a claim on no keys",
          yield* store.claim(namespace, [], terms(name("c"), time.longMillis)),
          []
        )
        yield* same("a lookup of no keys", yield* store.lookup(namespace, []), [])
        yield* same("a completion of no keys", yield* store.complete({ namespace, claimId: a }, []), [])
      })
  },
  {
    invariant: 7,
    name: "a claim asked for again answers the same, and its lease is not prolonged",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const other = name("other")
        const [x, k, l, m] = ofOneShard(store, "x", "k", "l", "m")
        yield* store.claim(namespace, items(x), terms(other, time.longMillis))
        const claimId = name("claim")
        const keys = [{ key: x }, { key: k, fingerprint: "f" }, { key: l }, { key: m }]
        const ask = (leaseMillis: number) => store.claim(namespace, keys, terms(claimId, leaseMillis))
        const first = yield* ask(time.longMillis)
        yield* same("the claim", tags(first), "InFlight Claimed Claimed Claimed")
        yield* time.pass(time.exact ? 10 : 5)
        yield* same("asked again", yield* ask(time.longMillis), first)
        yield* same("asked again with another lease", yield* ask(time.longMillis * 2), first)
        yield* store.complete({ namespace, claimId }, [{ key: l, result: "1" }])
        yield* store.release({ namespace, claimId }, [m])
        yield* store.release({ namespace, claimId: other })
        const less = yield* ask(time.longMillis)
        yield* same(
          "asked again: what was given back, or not had at first, is not had later",
          tags(less),
          "InFlight Claimed Completed InFlight"
        )
        yield* same("asked again at last: k", less[1], first[1])
        yield* same("asked again at last: l", less[2], { _tag: "Completed", result: "1" })
        const third = yield* store.claim(namespace, items(x, m), terms(name("third"), time.longMillis))
        yield* same("what was given back is free for others", tags(third), "Claimed Claimed")
      })
  },
  {
    invariant: 7,
    name: "a claim asked for again after its lease, when nobody took it over, answers the same",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const [k, l] = ofOneShard(store, "k", "l")
        const ask = store.claim(namespace, items(k, l), terms(name("claim"), time.shortMillis))
        const first = yield* ask
        const { token, until } = yield* claimed("the claim", first[0])
        yield* time.passTo(until)
        yield* same("asked again", yield* ask, first)
        yield* store.claim(namespace, items(k), terms(name("other"), time.longMillis))
        const partly = yield* ask
        yield* same("asked again after another took k over", tags(partly), "InFlight Claimed")
        yield* same("the token for l", (yield* claimed("l", partly[1])).token, token)
        yield* store.claim(namespace, items(l), terms(name("other"), time.longMillis))
        yield* same("asked again after another took l too", tags(yield* ask), "InFlight InFlight")
      })
  },
  {
    invariant: 7,
    name: "the same claim id with other keys is ClaimIdReused, and changes nothing",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const claimId = name("claim")
        const [k, l, m] = ofOneShard(store, "k", "l", "m")
        const keys = [{ key: k, fingerprint: "f" }, { key: l }]
        const first = yield* store.claim(namespace, keys, terms(claimId, time.longMillis))
        const others: ReadonlyArray<ReadonlyArray<Protocol.KeyItem>> = [
          [keys[0]],
          [keys[1], keys[0]],
          [...keys, { key: m }],
          [{ key: k, fingerprint: "g" }, keys[1]],
          [{ key: k }, keys[1]],
          items(m)
        ]
        for (const other of others) {
          const call = store.claim(namespace, other, terms(claimId, time.longMillis))
          yield* failsWith(`the claim id with ${JSON.stringify(other)}`, call, "ClaimIdReused")
        }
        const again = yield* store.claim(namespace, keys, terms(claimId, time.longMillis))
        yield* same("asked again as at first", again, first)
        yield* same("lookup of m", tags((yield* store.lookup(namespace, [m])) as never), "Unknown")
      })
  },
  {
    invariant: 7,
    name: "what one instance claimed, another answers for, also after a restart",
    onlyDurable: true,
    run: ({ another, name, restarted, store, time }) =>
      Effect.gen(function* () {
        const ref = { namespace: name("namespace"), claimId: name("claim") }
        const ask = (from: IdempotencyStoreService) =>
          from.claim(ref.namespace, items("k", "l", "m"), terms(ref.claimId, time.longMillis))
        const first = yield* ask(store)
        const second = yield* another
        const other = yield* second.claim(ref.namespace, items("k"), terms(name("b"), time.longMillis))
        yield* same("another's claim by another instance", tags(other), "InFlight")
        yield* same("asked again of another instance", yield* ask(second), first)
        yield* second.complete(ref, [{ key: "k", result: '"r"' }])
        const anew = yield* restarted
        const again = yield* ask(anew)
        yield* same("asked again after a restart: k", again[0], { _tag: "Completed", result: '"r"' })
        yield* same("asked again after a restart: l", again[1], first[1])
        yield* same("completed after a restart", yield* anew.complete(ref, items("k", "l", "m")), [
          "AlreadyCompleted",
          "Completed",
          "Completed"
        ])
      })
  },
  {
    invariant: 8,
    name: "a lease holds until its end, and not beyond",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const first = yield* store.claim(namespace, items("k", "l"), terms(name("holder"), time.shortMillis))
        const { until } = yield* claimed("the first claim", first[0])
        if (time.exact) {
          yield* time.passTo(until - 1)
          const early = yield* store.claim(namespace, items("k"), terms(name("early"), time.longMillis))
          yield* same("asked for a millisecond before the lease's end", tags(early), "InFlight")
        }
        yield* time.passTo(until)
        const status = yield* store.lookup(namespace, ["k", "l"])
        yield* same("lookup at the lease's end", tags(status as never), "Unknown Unknown")
        const late = yield* store.claim(namespace, items("k"), terms(name("late"), time.longMillis))
        yield* same("asked for at the lease's end", tags(late), "Claimed")
      })
  }
]
