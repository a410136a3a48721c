import type { Protocol } from "@tidemark/core"

/** All offsets of the little world that the model knows; the last one stands for everything above. */
export const tail = 40

export interface NaiveAnswer {
  readonly granted: ReadonlyArray<number>
  readonly completed: ReadonlyArray<number>
  readonly held: ReadonlyArray<number>
  readonly token: number | undefined
  readonly until: number | undefined
}

interface NaiveClaim {
  readonly id: string
  readonly requested: ReadonlyArray<number>
  readonly held: Set<number>
  readonly token: number
  readonly leaseMillis: number
  until: number
}

/** The rules for one stream, offset by offset, written from the words of the invariants and as slow as they are. */
export class NaiveStream {
  readonly completed = new Set<number>()
  claims: Array<NaiveClaim> = []
  epoch = 0
  lastToken = 0
  origin: number | undefined
  note: string | undefined

  claim(
    id: string,
    asked: ReadonlyArray<number>,
    terms: Protocol.ClaimTerms,
    now: number
  ): NaiveAnswer | undefined {
    this.forget(now)
    const known = this.claims.find((claim) => claim.id === id)
    if (known !== undefined) {
      if (known.requested.join() !== asked.join()) return undefined
      return {
        granted: asked.filter((offset) => known.held.has(offset) && !this.completed.has(offset)),
        completed: asked.filter((offset) => this.completed.has(offset)),
        held: asked.filter(
          (offset) => !this.completed.has(offset) && this.liveHolder(offset, now, known) !== undefined
        ),
        token: known.token,
        until: known.until
      }
    }
    const completed = asked.filter((offset) => this.completed.has(offset))
    const open = asked.filter((offset) => !this.completed.has(offset))
    const held = open.filter((offset) => this.liveHolder(offset, now) !== undefined)
    const whole = asked.includes(tail)
    const granted = whole && held.length > 0 ? [] : open.filter((offset) => !held.includes(offset))
    if (granted.length === 0) return { granted, completed, held, token: undefined, until: undefined }
    this.claims = this.claims.filter(
      (claim) => !granted.some((offset) => claim.held.has(offset) && !this.completed.has(offset))
    )
    this.origin = Math.min(this.origin ?? granted[0], granted[0])
    this.lastToken = Math.max(this.lastToken + 1, Math.floor(now * 1000))
    const until = now + terms.leaseMillis
    const claim = {
      id,
      requested: asked,
      held: new Set(granted),
      token: this.lastToken,
      leaseMillis: terms.leaseMillis,
      until
    }
    this.claims.push(claim)
    return { granted, completed, held, token: claim.token, until }
  }

  complete(id: string, offsets: ReadonlyArray<number>, now: number) {
    const claim = this.known(id, now)
    const already = offsets.filter((offset) => this.completed.has(offset))
    const open = offsets.filter((offset) => !this.completed.has(offset))
    const ours = open.filter((offset) => claim?.held.has(offset) === true)
    for (const offset of ours) this.completed.add(offset)
    this.dropSettled()
    return { completed: ours, already, lost: open.filter((offset) => !ours.includes(offset)) }
  }

  release(id: string, offsets: ReadonlyArray<number> | undefined): void {
    const claim = this.claims.find((candidate) => candidate.id === id)
    if (claim === undefined) return
    for (const offset of offsets ?? [...claim.held]) claim.held.delete(offset)
    this.dropSettled()
  }

  renew(id: string, leaseMillis: number, now: number): number | undefined {
    const claim = this.known(id, now)
    if (claim === undefined) return undefined
    claim.until = Math.max(claim.until, now + leaseMillis)
    return claim.until
  }

  annotate(id: string, note: string, now: number): boolean {
    const isKnown = this.known(id, now) !== undefined
    if (isKnown) this.note = note
    return isKnown
  }

  rewind(to: number): void {
    for (const offset of [...this.completed]) if (offset >= to) this.completed.delete(offset)
    if (this.origin === undefined || to < this.origin) {
      this.origin = to
      this.completed.clear()
    }
    this.epoch += 1
    this.claims = []
  }

  skip(offsets: ReadonlyArray<number>): void {
    for (const offset of offsets) this.completed.add(offset)
    this.origin = Math.min(this.origin ?? offsets[0], offsets[0])
    this.epoch += 1
    this.claims = []
  }

  watermark(): number {
    let at = this.origin as number
    while (this.completed.has(at)) at += 1
    return at
  }

  liveHolder(offset: number, now: number, except?: NaiveClaim): NaiveClaim | undefined {
    return this.claims.find((claim) => claim !== except && now < claim.until && claim.held.has(offset))
  }

  private known(id: string, now: number): NaiveClaim | undefined {
    return this.claims.find((claim) => claim.id === id && now < claim.until + 10 * claim.leaseMillis)
  }

  private forget(now: number): void {
    this.claims = this.claims.filter((claim) => now < claim.until + 10 * claim.leaseMillis)
  }

  /** A claim that holds nothing undone is no more. */
  private dropSettled(): void {
    this.claims = this.claims.filter((claim) => [...claim.held].some((offset) => !this.completed.has(offset)))
  }
}
