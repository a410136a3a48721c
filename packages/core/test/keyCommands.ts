import type { Protocol } from "@tidemark/core"
import * as fc from "fast-check"

/** Random sequences of calls on a few keys, for comparing two that should answer alike. */
export type KeyCommand =
  | {
      readonly verb: "claim"
      readonly id: string
      readonly namespace: string
      readonly items: ReadonlyArray<Protocol.KeyItem>
      readonly lease: number
    }
  | {
      readonly verb: "complete"
      readonly id: string
      readonly namespace: string
      readonly items: ReadonlyArray<Protocol.KeyCompletion>
      readonly retention: number
    }
  | { readonly verb: "release"; readonly id: string; readonly keys: ReadonlyArray<string> | undefined }
  | { readonly verb: "renew"; readonly id: string; readonly lease: number }
  | { readonly verb: "lookup"; readonly namespace: string; readonly key: string }
  | { readonly verb: "wait"; readonly millis: number }

const id = fc.integer({ min: 0, max: 5 }).map((number) => `claim-${number}`)
const key = fc.integer({ min: 0, max: 7 }).map((number) => `key-${number}`)
const namespace = fc.constantFrom("orders", "payments")
const lease = fc.integer({ min: 1, max: 50 })
const fingerprint = fc.option(fc.constantFrom("f", "g"), { nil: undefined })
const result = fc.option(fc.constantFrom("1", '"two"'), { nil: undefined })

/** Often just one: stores may have a shorter way for it. */
const oneOrMore = <T>(item: fc.Arbitrary<T>): fc.Arbitrary<ReadonlyArray<T>> =>
  fc.oneof(fc.array(item, { minLength: 1, maxLength: 1 }), fc.array(item, { minLength: 1, maxLength: 5 }))

export const keyCommand: fc.Arbitrary<KeyCommand> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      verb: fc.constant("claim" as const),
      id,
      namespace,
      items: oneOrMore(fc.record({ key, fingerprint })),
      lease
    })
  },
  {
    weight: 6,
    arbitrary: fc.record({
      verb: fc.constant("complete" as const),
      id,
      namespace,
      items: oneOrMore(fc.record({ key, result })),
      retention: fc.integer({ min: 1, max: 300 })
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      verb: fc.constant("release" as const),
      id,
      keys: fc.option(fc.array(key, { minLength: 1, maxLength: 3 }), { nil: undefined })
    })
  },
  { weight: 2, arbitrary: fc.record({ verb: fc.constant("renew" as const), id, lease }) },
  { weight: 2, arbitrary: fc.record({ verb: fc.constant("lookup" as const), namespace, key }) },
  {
    weight: 4,
    arbitrary: fc.record({ verb: fc.constant("wait" as const), millis: fc.integer({ min: 1, max: 120 }) })
  }
)

/** What a store of keys answers to a command. */
export interface AnswersKeys {
  readonly claim: (
    namespace: string,
    items: ReadonlyArray<Protocol.KeyItem>,
    terms: Protocol.ClaimTerms,
    now: number
  ) => unknown
  readonly complete: (
    id: string,
    namespace: string,
    items: ReadonlyArray<Protocol.KeyCompletion>,
    retention: number,
    now: number
  ) => unknown
  readonly release: (id: string, keys: ReadonlyArray<string> | undefined) => unknown
  readonly renew: (id: string, leaseMillis: number, now: number) => unknown
  readonly lookup: (namespace: string, key: string, now: number) => unknown
}

export const answer = (store: AnswersKeys, command: KeyCommand, now: number): unknown => {
  switch (command.verb) {
    case "claim": {
      const terms = { claimId: command.id, owner: "somebody", leaseMillis: command.lease }
      return store.claim(command.namespace, command.items, terms, now)
    }
    case "complete":
      return store.complete(command.id, command.namespace, command.items, command.retention, now)
    case "release":
      return store.release(command.id, command.keys)
    case "renew":
      return store.renew(command.id, command.lease, now)
    case "lookup":
      return store.lookup(command.namespace, command.key, now)
    case "wait":
      return undefined
  }
}

const answersOfClaim = (outcome: Protocol.KeyClaimOutcome): unknown =>
  outcome._tag === "Answers" ? outcome.answers : outcome._tag === "Full" ? "Full" : undefined

const answersOfOne = (outcome: Protocol.OneKeyClaimOutcome): unknown =>
  outcome._tag === "Full" ? "Full" : outcome._tag === "ClaimIdReused" ? undefined : [outcome]

/** A `KeyState` as one that answers: its claims as plain answers; with `short`, single keys by their shorter way. */
export const answersOf = (state: Protocol.KeyState, short = false): AnswersKeys => ({
  claim: (namespace, items, terms, now) =>
    short && items.length === 1
      ? answersOfOne(state.claimKey(namespace, items[0], terms, now))
      : answersOfClaim(state.claim(namespace, items, terms, now)),
  complete: (id, namespace, items, retention, now) =>
    short && items.length === 1
      ? [state.completeKey(id, namespace, items[0], retention, now)]
      : state.complete(id, namespace, items, retention, now),
  release: (...args) => state.release(...args),
  renew: (...args) => state.renew(...args),
  lookup: (...args) => state.lookup(...args)
})
