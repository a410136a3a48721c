/** What the store holds, for operators: found by SCAN, page by page, on each node. */
import {
  type ClaimSummary,
  Inspect,
  type KeySummary,
  OffsetRanges,
  Policies,
  type StoreError,
  type StreamSummary
} from "@tidemark/core"
import { Effect, Stream } from "effect"
import { namespaceKey } from "../IdempotencyStore.ts"
import { streamKeys } from "../OffsetStore.ts"
import type { Connection } from "./Connection.ts"
import { names, onwards } from "./names.ts"
import { unpackKey } from "./Packer.ts"
import { numberIn, readProgress, readStream } from "./progress.ts"
import { keyScripts, offsetScripts } from "./scripts.ts"

const verb = "inspect"

const inGroups = <Group extends ReadonlyArray<unknown>, A>(
  flat: ReadonlyArray<unknown>,
  size: number,
  make: (group: Group) => A
): Array<A> =>
  Array.from({ length: flat.length / size }, (_, index) =>
    make(flat.slice(index * size, (index + 1) * size) as ReadonlyArray<unknown> as Group)
  )

const readOf = (connection: Connection, prefix: string, stream: string) =>
  Effect.map(connection.readBytes(verb, offsetScripts.progress, streamKeys(prefix, stream)), readStream)

/** A stream as a summary, if it is there, and was not touched for so long. */
const summaryOf = (
  connection: Connection,
  prefix: string,
  stream: string,
  untouchedForMillis: number
): Effect.Effect<ReadonlyArray<StreamSummary>, StoreError> =>
  Effect.map(readOf(connection, prefix, stream), (stored) => {
    const progress = readProgress(stored)
    if (progress === undefined) return []
    const touchedAt = numberIn(stored.fields, "m") ?? 0
    if (touchedAt + untouchedForMillis > stored.now) return []
    const { claims, epoch, gapCount, highest, lastToken, origin, watermark } = progress
    return [
      { stream, origin, watermark, highest, gapCount, epoch, lastToken, liveClaims: claims.length, touchedAt }
    ]
  })

const sizeOf = (ranges: OffsetRanges.OffsetRanges): number =>
  OffsetRanges.isOpenEnded(ranges) ? Number.POSITIVE_INFINITY : OffsetRanges.size(ranges)

/** The live claims of a stream, as a page of its own. */
const claimsOfStream = (
  connection: Connection,
  prefix: string,
  stream: string
): Effect.Effect<ReadonlyArray<ClaimSummary>, StoreError> =>
  Effect.map(readOf(connection, prefix, stream), (stored) =>
    (readProgress(stored)?.claims ?? []).map(({ claimId, owner, ranges, token, until }) => ({
      kind: "offsets" as const,
      of: stream,
      claimId,
      owner,
      token,
      until,
      held: sizeOf(ranges)
    }))
  )

interface HeldPage {
  readonly keys: ReadonlyArray<KeySummary>
  readonly claims: ReadonlyArray<ClaimSummary>
  readonly generations: ReadonlyArray<number>
}

/** Pages of what is held in a namespace. */
const heldPages = (connection: Connection, prefix: string, namespace: string) =>
  Stream.paginate("0", (cursor) =>
    Effect.map(
      connection.readBytes(verb, keyScripts.held, [namespaceKey(prefix, namespace)], [cursor]),
      (reply) => {
        const [next, keys, claims, generations] = reply as [
          Buffer,
          Array<unknown>,
          Array<unknown>,
          Array<number>
        ]
        const page: HeldPage = {
          keys: inGroups(keys, 3, ([key, until, owner]: [Buffer, number, Buffer]) => ({
            namespace,
            key: unpackKey(key),
            status: { _tag: "InFlight" as const, until, owner: String(owner) }
          })),
          claims: inGroups(
            claims,
            5,
            ([id, owner, token, until, held]: [Buffer, Buffer, number, number, number]) => ({
              kind: "keys" as const,
              of: namespace,
              claimId: String(id),
              owner: String(owner),
              token,
              until,
              held
            })
          ),
          generations
        }
        return [[page], onwards(String(next))] as const
      }
    )
  )

const completedOf = (connection: Connection, prefix: string, namespace: string, generation: number) =>
  Stream.paginate("0", (cursor) =>
    Effect.map(
      connection.readBytes(
        verb,
        keyScripts.completed,
        [namespaceKey(prefix, namespace)],
        [String(generation), cursor]
      ),
      (reply) => {
        const [next, keys] = reply as [Buffer, Array<unknown>]
        const page = inGroups(keys, 3, ([key, until, result]: [Buffer, number, Buffer | null]) => ({
          namespace,
          key: unpackKey(key),
          status: { _tag: "Completed" as const, until, result: result === null ? undefined : String(result) }
        }))
        return [page as ReadonlyArray<KeySummary>, onwards(String(next))] as const
      }
    )
  )

/** Held keys, and then what is completed: what is settled meanwhile is seen twice rather than not at all. */
const keysOf = (
  connection: Connection,
  prefix: string,
  namespace: string
): Stream.Stream<KeySummary, StoreError> =>
  Stream.suspend(() => {
    const generations = new Set<number>()
    const held = Stream.flatMap(heldPages(connection, prefix, namespace), (page) => {
      for (const generation of page.generations) generations.add(generation)
      return Stream.fromIterable(page.keys)
    })
    const completed = Stream.suspend(() =>
      Stream.flatMap(Stream.fromIterable(generations), (generation) =>
        completedOf(connection, prefix, namespace, generation)
      )
    )
    return Stream.concat(held, completed)
  })

/** The optional ability to list. */
export const inspect = (connection: Connection, prefix: string) => {
  const streams = names(connection, verb, `${prefix}:s:{`)
  const namespaces = names(connection, verb, `${prefix}:k:{`)
  const streamClaims = (stream: string) =>
    Stream.unwrap(Effect.map(claimsOfStream(connection, prefix, stream), Stream.fromIterable))
  const keyClaims = (namespace: string) =>
    Stream.flatMap(heldPages(connection, prefix, namespace), ({ claims }) => Stream.fromIterable(claims))
  return Inspect.of({
    streams: (options) => {
      const millis = options?.untouchedFor === undefined ? 0 : Policies.toMillis(options.untouchedFor)
      return Stream.flatMap(streams, (stream) =>
        Stream.unwrap(Effect.map(summaryOf(connection, prefix, stream, millis), Stream.fromIterable))
      )
    },
    keys: (options) =>
      options?.namespace === undefined
        ? Stream.flatMap(namespaces, (namespace) => keysOf(connection, prefix, namespace))
        : keysOf(connection, prefix, options.namespace),
    claims: (options) => {
      const { of } = options ?? {}
      return of === undefined
        ? Stream.concat(Stream.flatMap(streams, streamClaims), Stream.flatMap(namespaces, keyClaims))
        : Stream.concat(streamClaims(of), keyClaims(of))
    }
  })
}
