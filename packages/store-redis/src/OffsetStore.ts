/** Positions in streams, on Redis: a stream is one hash and its claims another, see scripts/lib/stream.lua. */
import { Coalescing, OffsetRanges, OffsetStore, type Protocol, type StoreError } from "@tidemark/core"
import { Effect, Exit, type Scope } from "effect"
import type { Argument, Connection } from "./internal/Connection.ts"
import { storeName } from "./internal/errors.ts"
import { readProgress, readStream } from "./internal/progress.ts"
import { offsetScripts, type Script } from "./internal/scripts.ts"
import type { Waiters } from "./internal/Waiters.ts"
import { decodeRanges, encodeRanges, hashTag, wholeMillis } from "./internal/wire.ts"

/** One of the requests that a script takes several of. */
interface Request {
  readonly stream: string
  readonly args: ReadonlyArray<string>
  readonly size: number
}

const mostItems = 1_000

type ClaimReply =
  | 0
  | [token: number, until: number]
  | [token: number, until: number, granted: string, completed: string, held: Array<number | string>]

const toClaimAnswer = (
  reply: ClaimReply,
  asked: OffsetRanges.OffsetRanges
): Protocol.OffsetClaimAnswer | undefined => {
  if (reply === 0) return undefined
  if (reply.length === 2) {
    const [token, until] = reply
    return { granted: asked, token, until, completed: OffsetRanges.empty, held: [] }
  }
  const [token, until, granted, completed, held] = reply
  return {
    granted: decodeRanges(granted),
    token: token === 0 ? undefined : token,
    until: token === 0 ? undefined : until,
    completed: decodeRanges(completed),
    held: Array.from({ length: held.length / 3 }, (_, index) => ({
      until: held[3 * index] as number,
      owner: held[3 * index + 1] as string,
      ranges: decodeRanges(held[3 * index + 2] as string)
    }))
  }
}

type CompleteReply = 1 | [completed: string, alreadyCompleted: string, leaseLost: string]

const toCompleteAnswer = (
  reply: CompleteReply,
  asked: OffsetRanges.OffsetRanges
): Protocol.CompleteAnswer => {
  if (reply === 1) {
    return { completed: asked, alreadyCompleted: OffsetRanges.empty, leaseLost: OffsetRanges.empty }
  }
  const [completed, alreadyCompleted, leaseLost] = reply
  return {
    completed: decodeRanges(completed),
    alreadyCompleted: decodeRanges(alreadyCompleted),
    leaseLost: decodeRanges(leaseLost)
  }
}

/** Parts of at most `mostItems` ranges. */
const inParts = (ranges: OffsetRanges.OffsetRanges): ReadonlyArray<OffsetRanges.OffsetRanges> => {
  const { flat } = ranges
  if (flat.length <= 2 * mostItems) return [ranges]
  return Array.from({ length: Math.ceil(flat.length / (2 * mostItems)) }, (_, part) =>
    OffsetRanges.fromSortedUnsafe(flat.slice(2 * mostItems * part, 2 * mostItems * (part + 1)))
  )
}

const unionOf = (parts: ReadonlyArray<OffsetRanges.OffsetRanges>): OffsetRanges.OffsetRanges =>
  parts.reduce(OffsetRanges.union, OffsetRanges.empty)

/** The hash of a stream, and that of its claims. */
export const streamKeys = (prefix: string, stream: string): readonly [string, string] => {
  const key = `${prefix}:s:${hashTag(stream)}`
  return [key, `${key}:c`]
}

/** The service on a connection; keys begin with `prefix`. */
export const make = (connection: Connection, waiters: Waiters, prefix: string) =>
  Effect.gen(function* () {
    const keysOf = (stream: string) => streamKeys(prefix, stream)

    /** Concurrent calls for one stream go in one script; a lone one goes at once. */
    const gathered = (verb: string, script: Script) =>
      Coalescing.make<Request, unknown, StoreError>({
        maxItems: mostItems,
        after: "tick",
        patience: connection.patience(verb),
        sizeOf: ({ size }) => size,
        laneOf: ({ stream }) => stream,
        start: (requests, answered) =>
          connection.startWrite(
            verb,
            script,
            keysOf(requests[0].stream),
            requests.flatMap(({ args }) => args),
            (exit) =>
              answered(
                Exit.map(exit, (replies) =>
                  requests.map((_, index) => Exit.succeed(Array.isArray(replies) ? replies[index] : replies))
                )
              )
          )
      })

    const claim = yield* gathered("claim", offsetScripts.claim)
    const complete = yield* gathered("complete", offsetScripts.complete)
    const release = yield* gathered("release", offsetScripts.release)
    const renew = yield* gathered("renew", offsetScripts.renew)
    const write = (verb: string, script: Script, stream: string, ...args: ReadonlyArray<Argument>) =>
      connection.write(verb, script, keysOf(stream), args)
    const read = (verb: string, stream: string) =>
      Effect.map(connection.readBytes(verb, offsetScripts.progress, keysOf(stream)), readStream)

    return yield* OffsetStore.make({
      name: storeName,
      durable: true,
      claim: (stream, ranges, { claimId, owner, leaseMillis }) =>
        Effect.map(
          claim({
            stream,
            args: [claimId, owner, wholeMillis(leaseMillis), encodeRanges(ranges)],
            size: OffsetRanges.rangeCount(ranges)
          }),
          (reply) => {
            const answer = toClaimAnswer(reply as ClaimReply, ranges)
            if (answer !== undefined && answer.held.length > 0) waiters.listen()
            return answer
          }
        ),
      complete: ({ stream, claimId }, ranges) =>
        Effect.map(
          Effect.forEach(inParts(ranges), (part) =>
            Effect.map(
              complete({
                stream,
                args: [claimId, encodeRanges(part)],
                size: OffsetRanges.rangeCount(part)
              }),
              (reply) => toCompleteAnswer(reply as CompleteReply, part)
            )
          ),
          (answers): Protocol.CompleteAnswer =>
            answers.length === 1
              ? answers[0]
              : {
                  completed: unionOf(answers.map((answer) => answer.completed)),
                  alreadyCompleted: unionOf(answers.map((answer) => answer.alreadyCompleted)),
                  leaseLost: unionOf(answers.map((answer) => answer.leaseLost))
                }
        ),
      release: ({ stream, claimId }, ranges) =>
        Effect.asVoid(
          release({
            stream,
            args: [claimId, ranges === undefined ? "" : encodeRanges(ranges)],
            size: ranges === undefined ? 1 : OffsetRanges.rangeCount(ranges)
          })
        ),
      renew: (claims) =>
        Effect.map(
          // at once, so that they are one round trip
          Effect.forEach(
            claims,
            ({ stream, claimId, leaseMillis }) =>
              renew({ stream, args: [claimId, wholeMillis(leaseMillis)], size: 1 }),
            { concurrency: "unbounded" }
          ),
          (untils) => untils.map((until) => (until === 0 ? undefined : (until as number)))
        ),
      annotate: (notes) =>
        Effect.forEach(
          notes,
          ({ stream, claimId, note }) =>
            Effect.map(
              write("annotate", offsetScripts.annotate, stream, claimId, note),
              (noted) => noted === 1
            ),
          { concurrency: "unbounded" }
        ),
      progress: (stream) => Effect.map(read("progress", stream), readProgress),
      isCompleted: (stream, offset) => isCompleted(connection, keysOf(stream)[0], offset),
      rewind: (stream, to) => Effect.asVoid(write("rewind", offsetScripts.rewind, stream, String(to))),
      skip: (stream, ranges) =>
        Effect.asVoid(write("skip", offsetScripts.skip, stream, encodeRanges(ranges))),
      forget: (stream) => Effect.map(write("forget", offsetScripts.forget, stream), (known) => known === 1),
      copy: (from, to) =>
        Effect.gen(function* () {
          const source = yield* read("copy", from)
          if (source.fields.size === 0) return true
          const fields = [...source.fields].filter(([field]) => field !== "t").flat()
          return (yield* write("copy", offsetScripts.adopt, to, ...fields)) === 1
        }),
      awaitRelease: (stream) => waiters.wait(keysOf(stream)[0])
    })
  }) satisfies Effect.Effect<unknown, never, Scope.Scope>

/** A question needs no script: one command reads what decides it. */
const isCompleted = (connection: Connection, key: string, offset: number) =>
  Effect.map(
    connection.send(
      "isCompleted",
      (client) => client.hmgetBuffer(key, "o", "w", "f", String(Math.floor(offset / 4_096))),
      [key]
    ),
    (fields) => {
      const [origin, watermark, full, page] = fields as Array<Buffer | null>
      const known = new Map<string, Buffer>()
      const put = (field: string, value: Buffer | null) => {
        if (value !== null) known.set(field, value)
      }
      put("o", origin)
      put("w", watermark)
      put("f", full)
      put(String(Math.floor(offset / 4_096)), page)
      const progress = readProgress({ fields: known, claims: [] })
      return progress !== undefined && OffsetRanges.contains(progress.completed, offset)
    }
  )
