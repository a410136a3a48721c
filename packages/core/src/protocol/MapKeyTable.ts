import type { KeyClaimRecord, KeyTable } from "./KeyState.ts"

interface Entry {
  readonly name: string
  claim: KeyClaimRecord | undefined
  until: number
  result: string | undefined
  fingerprint: string | undefined
}

/** The plainest table that the rules can work on: no bound, nothing forgotten but by the rules. For models. */
export class MapKeyTable implements KeyTable {
  private readonly byName = new Map<string, number>()
  private readonly entries = new Map<number, Entry>()
  private next = 0

  find(namespace: string, key: string): number {
    return this.byName.get(JSON.stringify([namespace, key])) ?? -1
  }
  insert(namespace: string, key: string, claim: KeyClaimRecord): number {
    const name = JSON.stringify([namespace, key])
    const entry = this.next++
    this.byName.set(name, entry)
    this.entries.set(entry, { name, claim, until: 0, result: undefined, fingerprint: undefined })
    return entry
  }
  remove(entry: number): void {
    this.byName.delete(this.at(entry).name)
    this.entries.delete(entry)
  }
  claimOf(entry: number): KeyClaimRecord | undefined {
    return this.entries.get(entry)?.claim
  }
  setClaim(entry: number, claim: KeyClaimRecord): void {
    Object.assign(this.at(entry), { claim, result: undefined })
  }
  complete(entry: number, until: number, result: string | undefined): void {
    Object.assign(this.at(entry), { claim: undefined, until, result })
  }
  completedUntil(entry: number): number {
    return this.at(entry).until
  }
  result(entry: number): string | undefined {
    return this.at(entry).result
  }
  fingerprint(entry: number): string | undefined {
    return this.at(entry).fingerprint
  }
  setFingerprint(entry: number, fingerprint: string | undefined): void {
    this.at(entry).fingerprint = fingerprint
  }
  touch(): void {}

  private at(entry: number): Entry {
    const found = this.entries.get(entry)
    if (found === undefined) throw new Error(`no entry ${entry} in the table`)
    return found
  }
}
