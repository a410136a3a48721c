/** A claim that a list can hold. */
export interface Listed {
  readonly claimId: string
  /** The list's own: where it stands. */
  at: number
}

/** From so many claims on, an index pays for itself. */
const indexedFrom = 16

/**
 * Claims by their id. Most often there are a few at a time, which come and go at once: a short array is many times
 * cheaper for that than a `Map`, which comes in when there are more.
 */
export class ClaimList<C extends Listed> {
  /** In no particular order. */
  readonly all: Array<C> = []
  private byId: Map<string, C> | undefined

  get size(): number {
    return this.all.length
  }

  find(claimId: string): C | undefined {
    if (this.byId !== undefined) return this.byId.get(claimId)
    const { all } = this
    for (let index = 0; index < all.length; index++) if (all[index].claimId === claimId) return all[index]
    return undefined
  }

  add(claim: C): void {
    const { all } = this
    claim.at = all.length
    all.push(claim)
    if (this.byId !== undefined) this.byId.set(claim.claimId, claim)
    else if (all.length >= indexedFrom) this.byId = new Map(all.map((listed) => [listed.claimId, listed]))
  }

  /** Removing one that is not (or no longer) in the list does nothing. While iterating, go from the end. */
  remove(claim: C): void {
    const { all } = this
    const { at } = claim
    if (all[at] !== claim) return
    const last = all.pop() as C
    if (last !== claim) {
      all[at] = last
      last.at = at
    }
    claim.at = -1
    if (this.byId === undefined) return
    this.byId.delete(claim.claimId)
    if (all.length === 0) this.byId = undefined
  }

  clear(): void {
    this.all.length = 0
    this.byId = undefined
  }
}
