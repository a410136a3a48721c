import type { Protocol } from "@tidemark/core"

interface NaiveClaim {
  readonly id: string
  readonly namespace: string
  readonly requested: ReadonlyArray<Protocol.KeyItem>
  readonly token: number
  readonly leaseMillis: number
  until: number
}

interface NaiveEntry {
  readonly claim: NaiveClaim | undefined
  readonly until: number
  readonly result: string | undefined
  readonly fingerprint: string | undefined
}

/** The rules for keys, written from the words of the invariants and as slow as they are. */
export class NaiveKeys {
  private readonly entries = new Map<string, NaiveEntry>()
  private claims: Array<NaiveClaim> = []
  private lastToken = 0

  claim(
    namespace: string,
    items: ReadonlyArray<Protocol.KeyItem>,
    terms: Protocol.ClaimTerms,
    now: number
  ): ReadonlyArray<Protocol.KeyClaimAnswer> | undefined {
    const known = this.known(terms.claimId, now)
    if (known !== undefined) {
      if (known.namespace !== namespace || JSON.stringify(known.requested) !== JSON.stringify(items))
        return undefined
      return items.map((item, index): Protocol.KeyClaimAnswer => {
        const entry = this.entries.get(`${namespace}/${item.key}`)
        const first = items.findIndex((other) => other.key === item.key) === index
        if (entry?.claim === known && first)
          return { _tag: "Claimed", token: known.token, until: known.until }
        return this.refusal(namespace, item, now) ?? { _tag: "InFlight", until: now, owner: terms.owner }
      })
    }
    const claim: NaiveClaim = {
      id: terms.claimId,
      namespace,
      requested: items,
      token: Math.max(this.lastToken + 1, now * 1000),
      leaseMillis: terms.leaseMillis,
      until: now + terms.leaseMillis
    }
    let granted = false
    const answers = items.map((item): Protocol.KeyClaimAnswer => {
      const refusal = this.refusal(namespace, item, now)
      if (refusal !== undefined) return refusal
      granted = true
      this.entries.set(`${namespace}/${item.key}`, {
        claim,
        until: 0,
        result: undefined,
        fingerprint: item.fingerprint
      })
      return { _tag: "Claimed", token: claim.token, until: claim.until }
    })
    if (granted) {
      this.lastToken = claim.token
      this.claims.push(claim)
    }
    this.dropEmpty()
    return answers
  }

  complete(
    id: string,
    namespace: string,
    items: ReadonlyArray<Protocol.KeyCompletion>,
    retention: number,
    now: number
  ) {
    const claim = this.known(id, now)
    const answers = items.map(({ key, result }): Protocol.KeyCompleteAnswer => {
      const name: string = `${namespace}/${key}`
      const entry: NaiveEntry | undefined = this.entries.get(name)
      if (entry !== undefined && entry.claim === undefined && now < entry.until) return "AlreadyCompleted"
      if (entry === undefined || claim === undefined || entry.claim !== claim) return "LeaseLost"
      this.entries.set(name, {
        claim: undefined,
        until: now + retention,
        result,
        fingerprint: entry.fingerprint
      })
      return "Completed"
    })
    this.dropEmpty()
    return answers
  }

  release(id: string, keys: ReadonlyArray<string> | undefined): void {
    const claim: NaiveClaim | undefined = this.claims.find((candidate) => candidate.id === id)
    if (claim === undefined) return
    for (const key of keys ?? claim.requested.map((item) => item.key)) {
      const name: string = `${claim.namespace}/${key}`
      if (this.entries.get(name)?.claim === claim) this.entries.delete(name)
    }
    this.dropEmpty()
  }

  renew(id: string, leaseMillis: number, now: number): number | undefined {
    const claim = this.known(id, now)
    if (claim === undefined) return undefined
    claim.until = Math.max(claim.until, now + leaseMillis)
    return claim.until
  }

  lookup(namespace: string, key: string, now: number) {
    const refusal = this.refusal(namespace, { key }, now)
    if (refusal === undefined) return { _tag: "Unknown" }
    if (refusal._tag === "InFlight") return refusal
    return { ...refusal, until: this.entries.get(`${namespace}/${key}`)?.until }
  }

  private refusal(
    namespace: string,
    item: Protocol.KeyItem,
    now: number
  ): Protocol.KeyClaimAnswer | undefined {
    const entry = this.entries.get(`${namespace}/${item.key}`)
    if (entry === undefined) return undefined
    const { claim, fingerprint, result } = entry
    if (now >= (claim?.until ?? entry.until)) return undefined
    if (item.fingerprint !== undefined && fingerprint !== undefined && fingerprint !== item.fingerprint) {
      return { _tag: "Mismatch", fingerprint }
    }
    return claim === undefined
      ? { _tag: "Completed", result }
      : { _tag: "InFlight", until: claim.until, owner: "somebody" }
  }

  private known(id: string, now: number): NaiveClaim | undefined {
    const claim = this.claims.find((candidate) => candidate.id === id)
    if (claim === undefined || now < claim.until + 10 * claim.leaseMillis) return claim
    this.release(id, undefined)
    return undefined
  }

  /** A claim that holds no key is no more. */
  private dropEmpty(): void {
    const holding = new Set([...this.entries.values()].map((entry) => entry.claim))
    this.claims = this.claims.filter((claim) => holding.has(claim))
  }
}
