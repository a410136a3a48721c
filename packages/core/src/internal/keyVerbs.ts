/** The verbs of one key, whichever kind it is: what `once` and its relatives are made of. */
import { Effect } from "effect"
import * as ClaimId from "../ClaimId.ts"
import {
  type ClaimIdReused,
  InFlightElsewhere,
  type InvalidInput,
  LeaseLost,
  type StoreError
} from "../Errors.ts"
import type { IdempotencyStoreService, KeyClaimRef } from "../IdempotencyStore.ts"
import { format, type IdKey, type Key, type OffsetKey } from "../Key.ts"
import * as OffsetRanges from "../OffsetRanges.ts"
import type { OffsetClaimRef, OffsetStoreService } from "../OffsetStore.ts"
import type { ClaimTerms } from "../protocol/Claims.ts"
import type { KeyCompleteAnswer } from "../protocol/KeyState.ts"
import type { Terms } from "../Tracker.ts"
import * as Input from "./input.ts"
import type { Lease } from "./underLease.ts"

export interface Stores {
  readonly offsets: OffsetStoreService
  readonly keys: IdempotencyStoreService
  readonly namespace: string | undefined
  readonly owner: string
}

export type Decision =
  | { readonly _tag: "Granted"; readonly token: number }
  | { readonly _tag: "Completed"; readonly result: string | undefined }
  | { readonly _tag: "InFlight"; readonly until: number }
  | { readonly _tag: "Mismatch" }

/** One key's verbs on its store. */
export interface KeyVerbs {
  readonly claim: (terms: ClaimTerms) => Effect.Effect<Decision, StoreError | InvalidInput | ClaimIdReused>
  readonly complete: (
    claimId: string,
    result: string | undefined,
    retentionMillis: number | undefined
  ) => Effect.Effect<KeyCompleteAnswer, StoreError | InvalidInput>
  readonly release: (claimId: string) => Effect.Effect<void, StoreError | InvalidInput>
  /** Asks again, at once, when this succeeds. */
  readonly hint: Effect.Effect<void>
  readonly lease: (
    claimId: string,
    token: number,
    leaseMillis: number,
    deadline: number
  ) => Lease<OffsetClaimRef> | Lease<KeyClaimRef>
}

/** The verbs of a key, or what is wrong with it. */
export const verbsOf = (
  stores: Stores,
  key: Key,
  fingerprint: string | undefined
): KeyVerbs | InvalidInput =>
  key._tag === "Offset" ? offsetVerbs(stores, key, fingerprint) : idVerbs(stores, key, fingerprint)

export const isVerbs = (value: KeyVerbs | InvalidInput): value is KeyVerbs => "claim" in value

const offsetVerbs = (
  stores: Stores,
  key: OffsetKey,
  fingerprint: string | undefined
): KeyVerbs | InvalidInput => {
  const bad = checkOffsetKey(key, fingerprint)
  if (bad !== undefined) return bad
  const { stream } = key
  const ranges = OffsetRanges.of(key.offset)
  const store = stores.offsets
  return {
    claim: (terms) =>
      Effect.map(store.claim(stream, ranges, terms), (answer): Decision => {
        if (answer.token !== undefined) return { _tag: "Granted", token: answer.token }
        if (answer.held.length > 0) return { _tag: "InFlight", until: answer.held[0].until }
        return { _tag: "Completed", result: undefined }
      }),
    complete: (claimId) =>
      Effect.map(store.complete({ stream, claimId }, ranges), (answer): KeyCompleteAnswer => {
        if (!OffsetRanges.isEmpty(answer.completed)) return "Completed"
        return OffsetRanges.isEmpty(answer.leaseLost) ? "AlreadyCompleted" : "LeaseLost"
      }),
    release: (claimId) => store.release({ stream, claimId }),
    hint: store.awaitRelease(stream),
    lease: (claimId, token, leaseMillis, deadline) => ({
      keeper: store.leases,
      ref: { stream, claimId },
      leaseMillis,
      deadline,
      lost: () => leaseLost(key, claimId, token)
    })
  }
}

const idVerbs = (stores: Stores, key: IdKey, fingerprint: string | undefined): KeyVerbs | InvalidInput => {
  const namespace = key.namespace ?? stores.namespace
  const bad = checkIdKey(key, namespace, fingerprint)
  if (bad !== undefined || namespace === undefined) return bad as InvalidInput
  const store = stores.keys
  return {
    claim: (terms) =>
      Effect.flatMap(store.claim(namespace, [{ key: key.id, fingerprint }], terms), ([answer]) => {
        switch (answer._tag) {
          case "Claimed":
            return Effect.succeed<Decision>({ _tag: "Granted", token: answer.token })
          case "Invalid":
            return Effect.fail(answer.error)
          default:
            return Effect.succeed<Decision>(answer)
        }
      }),
    complete: (claimId, result, retentionMillis) =>
      Effect.map(
        store.complete({ namespace, claimId }, [{ key: key.id, result }], { retentionMillis }),
        ([answer]) => answer
      ),
    release: (claimId) => store.release({ namespace, claimId }),
    hint: store.awaitSettled(namespace, key.id),
    lease: (claimId, token, leaseMillis, deadline) => ({
      keeper: store.leases,
      ref: { namespace, claimId },
      leaseMillis,
      deadline,
      lost: () => leaseLost(key, claimId, token)
    })
  }
}

export const checkOffsetKey = (key: OffsetKey, fingerprint?: string): InvalidInput | undefined =>
  Input.name("stream", key.stream) ??
  Input.offset("offset", key.offset) ??
  (fingerprint === undefined
    ? undefined
    : Input.invalid(
        "fingerprint",
        fingerprint,
        "none: a position has no payload of its own to compare; use Key.id"
      ))

export const checkIdKey = (
  key: IdKey,
  namespace: string | undefined,
  fingerprint?: string
): InvalidInput | undefined =>
  (namespace === undefined
    ? Input.invalid(
        "namespace",
        undefined,
        "a name of 1 to 1,024 bytes: Tracker.layer({ namespace }) or Key.id(id, { namespace })"
      )
    : Input.name("namespace", namespace)) ??
  Input.name("key", key.id) ??
  (fingerprint === undefined ? undefined : Input.name("fingerprint", fingerprint))

export const leaseLost = (key: Key, claimId: string, token: number): LeaseLost =>
  new LeaseLost({ what: format(key), claimId, token })

/** Whether the key is completed now. */
export const lookup = (stores: Stores, key: Key): Effect.Effect<boolean, StoreError | InvalidInput> => {
  if (key._tag === "Offset") {
    const bad = checkOffsetKey(key)
    if (bad !== undefined) return Effect.fail(bad)
    return stores.offsets.isCompleted(key.stream, key.offset)
  }
  const namespace = key.namespace ?? stores.namespace
  const bad = checkIdKey(key, namespace)
  if (bad !== undefined || namespace === undefined) return Effect.fail(bad as InvalidInput)
  return Effect.map(stores.keys.lookup(namespace, [key.id]), ([status]) => status._tag === "Completed")
}

/** Marks a key completed without running anything. */
export const mark = (
  stores: Stores,
  key: Key,
  terms: Terms
): Effect.Effect<boolean, StoreError | InvalidInput | ClaimIdReused | InFlightElsewhere | LeaseLost> => {
  const verbs = verbsOf(stores, key, undefined)
  if (!isVerbs(verbs)) return Effect.fail(verbs)
  const claimId = ClaimId.make()
  return Effect.uninterruptible(
    Effect.flatMap(
      verbs.claim({ claimId, owner: stores.owner, leaseMillis: terms.leaseMillis }),
      (decision): Effect.Effect<boolean, StoreError | InvalidInput | InFlightElsewhere | LeaseLost> => {
        switch (decision._tag) {
          case "Granted":
            return Effect.flatMap(verbs.complete(claimId, undefined, terms.retentionMillis), (answer) =>
              answer === "LeaseLost"
                ? Effect.fail(leaseLost(key, claimId, decision.token))
                : Effect.succeed(true)
            )
          case "InFlight":
            return Effect.fail(new InFlightElsewhere({ what: format(key), until: decision.until }))
          default:
            return Effect.succeed(false)
        }
      }
    ).pipe(
      // what the store did before it failed is not known: nobody shall wait for the lease of this claim to end
      Effect.tapError((error) =>
        error._tag === "StoreError" ? Effect.ignore(verbs.release(claimId)) : Effect.void
      )
    )
  )
}
