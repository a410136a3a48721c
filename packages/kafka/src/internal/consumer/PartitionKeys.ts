/**
 * Idempotency keys on top of positions: the ids that `identify` gives are claimed before their records run, those of
 * a batch in one round trip.
 *
 * Nobody waits while holding a key it has not started. A record whose id another holds waits at the head of its lane,
 * and the records behind it can't start before it: what they have claimed is given back, and claimed anew when their
 * turn comes. Else two consumers could each wait, at the head of a lane, for a key that lies behind the other's.
 *
 * Inside one consumer the first record with an id **holds** it and the others follow: they need not ask the store, and
 * become duplicates when the first is completed.
 */
import {
  ClaimId,
  type ClaimIdReused,
  type HeldLease,
  type IdempotencyStoreService,
  InvalidInput,
  type KeyClaimRef,
  Patience,
  type StoreError
} from "@tidemark/core"
import { Cause, Effect, Exit, type Fiber } from "effect"
import type { KafkaRecord } from "../../KafkaClient.ts"
import type { RecordClaim } from "../../KafkaConsumer.ts"
import type { Environment } from "./environment.ts"
import type { Partition } from "./Partition.ts"
import type { Finished } from "./PartitionState.ts"
import type { EngineClaim } from "./Processing.ts"
import { patiently } from "./patiently.ts"

/** How many records of a lane are claimed together when their turn comes after a wait. */
const claimedTogether = 500

/** What no lane is called: their names are of latin1. */
const notALane = "\uffff"

type KeyState =
  /** Not claimed; to be asked for when its turn comes. */
  | "unclaimed"
  /** The store is being asked, or another owner is waited for. */
  | "asking"
  | "claimed"
  /** Its handler is at work, or has ended and is being settled. */
  | "started"
  | "duplicate"

/** A record with an id. */
interface Entry {
  readonly id: string
  readonly tile: number
  readonly keys: PartitionKeys
  state: KeyState
  /** When the lease of another owner ends, for whose sake it is not to be handled but set aside. */
  heldUntil: number | undefined
  /** Its record was stored elsewhere: its id is given back, not completed. */
  setAside: boolean
  /** Its turn has come, and it can't start yet. */
  waiting: boolean
  /** It waits for something that need not end by itself, so that nothing behind it in its lane may hold a key. */
  blocking: boolean
  grant: Grant | undefined
  /** The claim as its handler sees it, with the token of its key; of its latest grant. */
  claim: RecordClaim | undefined
  attempt: number
  /** Other records with this id, while this one holds it. */
  followers: Array<Entry> | undefined
  following: Entry | undefined
}

/** What one call claimed. */
interface Grant {
  readonly ref: KeyClaimRef
  readonly lease: HeldLease<KeyClaimRef>
  /** Those that are neither completed nor given back. */
  readonly open: Set<Entry>
}

/** What all partitions of one consumer share: who holds which id. */
export interface KeyRing {
  readonly store: IdempotencyStoreService
  readonly namespace: string
  readonly holders: Map<string, Entry>
}

export const makeKeyRing = (store: IdempotencyStoreService, namespace: string): KeyRing => ({
  store,
  namespace,
  holders: new Map()
})

type AskError = StoreError | InvalidInput | ClaimIdReused

/** Lets a keeper look again whether it may renew what it holds. */
export const remind = <Lease extends { readonly index: number }>(
  leases: { readonly drop: (lease: Lease) => void; readonly hold: (lease: Lease) => void },
  lease: Lease
): void => {
  if (lease.index < 0) return
  leases.drop(lease)
  leases.hold(lease)
}

export class PartitionKeys {
  private readonly environment: Environment
  private readonly ring: KeyRing
  private readonly partition: Partition
  private readonly entries = new Map<number, Entry>()
  private readonly grants = new Set<Grant>()
  private readonly waits = new Set<Fiber.Fiber<unknown, unknown>>()
  private readonly blocked = new Set<Entry>()
  private toAsk: Array<Entry> = []
  private admitting = false
  private askScheduled = false
  private closed = false

  constructor(environment: Environment, ring: KeyRing, partition: Partition) {
    this.environment = environment
    this.ring = ring
    this.partition = partition
  }

  /** Lets the keeper look again whether it may renew. */
  remindKeeper(): void {
    for (const { lease } of this.grants) remind(this.ring.store.leases, lease)
  }

  // --- before a record's turn

  /** Claims the ids of what was received; in order, one call at a time. */
  admit(): void {
    if (this.admitting || this.closed) return
    this.admitting = true
    this.run(this.admitAll, () => {
      this.admitting = false
    })
  }

  private readonly admitAll: Effect.Effect<void, AskError> = Effect.suspend(() => {
    const { partition } = this
    const { prepare } = this.environment.processing
    const [first, end] = partition.admissible
    if (first === end || this.closed) return Effect.void
    if (prepare === undefined) return this.admitRange(first, end)
    const records: Array<KafkaRecord> = []
    for (let tile = first; tile < end; tile++) {
      const record = partition.state.recordAt(tile)
      if (record !== undefined) records.push(record)
    }
    return Effect.flatMap(prepare(records, partition.ownClaim.claimId), (isPrepared) =>
      isPrepared && !this.closed ? this.admitRange(first, end) : Effect.void
    )
  })

  private admitRange(first: number, end: number): Effect.Effect<void, AskError> {
    const { state } = this.partition
    const asked: Array<Entry> = []
    const lanes = this.blockedLanes()
    for (let tile = first; tile < end; tile++) {
      const record = state.recordAt(tile)
      if (record === undefined) continue
      const id = this.idOf(record)
      if (id === undefined) continue
      const entry = this.enter(id, tile)
      const holder = this.ring.holders.get(id)
      if (holder !== undefined) this.follow(entry, holder)
      else if (lanes.size === 0 || !lanes.has(this.laneOf(tile) ?? notALane)) asked.push(this.hold(entry))
    }
    return Effect.flatMap(this.ask(asked), () => {
      if (this.closed) return Effect.void
      state.admit(end)
      this.environment.activate(this.partition, true)
      return this.admitAll
    })
  }

  private idOf(record: KafkaRecord): string | undefined {
    const { identify } = this.environment.processing
    const id: unknown = identify?.(record, this.partition.ownClaim.epoch)
    if (id === undefined || typeof id === "string") return id
    throw this.invalid(record, new InvalidInput({ field: "key", value: String(id), allowed: "a string" }))
  }

  private invalid(record: KafkaRecord, { allowed, value }: InvalidInput): InvalidInput {
    const { offset, partition, topic } = record
    return new InvalidInput({
      field: `identify's answer for offset ${offset} of partition ${partition} of topic "${topic}"`,
      value,
      allowed: `undefined, or ${allowed}`
    })
  }

  private enter(id: string, tile: number): Entry {
    const entry: Entry = {
      id,
      tile,
      keys: this,
      state: "unclaimed",
      heldUntil: undefined,
      setAside: false,
      waiting: false,
      blocking: false,
      grant: undefined,
      claim: undefined,
      attempt: 0,
      followers: undefined,
      following: undefined
    }
    this.entries.set(tile, entry)
    return entry
  }

  private blockedLanes(): ReadonlySet<string> {
    const lanes = new Set<string>()
    for (const { tile } of this.blocked) {
      const lane = this.laneOf(tile)
      if (lane !== undefined) lanes.add(lane)
    }
    return lanes
  }

  private laneOf(tile: number): string | undefined {
    const { order } = this.environment.settings
    if (order === "none") return undefined
    if (order === "partition") return "all"
    return this.partition.state.recordAt(tile)?.key?.toString("latin1")
  }

  // --- at its turn

  /** Whether the record may start; where it may not and its turn has come, it gets ready. */
  gate(tile: number, isItsTurn: boolean): "run" | "skip" | "wait" {
    const entry = this.entries.get(tile)
    if (entry === undefined) return "run"
    switch (entry.state) {
      case "claimed":
        entry.state = "started"
        return "run"
      case "duplicate":
        this.entries.delete(tile)
        this.environment.counters.duplicatesByKey++
        this.partition.settleSoon()
        return "skip"
      default:
        if (!isItsTurn) return "wait"
        entry.waiting = true
        this.wait(entry)
        return "wait"
    }
  }

  claimFor(tile: number): EngineClaim | undefined {
    const entry = this.entries.get(tile)
    if (entry?.heldUntil !== undefined) return { ...this.partition.ownClaim, heldUntil: entry.heldUntil }
    return entry?.claim
  }

  /** The record was stored elsewhere: when its offset is done, its id may be had again. */
  setAside(tile: number): void {
    const entry = this.entries.get(tile)
    if (entry !== undefined) entry.setAside = true
  }

  /** The record's turn has come, and its id is not ours. */
  private wait(entry: Entry): void {
    if (entry.state === "asking") return
    const holder = this.ring.holders.get(entry.id)
    if (holder !== undefined) {
      this.follow(entry, holder)
      // A handler at work ends by itself; a record that waits for its own turn may not.
      if (holder.state !== "started") this.block(entry)
      return
    }
    this.toAsk.push(this.hold(entry))
    for (const tile of this.partition.state.behind(entry.tile)) {
      if (this.toAsk.length >= claimedTogether) break
      const other = this.entries.get(tile)
      if (other?.state === "unclaimed" && other.following === undefined && !this.ring.holders.has(other.id))
        this.toAsk.push(this.hold(other))
    }
    this.askSoon()
  }

  private askSoon(): void {
    if (this.askScheduled || this.closed) return
    this.askScheduled = true
    this.environment.dispatcher.scheduleTask(() => {
      this.askScheduled = false
      if (this.closed) return
      const asked = this.toAsk
      this.toAsk = []
      this.run(this.ask(asked))
    }, 0)
  }

  private hold(entry: Entry): Entry {
    entry.state = "asking"
    this.ring.holders.set(entry.id, entry)
    return entry
  }

  private follow(entry: Entry, holder: Entry): void {
    if (entry.following === holder) return
    entry.state = "unclaimed"
    entry.following = holder
    if (holder.followers === undefined) holder.followers = [entry]
    else holder.followers.push(entry)
  }

  /** It no longer holds its id: the records that follow it look for themselves. */
  private letGo(entry: Entry): void {
    if (this.ring.holders.get(entry.id) === entry) this.ring.holders.delete(entry.id)
    const { followers } = entry
    entry.followers = undefined
    for (const follower of followers ?? []) {
      follower.following = undefined
      if (follower.waiting && !follower.keys.closed) follower.keys.wait(follower)
    }
  }

  /** Nothing behind this record may hold a key. */
  private block(entry: Entry): void {
    entry.blocking = true
    this.blocked.add(entry)
    const given: Array<Entry> = []
    for (const tile of this.partition.state.behind(entry.tile)) {
      const other = this.entries.get(tile)
      if (other?.state === "claimed") given.push(other)
    }
    this.giveBack(given)
  }

  /** Of these nothing has started: their ids may be had by others. */
  private giveBack(given: ReadonlyArray<Entry>): void {
    if (given.length > 0) this.run(this.release(given))
  }

  /**
   * They are out of their grants at once, whatever the store answers: claimed anew meanwhile, they belong to another
   * grant, and what becomes of the old one is no concern of theirs.
   */
  private release(given: ReadonlyArray<Entry>): Effect.Effect<void> {
    const byGrant = new Map<Grant, Array<string>>()
    for (const entry of given) {
      const { grant } = entry
      entry.state = "unclaimed"
      entry.heldUntil = undefined
      entry.grant = undefined
      if (grant === undefined) continue
      const ids = byGrant.get(grant)
      if (ids === undefined) byGrant.set(grant, [entry.id])
      else ids.push(entry.id)
      this.shrink(grant, [entry])
    }
    for (const entry of given) this.letGo(entry)
    return Effect.forEach(
      byGrant,
      ([{ lease, ref }, ids]) =>
        Effect.catch(
          Patience.retryUntil(
            () => this.ring.store.release(ref, ids),
            () => lease.deadline
          ),
          (error) =>
            Effect.logWarning(
              `tidemark: ${ids.length} claimed ids of ${this.partition} could not be given back; they end with their lease: ${error.message}`
            )
        ),
      { concurrency: "unbounded", discard: true }
    )
  }

  /** Its turn has come again: it may start, or is a duplicate. */
  private proceed(entry: Entry): void {
    if (entry.blocking) {
      entry.blocking = false
      this.blocked.delete(entry)
    }
    if (!entry.waiting) return
    entry.waiting = false
    this.partition.state.retry(entry.tile)
    this.environment.activate(this.partition, true)
  }

  // --- asking

  /** Claims the ids of these records, all of which hold them in this process. */
  private ask(entries: ReadonlyArray<Entry>): Effect.Effect<void, AskError> {
    if (entries.length === 0) return Effect.void
    const { clock, settings } = this.environment
    const { namespace, store } = this.ring
    const { leaseMillis, owner } = settings
    const ref: KeyClaimRef = { namespace, claimId: ClaimId.make() }
    const items = entries.map(({ id }) => ({ key: id }))
    return Effect.suspend(() => {
      const deadline = Patience.monotonicMillis(clock) + leaseMillis
      const claim = store.claim(namespace, items, { claimId: ref.claimId, owner, leaseMillis })
      const claimed = Effect.map(
        patiently(this.environment, "claim", `ids of ${this.partition} could not be claimed`, claim),
        (answers) => {
          if (this.closed) return false
          let grant: Grant | undefined
          let bad: InvalidInput | undefined
          /** By token: a store in shards gives each shard's keys one of their own. */
          const claims = new Map<number, RecordClaim>()
          for (let index = 0; index < entries.length; index++) {
            const entry = entries[index]
            const answer = answers[index]
            switch (answer._tag) {
              case "Claimed":
                grant ??= this.makeGrant(ref, deadline)
                if (!claims.has(answer.token))
                  claims.set(answer.token, { ...this.partition.ownClaim, keyToken: answer.token })
                entry.state = "claimed"
                entry.grant = grant
                entry.claim = claims.get(answer.token)
                grant.open.add(entry)
                break
              case "Completed":
                this.becomeDuplicate(entry)
                break
              case "InFlight":
                this.onHeld(entry, answer.until)
                break
              case "Mismatch":
                throw new Error(`the store compared fingerprints, and none was given for ${entry.id}`)
              case "Invalid": {
                const record = this.partition.state.recordAt(entry.tile)
                bad ??= record === undefined ? answer.error : this.invalid(record, answer.error)
                break
              }
            }
          }
          // after all grants are noted, so that they are given back
          if (bad !== undefined) throw bad
          if (grant !== undefined) this.afterClaim(grant)
          return true
        }
      )
      // Where nobody takes the answer any more, nothing may stay held.
      return Effect.flatMap(claimed, (taken) => (taken ? Effect.void : store.release(ref)))
    })
  }

  private makeGrant(ref: KeyClaimRef, deadline: number): Grant {
    const { isOurs, settings } = this.environment
    const lease: HeldLease<KeyClaimRef> = {
      ref,
      leaseMillis: settings.leaseMillis,
      deadline,
      mayRenew: () => !this.closed && isOurs(this.partition),
      onLost: () => this.onLeaseLost(grant),
      index: -1
    }
    const grant: Grant = { ref, lease, open: new Set() }
    this.grants.add(grant)
    this.ring.store.leases.hold(lease)
    return grant
  }

  /** Lets those proceed whose turn has come, and gives back what may not be held. */
  private afterClaim(grant: Grant): void {
    for (const entry of grant.open) if (entry.waiting) this.proceed(entry)
    if (this.blocked.size === 0) return
    const lanes = this.blockedLanes()
    this.giveBack(
      [...grant.open].filter(
        ({ state, tile }) => state === "claimed" && lanes.has(this.laneOf(tile) ?? notALane)
      )
    )
  }

  private becomeDuplicate(entry: Entry): void {
    if (this.ring.holders.get(entry.id) === entry) this.ring.holders.delete(entry.id)
    const { followers } = entry
    entry.followers = undefined
    entry.following = undefined
    entry.state = "duplicate"
    this.proceed(entry)
    for (const follower of followers ?? []) follower.keys.becomeDuplicate(follower)
  }

  /** Another owner is at work on this id. */
  private onHeld(entry: Entry, until: number): void {
    if (!entry.waiting) {
      entry.state = "unclaimed"
      this.letGo(entry)
      return
    }
    if (this.environment.settings.whenInFlight === "dead-letter") {
      entry.heldUntil = until
      entry.state = "claimed"
      this.proceed(entry)
      return
    }
    this.block(entry)
    const { namespace, store } = this.ring
    const hint = store.awaitSettled(namespace, entry.id)
    const fiber = this.run(
      Effect.map(Patience.untilWorthAsking(hint, entry.attempt++, until), () => {
        this.toAsk.push(entry)
        this.askSoon()
      })
    )
    this.waits.add(fiber)
    fiber.addObserver(() => this.waits.delete(fiber))
  }

  // --- after its turn

  /** Completes the ids of what has finished: before the offsets, so that a crash between the two repeats nothing. */
  complete(
    { runs }: Finished,
    partitionDeadline: () => number
  ): Effect.Effect<void, StoreError | InvalidInput> {
    const byGrant = new Map<Grant, Array<Entry>>()
    const toGiveBack: Array<Entry> = []
    for (let index = 0; index < runs.length; index += 2) {
      for (let tile = runs[index]; tile < runs[index + 1]; tile++) {
        const entry = this.entries.get(tile)
        if (entry?.setAside === true) {
          this.entries.delete(tile)
          toGiveBack.push(entry)
          continue
        }
        if (entry?.grant === undefined) continue
        const entries = byGrant.get(entry.grant)
        if (entries === undefined) byGrant.set(entry.grant, [entry])
        else entries.push(entry)
      }
    }
    const givenBack = toGiveBack.length === 0 ? Effect.void : this.release(toGiveBack)
    if (byGrant.size === 0) return givenBack
    const { counters, settings } = this.environment
    const { store } = this.ring
    return Effect.forEach(
      byGrant,
      ([grant, entries]) => {
        const items = entries.map(({ id }) => ({ key: id }))
        return Effect.map(
          patiently(
            this.environment,
            "complete",
            `${this.partition} has records that took effect, and their ids could not be completed`,
            Effect.suspend(() =>
              store.complete(grant.ref, items, { retentionMillis: settings.retentionMillis })
            ),
            () => Math.min(partitionDeadline(), grant.lease.deadline)
          ),
          (answers) => {
            let lost = 0
            for (const answer of answers) if (answer === "LeaseLost") lost++
            counters.keyLeaseLosses += lost
            for (const entry of entries) {
              this.entries.delete(entry.tile)
              this.becomeDuplicate(entry)
            }
            this.shrink(grant, entries)
            return lost
          }
        )
      },
      { concurrency: "unbounded" }
    ).pipe(
      Effect.flatMap((losses) => {
        const lost = losses.reduce((sum, loss) => sum + loss, 0)
        return lost === 0
          ? Effect.void
          : Effect.logWarning(
              `tidemark: ${lost} ids of ${this.partition} were processed, and their claims were lost meanwhile: another ` +
                "owner may have processed them too"
            )
      }),
      Effect.andThen(givenBack)
    )
  }

  /** These are done with; the grant is forgotten with its last entry. */
  private shrink(grant: Grant, entries: ReadonlyArray<Entry>): void {
    for (const entry of entries) grant.open.delete(entry)
    if (grant.open.size > 0) return
    this.ring.store.leases.drop(grant.lease)
    this.grants.delete(grant)
  }

  /** The lease on these ids has ended: those at work are interrupted, and all are asked for again. */
  private onLeaseLost(grant: Grant): void {
    this.grants.delete(grant)
    const { counters, revoke } = this.environment
    for (const entry of [...grant.open]) {
      if (entry.state === "claimed") {
        entry.state = "unclaimed"
        entry.grant = undefined
        this.letGo(entry)
      } else if (entry.state === "started" && this.partition.state.recordAt(entry.tile) !== undefined) {
        counters.keyLeaseLosses++
        revoke(this.partition, entry.tile)
      }
    }
  }

  /** Whether the lease on the id of one of these, which are at work, is lost, or over by now: then it is lost. */
  loseIfOver(records: ReadonlyArray<KafkaRecord>): boolean {
    const now = Patience.monotonicMillis(this.environment.clock)
    return records.some((record) => {
      const grant = this.entryOf(record)?.grant
      if (grant === undefined) return false
      if (this.grants.has(grant) && now >= grant.lease.deadline) {
        this.ring.store.leases.drop(grant.lease)
        this.onLeaseLost(grant)
      }
      return !this.grants.has(grant)
    })
  }

  /** The entry of a record that is at work: it holds its id. */
  private entryOf(record: KafkaRecord): Entry | undefined {
    const id = this.idOf(record)
    const entry = id === undefined ? undefined : this.ring.holders.get(id)
    return entry?.keys === this && this.partition.state.recordAt(entry.tile) === record ? entry : undefined
  }

  /** Its handler has ended, and its record is undone: its id may be had again. */
  onUndone(tile: number): void {
    const entry = this.entries.get(tile)
    if (entry?.state !== "started") return
    if (entry.grant !== undefined && this.grants.has(entry.grant)) {
      entry.state = "claimed"
      if (this.closed) this.giveBack([entry])
      return
    }
    entry.state = "unclaimed"
    entry.heldUntil = undefined
    entry.grant = undefined
    this.letGo(entry)
  }

  /**
   * Gives back what has not started. What is at work is given back when it has ended undone, and completed when it has
   * ended well: until then nobody else may have it.
   */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    if (this.closed) return Effect.void
    this.closed = true
    for (const fiber of [...this.waits]) fiber.interruptUnsafe()
    this.waits.clear()
    for (const { lease } of this.grants) this.ring.store.leases.drop(lease)
    const claimed: Array<Entry> = []
    for (const entry of this.entries.values()) {
      if (entry.state === "claimed") claimed.push(entry)
      else if (entry.state !== "started") this.letGo(entry)
    }
    return this.release(claimed)
  })

  /** After `close`, when nothing is at work: what could not be completed is left to its lease. */
  leaveRest(): void {
    for (const entry of this.entries.values()) this.letGo(entry)
    this.entries.clear()
    this.grants.clear()
  }

  /** Runs beside the rest; a failure stops the consumer. */
  private run(effect: Effect.Effect<void, AskError>, onEnd?: () => void): Fiber.Fiber<unknown, unknown> {
    const fiber = this.environment.fork(effect)
    fiber.addObserver((exit) => {
      onEnd?.()
      if (Exit.isSuccess(exit) || this.closed || Cause.hasInterruptsOnly(exit.cause)) return
      const defect = exit.cause.reasons.find((reason) => reason._tag === "Die")?.defect
      this.environment.fail(defect instanceof InvalidInput ? Cause.fail(defect) : exit.cause)
    })
    return fiber
  }
}
