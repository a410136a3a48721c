/** Calls that come at once go in one script: they are answered as if they had come one after the other, by the rules. */
import { assert, it } from "@effect/vitest"
import { type IdempotencyStore, Protocol } from "@tidemark/core"
import { uniqueName } from "@tidemark/test-servers"
import { describeWithRedis } from "@tidemark/test-servers/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { openStore, RedisStore } from "./store.ts"

type Keys = IdempotencyStore["Service"]

const key = fc.integer({ min: 0, max: 3 }).map((number) => `key-${number}`)
const id = fc.integer({ min: 0, max: 3 }).map((number) => `claim-${number}`)
/** Most often one, without anything else to say, as `once` and locks ask. */
const oneOf = <A>(item: fc.Arbitrary<A>) =>
  fc.oneof({ weight: 9, arbitrary: fc.tuple(item) }, { weight: 1, arbitrary: fc.tuple(item, item) })
const seldom = (text: string) =>
  fc.oneof({ weight: 5, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: fc.constant(text) })

const claims = fc.record({
  verb: fc.constant("claim" as const),
  id,
  items: oneOf(fc.record({ key, fingerprint: seldom("f") }))
})
const completions = fc.record({
  verb: fc.constant("complete" as const),
  id,
  items: oneOf(fc.record({ key, result: seldom("7") })),
  retentionMillis: fc.constantFrom(3_600_000, 7_200_000)
})
const releases = fc.record({ verb: fc.constant("release" as const), id, keys: oneOf(key) })
type Call = typeof claims | typeof completions | typeof releases extends fc.Arbitrary<infer A> ? A : never

/** Calls of one verb at a time, since others go in a script of their own. */
const round = <A extends Call>(calls: fc.Arbitrary<A>): fc.Arbitrary<ReadonlyArray<Call>> =>
  fc.array(calls, { minLength: 1, maxLength: 8 })
const rounds = fc.array(fc.oneof(round(claims), round(completions), round(releases)), {
  minLength: 1,
  maxLength: 12
})

const termsOf = ({ id }: Call) => ({ claimId: id, owner: "o", leaseMillis: 600_000 })

const ask = (keys: Keys, namespace: string, call: Call): Effect.Effect<unknown, unknown> => {
  const ref = { namespace, claimId: call.id }
  switch (call.verb) {
    case "claim":
      return keys.claim(namespace, call.items, termsOf(call))
    case "complete":
      return keys.complete(ref, call.items, { retentionMillis: call.retentionMillis })
    case "release":
      return keys.release(ref, call.keys)
  }
}

const judge = (rules: Protocol.KeyState, namespace: string, call: Call, now: number): unknown => {
  switch (call.verb) {
    case "claim": {
      const outcome = rules.claim(namespace, call.items, termsOf(call), now)
      return outcome._tag === "Answers" ? outcome.answers : outcome._tag
    }
    case "complete":
      return rules.complete(call.id, namespace, call.items, call.retentionMillis, now)
    case "release":
      return rules.release(call.id, call.keys)
  }
}

/** What answers say, times in whole hours from now; tokens as which of all that were given it is. */
const saying = (answers: ReadonlyArray<unknown>): ReadonlyArray<unknown> => {
  const hours = (name: string, value: unknown) =>
    name === "until" ? Math.round(((value as number) - Date.now()) / 3_600_000) : value
  const texts = answers.map((answer) => JSON.stringify(answer ?? null, hours))
  const tokensIn = (text: string) => [...text.matchAll(/"token":(\d+)/g)].map(([, token]) => Number(token))
  const tokens = [...new Set(texts.flatMap(tokensIn))].sort((a, b) => a - b)
  return texts.map((text) =>
    JSON.parse(text.replace(/"token":(\d+)/g, (_, token) => `"token":${tokens.indexOf(Number(token))}`))
  )
}

await describeWithRedis("calls that are gathered", ({ url }) => {
  it.live(
    "are answered as the rules answer them one after the other",
    () =>
      Effect.gen(function* () {
        const { keys } = yield* openStore(RedisStore.layer({ url, prefix: uniqueName("store") }))
        const names = Array.from({ length: 4 }, (_, number) => `key-${number}`)
        const answered = (namespace: string, sequence: ReadonlyArray<ReadonlyArray<Call>>) =>
          Effect.gen(function* () {
            const answers: Array<unknown> = []
            for (const round of sequence) {
              const asked = round.map((call) =>
                Effect.match(ask(keys, namespace, call), {
                  onFailure: (error) => (error as { readonly _tag: string })._tag,
                  onSuccess: (answer) => answer
                })
              )
              answers.push(...(yield* Effect.all(asked, { concurrency: "unbounded" })))
              answers.push(yield* keys.lookup(namespace, names))
            }
            return answers
          })
        const judged = (namespace: string, sequence: ReadonlyArray<ReadonlyArray<Call>>) => {
          const rules = new Protocol.KeyState(new Protocol.MapKeyTable())
          const now = Date.now()
          return sequence.flatMap((round) => [
            ...round.map((call) => judge(rules, namespace, call, now)),
            names.map((name) => rules.lookup(namespace, name, now))
          ])
        }
        yield* Effect.promise(() =>
          fc.assert(
            fc.asyncProperty(rounds, async (sequence) => {
              const namespace = uniqueName("namespace")
              const answers = await Effect.runPromise(answered(namespace, sequence))
              assert.deepStrictEqual(saying(answers), saying(judged(namespace, sequence)))
            }),
            { numRuns: 600, seed: 4_711 }
          )
        )
      }),
    60_000
  )

  it.live("keep each its own retention", () =>
    Effect.gen(function* () {
      const { keys } = yield* openStore(RedisStore.layer({ url, prefix: uniqueName("store") }))
      const hours = [1, 2, 3, 48]
      const ref = (hour: number) => ({ namespace: "n", claimId: `claim-${hour}` })
      yield* Effect.forEach(hours, (hour) =>
        keys.claim("n", [{ key: `key-${hour}` }], {
          claimId: ref(hour).claimId,
          owner: "o",
          leaseMillis: 600_000
        })
      )
      const answers = yield* Effect.forEach(
        hours,
        (hour) => keys.complete(ref(hour), [{ key: `key-${hour}` }], { retentionMillis: hour * 3_600_000 }),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(answers, [["Completed"], ["Completed"], ["Completed"], ["Completed"]])
      const found = yield* keys.lookup(
        "n",
        hours.map((hour) => `key-${hour}`)
      )
      const now = Date.now()
      assert.deepStrictEqual(
        found.map((status) =>
          status._tag === "Completed" ? Math.round((status.until - now) / 3_600_000) : status._tag
        ),
        hours
      )
    })
  )
})
