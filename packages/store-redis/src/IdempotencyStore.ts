/** Idempotency keys, on Redis: those of a namespace, or of a shard of it (internal/shards.ts), live in one slot; see scripts/lib/namespace.lua and done.lua. */
import {
  Coalescing,
  IdempotencyStore,
  type IdempotencyStoreImplementation,
  type Protocol,
  type StoreError
} from "@tidemark/core"
import { Effect, Exit, type Scope } from "effect"
import type { Connection } from "./internal/Connection.ts"
import { storeName } from "./internal/errors.ts"
import { Packer, packedKey } from "./internal/Packer.ts"
import { keyScripts, type Script } from "./internal/scripts.ts"
import { inShards } from "./internal/shards.ts"
import type { Waiters } from "./internal/Waiters.ts"
import { hashTag, wholeMillis } from "./internal/wire.ts"

/** One of the requests that a script takes several of. */
interface Request {
  readonly namespace: string
  readonly size: number
  readonly pack: (packer: Packer) => void
}

export interface KeyStoreOptions {
  readonly prefix: string
  readonly retentionMillis: number
  readonly acceptEviction: boolean
  /** How many shards each namespace has. */
  readonly shards: number
}

const mostItems = 1_000

/** 0: the claim id is in use for other keys; a token: all were granted. */
type ClaimReply = number | [codes: string, token: number, until: number, more: Array<unknown>]

/** With when that was, by the clock of Redis. */
interface TimedReply {
  readonly now: number
  readonly reply: ClaimReply
}

const toClaimAnswers = (
  { now, reply }: TimedReply,
  leaseMillis: number,
  count: number
): ReadonlyArray<Protocol.KeyClaimAnswer> | undefined => {
  if (reply === 0) return undefined
  if (typeof reply === "number") {
    const claimed: Protocol.KeyClaimAnswer = {
      _tag: "Claimed",
      token: reply,
      until: now + Math.ceil(leaseMillis)
    }
    return new Array<Protocol.KeyClaimAnswer>(count).fill(claimed)
  }
  const [codes, token, until, more] = reply
  const claimed: Protocol.KeyClaimAnswer = { _tag: "Claimed", token, until }
  let next = 0
  return Array.from(codes, (code): Protocol.KeyClaimAnswer => {
    switch (code) {
      case "g":
        return claimed
      case "c":
        return { _tag: "Completed", result: undefined }
      case "r":
        return { _tag: "Completed", result: more[next++] as string }
      case "m":
        return { _tag: "Mismatch", fingerprint: more[next++] as string }
      default:
        return { _tag: "InFlight", until: more[next++] as number, owner: more[next++] as string }
    }
  })
}

const completions: Readonly<Record<string, Protocol.KeyCompleteAnswer>> = {
  c: "Completed",
  a: "AlreadyCompleted",
  l: "LeaseLost"
}

const toCompleteAnswers = (codes: string, count: number): ReadonlyArray<Protocol.KeyCompleteAnswer> =>
  codes === ""
    ? new Array<Protocol.KeyCompleteAnswer>(count).fill("Completed")
    : Array.from(codes, (code) => completions[code])

const toStatuses = ([codes, more]: [string, Array<unknown>]): ReadonlyArray<Protocol.KeyStatus> => {
  let next = 0
  return Array.from(codes, (code): Protocol.KeyStatus => {
    if (code === "u") return { _tag: "Unknown" }
    const until = more[next++] as number
    switch (code) {
      case "h":
        return { _tag: "InFlight", until, owner: more[next++] as string }
      case "r":
        return { _tag: "Completed", until, result: more[next++] as string }
      default:
        return { _tag: "Completed", until, result: undefined }
    }
  })
}

/** Texts of items, with nil where one has none; "" where none has one. */
const packOptional = <A>(
  packer: Packer,
  items: ReadonlyArray<A>,
  textOf: (item: A) => string | undefined
): void => {
  if (items.every((item) => textOf(item) === undefined)) {
    packer.text("")
    return
  }
  packer.wrap(() => {
    packer.array(items.length)
    for (const item of items) {
      const text = textOf(item)
      if (text === undefined) packer.nil()
      else packer.text(text)
    }
  })
}

const inParts = <A>(items: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> =>
  items.length <= mostItems
    ? [items]
    : Array.from({ length: Math.ceil(items.length / mostItems) }, (_, part) =>
        items.slice(part * mostItems, (part + 1) * mostItems)
      )

const keysOf = (items: ReadonlyArray<{ readonly key: string }>): ReadonlyArray<string> =>
  items.map(({ key }) => key)

/** The hash of a namespace, or of a shard of it. */
export const namespaceKey = (prefix: string, namespace: string): string => `${prefix}:k:${hashTag(namespace)}`

/** The service on a connection. */
export const make = (connection: Connection, waiters: Waiters, options: KeyStoreOptions) =>
  Effect.gen(function* () {
    const { prefix, retentionMillis } = options
    const packer = new Packer()
    /** On a cluster a part of a namespace may be on its way to another node; evicted ones never come. */
    const mustBeWhole = connection.isCluster && !options.acceptEviction
    const argsOf = (packed: Buffer): ReadonlyArray<string | Buffer> =>
      mustBeWhole ? [packed, "all"] : [packed]
    const baseOf = (namespace: string): string => namespaceKey(prefix, namespace)
    /** Concurrent calls for one namespace go in one script; a lone one goes at once. */
    const gathered = (
      verb: string,
      script: Script,
      valuesOfRequest: number,
      answerOf = (reply: unknown, index: number) => (reply as Array<unknown>)[index]
    ) =>
      Coalescing.make<Request, unknown, StoreError>({
        maxItems: mostItems,
        after: "tick",
        patience: connection.patience(verb),
        sizeOf: ({ size }) => size,
        laneOf: ({ namespace }) => namespace,
        run: (requests) => {
          packer.array(requests.length * valuesOfRequest)
          for (const request of requests) request.pack(packer)
          return Effect.map(
            connection.write(verb, script, [baseOf(requests[0].namespace)], argsOf(packer.take())),
            (reply) => requests.map((_, index) => Exit.succeed(answerOf(reply, index)))
          )
        }
      })

    const claim = yield* gathered("claim", keyScripts.claim, 5, (reply, index): TimedReply => {
      const [now, answers] = reply as [number, ReadonlyArray<ClaimReply>]
      return { now, reply: answers[index] }
    })
    const complete = yield* gathered("complete", keyScripts.complete, 4)
    const release = yield* gathered("release", keyScripts.release, 2, () => undefined)
    const renew = yield* gathered("renew", keyScripts.renew, 2)

    const inPlaces: IdempotencyStoreImplementation = {
      name: storeName,
      durable: true,
      retentionMillis,
      claim: (namespace, items, { claimId, owner, leaseMillis }) =>
        Effect.map(
          claim({
            namespace,
            size: items.length,
            pack: (packer) => {
              packer.text(claimId).text(owner).text(wholeMillis(leaseMillis))
              packer.wrap(() => packer.keys(keysOf(items)))
              packOptional(packer, items, ({ fingerprint }) => fingerprint)
            }
          }),
          (reply) => {
            const answers = toClaimAnswers(reply as TimedReply, leaseMillis, items.length)
            if (answers?.some(({ _tag }) => _tag === "InFlight")) waiters.listen()
            return answers
          }
        ),
      complete: ({ namespace, claimId }, items, retention) =>
        Effect.map(
          Effect.forEach(inParts(items), (part) =>
            Effect.map(
              complete({
                namespace,
                size: part.length,
                pack: (packer) => {
                  packer.text(claimId).text(wholeMillis(retention))
                  packer.wrap(() => packer.keys(keysOf(part)))
                  packOptional(packer, part, ({ result }) => result)
                }
              }),
              (codes) => toCompleteAnswers(codes as string, part.length)
            )
          ),
          (answers) => (answers.length === 1 ? answers[0] : answers.flat())
        ),
      release: ({ namespace, claimId }, keys) =>
        Effect.forEach(
          keys === undefined ? [undefined] : inParts(keys),
          (part) =>
            release({
              namespace,
              size: part?.length ?? 1,
              pack: (packer) => {
                packer.text(claimId)
                if (part === undefined) packer.text("")
                else packer.wrap(() => packer.keys(part))
              }
            }),
          { discard: true }
        ),
      renew: (claims) =>
        Effect.map(
          // at once, so that they are one round trip
          Effect.forEach(
            claims,
            ({ namespace, claimId, leaseMillis }) =>
              renew({
                namespace,
                size: 1,
                pack: (packer) => packer.text(claimId).text(wholeMillis(leaseMillis))
              }),
            { concurrency: "unbounded" }
          ),
          (untils) => untils.map((until) => (until === 0 ? undefined : (until as number)))
        ),
      lookup: (namespace, keys) =>
        Effect.map(
          Effect.forEach(inParts(keys), (part) =>
            Effect.map(
              connection.read(
                "lookup",
                keyScripts.lookup,
                [baseOf(namespace)],
                argsOf(packer.keys(part).take())
              ),
              (reply) => toStatuses(reply as [string, Array<unknown>])
            )
          ),
          (statuses) => statuses.flat()
        ),
      forget: (namespace, keys) =>
        Effect.map(
          Effect.forEach(inParts(keys), (part) =>
            connection.write(
              "forget",
              keyScripts.forget,
              [baseOf(namespace)],
              argsOf(packer.keys(part).take())
            )
          ),
          (known) => (known as Array<number>).reduce((sum, count) => sum + count, 0)
        ),
      awaitSettled: (namespace, key) => waiters.wait(baseOf(namespace), packedKey(key))
    }
    return yield* IdempotencyStore.make(inShards(inPlaces, options.shards))
  }) satisfies Effect.Effect<unknown, never, Scope.Scope>
