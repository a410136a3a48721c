/** The verbs of keys that one store call can take together: positions of one stream, or ids of one namespace. */
import { type Cause, Effect } from "effect"
import { ClaimIdReused, type InvalidInput, LeaseLost, PayloadMismatch, type StoreError } from "../Errors.ts"
import type { IdempotencyStoreService, InvalidKey, KeyClaimRef } from "../IdempotencyStore.ts"
import { format, type IdKey, type Key, type OffsetKey } from "../Key.ts"
import * as OffsetRanges from "../OffsetRanges.ts"
import type { OffsetClaimRef, OffsetStoreService } from "../OffsetStore.ts"
import type { ClaimTerms } from "../protocol/Claims.ts"
import type { KeyClaimAnswer, KeyCompleteAnswer } from "../protocol/KeyState.ts"
import type { CompleteAnswer, OffsetClaimAnswer } from "../protocol/StreamState.ts"
import * as Input from "./input.ts"
import type { Lease } from "./underLease.ts"

export type Decision =
  | { readonly _tag: "Claimed"; readonly token: number }
  | { readonly _tag: "Completed"; readonly result?: string | undefined }
  | { readonly _tag: "InFlight"; readonly until: number }
  | { readonly _tag: "Refused"; readonly error: InvalidInput | PayloadMismatch }

export type ClaimFailure = StoreError | InvalidInput | ClaimIdReused

/** What follows a claim; decisions in the order of the keys. */
export interface AfterClaim<B, F, S> {
  readonly failed: (error: ClaimFailure) => Effect.Effect<B, F, S>
  readonly decided: (decisions: ReadonlyArray<Decision>) => Effect.Effect<B, F, S>
}

/** What follows a completion; answers in the order of the keys. */
export interface AfterCompletion<B, F, S> {
  readonly failed: (error: StoreError | InvalidInput) => Effect.Effect<B, F, S>
  readonly answered: (answers: ReadonlyArray<KeyCompleteAnswer>) => Effect.Effect<B, F, S>
}

/**
 * Verbs for keys of one group. What follows is given along: that is a step less for the fiber than an answer which is
 * translated first.
 */
export interface KeyGroup {
  /** The store that is asked. */
  readonly store: { readonly name: string; readonly durable: boolean }
  readonly claim: <B, F, S>(
    keys: ReadonlyArray<Key>,
    terms: ClaimTerms,
    after: AfterClaim<B, F, S>
  ) => Effect.Effect<B, F, S>
  /** `results`, as text, belong to the keys in order; of positions none are kept. */
  readonly complete: <B, F, S>(
    claimId: string,
    keys: ReadonlyArray<Key>,
    results: ReadonlyArray<string | undefined> | undefined,
    retentionMillis: number | undefined,
    after: AfterCompletion<B, F, S>
  ) => Effect.Effect<B, F, S>
  readonly release: (claimId: string) => Effect.Effect<void, StoreError | InvalidInput>
  /** A claim on keys of this group, as the store's verbs name it. */
  readonly refOf: (claimId: string) => OffsetClaimRef | KeyClaimRef
  /** Succeeds when it is worth asking again for the key, at once; perhaps never. */
  readonly hint: (key: Key) => Effect.Effect<void>
  readonly lease: (
    claimId: string,
    leaseMillis: number,
    deadline: number,
    lost: () => LeaseLost
  ) => Lease<OffsetClaimRef> | Lease<KeyClaimRef>
}

/** `Effect.matchEffect` with fewer functions around functions. */
const match = <A, E, B, F, S>(
  effect: Effect.Effect<A, E>,
  after: { readonly failed: (error: E) => Effect.Effect<B, F, S> },
  onSuccess: (value: A) => Effect.Effect<B, F, S>
): Effect.Effect<B, F, S> =>
  Effect.matchCauseEffect(effect, {
    onFailure: (cause): Effect.Effect<B, F, S> => {
      const failure = cause.reasons.find((reason) => reason._tag === "Fail")
      return failure === undefined
        ? Effect.failCause(cause as Cause.Cause<never>)
        : after.failed(failure.error)
    },
    onSuccess
  })

export class OffsetGroup implements KeyGroup {
  readonly store: OffsetStoreService
  private readonly stream: string
  /** The ranges of the keys that were asked for last: most often they are completed together too. */
  private keys: ReadonlyArray<Key> | undefined = undefined
  private ranges = OffsetRanges.empty

  constructor(store: OffsetStoreService, stream: string) {
    this.store = store
    this.stream = stream
  }

  claim<B, F, S>(
    keys: ReadonlyArray<Key>,
    terms: ClaimTerms,
    after: AfterClaim<B, F, S>
  ): Effect.Effect<B, F, S> {
    if (keys.length === 1) {
      const { offset } = keys[0] as OffsetKey
      return match(this.store.claimOffset(this.stream, offset, terms), after, (answer) =>
        answer === undefined
          ? after.failed(new ClaimIdReused({ claimId: terms.claimId, what: `stream ${this.stream}` }))
          : after.decided([answer])
      )
    }
    const asked = this.rangesOf(keys)
    return match(this.store.claim(this.stream, asked, terms), after, (answer) =>
      after.decided(offsetDecisions(answer, asked, keys))
    )
  }

  complete<B, F, S>(
    claimId: string,
    keys: ReadonlyArray<Key>,
    _results: unknown,
    _retentionMillis: unknown,
    after: AfterCompletion<B, F, S>
  ): Effect.Effect<B, F, S> {
    const ref = this.refOf(claimId)
    if (keys.length === 1) {
      return match(this.store.completeOffset(ref, (keys[0] as OffsetKey).offset), after, (answer) =>
        after.answered([answer])
      )
    }
    return match(this.store.complete(ref, this.rangesOf(keys)), after, (answer) =>
      after.answered(offsetAnswers(answer, keys))
    )
  }

  release(claimId: string): Effect.Effect<void, StoreError | InvalidInput> {
    return this.store.release(this.refOf(claimId))
  }

  refOf(claimId: string): OffsetClaimRef {
    return { stream: this.stream, claimId }
  }

  hint(): Effect.Effect<void> {
    return this.store.awaitRelease(this.stream)
  }

  lease(
    claimId: string,
    leaseMillis: number,
    deadline: number,
    lost: () => LeaseLost
  ): Lease<OffsetClaimRef> {
    return { keeper: this.store.leases, ref: this.refOf(claimId), leaseMillis, deadline, lost }
  }

  private rangesOf(keys: ReadonlyArray<Key>): OffsetRanges.OffsetRanges {
    if (keys !== this.keys) {
      this.keys = keys
      this.ranges = OffsetRanges.fromOffsets(keys.map((key) => (key as OffsetKey).offset))
    }
    return this.ranges
  }
}

const completed: Decision = { _tag: "Completed" }

const offsetDecisions = (
  { granted, token, held, until }: OffsetClaimAnswer,
  asked: OffsetRanges.OffsetRanges,
  keys: ReadonlyArray<Key>
): ReadonlyArray<Decision> => {
  const grant: Decision = { _tag: "Claimed", token: token ?? 0 }
  const repeats = OffsetRanges.size(asked) < keys.length
  if (!repeats && OffsetRanges.equals(granted, asked)) return new Array<Decision>(keys.length).fill(grant)
  const seen = new Set<number>()
  return keys.map((key): Decision => {
    const { offset } = key as OffsetKey
    if (OffsetRanges.contains(granted, offset)) {
      // the same offset twice: the first gets the claim
      if (seen.has(offset)) return { _tag: "InFlight", until: until ?? 0 }
      if (repeats) seen.add(offset)
      return grant
    }
    const holder = held.find((part) => OffsetRanges.contains(part.ranges, offset))
    return holder === undefined ? completed : { _tag: "InFlight", until: holder.until }
  })
}

const offsetAnswers = (
  { alreadyCompleted, leaseLost }: CompleteAnswer,
  keys: ReadonlyArray<Key>
): ReadonlyArray<KeyCompleteAnswer> => {
  if (OffsetRanges.isEmpty(alreadyCompleted) && OffsetRanges.isEmpty(leaseLost)) {
    return new Array<KeyCompleteAnswer>(keys.length).fill("Completed")
  }
  return keys.map((key) => {
    const { offset } = key as OffsetKey
    if (OffsetRanges.contains(leaseLost, offset)) return "LeaseLost"
    return OffsetRanges.contains(alreadyCompleted, offset) ? "AlreadyCompleted" : "Completed"
  })
}

export class IdGroup implements KeyGroup {
  readonly store: IdempotencyStoreService
  private readonly namespace: string
  private readonly fingerprint: string | undefined

  /** @param fingerprint - of the payload of every key; `undefined`: payloads are not compared. */
  constructor(store: IdempotencyStoreService, namespace: string, fingerprint?: string) {
    this.store = store
    this.namespace = namespace
    this.fingerprint = fingerprint
  }

  claim<B, F, S>(
    keys: ReadonlyArray<Key>,
    terms: ClaimTerms,
    after: AfterClaim<B, F, S>
  ): Effect.Effect<B, F, S> {
    const { fingerprint } = this
    const items = keys.map((key) => ({ key: (key as IdKey).id, fingerprint }))
    return match(this.store.claim(this.namespace, items, terms), after, (answers) =>
      after.decided(answers.map((answer, index) => idDecision(answer, keys[index], fingerprint)))
    )
  }

  complete<B, F, S>(
    claimId: string,
    keys: ReadonlyArray<Key>,
    results: ReadonlyArray<string | undefined> | undefined,
    retentionMillis: number | undefined,
    after: AfterCompletion<B, F, S>
  ): Effect.Effect<B, F, S> {
    const items = keys.map((key, index) => ({ key: (key as IdKey).id, result: results?.[index] }))
    return match(
      this.store.complete(this.refOf(claimId), items, { retentionMillis }),
      after,
      // none is invalid: all were claimed
      (answers) => after.answered(answers as ReadonlyArray<KeyCompleteAnswer>)
    )
  }

  release(claimId: string): Effect.Effect<void, StoreError | InvalidInput> {
    return this.store.release(this.refOf(claimId))
  }

  refOf(claimId: string): KeyClaimRef {
    return { namespace: this.namespace, claimId }
  }

  hint(key: Key): Effect.Effect<void> {
    return this.store.awaitSettled(this.namespace, (key as IdKey).id)
  }

  lease(claimId: string, leaseMillis: number, deadline: number, lost: () => LeaseLost): Lease<KeyClaimRef> {
    return { keeper: this.store.leases, ref: this.refOf(claimId), leaseMillis, deadline, lost }
  }
}

const idDecision = (
  answer: KeyClaimAnswer | InvalidKey,
  key: Key,
  fingerprint: string | undefined
): Decision => {
  switch (answer._tag) {
    case "Invalid":
      return { _tag: "Refused", error: answer.error }
    case "Mismatch":
      // only where a fingerprint was given
      return {
        _tag: "Refused",
        error: new PayloadMismatch({ key: format(key), fingerprint: fingerprint ?? "none" })
      }
    default:
      return answer
  }
}

export const checkStream = (stream: unknown): InvalidInput | undefined => Input.name("stream", stream)

export const checkOffset = ({ offset }: OffsetKey): InvalidInput | undefined => Input.offset("offset", offset)

export const checkNamespace = (namespace: string | undefined): InvalidInput | undefined =>
  namespace === undefined
    ? Input.invalid(
        "namespace",
        undefined,
        "a name of 1 to 1,024 bytes: Tracker.layer({ namespace }) or Key.id(id, { namespace })"
      )
    : Input.name("namespace", namespace)

export const checkId = ({ id }: IdKey): InvalidInput | undefined => Input.name("key", id)

export const checkOffsetKey = (key: OffsetKey, fingerprint?: string): InvalidInput | undefined =>
  checkStream(key.stream) ??
  checkOffset(key) ??
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
  checkNamespace(namespace) ??
  checkId(key) ??
  (fingerprint === undefined ? undefined : Input.name("fingerprint", fingerprint))

export const leaseLost = (key: Key, claimId: string, token: number | undefined): LeaseLost =>
  new LeaseLost({ what: format(key), claimId, token: token ?? 0 })
