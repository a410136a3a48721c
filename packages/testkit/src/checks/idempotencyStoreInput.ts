/** What no store may take, and what every store must: invariant 9. */
import type { IdempotencyStoreService } from "@tidemark/core"
import { Effect } from "effect"
import type { Check } from "../Check.ts"
import { failsWith, same } from "../internal/expect.ts"
import { claimed, items, tags } from "./idempotencyStoreClaiming.ts"
import { allowedNames, refusedMillis, refusedNames, terms, treacherousNames } from "./shared.ts"

export const idempotencyStoreInput: ReadonlyArray<Check<IdempotencyStoreService>> = [
  {
    invariant: 9,
    name: "bad input is InvalidInput in every verb, and nothing is written",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const ref = { namespace, claimId: name("claim") }
        const good = terms(ref.claimId, time.longMillis)
        for (const [what, bad] of refusedNames) {
          const calls = {
            "claim in": store.claim(bad, items("k"), good),
            "claim with a claim id that is": store.claim(namespace, items("k"), { ...good, claimId: bad }),
            "claim with an owner that is": store.claim(namespace, items("k"), { ...good, owner: bad }),
            "complete in": store.complete({ ...ref, namespace: bad }, items("k")),
            "complete by": store.complete({ ...ref, claimId: bad }, items("k")),
            "release in": store.release({ ...ref, namespace: bad }),
            "release by": store.release({ ...ref, claimId: bad }),
            "release of": store.release(ref, [bad]),
            "renew in": store.renew([{ ...ref, namespace: bad, leaseMillis: 1 }]),
            "renew by": store.renew([{ ...ref, claimId: bad, leaseMillis: 1 }]),
            "lookup in": store.lookup(bad, ["k"]),
            "forget in": store.forget(bad, ["k"]),
            "forget of": store.forget(namespace, [bad])
          }
          for (const [verb, call] of Object.entries(calls)) {
            yield* failsWith(
              `${verb} ${what}`,
              call as Effect.Effect<unknown, { readonly _tag: string }>,
              "InvalidInput"
            )
          }
        }
        for (const millis of refusedMillis) {
          const bad = { ...good, leaseMillis: millis }
          yield* failsWith(`claim for ${millis} ms`, store.claim(namespace, items("k"), bad), "InvalidInput")
          yield* failsWith(
            `renew for ${millis} ms`,
            store.renew([{ ...ref, leaseMillis: millis }]),
            "InvalidInput"
          )
          const remembered = store.complete(ref, items("k"), { retentionMillis: millis })
          yield* failsWith(`remembered for ${millis} ms`, remembered, "InvalidInput")
        }
        yield* same(
          "lookup after all of it",
          tags((yield* store.lookup(namespace, ["k"])) as never),
          "Unknown"
        )
      })
  },
  {
    invariant: 9,
    name: "a bad key in a claim gets an answer of its own and spoils no other",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const bad = refusedNames.map(([, key]) => key)
        const keys = [bad[0], "k", bad[1], bad[2], "l", bad[3], "k"]
        const ask = store.claim(namespace, items(...keys), terms(name("claim"), time.longMillis))
        const first = yield* ask
        yield* same("the answers", tags(first), "Invalid Claimed Invalid Invalid Claimed Invalid InFlight")
        for (const answer of first) {
          if (answer._tag === "Invalid") yield* same("the field of the error", answer.error.field, "key")
        }
        yield* same("asked again", tags(yield* ask), tags(first))
        const badFingerprint = [{ key: "m", fingerprint: "" }, { key: "n" }]
        const answers = yield* store.claim(namespace, badFingerprint, terms(name("claim"), time.longMillis))
        yield* same("a bad fingerprint", tags(answers), "Invalid Claimed")
        const none = yield* store.claim(namespace, items(...bad), terms(name("claim"), time.longMillis))
        yield* same("only bad keys", tags(none), "Invalid Invalid Invalid Invalid")
        yield* same("lookup of m", tags((yield* store.lookup(namespace, ["m"])) as never), "Unknown")
      })
  },
  {
    invariant: 6,
    name: "a bad key spoils no other in complete, lookup, release and forget either",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const ref = { namespace, claimId: name("claim") }
        yield* store.claim(namespace, items("k", "l", "m"), terms(ref.claimId, time.longMillis))
        for (const [what, bad] of refusedNames) {
          yield* failsWith(`release of ${what}`, store.release(ref, [bad, "m"]), "InvalidInput")
          const [, released] = yield* store.lookup(namespace, [bad, "m"])
          yield* same("what was released beside it", released._tag, "Unknown")
          const answers = yield* store.complete(ref, items(bad, "k", bad))
          yield* same(
            `complete of ${what}`,
            answers.map((answer) => (typeof answer === "string" ? answer : answer._tag)).join(" "),
            `Invalid ${what === refusedNames[0][0] ? "Completed" : "AlreadyCompleted"} Invalid`
          )
          const statuses = yield* store.lookup(namespace, [bad, "k", "l"])
          yield* same(`lookup of ${what}`, tags(statuses as never), "Invalid Completed InFlight")
        }
        yield* failsWith("forget", store.forget(namespace, [refusedNames[0][1], "k"]), "InvalidInput")
        const [forgotten] = yield* store.lookup(namespace, ["k"])
        yield* same("what was forgotten beside it", forgotten._tag, "Unknown")
      })
  },
  {
    invariant: 9,
    name: "names of any characters, up to 1,024 bytes, are taken as they are, and kept apart",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const named = [...allowedNames(name("key")), ...treacherousNames.map((key) => [key, key] as const)]
        const keys = named.map(([, key]) => key)
        const ref = { namespace, claimId: name("claim") }
        const answers = yield* store.claim(
          namespace,
          keys.map((key) => ({ key, fingerprint: key })),
          terms(ref.claimId, time.longMillis)
        )
        for (const [index, answer] of answers.entries())
          yield* claimed(`a key that is ${named[index][0]}`, answer)
        yield* store.complete(
          ref,
          keys.map((key) => ({ key, result: key }))
        )
        const statuses = yield* store.lookup(namespace, keys)
        for (const [index, status] of statuses.entries()) {
          const result = status._tag === "Completed" ? status.result : status
          yield* same(`the result of a key that is ${named[index][0]}`, result, keys[index])
        }
        const namespaces = allowedNames(name("namespace"))
        for (const [what, one] of namespaces) {
          const [answer] = yield* store.claim(one, items("k"), terms(name("claim"), time.longMillis))
          yield* claimed(`a key in a namespace that is ${what}`, answer)
        }
        const ids = allowedNames(name("id"))
        for (const [index, [what, claimId]] of ids.entries()) {
          const [answer] = yield* store.claim(
            namespace,
            items(`of-${index}`),
            terms(claimId, time.longMillis)
          )
          yield* claimed(`a claim whose id is ${what}`, answer)
        }
        for (const [index, [what, claimId]] of ids.entries()) {
          const all = ids.map((_, other) => `of-${other}`)
          const done = yield* store.complete({ namespace, claimId }, items(...all))
          yield* same(
            `how many keys the claim whose id is ${what} completes`,
            done.filter((one) => one === "Completed").length,
            1
          )
          yield* same(`which`, done[index], "Completed")
        }
      })
  },
  {
    invariant: 9,
    name: "the joints of namespace and key are not mixed up",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const base = name("n")
        const pairs = [
          [`${base}:a`, "b"],
          [base, "a:b"],
          [`${base}/a`, "b"],
          [base, "a/b"],
          [`${base}\u0000a`, "b"],
          [base, "a\u0000b"],
          [`${base}{x}`, "y"],
          [base, "{x}y"]
        ]
        for (const [namespace, key] of pairs) {
          const [answer] = yield* store.claim(namespace, items(key), terms(name("claim"), time.longMillis))
          yield* claimed(`namespace ${JSON.stringify(namespace)}, key ${JSON.stringify(key)}`, answer)
        }
      })
  },
  {
    invariant: 9,
    name: "large results are kept whole; leases and retentions from a part of a millisecond to 100 years are taken",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const century = 100 * 365 * 86_400_000
        const ref = { namespace, claimId: name("claim") }
        yield* store.claim(namespace, items("k"), terms(ref.claimId, century))
        const result = JSON.stringify("\u{1F30A}\u0000\n".repeat(20_000))
        yield* store.complete(ref, [{ key: "k", result }], { retentionMillis: century })
        const [status] = yield* store.lookup(namespace, ["k"])
        yield* same(
          "a result of 100,000 characters",
          status._tag === "Completed" && status.result === result,
          true
        )
        const brief = yield* store.claim(namespace, items("l"), terms(name("brief"), 0.25))
        yield* same("a claim for a quarter of a millisecond", tags(brief), "Claimed")
        const other = { namespace, claimId: name("other") }
        yield* store.claim(namespace, items("m"), terms(other.claimId, time.longMillis))
        const done = yield* store.complete(other, items("m"), { retentionMillis: 0.25 })
        yield* same("complete, to be remembered for a quarter of a millisecond", done, ["Completed"])
        yield* time.pass(1)
        const after = yield* store.lookup(namespace, ["l", "m"])
        yield* same("lookup a millisecond later", tags(after as never), "Unknown Unknown")
      })
  }
]
