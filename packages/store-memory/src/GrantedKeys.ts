import type { Protocol } from "@tidemark/core"

/** What was granted to one claim and is not settled: keys, and the fingerprints that they were claimed with. */
interface Grant {
  readonly namespace: string
  readonly fingerprints: Map<string, string | undefined>
}

/**
 * What a store granted to whom, from the claim until its keys are settled: for their fingerprints, which a completion
 * does not repeat. Bounded: of the oldest claims it knows nothing any more, and says so.
 */
export class GrantedKeys {
  private readonly grants = new Map<string, Grant>()
  private readonly maxKeys: number
  private size = 0

  constructor(maxKeys: number) {
    this.maxKeys = maxKeys
  }

  granted(
    namespace: string,
    claimId: string,
    items: ReadonlyArray<Protocol.KeyItem>,
    answers: ReadonlyArray<Protocol.KeyClaimAnswer>
  ): void {
    this.settled(claimId)
    const fingerprints: Grant["fingerprints"] = new Map()
    for (let index = 0; index < items.length; index++) {
      if (answers[index]._tag === "Claimed") fingerprints.set(items[index].key, items[index].fingerprint)
    }
    if (fingerprints.size === 0) return
    this.grants.set(claimId, { namespace, fingerprints })
    this.size += fingerprints.size
    for (const oldest of this.grants.keys()) {
      if (this.size <= this.maxKeys) break
      this.settled(oldest)
    }
  }

  has(claimId: string): boolean {
    return this.grants.has(claimId)
  }

  /** The fingerprints of a claim's unsettled keys; of a claim that is not known none. */
  of(namespace: string, claimId: string): ReadonlyMap<string, string | undefined> | undefined {
    const grant = this.grants.get(claimId)
    return grant?.namespace === namespace ? grant.fingerprints : undefined
  }

  /** These keys of the claim are settled; all, by default. */
  settled(claimId: string, keys?: Iterable<string>): void {
    const grant = this.grants.get(claimId)
    if (grant === undefined) return
    const { fingerprints } = grant
    const before = fingerprints.size
    if (keys === undefined) fingerprints.clear()
    else for (const key of keys) fingerprints.delete(key)
    this.size -= before - fingerprints.size
    if (fingerprints.size === 0) this.grants.delete(claimId)
  }
}
