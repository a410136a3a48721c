/** What every `Inspect` must do: an optional ability of durable stores. */
import {
  type ClaimSummary,
  type IdempotencyStoreService,
  type InspectService,
  type InvalidInput,
  type KeySummary,
  OffsetRanges,
  type OffsetStoreService,
  type StoreError,
  type StreamSummary
} from "@tidemark/core"
import { type Duration, Effect, Stream } from "effect"
import type { Check, ContractBroken } from "../Check.ts"
import { broken, ensure, failsWith, same } from "../internal/expect.ts"
import { claimed, items } from "./idempotencyStoreClaiming.ts"
import { allowedNames, endsAfter, refusedMillis, refusedNames, terms as termsOf, timed } from "./shared.ts"

/** What lists, with what is listed. */
export interface InspectSubject {
  readonly inspect: InspectService
  readonly offsets: OffsetStoreService
  readonly keys: IdempotencyStoreService
  readonly durable: boolean
}

type ListError = StoreError | InvalidInput

const { fromRanges, make, of, openEnded } = OffsetRanges

/** With an owner that is not the claim's id, so that the two are not mixed up. */
const terms = (claimId: string, leaseMillis: number) => ({
  ...termsOf(claimId, leaseMillis),
  owner: ownerOf(claimId)
})

const ownerOf = (claimId: string): string => `owner of ${claimId}`

/** Of a list of all, what is the check's own; a list may show the same twice, and then the later one counts. */
const own = <A>(
  list: Stream.Stream<A, ListError>,
  placeOf: (entry: A) => string | undefined
): Effect.Effect<ReadonlyMap<string, A>, ListError> =>
  Stream.runFold(
    list,
    () => new Map<string, A>(),
    (found, entry) => {
      const place = placeOf(entry)
      return place === undefined ? found : found.set(place, entry)
    }
  )

const streamsNamed = (inspect: InspectService, names: ReadonlyArray<string>) =>
  own(inspect.streams(), ({ stream }) => (names.includes(stream) ? stream : undefined))

const summaryOf = (
  inspect: InspectService,
  stream: string
): Effect.Effect<StreamSummary, ListError | ContractBroken> =>
  Effect.flatMap(streamsNamed(inspect, [stream]), (found) => {
    const summary = found.get(stream)
    return summary === undefined ? broken("the stream is not listed") : Effect.succeed(summary)
  })

const keysOf = (inspect: InspectService, namespace: string) =>
  own(inspect.keys({ namespace }), (entry) => entry.key)

const claimsOf = (inspect: InspectService, name: string) =>
  own(inspect.claims({ of: name }), ({ claimId }) => claimId)

const sorted = (names: Iterable<string>): ReadonlyArray<string> => [...names].sort()

const range = (size: number): ReadonlyArray<number> => Array.from({ length: size }, (_, index) => index)

const allAtOnce = { concurrency: 50, discard: true } as const

const streams: ReadonlyArray<Check<InspectSubject>> = [
  {
    name: "a stream is listed as far as it has come, as progress tells it",
    run: ({ name, store: { inspect, offsets }, time }) =>
      Effect.gen(function* () {
        const [worked, skipped, claimed] = [name("worked"), name("skipped"), name("claimed")]
        const [copied, forgotten, asked] = [name("copied"), name("forgotten"), name("asked")]
        const [a, b, c] = [name("a"), name("b"), name("c")]
        yield* offsets.claim(worked, make(5, 20), terms(a, time.longMillis))
        yield* offsets.complete(
          { stream: worked, claimId: a },
          fromRanges([
            [5, 8],
            [10, 11],
            [14, 16]
          ])
        )
        yield* offsets.claim(worked, openEnded(20), terms(b, time.longMillis))
        yield* offsets.skip(skipped, of(3))
        yield* offsets.claim(claimed, of(2 ** 40), terms(c, time.longMillis))
        yield* offsets.copy(worked, copied)
        yield* offsets.claim(forgotten, of(0), terms(name("d"), time.longMillis))
        yield* offsets.forget(forgotten)
        yield* offsets.progress(asked)
        const named = [worked, skipped, claimed, copied, forgotten, asked]
        const found = yield* streamsNamed(inspect, named)
        yield* same("the streams", sorted(found.keys()), sorted([worked, skipped, claimed, copied]))
        for (const [stream, { touchedAt: _, ...summary }] of found) {
          const progress = yield* offsets.progress(stream)
          yield* same(
            `${stream}, as progress tells it`,
            summary,
            progress && {
              stream,
              origin: progress.origin,
              watermark: progress.watermark,
              highest: progress.highest,
              gapCount: progress.gapCount,
              epoch: progress.epoch,
              lastToken: progress.lastToken,
              liveClaims: progress.claims.length
            }
          )
        }
        const summary = found.get(worked)
        yield* same(
          "what is told",
          [summary?.origin, summary?.watermark, summary?.highest, summary?.gapCount, summary?.liveClaims],
          [5, 8, 16, 5, 2]
        )
      })
  },
  {
    invariant: 8,
    name: "a stream's live claims are counted until they are settled, or their lease is over",
    run: ({ name, store: { inspect, offsets }, time }) =>
      Effect.gen(function* () {
        const [stream, long, short] = [name("stream"), name("long"), name("short")]
        yield* offsets.claim(stream, make(0, 10), terms(long, time.longMillis))
        const { until } = yield* offsets.claim(stream, make(10, 20), terms(short, time.shortMillis))
        if (time.exact) {
          yield* time.passTo((until ?? 0) - 1)
          yield* same("both", (yield* summaryOf(inspect, stream)).liveClaims, 2)
        }
        yield* time.passTo(until ?? 0)
        yield* same("when one's lease is over", (yield* summaryOf(inspect, stream)).liveClaims, 1)
        yield* offsets.complete({ stream, claimId: long }, make(0, 10))
        yield* same("when the other's work is done", (yield* summaryOf(inspect, stream)).liveClaims, 0)
      })
  },
  {
    invariant: 8,
    name: "a stream tells when it last changed, and those that did not for long can be asked for",
    run: ({ name, store: { inspect, offsets }, time }) =>
      Effect.gen(function* () {
        const [stream, claimId] = [name("stream"), name("claim")]
        const untouched = (millis: number) =>
          Effect.map(
            own(inspect.streams({ untouchedFor: millis }), (entry) =>
              entry.stream === stream ? stream : undefined
            ),
            ({ size }) => size === 1
          )
        yield* offsets.claim(stream, make(0, 10), terms(claimId, time.longMillis))
        yield* time.pass(300)
        const { from, to } = yield* timed(time, offsets.complete({ stream, claimId }, make(0, 3)))
        yield* same("untouched for 10 minutes", yield* untouched(600_000), false)
        const { touchedAt } = yield* summaryOf(inspect, stream)
        yield* ensure(
          touchedAt >= from - time.toleranceMillis && touchedAt <= to + time.toleranceMillis,
          () => `it says that it changed at ${touchedAt}, but it did between ${from} and ${to}`
        )
        yield* time.passTo(touchedAt + 1_000)
        yield* same("a second later, untouched for one", yield* untouched(1_000), true)
        if (time.exact) yield* same("and for a millisecond more", yield* untouched(1_001), false)
        yield* offsets.claim(stream, of(10), terms(name("another"), time.longMillis))
        yield* same("untouched for 10 minutes when it is claimed of", yield* untouched(600_000), false)
      })
  }
]

const keys: ReadonlyArray<Check<InspectSubject>> = [
  {
    name: "keys are listed with whose they are, or with their result, of one namespace or of all",
    run: ({ name, store: { inspect, keys: store }, time }) =>
      Effect.gen(function* () {
        const [namespace, another, a] = [name("namespace"), name("namespace"), name("a")]
        const { answer, ...claiming } = yield* timed(
          time,
          store.claim(namespace, items("held", "result", "empty", "plain", "back"), terms(a, time.longMillis))
        )
        const until = answer[0]._tag === "Claimed" ? answer[0].until : undefined
        const completing = yield* timed(
          time,
          store.complete(
            { namespace, claimId: a },
            [{ key: "result", result: '{"paid":true}' }, { key: "empty", result: "" }, { key: "plain" }],
            { retentionMillis: time.longMillis }
          )
        )
        yield* store.release({ namespace, claimId: a }, ["back"])
        yield* store.claim(another, items("held"), terms(name("b"), time.longMillis))
        const found = yield* keysOf(inspect, namespace)
        yield* same("the keys", sorted(found.keys()), ["empty", "held", "plain", "result"])
        yield* same("what is told of one that is held", found.get("held"), {
          namespace,
          key: "held",
          status: { _tag: "InFlight", until, owner: ownerOf(a) }
        } satisfies Omit<KeySummary, "status"> & { readonly status: unknown })
        yield* endsAfter("its lease", until, time.longMillis, claiming)
        for (const [key, result] of [["result", '{"paid":true}'], ["empty", ""], ["plain"]] as const) {
          const status = found.get(key)?.status
          const told = status?._tag === "Completed" ? status : undefined
          yield* same(
            `whether ${key} is completed, and its result`,
            [status?._tag, told?.result],
            ["Completed", result]
          )
          yield* endsAfter(`the retention of ${key}`, told?.until, time.longMillis, completing)
        }
        const all = yield* own(inspect.keys(), (entry) =>
          entry.namespace === namespace || entry.namespace === another
            ? `${entry.namespace} ${entry.key}`
            : undefined
        )
        yield* same("of both namespaces, in the list of all", all.size, 5)
        yield* same("of a namespace without any", (yield* keysOf(inspect, name("namespace"))).size, 0)
      })
  },
  {
    invariant: 8,
    name: "a key is listed until its lease or its retention is over, or it is forgotten",
    run: ({ name, store: { inspect, keys: store }, time }) =>
      Effect.gen(function* () {
        const [namespace, a, b] = [name("namespace"), name("a"), name("b")]
        yield* store.claim(namespace, items("done", "gone"), terms(a, time.longMillis))
        yield* store.complete({ namespace, claimId: a }, items("gone"), { retentionMillis: time.longMillis })
        yield* store.forget(namespace, ["gone"])
        const { to } = yield* timed(
          time,
          Effect.andThen(
            store.complete({ namespace, claimId: a }, items("done"), { retentionMillis: time.shortMillis }),
            store.claim(namespace, items("held"), terms(b, time.shortMillis))
          )
        )
        if (time.exact) {
          yield* time.passTo(to + time.shortMillis - 1)
          yield* same("before", sorted((yield* keysOf(inspect, namespace)).keys()), ["done", "held"])
        }
        yield* time.passTo(to + time.shortMillis)
        yield* same("after", sorted((yield* keysOf(inspect, namespace)).keys()), [])
        yield* store.renew([{ namespace, claimId: b, leaseMillis: time.longMillis }])
        yield* same("revived", sorted((yield* keysOf(inspect, namespace)).keys()), ["held"])
      })
  }
]

const claims: ReadonlyArray<Check<InspectSubject>> = [
  {
    invariant: 1,
    name: "each live claim is listed, with what it still holds, of one stream or namespace, or of all",
    run: ({ name, store: { inspect, keys: store, offsets }, time }) =>
      Effect.gen(function* () {
        const [one, namespace] = [name("stream"), name("namespace")]
        const [a, b, c, d] = [name("a"), name("b"), name("c"), name("d")]
        const long = time.longMillis
        const first = yield* offsets.claim(one, make(0, 10), terms(a, long))
        yield* offsets.complete({ stream: one, claimId: a }, make(2, 5))
        const second = yield* offsets.claim(one, openEnded(10), terms(b, long))
        yield* offsets.claim(one, of(0), terms(name("refused"), long))
        const [k, , m] = yield* store.claim(namespace, items("k", "l", "m"), terms(c, long))
        // a store that keeps keys in several places may grant them with several tokens
        const ofC = [yield* claimed("k", k), yield* claimed("m", m)]
        const third = {
          token: Math.max(...ofC.map(({ token }) => token)),
          until: Math.min(...ofC.map(({ until }) => until))
        }
        yield* store.complete({ namespace, claimId: c }, items("l"))
        const [fourth] = yield* store
          .claim(namespace, items("k", "n"), terms(d, long))
          .pipe(Effect.map((answers) => answers.slice(1)))
        yield* store.claim(namespace, items("k"), terms(name("refused"), long))
        const summary = (
          claimId: string,
          granted: object,
          held: number,
          kind: ClaimSummary["kind"] = "keys"
        ) => {
          const { token, until } = granted as { readonly token?: number; readonly until?: number }
          return {
            kind,
            of: kind === "keys" ? namespace : one,
            claimId,
            owner: ownerOf(claimId),
            token,
            until,
            held
          }
        }
        const expected = [
          summary(a, first, 7, "offsets"),
          summary(b, second, Number.POSITIVE_INFINITY, "offsets"),
          summary(c, third, 2),
          summary(d, fourth, 1)
        ]
        const ofStream = yield* claimsOf(inspect, one)
        const ofNamespace = yield* claimsOf(inspect, namespace)
        yield* same("how many there are", [ofStream.size, ofNamespace.size], [2, 2])
        const all = yield* own(inspect.claims(), (claim) =>
          claim.of === one || claim.of === namespace ? claim.claimId : undefined
        )
        yield* same("how many there are in the list of all", all.size, 4)
        for (const claim of expected) {
          const { claimId } = claim
          yield* same("what is told of a claim", ofStream.get(claimId) ?? ofNamespace.get(claimId), claim)
          yield* same("and in the list of all", all.get(claimId), claim)
          const isOpen = (all.get(claimId)?.held ?? 0) === Number.POSITIVE_INFINITY
          yield* same("whether it is open-ended", isOpen, claimId === b)
        }
        yield* same("of what nobody claimed", (yield* claimsOf(inspect, name("stream"))).size, 0)
      })
  },
  {
    invariant: 8,
    name: "a claim is listed until it is settled, superseded, or its lease is over",
    run: ({ name, store: { inspect, keys: store, offsets }, time }) =>
      Effect.gen(function* () {
        const [stream, namespace] = [name("stream"), name("namespace")]
        const [settled, back, short, superseded] = [name("a"), name("b"), name("c"), name("d")]
        const listed = Effect.gen(function* () {
          const ofStream = yield* claimsOf(inspect, stream)
          const ofNamespace = yield* claimsOf(inspect, namespace)
          return [sorted(ofStream.keys()), sorted(ofNamespace.keys())]
        })
        for (const [index, claimId] of [settled, back, superseded].entries()) {
          yield* offsets.claim(stream, of(index), terms(claimId, time.longMillis))
          yield* store.claim(namespace, items(`k${index}`), terms(claimId, time.longMillis))
        }
        const { to } = yield* timed(
          time,
          Effect.andThen(
            offsets.claim(stream, of(9), terms(short, time.shortMillis)),
            store.claim(namespace, items("k9"), terms(short, time.shortMillis))
          )
        )
        const four = sorted([settled, back, short, superseded])
        if (time.exact) {
          yield* time.passTo(to + time.shortMillis - 1)
          yield* same("all of them", yield* listed, [four, four])
        }
        yield* time.passTo(to + time.shortMillis)
        const three = sorted([settled, back, superseded])
        yield* same("when the lease of one is over", yield* listed, [three, three])
        yield* offsets.complete({ stream, claimId: settled }, of(0))
        yield* store.complete({ namespace, claimId: settled }, items("k0"))
        yield* offsets.release({ stream, claimId: back })
        yield* store.release({ namespace, claimId: back })
        yield* same("when two are settled", yield* listed, [[superseded], [superseded]])
        yield* offsets.rewind(stream, 0)
        yield* store.forget(namespace, ["k2"])
        yield* same("when an operator came", yield* listed, [[], []])
      })
  }
]

const lists: ReadonlyArray<Check<InspectSubject>> = [
  {
    name: "a long list has each entry, and one may take its beginning",
    run: ({ name, store: { inspect, keys: store, offsets }, time }) =>
      Effect.gen(function* () {
        const [namespace, many] = [name("many"), name("claims")]
        const names = range(620).map((index) => `${namespace} ${index}`)
        const long = time.longMillis
        yield* Effect.forEach(names, (stream) => offsets.claim(stream, of(0), terms(stream, long)), allAtOnce)
        yield* Effect.forEach(
          names,
          (claimId) => store.claim(many, items(claimId), terms(claimId, long)),
          allAtOnce
        )
        const held = range(1_000).map((index) => `held ${index}`)
        const done = range(1_000).map((index) => `done ${index}`)
        const claimId = name("claim")
        yield* store.claim(namespace, items(...held), terms(name("claim"), long))
        yield* store.claim(namespace, items(...done), terms(claimId, long))
        yield* store.complete({ namespace, claimId }, items(...done), { retentionMillis: long })
        yield* same("streams", sorted((yield* streamsNamed(inspect, names)).keys()), sorted(names))
        yield* same("keys", sorted((yield* keysOf(inspect, namespace)).keys()), sorted([...held, ...done]))
        yield* same("claims", sorted((yield* claimsOf(inspect, many)).keys()), sorted(names))
        for (const list of [inspect.streams(), inspect.keys({ namespace }), inspect.claims()]) {
          const taken = yield* Stream.runCollect(Stream.take(list as Stream.Stream<unknown, ListError>, 7))
          yield* same("how many are taken", taken.length, 7)
        }
      })
  },
  {
    name: "a list that others change meanwhile has all that was there from beginning to end",
    run: ({ name, store: { inspect, keys: store, offsets }, time }) =>
      Effect.gen(function* () {
        const [namespace, claimId] = [name("namespace"), name("claim")]
        const { longMillis } = time
        const goes = range(20).map((index) => `goes ${index}`)
        const stays = range(1_000).map((index) => `stays ${index}`)
        yield* store.claim(namespace, items(...goes), terms(name("claim"), longMillis))
        yield* store.claim(namespace, items(...stays), terms(claimId, longMillis))
        const streamNames = range(620).map((index) => `${namespace} ${index}`)
        yield* Effect.forEach(
          streamNames,
          (stream) => offsets.claim(stream, of(0), terms(stream, longMillis)),
          allAtOnce
        )
        let seen = 0
        /** Some of what is held is completed, some goes, and some comes. */
        const change = Effect.suspend(() => {
          seen += 1
          if (seen % 100 !== 0) return Effect.void
          const turn = seen / 100
          return Effect.gen(function* () {
            const some = stays.filter((_, index) => index % 10 === turn)
            yield* store.complete({ namespace, claimId }, items(...some), { retentionMillis: longMillis })
            yield* store.claim(namespace, items(`comes ${turn}`), terms(`${claimId} ${turn}`, longMillis))
            yield* store.forget(namespace, goes.slice(turn, turn + 1))
            yield* offsets.forget(streamNames[Math.min(turn, 19)])
            yield* offsets.skip(`${namespace} comes ${turn}`, of(0))
          })
        })
        const meanwhile = <A>(list: Stream.Stream<A, ListError>) =>
          Stream.mapEffect(list, (entry) => Effect.as(change, entry)) as Stream.Stream<A, ListError>
        const found = yield* own(meanwhile(inspect.keys({ namespace })), ({ key }) => key)
        yield* same(
          "keys that the list left out",
          stays.filter((key) => !found.has(key)),
          []
        )
        const streamsFound = yield* own(meanwhile(inspect.streams()), ({ stream }) => stream)
        yield* same(
          "streams that the list left out",
          streamNames.slice(20).filter((stream) => !streamsFound.has(stream)),
          []
        )
      })
  },
  {
    name: "names of any characters, up to 1,024 bytes, are listed as they are",
    run: ({ name, store: { inspect, keys: store, offsets }, time }) =>
      Effect.gen(function* () {
        const named = allowedNames(name("name")).map(([, unusual]) => unusual)
        for (const unusual of named) {
          yield* offsets.claim(unusual, of(7), { ...terms(unusual, time.longMillis), owner: "somebody" })
          yield* store.claim(unusual, items(unusual, "k"), {
            ...terms(unusual, time.longMillis),
            owner: "somebody"
          })
          yield* store.complete({ namespace: unusual, claimId: unusual }, items("k"))
        }
        yield* same("streams", sorted((yield* streamsNamed(inspect, named)).keys()), sorted(named))
        const listed = yield* own(inspect.keys(), ({ key, namespace }) =>
          named.includes(namespace) ? `${namespace} ${key}` : undefined
        )
        const expected = named.flatMap((unusual) => [`${unusual} ${unusual}`, `${unusual} k`])
        yield* same("keys", sorted(listed.keys()), sorted(expected))
        for (const unusual of named) {
          const ofBoth = yield* Stream.runCollect(inspect.claims({ of: unusual }))
          yield* same(
            `claims of ${unusual}`,
            ofBoth.map(({ claimId, kind, of: what, owner }) => [kind, what, claimId, owner]),
            [
              ["offsets", unusual, unusual, "somebody"],
              ["keys", unusual, unusual, "somebody"]
            ]
          )
        }
      })
  },
  {
    invariant: 9,
    name: "bad input is InvalidInput, and lists nothing",
    run: ({ store: { inspect } }) =>
      Effect.gen(function* () {
        const refused = (what: string, list: Stream.Stream<unknown, ListError>) =>
          failsWith(what, Stream.runCollect(list), "InvalidInput")
        for (const [what, bad] of refusedNames) {
          yield* refused(`keys of ${what}`, inspect.keys({ namespace: bad }))
          yield* refused(`claims of ${what}`, inspect.claims({ of: bad }))
        }
        for (const untouchedFor of [...refusedMillis, "30 dayz"]) {
          const list = inspect.streams({ untouchedFor: untouchedFor as Duration.Input })
          yield* refused(`streams untouched for ${untouchedFor}`, list)
        }
      })
  },
  {
    invariant: 6,
    name: "what was acknowledged is listed by other instances, and after a restart",
    onlyDurable: true,
    run: ({ another, name, restarted, store: { keys: store, offsets }, time }) =>
      Effect.gen(function* () {
        const [both, claimId] = [name("both"), name("claim")]
        yield* offsets.claim(both, of(3), terms(claimId, time.longMillis))
        yield* store.claim(both, items("k"), terms(claimId, time.longMillis))
        const check = (inspect: InspectService) =>
          Effect.gen(function* () {
            yield* same("the stream", (yield* summaryOf(inspect, both)).liveClaims, 1)
            yield* same("the key", (yield* keysOf(inspect, both)).get("k")?.status._tag, "InFlight")
            yield* same("the claims", (yield* Stream.runCollect(inspect.claims({ of: both }))).length, 2)
          })
        yield* check((yield* another).inspect)
        yield* check((yield* restarted).inspect)
      })
  }
]

/** The contract of `Inspect`. */
export const inspectChecks: ReadonlyArray<Check<InspectSubject>> = [...streams, ...keys, ...claims, ...lists]
