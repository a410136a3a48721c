/** What becomes of a claim on keys: invariants 3, 4, 6, 7 (release, renew). */
import type { IdempotencyStoreService } from "@tidemark/core"
import { Effect } from "effect"
import type { Check } from "../Check.ts"
import { ensure, same } from "../internal/expect.ts"
import { claimed, items, tags } from "./idempotencyStoreClaiming.ts"
import { endsAfter, renewsEachByItself, terms, timed } from "./shared.ts"

export const idempotencyStoreSettling: ReadonlyArray<Check<IdempotencyStoreService>> = [
  {
    invariant: 3,
    name: "one call tells what it completed, what was completed already, and what is not the claim's",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const a = { namespace, claimId: name("a") }
        const b = { namespace, claimId: name("b") }
        yield* store.claim(namespace, items("k", "l"), terms(a.claimId, time.longMillis))
        yield* store.claim(namespace, items("m"), terms(b.claimId, time.longMillis))
        yield* same("a's complete of k", yield* store.complete(a, items("k")), ["Completed"])
        const answers = yield* store.complete(a, items("m", "k", "l", "never"))
        yield* same("a's complete of m, k, l, never", answers, [
          "LeaseLost",
          "AlreadyCompleted",
          "Completed",
          "LeaseLost"
        ])
        const nobody = { namespace, claimId: name("nobody") }
        const theirs = yield* store.complete(nobody, items("l", "m"))
        yield* same("a complete by a claim that never was", theirs, ["AlreadyCompleted", "LeaseLost"])
        yield* same("b's complete of m", yield* store.complete(b, items("m")), ["Completed"])
        const statuses = yield* store.lookup(namespace, ["k", "l", "m", "never"])
        yield* same("lookup", tags(statuses as never), "Completed Completed Completed Unknown")
      })
  },
  {
    invariant: 3,
    name: "a claim whose lease is over, but that nobody took, still completes",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const ref = { namespace: name("namespace"), claimId: name("slow") }
        const [answer] = yield* store.claim(ref.namespace, items("k"), terms(ref.claimId, time.shortMillis))
        yield* time.passTo((yield* claimed("the claim", answer)).until)
        yield* same("complete after the lease", yield* store.complete(ref, items("k")), ["Completed"])
      })
  },
  {
    invariant: 3,
    name: "of an expired claim another takes over only the keys that it asks for",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const slow = { namespace, claimId: name("slow") }
        const quick = { namespace, claimId: name("quick") }
        const [answer] = yield* store.claim(
          namespace,
          items("k", "l", "m"),
          terms(slow.claimId, time.shortMillis)
        )
        yield* time.passTo((yield* claimed("the claim", answer)).until)
        const taken = yield* store.claim(namespace, items("k"), terms(quick.claimId, time.longMillis))
        yield* same("a claim on k, whose holder's lease is over", tags(taken), "Claimed")
        const late = yield* store.complete(slow, items("k", "l"))
        yield* same("complete of k and l by the late one", late, ["LeaseLost", "Completed"])
        const [until] = yield* store.renew([{ ...slow, leaseMillis: time.longMillis }])
        yield* ensure(until !== undefined, () => "the late claim still holds m, but can't be renewed")
        const third = yield* store.claim(namespace, items("m"), terms(name("third"), time.longMillis))
        yield* same("another's claim on m, which was revived", tags(third), "InFlight")
        yield* same("complete of k by its new owner", yield* store.complete(quick, items("k")), ["Completed"])
      })
  },
  {
    invariant: 3,
    name: "an expired claim that nobody overlapped is kept for 10 leases",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const lease = time.exact ? time.shortMillis : 20
        const begun = Effect.gen(function* () {
          const ref = { namespace: name("namespace"), claimId: name("slow") }
          const [answer] = yield* store.claim(ref.namespace, items("k"), terms(ref.claimId, lease))
          return { ref, until: (yield* claimed("the claim", answer)).until }
        })
        if (time.exact) {
          const kept = yield* begun
          yield* time.passTo(kept.until + 10 * lease - 1)
          const answer = yield* store.complete(kept.ref, items("k"))
          yield* same("complete a millisecond before 10 leases are over", answer, ["Completed"])
        }
        const lost = yield* begun
        yield* time.passTo(lost.until + 10 * lease)
        const renewed = yield* store.renew([{ ...lost.ref, leaseMillis: lease }])
        yield* same("renew when 10 leases are over", renewed, [undefined])
        const answer = yield* store.complete(lost.ref, items("k"))
        yield* same("complete when 10 leases are over", answer, ["LeaseLost"])
      })
  },
  {
    invariant: 4,
    name: "a completed key answers Completed, with its result, until its retention ends",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        // not so short that a busy machine lets it end before the first question
        const retentionMillis = time.exact ? time.shortMillis : time.shortMillis * 4
        const ref = { namespace, claimId: name("claim") }
        yield* store.claim(namespace, items("k", "l", "m"), terms(ref.claimId, time.longMillis))
        const done = yield* timed(
          time,
          store.complete(ref, [{ key: "k", result: '{"paid":true}' }, { key: "l" }], {
            retentionMillis
          })
        )
        const kept = yield* timed(time, store.complete(ref, [{ key: "m", result: "" }]))
        const ask = (...keys: ReadonlyArray<string>) =>
          store.claim(namespace, items(...keys), terms(name("again"), time.longMillis))
        yield* same("asked for at once", yield* ask("k", "l", "m"), [
          { _tag: "Completed", result: '{"paid":true}' },
          { _tag: "Completed" },
          { _tag: "Completed", result: "" }
        ])
        const [k, , m] = yield* store.lookup(namespace, ["k", "l", "m"])
        yield* endsAfter("k's retention", k._tag === "Completed" ? k.until : undefined, retentionMillis, done)
        yield* endsAfter(
          "m's retention",
          m._tag === "Completed" ? m.until : undefined,
          store.retentionMillis,
          kept
        )
        if (time.exact) {
          yield* time.passTo(done.to + retentionMillis - 1)
          yield* same(
            "a millisecond before the retention's end",
            tags(yield* ask("k", "l")),
            "Completed Completed"
          )
        }
        yield* time.passTo(done.to + retentionMillis)
        const over = yield* store.lookup(namespace, ["k", "l", "m"])
        yield* same("lookup at the retention's end", tags(over as never), "Unknown Unknown Completed")
        const late = yield* store.complete(ref, items("k"))
        yield* same("complete by the claim of old at the retention's end", late, ["LeaseLost"])
        yield* same(
          "asked for at the retention's end",
          tags(yield* ask("k", "l", "m")),
          "Claimed Claimed Completed"
        )
      })
  },
  {
    invariant: 4,
    name: "a key whose retention ended begins anew: no result and no fingerprint is left",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const first = { namespace, claimId: name("first") }
        yield* store.claim(namespace, [{ key: "k", fingerprint: "f" }], terms(first.claimId, time.longMillis))
        const done = yield* timed(
          time,
          store.complete(first, [{ key: "k", result: "1" }], { retentionMillis: time.shortMillis })
        )
        yield* time.passTo(done.to + time.shortMillis)
        const second = { namespace, claimId: name("second") }
        const anew = yield* store.claim(namespace, items("k"), terms(second.claimId, time.longMillis))
        yield* same("another payload when the retention is over", tags(anew), "Claimed")
        yield* store.complete(second, items("k"))
        const third = [{ key: "k", fingerprint: "g" }]
        const answer = yield* store.claim(namespace, third, terms(name("third"), time.longMillis))
        yield* same("what is known of the second", answer, [{ _tag: "Completed" }])
      })
  },
  {
    invariant: 4,
    name: "a completed key stays so whatever is done by claims of old, and after restarts",
    run: ({ name, restarted, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const ref = { namespace, claimId: name("claim") }
        const retention = { retentionMillis: time.longMillis }
        const [answer] = yield* store.claim(namespace, items("k"), terms(ref.claimId, time.shortMillis))
        yield* store.complete(ref, [{ key: "k", result: "1" }], retention)
        yield* same(
          "complete again, otherwise",
          yield* store.complete(ref, [{ key: "k", result: "2" }], { retentionMillis: 1 }),
          ["AlreadyCompleted"]
        )
        yield* store.release(ref)
        yield* store.release(ref, ["k"])
        yield* store.renew([{ ...ref, leaseMillis: time.longMillis }])
        yield* time.passTo((yield* claimed("the claim", answer)).until)
        const later = store.durable ? yield* restarted : store
        const again = yield* later.claim(namespace, items("k"), terms(name("again"), time.longMillis))
        yield* same("asked for again", again, [{ _tag: "Completed", result: "1" }])
      })
  },
  {
    invariant: 4,
    name: "forget makes keys unknown, supersedes their claims, and counts those that were known",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const ref = { namespace, claimId: name("claim") }
        yield* store.claim(namespace, items("done", "held", "kept"), terms(ref.claimId, time.longMillis))
        yield* store.complete(ref, items("done"))
        yield* same("forget", yield* store.forget(namespace, ["done", "never", "held"]), 2)
        yield* same("forget again", yield* store.forget(namespace, ["done", "never", "held"]), 0)
        const statuses = yield* store.lookup(namespace, ["done", "held", "kept"])
        yield* same("lookup", tags(statuses as never), "Unknown Unknown InFlight")
        const late = yield* store.complete(ref, items("held", "kept"))
        yield* same("complete by the claim", late, ["LeaseLost", "Completed"])
        const anew = yield* store.claim(
          namespace,
          items("done", "held"),
          terms(name("anew"), time.longMillis)
        )
        yield* same("a claim after it", tags(anew), "Claimed Claimed")
      })
  },
  {
    invariant: 4,
    name: "the same key with another payload is a Mismatch, whether held or completed",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const ref = { namespace, claimId: name("claim") }
        const ask = (key: string, fingerprint?: string) =>
          store.claim(namespace, [{ key, fingerprint }], terms(name("other"), time.longMillis))
        yield* store.claim(
          namespace,
          [{ key: "k", fingerprint: "f" }, { key: "l" }],
          terms(ref.claimId, time.longMillis)
        )
        const mismatch = [{ _tag: "Mismatch", fingerprint: "f" }]
        yield* same("held, another payload", yield* ask("k", "g"), mismatch)
        yield* same("held, the same payload", tags(yield* ask("k", "f")), "InFlight")
        yield* same("held, no fingerprint given", tags(yield* ask("k")), "InFlight")
        yield* same("held, none stored", tags(yield* ask("l", "g")), "InFlight")
        yield* store.complete(ref, items("k", "l"))
        yield* same("completed, another payload", yield* ask("k", "g"), mismatch)
        yield* same("completed, the same payload", tags(yield* ask("k", "f")), "Completed")
        yield* same("completed, no fingerprint given", tags(yield* ask("k")), "Completed")
        yield* same("completed, none stored", tags(yield* ask("l", "g")), "Completed")
      })
  },
  {
    invariant: 6,
    name: "renew answers claim by claim, in order; one that is lost spoils no other",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        yield* same("of no claims", yield* store.renew([]), [])
        const refs = Array.from({ length: 50 }, () => ({
          namespace: name("namespace"),
          claimId: name("claim")
        }))
        yield* renewsEachByItself(
          time,
          refs,
          ({ claimId, namespace }) => store.claim(namespace, items("k"), terms(claimId, time.shortMillis)),
          store.renew
        )
      })
  },
  {
    invariant: 7,
    name: "release gives back a part or all, and of what is not held nothing",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const namespace = name("namespace")
        const a = { namespace, claimId: name("a") }
        const b = { namespace, claimId: name("b") }
        yield* store.release(a)
        yield* store.release(a, ["k"])
        yield* store.claim(namespace, items("k", "l", "m"), terms(a.claimId, time.longMillis))
        yield* store.claim(namespace, items("x"), terms(b.claimId, time.longMillis))
        yield* store.release(a, ["l", "x", "never"])
        const c = yield* store.claim(namespace, items("k", "l", "x"), terms(name("c"), time.longMillis))
        yield* same("after a gave back l, and x, which is b's", tags(c), "InFlight Claimed InFlight")
        yield* same("a's complete of k and l", yield* store.complete(a, items("k", "l")), [
          "Completed",
          "LeaseLost"
        ])
        yield* store.release(a)
        yield* store.release(a)
        yield* same("renew after release", yield* store.renew([{ ...a, leaseMillis: 1_000 }]), [undefined])
        yield* same("complete after release", yield* store.complete(a, items("m")), ["LeaseLost"])
        const d = yield* store.claim(namespace, items("k", "m"), terms(name("d"), time.longMillis))
        yield* same("after a gave back all: k, which is completed, and m", tags(d), "Completed Claimed")
        yield* store.release(a, ["m"])
        const e = yield* store.claim(namespace, items("m"), terms(name("e"), time.longMillis))
        yield* same("after a gave back what is no longer its own", tags(e), "InFlight")
      })
  },
  {
    invariant: 7,
    name: "complete asked again changes nothing and answers AlreadyCompleted",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const ref = { namespace: name("namespace"), claimId: name("claim") }
        yield* store.claim(ref.namespace, items("k"), terms(ref.claimId, time.longMillis))
        const done = [{ key: "k", result: "1" }]
        yield* store.complete(ref, done)
        const before = yield* store.lookup(ref.namespace, ["k"])
        yield* time.pass(5)
        yield* same("asked again", yield* store.complete(ref, done), ["AlreadyCompleted"])
        yield* same("lookup", yield* store.lookup(ref.namespace, ["k"]), before)
      })
  },
  {
    invariant: 7,
    name: "renew prolongs from now and never shortens",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const ref = { namespace: name("namespace"), claimId: name("claim") }
        const ask = store.claim(ref.namespace, items("k"), terms(ref.claimId, time.longMillis))
        const first = yield* claimed("the claim", (yield* ask)[0])
        const shorter = yield* store.renew([{ ...ref, leaseMillis: time.shortMillis }])
        yield* same("renewed for less than is left", shorter, [first.until])
        const { answer, ...span } = yield* timed(
          time,
          store.renew([{ ...ref, leaseMillis: time.longMillis * 2 }])
        )
        yield* endsAfter("the lease renewed for longer", answer[0], time.longMillis * 2, span)
        yield* same("asked again", yield* ask, [{ ...first, until: answer[0] }])
      })
  },
  {
    invariant: 7,
    name: "renew revives a claim that is over but that nobody overlapped, with the same token",
    run: ({ name, store, time }) =>
      Effect.gen(function* () {
        const ref = { namespace: name("namespace"), claimId: name("claim") }
        const ask = store.claim(ref.namespace, items("k"), terms(ref.claimId, time.shortMillis))
        const first = yield* claimed("the claim", (yield* ask)[0])
        yield* time.passTo(first.until)
        const { answer, ...span } = yield* timed(
          time,
          store.renew([{ ...ref, leaseMillis: time.longMillis }])
        )
        yield* endsAfter("the revived lease", answer[0], time.longMillis, span)
        yield* same("asked again", yield* ask, [{ ...first, until: answer[0] }])
        const other = yield* store.claim(ref.namespace, items("k"), terms(name("other"), time.longMillis))
        yield* same("another's claim on it", tags(other), "InFlight")
      })
  }
]
