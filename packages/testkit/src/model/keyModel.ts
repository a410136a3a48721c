/** Random sequences on an `IdempotencyStore`, against the rules of the protocol themselves. */
import type { IdempotencyStoreService, InvalidKey, Protocol } from "@tidemark/core"
import { Clock, Effect, type Scope } from "effect"
import * as fc from "fast-check"
import type { Check } from "../Check.ts"
import { refusedNames, terms } from "../checks/shared.ts"
import { ensure, same } from "../internal/expect.ts"
import type { Subject } from "../Subject.ts"
import { KeyRules } from "./KeyRules.ts"
import { type KeyCommand, keyCommand, longKey } from "./keyCommands.ts"
import {
  NearInstants,
  type RandomOptions,
  runSequences,
  type Span,
  spanned,
  TokenRelation,
  unlessLate
} from "./sequences.ts"

interface World {
  readonly subject: Subject<IdempotencyStoreService>
  readonly instances: Array<IdempotencyStoreService>
  readonly namespaces: ReadonlyArray<string>
  readonly model: KeyRules
  /** By namespace and key: between two keys tokens need not be in order, since they may be in two shards. */
  readonly tokens: Map<string, TokenRelation>
  readonly instants: NearInstants
  readonly own: string
}

/** A lease or a retention that one can wait the end of where time can't be moved, in milliseconds. */
const briefMillis = 120

type Answer = Protocol.KeyClaimAnswer | InvalidKey
type Placed = KeyCommand & { readonly at: number }

const isBad = (key: string): boolean =>
  refusedNames.some(([, bad]) => bad === key) || !key.isWellFormed() || key.length > 1_024

const step = (world: World, command: Placed): Effect.Effect<void, unknown, Scope.Scope> => {
  const { instances, model, own, subject } = world
  const store = instances[command.at % instances.length]
  const near = (span: Span, found: number | undefined, expected: number | undefined) =>
    world.instants.near(span, found, expected)
  const refOf = (id: number) => ({ namespace: world.namespaces[id % 2], claimId: `${own}-${id}` })

  const relation = (namespace: string, key: string): TokenRelation => {
    const name = JSON.stringify([namespace, key])
    const known = world.tokens.get(name) ?? new TokenRelation()
    world.tokens.set(name, known)
    return known
  }

  const claim = (
    { claimId, namespace }: { readonly namespace: string; readonly claimId: string },
    items: ReadonlyArray<Protocol.KeyItem>,
    leaseMillis: number
  ) =>
    Effect.gen(function* () {
      const call = store.claim(namespace, items, terms(claimId, leaseMillis))
      const { answer, span } = yield* spanned(
        Effect.catchTag(call, "ClaimIdReused", () => Effect.succeed("ClaimIdReused" as const))
      )
      const good = items.filter(({ key }) => !isBad(key))
      const outcome =
        good.length === 0 ? [] : model.claim(namespace, good, terms(claimId, leaseMillis), span.from)
      if (outcome === undefined || answer === "ClaimIdReused") {
        yield* same("claim", answer, outcome ?? "ClaimIdReused")
        return []
      }
      let next = 0
      const expected = items.map(({ key }): Answer | "Invalid" => (isBad(key) ? "Invalid" : outcome[next++]))
      yield* same(
        "claim",
        answer.map((one, index) => {
          const other = expected[index]
          if (one._tag === "Invalid") return "Invalid"
          if (other === undefined || other === "Invalid" || other._tag !== one._tag) return one
          if (one._tag === "Claimed" && other._tag === "Claimed") {
            const token = relation(namespace, items[index].key).relate(one.token, other.token)
            return { ...one, token, until: near(span, one.until, other.until) }
          }
          return one._tag === "InFlight" && other._tag === "InFlight"
            ? { ...one, until: near(span, one.until, other.until) }
            : one
        }),
        expected
      )
      return answer
    })

  const complete = (
    ref: { readonly namespace: string; readonly claimId: string },
    items: ReadonlyArray<Protocol.KeyCompletion>,
    retentionMillis: number | undefined
  ) =>
    Effect.gen(function* () {
      const { answer, span } = yield* spanned(store.complete(ref, items, { retentionMillis }))
      world.instants.note(span)
      const retention = retentionMillis ?? store.retentionMillis
      const good = items.filter(({ key }) => !isBad(key))
      const expected = model.complete(ref.claimId, ref.namespace, good, retention, span.from)
      let next = 0
      yield* same(
        "complete",
        answer.map((one) => (typeof one === "string" ? one : one._tag)),
        items.map(({ key }) => (isBad(key) ? "Invalid" : expected[next++]))
      )
      return span
    })

  const renew = (claims: ReadonlyArray<{ readonly id: number; readonly lease: number }>) =>
    Effect.gen(function* () {
      const { answer, span } = yield* spanned(
        store.renew(claims.map(({ id, lease }) => ({ ...refOf(id), leaseMillis: lease })))
      )
      const expected = claims.map(({ id, lease }) => model.renew(refOf(id).claimId, lease, span.from))
      yield* same(
        "renew",
        answer.map((until, index) => near(span, until, expected[index])),
        expected
      )
    })

  const release = (id: number, keys?: ReadonlyArray<string>) =>
    Effect.suspend(() => {
      model.release(refOf(id).claimId, keys)
      return store.release(refOf(id), keys)
    })

  const lookup = (namespace: string, keys: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      const { answer, span } = yield* spanned(store.lookup(namespace, keys))
      const expected = keys.map((key) =>
        isBad(key) ? ({ _tag: "Invalid" } as const) : model.lookup(namespace, key, span.from)
      )
      yield* same(
        "lookup",
        answer.map((status, index) => {
          const other = expected[index]
          if (status._tag === "Invalid") return { _tag: "Invalid" }
          if (status._tag === "Unknown" || other._tag === "Unknown" || other._tag === "Invalid") return status
          return { ...status, until: near(span, status.until, other.until) }
        }),
        expected
      )
    })

  /** What is over but was not swept yet may be counted or not. */
  const forget = (namespace: string, keys: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const distinct = [...new Set(keys)]
      const known = distinct.filter((key) => model.lookup(namespace, key, now)._tag !== "Unknown").length
      const remembered = distinct.filter((key) => model.forget(namespace, key)).length
      const counted = yield* store.forget(namespace, keys)
      yield* ensure(
        counted >= known && counted <= remembered,
        () => `forget: expected a count from ${known} to ${remembered}, found ${counted}`
      )
    })

  switch (command.verb) {
    case "claim":
      return Effect.asVoid(claim(refOf(command.id), command.items, command.lease))
    case "complete":
      return Effect.asVoid(complete(refOf(command.id), command.items, command.retention))
    case "release":
      return release(command.id, command.keys)
    case "renew":
      return renew(command.claims)
    case "lookup":
      return lookup(world.namespaces[command.namespace], command.keys)
    case "forget":
      return forget(world.namespaces[command.namespace], command.keys)
    case "pass":
      return subject.time.pass(command.millis)
    case "restart":
      return Effect.gen(function* () {
        if (store.durable) instances[0] = yield* subject.restarted
      })
    case "completeBriefly":
      return Effect.gen(function* () {
        const span = yield* complete(refOf(command.id), command.items, briefMillis)
        yield* subject.time.passTo(span.to + briefMillis)
        yield* lookup(
          refOf(command.id).namespace,
          command.items.map(({ key }) => key)
        )
      })
    case "expire":
      return Effect.gen(function* () {
        const { id, items } = command
        const keys = items.map(({ key }) => key)
        const answers = yield* claim(refOf(id), items, briefMillis)
        const claimed = answers.find((answer) => answer._tag === "Claimed")
        if (claimed === undefined) return
        yield* subject.time.passTo(claimed.until)
        if (command.afterwards === "forgotten") yield* subject.time.pass(10 * briefMillis)
        const retention = 10_000_000
        const followUp: Effect.Effect<unknown, unknown> = {
          complete: complete(refOf(id), items, retention),
          forgotten: complete(refOf(id), items, retention),
          renew: renew([{ id, lease: 10_000_000 }]),
          askAgain: claim(refOf(id), items, briefMillis),
          takeOver: claim({ ...refOf(id), claimId: `${refOf(id).claimId}-successor` }, items, 10_000_000),
          forgetKeys: forget(refOf(id).namespace, keys),
          release: Effect.void
        }[command.afterwards]
        // it is settled now one way or another, so that its 10 leases can't run out unnoticed
        const settled = Effect.andThen(followUp, release(id))
        yield* command.afterwards === "forgotten"
          ? settled
          : unlessLate(claimed.until + 9 * briefMillis, settled)
        yield* lookup(refOf(id).namespace, keys)
      })
  }
}

const show = (_: unknown, { at, ...command }: Placed): string => {
  const { verb, ...rest } = command
  const words = Object.entries(rest).map(([name, value]) => `${name} ${JSON.stringify(value)}`)
  return `instance ${at}: ${verb} ${words.join(", ")}`.replaceAll(longKey, "(1,024 times k)")
}

/**
 * Thousands of random commands on the keys of two namespaces, compared with `Protocol.KeyState` answer by answer:
 * claims asked for again, claim ids used again, repeated and impossible keys in one batch, results, fingerprints,
 * leases and retentions that end, and for durable stores a second instance and restarts in between.
 */
export const idempotencyStoreModelCheck = (options: RandomOptions = {}): Check<IdempotencyStoreService> => ({
  invariant: 6,
  name: "answers any sequence of calls as the rules of the protocol do",
  run: (subject) =>
    Effect.gen(function* () {
      const instances = subject.store.durable ? [subject.store, yield* subject.another] : [subject.store]
      yield* runSequences(
        {
          setting: fc.constant(undefined),
          command: keyCommand(subject.time.exact),
          world: () =>
            Effect.sync(
              (): World => ({
                subject,
                instances,
                namespaces: [subject.name("even"), subject.name("odd")],
                model: new KeyRules(subject.store),
                tokens: new Map(),
                instants: new NearInstants(subject.time),
                own: subject.name("c")
              })
            ),
          step,
          show,
          isRequest: ({ verb }) => !["pass", "restart", "expire", "completeBriefly"].includes(verb)
        },
        { runs: subject.time.exact ? 60 : 10, ...options }
      )
    })
})
