/** The rules for keys, as a store has them that may keep its keys in shards: then each shard follows them for itself. */
import { type IdempotencyStoreService, Protocol } from "@tidemark/core"

export class KeyRules {
  private readonly shardOf: (key: string) => number
  private readonly shards = new Map<number, Protocol.KeyState>()

  constructor({ shardOf = () => 0 }: Pick<IdempotencyStoreService, "shardOf">) {
    this.shardOf = shardOf
  }

  /** `undefined`: the claim id is in use for other keys, in one shard at least; in the others it was judged. */
  claim(
    namespace: string,
    items: ReadonlyArray<Protocol.KeyItem>,
    terms: Protocol.ClaimTerms,
    now: number
  ): ReadonlyArray<Protocol.KeyClaimAnswer> | undefined {
    return this.each(
      items,
      ({ key }) => key,
      (shard, part) => {
        const outcome = shard.claim(namespace, part, terms, now)
        return outcome._tag === "Answers" ? outcome.answers : undefined
      }
    )
  }

  complete(
    claimId: string,
    namespace: string,
    items: ReadonlyArray<Protocol.KeyCompletion>,
    retentionMillis: number,
    now: number
  ): ReadonlyArray<Protocol.KeyCompleteAnswer> {
    return (
      this.each(
        items,
        ({ key }) => key,
        (shard, part) => shard.complete(claimId, namespace, part, retentionMillis, now)
      ) ?? []
    )
  }

  release(claimId: string, keys?: ReadonlyArray<string>): void {
    if (keys === undefined) for (const shard of this.shards.values()) shard.release(claimId)
    else for (const key of keys) this.of(key).release(claimId, [key])
  }

  /** The earliest end, of those that know the claim. */
  renew(claimId: string, leaseMillis: number, now: number): number | undefined {
    const untils = Array.from(this.shards.values(), (shard) => shard.renew(claimId, leaseMillis, now))
    const known = untils.filter((until) => until !== undefined)
    return known.length === 0 ? undefined : Math.min(...known)
  }

  lookup(namespace: string, key: string, now: number): Protocol.KeyStatus {
    return this.of(key).lookup(namespace, key, now)
  }

  forget(namespace: string, key: string): boolean {
    return this.of(key).forget(namespace, key)
  }

  private of(key: string): Protocol.KeyState {
    return this.shard(this.shardOf(key))
  }

  private shard(number: number): Protocol.KeyState {
    let shard = this.shards.get(number)
    if (shard === undefined) {
      shard = new Protocol.KeyState(new Protocol.MapKeyTable())
      this.shards.set(number, shard)
    }
    return shard
  }

  /** The answers of all shards, in the order of the items; `undefined` where one has none, after all were asked. */
  private each<Item, Answer>(
    items: ReadonlyArray<Item>,
    keyOf: (item: Item) => string,
    ask: (shard: Protocol.KeyState, part: ReadonlyArray<Item>) => ReadonlyArray<Answer> | undefined
  ): ReadonlyArray<Answer> | undefined {
    const parts = Map.groupBy(items.keys(), (index) => this.shardOf(keyOf(items[index])))
    const all: Array<Answer> = []
    let isWhole = true
    for (const [number, indexes] of parts) {
      const answers = ask(
        this.shard(number),
        indexes.map((index) => items[index])
      )
      if (answers === undefined) isWhole = false
      else for (let at = 0; at < indexes.length; at++) all[indexes[at]] = answers[at]
    }
    return isWhole ? all : undefined
  }
}
