/**
 * Keys in shards: on a cluster the keys of a namespace are spread over several slots, so that its load is spread over
 * the nodes. A shard is a store of its own for the keys that fall into it: a call on keys of several shards is one
 * script for each of them, all at once, and its answers are put together in the order of the keys.
 *
 * What spans keys is therefore a matter of each shard: tokens grow per key, not from key to key; and a claim id that is
 * used again for other keys is noticed where one of its shards knows it.
 */
import type { IdempotencyStoreImplementation, Protocol, StoreError } from "@tidemark/core"
// @ts-expect-error the package has no types
import slotOfKey from "cluster-key-slot"
import { Effect } from "effect"

/** How many shards a namespace can have at most: renewals ask each. */
export const mostShards = 256

const slotCount = 16_384

/** The slot of a key on a Cluster: that of its hash tag, where it has one. */
export const slotOf: (key: string) => number = slotOfKey

/**
 * Two letters for each shard, which its keys' hash tags end in. A slot is a CRC, in which what comes before an ending
 * of fixed length only flips bits, the same for each ending. So where these have their slots in each 256th of all
 * slots, the shards of every namespace have theirs so too: each node has as many of them as it has of the slots.
 */
const endings = ((): ReadonlyArray<string> => {
  const found = new Array<string>(mostShards).fill("")
  for (let number = 0; number < 36 * 36; number++) {
    const ending = number.toString(36).padStart(2, "0")
    const part = Math.floor(slotOf(ending) / (slotCount / mostShards))
    if (found[part] === "") found[part] = ending
  }
  return found
})()

/** The shard of a key, from 0: by FNV-1a (32 bits) over its UTF-16 units. It is a part of the format. */
export const shardOf = (key: string, count: number): number => {
  let hash = 0x811c9dc5
  for (let index = 0; index < key.length; index++) {
    hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193)
  }
  // the low bits of FNV-1a alone are those of few characters
  return ((hash ^ (hash >>> 16)) >>> 0) % count
}

/**
 * Where the keys of a namespace lie that are in this shard: what the inner store takes for a namespace.
 *
 * @param count - a power of two, at most 256.
 */
export const placeOf = (namespace: string, shard: number, count: number): string =>
  count === 1 ? namespace : `${namespace}/${endings[shard * (mostShards / count)]}`

/** The namespace of a place. */
export const namespaceOf = (place: string, count: number): string =>
  count === 1 ? place : place.slice(0, -3)

/** All places of a namespace. */
export const placesOf = (namespace: string, count: number): ReadonlyArray<string> =>
  Array.from({ length: count }, (_, shard) => placeOf(namespace, shard, count))

/** The items that one shard has of a call, and where they stood in it. */
interface Part<Item> {
  readonly place: string
  readonly items: Array<Item>
  readonly indexes: Array<number>
}

/** Asks each; waits for all, also where one fails, so that nothing is still under way when the answer is known. */
const askEach = <A, B>(
  parts: ReadonlyArray<A>,
  ask: (part: A) => Effect.Effect<B, StoreError>
): Effect.Effect<ReadonlyArray<B>, StoreError> =>
  Effect.flatMap(
    Effect.forEach(parts, (part) => Effect.exit(ask(part)), { concurrency: "unbounded" }),
    (exits) => Effect.forEach(exits, (exit) => exit)
  )

/** The same store with each namespace in `count` shards; with one, the store itself. */
export const inShards = (
  store: IdempotencyStoreImplementation,
  count: number
): IdempotencyStoreImplementation => {
  if (count === 1) return store

  const split = <Item>(
    namespace: string,
    items: ReadonlyArray<Item>,
    keyOf: (item: Item) => string
  ): ReadonlyArray<Part<Item>> => {
    const parts = new Map<number, Part<Item>>()
    items.forEach((item, index) => {
      const shard = shardOf(keyOf(item), count)
      let part = parts.get(shard)
      if (part === undefined) {
        part = { place: placeOf(namespace, shard, count), items: [], indexes: [] }
        parts.set(shard, part)
      }
      part.items.push(item)
      part.indexes.push(index)
    })
    return [...parts.values()]
  }

  const inOrder = <Item, Answer>(
    parts: ReadonlyArray<Part<Item>>,
    answers: ReadonlyArray<ReadonlyArray<Answer>>
  ): ReadonlyArray<Answer> => {
    const all: Array<Answer> = []
    parts.forEach(({ indexes }, part) => {
      for (let index = 0; index < indexes.length; index++) all[indexes[index]] = answers[part][index]
    })
    return all
  }

  const keyOf = ({ key }: { readonly key: string }): string => key
  const itself = (key: string): string => key

  return {
    ...store,
    shardOf: (key) => shardOf(key, count),
    claim: (namespace, items, terms) => {
      const parts = split(namespace, items, keyOf)
      return Effect.map(
        askEach(parts, (part) => store.claim(part.place, part.items, terms)),
        (answers) =>
          answers.every((answer): answer is ReadonlyArray<Protocol.KeyClaimAnswer> => answer !== undefined)
            ? inOrder(parts, answers)
            : undefined
      )
    },
    complete: ({ claimId, namespace }, items, retentionMillis) => {
      const parts = split(namespace, items, keyOf)
      return Effect.map(
        askEach(parts, (part) =>
          store.complete({ namespace: part.place, claimId }, part.items, retentionMillis)
        ),
        (answers) => inOrder(parts, answers)
      )
    },
    release: ({ claimId, namespace }, keys) =>
      Effect.asVoid(
        keys === undefined
          ? askEach(placesOf(namespace, count), (place) => store.release({ namespace: place, claimId }))
          : askEach(split(namespace, keys, itself), (part) =>
              store.release({ namespace: part.place, claimId }, part.items)
            )
      ),
    // A shard that knows nothing of a claim has none of its keys, or none any more: the others tell.
    renew: (claims) =>
      Effect.map(
        store.renew(
          claims.flatMap((claim) =>
            placesOf(claim.namespace, count).map((namespace) => ({ ...claim, namespace }))
          )
        ),
        (untils) =>
          claims.map((_, index) => {
            const known = untils
              .slice(index * count, (index + 1) * count)
              .filter((until) => until !== undefined)
            return known.length === 0 ? undefined : Math.min(...known)
          })
      ),
    lookup: (namespace, keys) => {
      const parts = split(namespace, keys, itself)
      return Effect.map(
        askEach(parts, (part) => store.lookup(part.place, part.items)),
        (answers) => inOrder(parts, answers)
      )
    },
    forget: (namespace, keys) =>
      Effect.map(
        askEach(split(namespace, keys, itself), (part) => store.forget(part.place, part.items)),
        (known) => known.reduce((sum, one) => sum + one, 0)
      ),
    awaitSettled: (namespace, key) => store.awaitSettled(placeOf(namespace, shardOf(key, count), count), key)
  }
}
