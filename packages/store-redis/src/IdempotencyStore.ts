/**
 * Idempotency keys, on Redis: those of a namespace, or of a shard of it (internal/shards.ts), live in one slot; see
 * scripts/lib/layout.lua and done.lua.
 */
import {
  Coalescing,
  IdempotencyStore,
  type IdempotencyStoreImplementation,
  type StoreError
} from "@tidemark/core"
import { Effect, Exit, type Scope } from "effect"
import type { Connection } from "./internal/Connection.ts"
import { storeName } from "./internal/errors.ts"
import * as Requests from "./internal/keyRequests.ts"
import { packedKey } from "./internal/Packer.ts"
import { keyScripts, type Script } from "./internal/scripts.ts"
import { inShards } from "./internal/shards.ts"
import type { Waiters } from "./internal/Waiters.ts"
import { hashTag } from "./internal/wire.ts"

export interface KeyStoreOptions {
  readonly prefix: string
  readonly retentionMillis: number
  readonly acceptEviction: boolean
  /** How many shards each namespace has. */
  readonly shards: number
}

const mostItems = 1_000

/** How requests of one verb go to a script together, and how its reply is taken apart. */
interface Verb<Request, Reply, Answer> {
  readonly name: string
  readonly script: Script
  readonly sizeOf: (request: Request) => number
  readonly pack: (requests: ReadonlyArray<Request>) => Buffer
  readonly answerOf: (reply: Reply, request: Request, place: number) => Answer
}

const inParts = <A>(items: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> =>
  items.length <= mostItems
    ? [items]
    : Array.from({ length: Math.ceil(items.length / mostItems) }, (_, part) =>
        items.slice(part * mostItems, (part + 1) * mostItems)
      )

/** Does it for parts of at most `mostItems`, and joins the answers. */
const forParts = <Item, A, E>(
  items: ReadonlyArray<Item>,
  ask: (part: ReadonlyArray<Item>) => Effect.Effect<ReadonlyArray<A>, E>
): Effect.Effect<ReadonlyArray<A>, E> =>
  items.length <= mostItems
    ? ask(items)
    : Effect.map(Effect.forEach(inParts(items), ask), (answers) => answers.flat())

/** The hash of a namespace, or of a shard of it. */
export const namespaceKey = (prefix: string, namespace: string): string => `${prefix}:k:${hashTag(namespace)}`

/** The service on a connection. */
export const make = (connection: Connection, waiters: Waiters, options: KeyStoreOptions) =>
  Effect.gen(function* () {
    const { prefix, retentionMillis } = options
    /** On a cluster a part of a namespace may be on its way to another node; evicted ones never come. */
    const mustBeWhole = connection.isCluster && !options.acceptEviction
    const argsOf = (packed: Buffer): ReadonlyArray<string | Buffer> =>
      mustBeWhole ? [packed, "all"] : [packed]
    const baseOf = (namespace: string): string => namespaceKey(prefix, namespace)
    /** Concurrent calls for one namespace go in one script; a lone one goes at once. */
    const gathered = <Request extends Requests.KeyRequest, Reply, Answer>({
      name,
      script,
      sizeOf,
      pack,
      answerOf
    }: Verb<Request, Reply, Answer>) =>
      Coalescing.make<Request, Answer, StoreError>({
        maxItems: mostItems,
        after: "tick",
        patience: connection.patience(name),
        sizeOf,
        laneOf: ({ namespace }) => namespace,
        concurrency: 2,
        worthwhile: 32,
        start: (requests, answered) =>
          connection.startWrite(
            name,
            script,
            [baseOf(requests[0].namespace)],
            argsOf(pack(requests)),
            (exit) =>
              answered(
                Exit.map(exit, (reply) =>
                  requests.map((request, place) => Exit.succeed(answerOf(reply as Reply, request, place)))
                )
              )
          )
      })

    const claim = yield* gathered<
      Requests.ClaimRequest,
      Requests.ClaimsReply,
      ReturnType<typeof Requests.claimAnswers>
    >({
      name: "claim",
      script: keyScripts.claim,
      sizeOf: ({ items }) => items.length,
      pack: Requests.packClaims,
      answerOf: (reply, request, place) => {
        const answers = Requests.claimAnswers(reply, request, place)
        if (answers?.some(({ _tag }) => _tag === "InFlight")) waiters.listen()
        return answers
      }
    })
    const complete = yield* gathered({
      name: "complete",
      script: keyScripts.complete,
      sizeOf: ({ items }) => items.length,
      pack: Requests.packCompletions,
      answerOf: Requests.completeAnswers
    })
    const release = yield* gathered({
      name: "release",
      script: keyScripts.release,
      sizeOf: ({ keys }) => keys?.length ?? 1,
      pack: Requests.packReleases,
      answerOf: () => undefined
    })
    const renew = yield* gathered<Requests.RenewRequest, ReadonlyArray<number>, number>({
      name: "renew",
      script: keyScripts.renew,
      sizeOf: () => 1,
      pack: Requests.packRenewals,
      answerOf: (untils, _, place) => untils[place]
    })

    const inPlaces: IdempotencyStoreImplementation = {
      name: storeName,
      durable: true,
      retentionMillis,
      claim: (namespace, items, { claimId, owner, leaseMillis }) =>
        claim({ namespace, claimId, items, owner, leaseMillis }),
      complete: ({ namespace, claimId }, items, retentionMillis) =>
        forParts(items, (part) => complete({ namespace, claimId, items: part, retentionMillis })),
      release: ({ namespace, claimId }, keys) =>
        keys === undefined || keys.length <= mostItems
          ? release({ namespace, claimId, keys })
          : Effect.forEach(inParts(keys), (part) => release({ namespace, claimId, keys: part }), {
              discard: true
            }),
      renew: (claims) =>
        Effect.map(
          // at once, so that they are one round trip
          Effect.forEach(claims, renew, { concurrency: "unbounded" }),
          (untils) => untils.map((until) => (until === 0 ? undefined : until))
        ),
      lookup: (namespace, keys) =>
        forParts(keys, (part) =>
          Effect.map(
            connection.read(
              "lookup",
              keyScripts.lookup,
              [baseOf(namespace)],
              argsOf(Requests.packKeyList(part))
            ),
            (reply) => Requests.statuses(reply as Requests.StatusReply)
          )
        ),
      forget: (namespace, keys) =>
        Effect.map(
          Effect.forEach(inParts(keys), (part) =>
            connection.write(
              "forget",
              keyScripts.forget,
              [baseOf(namespace)],
              argsOf(Requests.packKeyList(part))
            )
          ),
          (known) => (known as Array<number>).reduce((sum, count) => sum + count, 0)
        ),
      awaitSettled: (namespace, key) => waiters.wait(baseOf(namespace), packedKey(key))
    }
    return yield* IdempotencyStore.make(inShards(inPlaces, options.shards))
  }) satisfies Effect.Effect<unknown, never, Scope.Scope>
