/** What the store holds, for operators: found by SCAN, page by page, on each node. */
import {
  type ClaimSummary,
  Inspect,
  type KeySummary,
  OffsetRanges,
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
import { namespaceOf, placesOf } from "./shards.ts"

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

/** A namespace, or a shard of it. */
interface Place {
  readonly place: string
  readonly namespace: string
}

/** Pages of what is held there. */
const heldPages = (connection: Connection, prefix: string, { namespace, place }: Place) =>
  Stream.paginate("0", (cursor) =>
    Effect.map(
      connection.readBytes(verb, keyScripts.held, [namespaceKey(prefix, place)], [cursor]),
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

const completedOf = (
  connection: Connection,
  prefix: string,
  { namespace, place }: Place,
  generation: number
) =>
  Stream.paginate("0", (cursor) =>
    Effect.map(
      connection.readBytes(
        verb,
        keyScripts.completed,
        [namespaceKey(prefix, place)],
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
  place: Place
): Stream.Stream<KeySummary, StoreError> =>
  Stream.suspend(() => {
    const generations = new Set<number>()
    const held = Stream.flatMap(heldPages(connection, prefix, place), (page) => {
      for (const generation of page.generations) generations.add(generation)
      return Stream.fromIterable(page.keys)
    })
    const completed = Stream.suspend(() =>
      Stream.flatMap(Stream.fromIterable(generations), (generation) =>
        completedOf(connection, prefix, place, generation)
      )
    )
    return Stream.concat(held, completed)
  })

/** A claim as its shards know it, put together: it lasts until the first of them lets go. */
const together = (one: ClaimSummary | undefined, other: ClaimSummary): ClaimSummary =>
  one === undefined
    ? other
    : {
        ...one,
        token: Math.max(one.token, other.token),
        until: Math.min(one.until, other.until),
        held: one.held + other.held
      }

/** The optional ability to list; the keys of a namespace are in so many `shards`. */
export const inspect = (connection: Connection, prefix: string, shards: number) => {
  const streams = names(connection, verb, `${prefix}:s:{`)
  const places = Stream.map(
    names(connection, verb, `${prefix}:k:{`),
    (place): Place => ({ place, namespace: namespaceOf(place, shards) })
  )
  const placesIn = (namespace: string) =>
    Stream.fromIterable(placesOf(namespace, shards).map((place): Place => ({ place, namespace })))
  const streamClaims = (stream: string) =>
    Stream.unwrap(Effect.map(claimsOfStream(connection, prefix, stream), Stream.fromIterable))
  const claimsIn = (place: Place) =>
    Stream.flatMap(heldPages(connection, prefix, place), ({ claims }) => Stream.fromIterable(claims))
  /** Of several shards: those of the namespace are held in memory at once, which are as many as are at work. */
  const keyClaims = (namespace: string): Stream.Stream<ClaimSummary, StoreError> =>
    shards === 1
      ? claimsIn({ place: namespace, namespace })
      : Stream.unwrap(
          Effect.map(
            Stream.runFold(
              Stream.flatMap(placesIn(namespace), claimsIn),
              () => new Map<string, ClaimSummary>(),
              (claims, claim) => claims.set(claim.claimId, together(claims.get(claim.claimId), claim))
            ),
            (claims) => Stream.fromIterable(claims.values())
          )
        )
  /** Each namespace once, whichever of its shards is found first. */
  const namespaces = Stream.suspend(() => {
    const seen = new Set<string>()
    return Stream.filter(
      Stream.map(places, ({ namespace }) => namespace),
      (namespace) => shards === 1 || (!seen.has(namespace) && seen.add(namespace).size > 0)
    )
  })
  return Inspect.make({
    streams: (untouchedForMillis) =>
      Stream.flatMap(streams, (stream) =>
        Stream.unwrap(
          Effect.map(summaryOf(connection, prefix, stream, untouchedForMillis), Stream.fromIterable)
        )
      ),
    keys: (namespace) =>
      Stream.flatMap(namespace === undefined ? places : placesIn(namespace), (place) =>
        keysOf(connection, prefix, place)
      ),
    claims: (of) =>
      of === undefined
        ? Stream.concat(Stream.flatMap(streams, streamClaims), Stream.flatMap(namespaces, keyClaims))
        : Stream.concat(streamClaims(of), keyClaims(of))
  })
}
