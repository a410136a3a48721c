/**
 * Idempotency keys in the file. The rules are those of core's `KeyState`, on tables that other processes share.
 *
 * A claim of many keys is one **batch**: its keys point at one row, which says who holds them and until when, or that
 * they are completed and until when they are remembered. So completing what a claim was granted changes one row,
 * however many keys it has. What is settled in part moves to a batch of its own.
 */
import type { StatementSync } from "node:sqlite"
import { Protocol } from "@tidemark/core"
import type { Connection } from "./Connection.ts"
import { Counter } from "./Counter.ts"
import { Damaged } from "./failures.ts"

/** A batch that is held; one that is completed has no claim. */
interface HeldBatch {
  readonly id: number
  readonly namespace: number
  readonly claimId: string
  readonly owner: string
  readonly token: number
  readonly leaseMillis: number
  readonly until: number
  readonly held: number
}

/** A key that is there, with its batch. */
interface Found {
  readonly key: string
  readonly batch: number
  readonly fingerprint: string | null
  readonly result: string | null
  /** `null`: completed. */
  readonly owner: string | null
  readonly until: number
}

/** A batch whose time is over, and which of its keys are still to be removed. */
interface Sweeping {
  readonly id: number
  readonly namespace: number
  readonly forgottenAt: number
  readonly keys: Array<string>
}

export class Keys {
  private readonly sql: ReturnType<typeof prepare>
  private readonly lastToken: Counter
  private readonly namespaces = new Map<string, number>()
  private sweeping: Sweeping | undefined

  constructor(connection: Connection) {
    this.sql = prepare(connection)
    this.lastToken = new Counter(connection, "key token")
    connection.join({
      flush: () => {},
      // numbers of new namespaces, and what was swept, went with the rest
      ended: (committed) => {
        if (committed) return
        this.namespaces.clear()
        this.sweeping = undefined
      }
    })
  }

  /** @returns `undefined` where the claim id is in use for other keys. */
  claim(
    namespaceName: string,
    items: ReadonlyArray<Protocol.KeyItem>,
    terms: Protocol.ClaimTerms,
    now: number
  ): ReadonlyArray<Protocol.KeyClaimAnswer> | undefined {
    const namespace = this.namespaceOrNew(namespaceName)
    const requested = encodeItems(items)
    const token = Protocol.nextToken(this.lastToken.value, now)
    const until = now + terms.leaseMillis
    const claimed: Protocol.KeyClaimAnswer = { _tag: "Claimed", token, until }
    // the list of one key goes into the same row
    const list = items.length === 1 && items[0].fingerprint === undefined ? requested : null
    const id =
      items.length === 0 ? undefined : this.newHeld(namespace, items.length, list, terms, token, until)
    if (id === undefined) {
      // without items there is no batch, and else one that has the claim id
      const known = this.heldBatch(terms.claimId, now)
      if (known === undefined) {
        // long over, and gone now
        return items.length === 0 ? [] : this.claim(namespaceName, items, terms, now)
      }
      return known.namespace === namespace && this.requestOf(known) === requested
        ? this.answerAgain(known, items, now)
        : undefined
    }
    const inserted = this.insertKeys(namespace, items, id, requested)
    if (inserted === items.length) {
      this.lastToken.value = token
      if (list === null) {
        const keys = encodeKeys(items)
        this.sql.insertBatchKeys.run(id, keys, keys === requested ? null : requested)
      }
      return items.map(() => claimed)
    }
    const answers = this.claimEach(namespace, items, { id, owner: terms.owner, until }, claimed, now)
    const granted = items.filter((_, index) => answers[index] === claimed)
    if (granted.length === 0) {
      this.sql.deleteBatch.run(id)
    } else {
      this.lastToken.value = token
      if (granted.length !== items.length) this.sql.setHeld.run(granted.length, id)
      if (list === null) this.sql.insertBatchKeys.run(id, encodeKeys(granted), requested)
    }
    return answers
  }

  complete(
    claimId: string,
    namespaceName: string,
    items: ReadonlyArray<Protocol.KeyCompletion>,
    retentionMillis: number,
    now: number
  ): ReadonlyArray<Protocol.KeyCompleteAnswer> {
    const namespace = this.namespaceId(namespaceName)
    if (namespace === undefined) return items.map(() => "LeaseLost")
    const until = now + retentionMillis
    const isWhole =
      this.sql.completeWhole.run(until, until, claimId, namespace, items.length, now, encodeKeys(items))
        .changes > 0
    if (!isWhole) return this.completeEach(this.heldBatch(claimId, now), namespace, items, until, now)
    for (const { key, result } of items) {
      if (result !== undefined) this.sql.setResult.run(result, namespace, key)
    }
    return items.map(() => "Completed")
  }

  /** Which of the keys are completed already, and whether any of the others are not held by the claim. */
  standing(
    claimId: string,
    namespaceName: string,
    items: ReadonlyArray<{ readonly key: string }>,
    now: number
  ): { readonly completed: ReadonlyArray<string>; readonly lost: boolean } {
    const namespace = this.namespaceId(namespaceName)
    if (namespace === undefined) return { completed: [], lost: true }
    const claim = this.heldBatch(claimId, now)
    const completed: Array<string> = []
    let lost = false
    for (const { key } of items) {
      const found = this.find(namespace, key)
      if (found !== undefined && found.owner === null && now < found.until) completed.push(key)
      else if (found === undefined || found.batch !== claim?.id) lost = true
    }
    return { completed, lost }
  }

  /** @returns the keys that the claim was granted, where it was known. */
  release(claimId: string, keys: ReadonlyArray<string> | undefined): ReadonlyArray<string> {
    const claim = this.batchOf(claimId)
    if (claim === undefined) return []
    const granted = this.grantedOf(claim.id)
    if (keys === undefined) {
      this.removeBatch(claim.id, claim.namespace, granted)
    } else {
      let released = 0
      for (const key of keys)
        released += Number(this.sql.deleteKeyOf.run(claim.namespace, key, claim.id).changes)
      this.letGo(claim.id, released)
    }
    return granted
  }

  renew(claimId: string, leaseMillis: number, now: number): number | undefined {
    const claim = this.heldBatch(claimId, now)
    if (claim === undefined) return undefined
    const until = Protocol.renewedUntil(claim, leaseMillis, now)
    this.sql.renew.run(until, Protocol.forgottenAt({ ...claim, until }), claim.id)
    return until
  }

  lookup(namespaceName: string, key: string, now: number): Protocol.KeyStatus {
    const namespace = this.namespaceId(namespaceName)
    const found = namespace === undefined ? undefined : this.find(namespace, key)
    if (found === undefined || now >= found.until) return { _tag: "Unknown" }
    return found.owner === null
      ? { _tag: "Completed", result: found.result ?? undefined, until: found.until }
      : { _tag: "InFlight", until: found.until, owner: found.owner }
  }

  forget(namespaceName: string, key: string): boolean {
    const namespace = this.namespaceId(namespaceName)
    const found = namespace === undefined ? undefined : this.find(namespace, key)
    if (namespace === undefined || found === undefined) return false
    this.sql.deleteKeyOf.run(namespace, key, found.batch)
    if (found.owner !== null) this.letGo(found.batch, 1)
    return true
  }

  /** Whether there are keys, or claims, whose time is over. */
  isSweepDue(now: number): boolean {
    return this.sql.due.get(now) !== undefined
  }

  /**
   * Removes keys whose time is over, until it is enough.
   *
   * @returns whether there are more.
   */
  sweep(now: number, enough: () => boolean): boolean {
    const { sweeping } = this
    // another may have removed it meanwhile, and its number may be that of a new one, which ends later
    if (sweeping !== undefined && this.sql.isThere.get(sweeping.id, sweeping.forgottenAt) === undefined)
      this.sweeping = undefined
    while (!enough()) {
      this.sweeping ??= this.nextDue(now)
      if (this.sweeping === undefined) return false
      const { id, namespace, keys } = this.sweeping
      for (let key = keys.pop(); key !== undefined; key = keys.pop()) {
        this.sql.deleteKeyOf.run(namespace, key, id)
        if (enough()) return true
      }
      this.dropBatch(id)
      this.sweeping = undefined
    }
    return true
  }

  private nextDue(now: number): Sweeping | undefined {
    const due = this.sql.due.get(now) as Omit<Sweeping, "keys"> | undefined
    return due === undefined ? undefined : { ...due, keys: [...this.grantedOf(due.id)] }
  }

  /** The number of a namespace; `undefined` where nothing was ever claimed in it. */
  namespaceId(name: string): number | undefined {
    let id = this.namespaces.get(name)
    if (id === undefined) {
      id = (this.sql.namespace.get(name) as { id: number } | undefined)?.id
      if (id !== undefined) this.namespaces.set(name, id)
    }
    return id
  }

  private namespaceOrNew(name: string): number {
    const known = this.namespaceId(name)
    if (known !== undefined) return known
    const id = Number(this.sql.insertNamespace.run(name).lastInsertRowid)
    this.namespaces.set(name, id)
    return id
  }

  /** Those that are not there yet; of equal keys the first. */
  private insertKeys(
    namespace: number,
    items: ReadonlyArray<Protocol.KeyItem>,
    batch: number,
    requested: string
  ): number {
    if (items.length > 1) return Number(this.sql.insertKeys.run(namespace, batch, requested).changes)
    let inserted = 0
    for (const { key, fingerprint } of items) {
      inserted += Number(this.sql.insertKey.run(namespace, key, batch, fingerprint ?? null).changes)
    }
    return inserted
  }

  /** Item by item, where some were there already. */
  private claimEach(
    namespace: number,
    items: ReadonlyArray<Protocol.KeyItem>,
    batch: { readonly id: number; readonly owner: string; readonly until: number },
    claimed: Protocol.KeyClaimAnswer,
    now: number
  ): ReadonlyArray<Protocol.KeyClaimAnswer> {
    /** The keys that are ours by now, with the fingerprint that the first item gave. */
    const ours = new Map<string, string | null>()
    return items.map((item) => {
      const { key } = item
      const fingerprint = item.fingerprint ?? null
      const own = ours.get(key)
      if (own !== undefined) {
        return refusal({ ...batch, key, batch: batch.id, fingerprint: own, result: null }, item)
      }
      const found = this.find(namespace, key)
      if (found === undefined) throw new Damaged(`key ${key} belongs to a batch that is not there`)
      if (found.batch !== batch.id) {
        if (now < found.until) return refusal(found, item)
        this.sql.takeKey.run(batch.id, fingerprint, namespace, key)
        if (found.owner !== null) this.letGo(found.batch, 1)
      }
      ours.set(key, fingerprint)
      return claimed
    })
  }

  private completeEach(
    claim: HeldBatch | undefined,
    namespace: number,
    items: ReadonlyArray<Protocol.KeyCompletion>,
    until: number,
    now: number
  ): ReadonlyArray<Protocol.KeyCompleteAnswer> {
    const done: Array<Protocol.KeyCompletion> = []
    let batch = 0
    const answers = items.map((item): Protocol.KeyCompleteAnswer => {
      const found = this.find(namespace, item.key)
      if (found !== undefined && found.batch === claim?.id) {
        if (batch === 0) {
          batch = Number(this.sql.insertCompleted.run(namespace, until, until).lastInsertRowid)
        }
        this.sql.moveKey.run(batch, item.result ?? null, namespace, item.key)
        done.push(item)
        return "Completed"
      }
      return found !== undefined && found.owner === null && now < found.until
        ? "AlreadyCompleted"
        : "LeaseLost"
    })
    if (claim !== undefined && done.length > 0) {
      this.sql.insertBatchKeys.run(batch, encodeKeys(done), null)
      this.letGo(claim.id, done.length)
    }
    return answers
  }

  /** @returns `undefined` where the claim id is in use. */
  private newHeld(
    namespace: number,
    held: number,
    keys: string | null,
    terms: Protocol.ClaimTerms,
    token: number,
    until: number
  ): number | undefined {
    const { claimId, leaseMillis, owner } = terms
    const forgottenAt = Protocol.forgottenAt({ ...terms, token, until })
    const { changes, lastInsertRowid } = this.sql.insertBatch.run(
      namespace,
      claimId,
      owner,
      token,
      leaseMillis,
      until,
      forgottenAt,
      held,
      keys
    )
    return changes > 0 ? Number(lastInsertRowid) : undefined
  }

  /** The same claim asked again (its answer was lost): the same token and keys, the lease not prolonged. */
  private answerAgain(
    claim: HeldBatch,
    items: ReadonlyArray<Protocol.KeyItem>,
    now: number
  ): ReadonlyArray<Protocol.KeyClaimAnswer> {
    const seen = new Set<string>()
    return items.map((item) => {
      const first = !seen.has(item.key)
      seen.add(item.key)
      const found = this.find(claim.namespace, item.key)
      if (first && found?.batch === claim.id) {
        return { _tag: "Claimed", token: claim.token, until: claim.until }
      }
      // what this claim did not get, or gave back, it never gets later: its token may be too old by now
      return found === undefined || now >= found.until
        ? { _tag: "InFlight", until: now, owner: claim.owner }
        : refusal(found, item)
    })
  }

  /** The claim, unless its time has long been over. */
  private heldBatch(claimId: string, now: number): HeldBatch | undefined {
    const claim = this.batchOf(claimId)
    if (claim === undefined || !Protocol.isForgotten(claim, now)) return claim
    this.removeBatch(claim.id, claim.namespace, this.grantedOf(claim.id))
    return undefined
  }

  private batchOf(claimId: string): HeldBatch | undefined {
    return this.sql.batchOf.get(claimId) as HeldBatch | undefined
  }

  private find(namespace: number, key: string): Found | undefined {
    return this.sql.find.get(namespace, key) as Found | undefined
  }

  private grantedOf(batch: number): ReadonlyArray<string> {
    const row = this.sql.batchKeys.get(batch) as { keys: string | null } | undefined
    return decodeKeys(row?.keys ?? "[]")
  }

  private requestOf(claim: HeldBatch): string | undefined {
    const row = this.sql.batchKeys.get(claim.id) as
      | { keys: string | null; requested: string | null }
      | undefined
    return row?.requested ?? row?.keys ?? undefined
  }

  private letGo(batch: number, count: number): void {
    if (count === 0) return
    const { held } = this.sql.letGo.get(count, batch) as { held: number }
    if (held === 0) this.dropBatch(batch)
  }

  private removeBatch(batch: number, namespace: number, keys: ReadonlyArray<string>): void {
    for (const key of keys) this.sql.deleteKeyOf.run(namespace, key, batch)
    this.dropBatch(batch)
  }

  private dropBatch(batch: number): void {
    this.sql.deleteBatch.run(batch)
    this.sql.deleteBatchKeys.run(batch)
  }
}

/** Why a key can't be had. */
const refusal = (found: Found, { fingerprint }: Protocol.KeyItem): Protocol.KeyClaimAnswer => {
  if (fingerprint !== undefined && found.fingerprint !== null && found.fingerprint !== fingerprint) {
    return { _tag: "Mismatch", fingerprint: found.fingerprint }
  }
  return found.owner === null
    ? { _tag: "Completed", result: found.result ?? undefined }
    : { _tag: "InFlight", until: found.until, owner: found.owner }
}

const encodeKeys = (items: ReadonlyArray<{ readonly key: string }>): string =>
  JSON.stringify(items.map(({ key }) => key))

const decodeKeys = (text: string): ReadonlyArray<string> => {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new Damaged(`keys of a batch: ${String(cause)}`)
  }
}

/** A key, or a pair of key and fingerprint, for each. */
const encodeItems = (items: ReadonlyArray<Protocol.KeyItem>): string =>
  JSON.stringify(items.map(({ key, fingerprint }) => (fingerprint === undefined ? key : [key, fingerprint])))

const prepare = ({ db }: Connection) => {
  const one = (sql: string): StatementSync => db.prepare(sql)
  const batchColumns = "id, namespace, claim_id AS claimId, owner, token, lease AS leaseMillis, until, held"
  return {
    namespace: one("SELECT id FROM tidemark_namespaces WHERE name = ?"),
    insertNamespace: one("INSERT INTO tidemark_namespaces (name) VALUES (?)"),
    batchOf: one(`SELECT ${batchColumns} FROM tidemark_batches WHERE claim_id = ?`),
    insertBatch: one(
      `INSERT INTO tidemark_batches (namespace, claim_id, owner, token, lease, until, forgotten_at, held, keys)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (claim_id) WHERE claim_id IS NOT NULL DO NOTHING`
    ),
    insertCompleted: one(
      "INSERT INTO tidemark_batches (namespace, until, forgotten_at, held) VALUES (?, ?, ?, 0)"
    ),
    // where the keys are all that the claim was granted, in order, and nothing of it was lost or given back
    completeWhole: one(
      `UPDATE tidemark_batches SET claim_id = NULL, owner = NULL, token = NULL, lease = NULL,
        until = ?, forgotten_at = ?, held = 0
        WHERE claim_id = ? AND namespace = ? AND held = ? AND forgotten_at > ?
          AND ? = coalesce(keys, (SELECT list.keys FROM tidemark_batch_keys list WHERE batch = id))`
    ),
    renew: one("UPDATE tidemark_batches SET until = ?, forgotten_at = ? WHERE id = ?"),
    setHeld: one("UPDATE tidemark_batches SET held = ? WHERE id = ?"),
    letGo: one("UPDATE tidemark_batches SET held = held - ? WHERE id = ? RETURNING held"),
    deleteBatch: one("DELETE FROM tidemark_batches WHERE id = ?"),
    batchKeys: one(
      `SELECT coalesce(b.keys, list.keys) AS keys, requested
        FROM tidemark_batches b LEFT JOIN tidemark_batch_keys list ON batch = id WHERE id = ?`
    ),
    insertBatchKeys: one("INSERT INTO tidemark_batch_keys (batch, keys, requested) VALUES (?, ?, ?)"),
    deleteBatchKeys: one("DELETE FROM tidemark_batch_keys WHERE batch = ?"),
    find: one(
      `SELECT key, batch, fingerprint, result, owner, until
        FROM tidemark_keys JOIN tidemark_batches ON tidemark_batches.id = batch
        WHERE tidemark_keys.namespace = ? AND key = ?`
    ),
    insertKey: one(
      "INSERT OR IGNORE INTO tidemark_keys (namespace, key, batch, fingerprint) VALUES (?, ?, ?, ?)"
    ),
    insertKeys: one(
      `INSERT OR IGNORE INTO tidemark_keys (namespace, key, batch, fingerprint)
        SELECT ?, iif(type = 'array', value ->> 0, value), ?, iif(type = 'array', value ->> 1, NULL) FROM json_each(?)`
    ),
    takeKey: one(
      "UPDATE tidemark_keys SET batch = ?, fingerprint = ?, result = NULL WHERE namespace = ? AND key = ?"
    ),
    moveKey: one("UPDATE tidemark_keys SET batch = ?, result = ? WHERE namespace = ? AND key = ?"),
    setResult: one("UPDATE tidemark_keys SET result = ? WHERE namespace = ? AND key = ?"),
    due: one(
      `SELECT id, namespace, forgotten_at AS forgottenAt FROM tidemark_batches
        WHERE forgotten_at <= ? ORDER BY forgotten_at LIMIT 1`
    ),
    isThere: one("SELECT 1 FROM tidemark_batches WHERE id = ? AND forgotten_at = ?"),
    deleteKeyOf: one("DELETE FROM tidemark_keys WHERE namespace = ? AND key = ? AND batch = ?")
  }
}
