/**
 * The contract of a store for idempotency keys: ids that are remembered for a retention time.
 *
 * The same verbs as for positions, with the same promises (see `OffsetStore`), answered key by key.
 */
import { Context, Effect, type Scope } from "effect"
import { ClaimIdReused, type InvalidInput, type StoreError } from "./Errors.ts"
import * as Input from "./internal/input.ts"
import * as LeaseKeeper from "./internal/LeaseKeeper.ts"
import type { ClaimTerms } from "./protocol/Claims.ts"
import type {
  KeyClaimAnswer,
  KeyCompleteAnswer,
  KeyCompletion,
  KeyItem,
  KeyStatus
} from "./protocol/KeyState.ts"

/** Names a claim in `complete`, `release` and `renew`. */
export interface KeyClaimRef {
  readonly namespace: string
  readonly claimId: string
}

/** A claim and how long its lease shall last from now, in milliseconds. */
export interface KeyRenewal extends KeyClaimRef {
  readonly leaseMillis: number
}

/** An answer for a key that can't be one: nothing was sent or written for it; the others were judged. */
export interface InvalidKey {
  readonly _tag: "Invalid"
  readonly error: InvalidInput
}

/** What an adapter implements. Input has been checked; keys and namespaces are 1 to 1,024 bytes of UTF-8. */
export interface IdempotencyStoreImplementation {
  /** For messages, metrics and logs: "memory", "redis", ... */
  readonly name: string
  /** Whether keys outlive the process. */
  readonly durable: boolean
  /** How long a completed key is remembered where `complete` does not say, in milliseconds. */
  readonly retentionMillis: number
  /**
   * Where the keys of a namespace are kept in shards, each as a store of its own: the shard of a key, an integer from 0.
   * What spans keys is then judged in each shard for its own: tokens grow, a claim id that is used again for other keys
   * is noticed, and what was given back stays given back, where one shard sees it; `renew` answers the earliest end.
   */
  readonly shardOf?: ((key: string) => number) | undefined
  /**
   * Claims keys; of equal keys in one call the first gets the claim (invariants 1, 2, 4, 7). `undefined`: the
   * claim id is in use for other keys; nothing was changed.
   */
  readonly claim: (
    namespace: string,
    items: ReadonlyArray<KeyItem>,
    terms: ClaimTerms
  ) => Effect.Effect<ReadonlyArray<KeyClaimAnswer> | undefined, StoreError>
  /** Settles as done, key by key (invariant 3), to be remembered for `retentionMillis` from now. */
  readonly complete: (
    claim: KeyClaimRef,
    items: ReadonlyArray<KeyCompletion>,
    retentionMillis: number
  ) => Effect.Effect<ReadonlyArray<KeyCompleteAnswer>, StoreError>
  /** Gives back undone: `keys`, or all that the claim holds. */
  readonly release: (claim: KeyClaimRef, keys?: ReadonlyArray<string>) => Effect.Effect<void, StoreError>
  /** Until when each lease lasts now, in milliseconds since the epoch; `undefined` where it is lost. */
  readonly renew: (
    claims: ReadonlyArray<KeyRenewal>
  ) => Effect.Effect<ReadonlyArray<number | undefined>, StoreError>
  /** A question, never a gate. */
  readonly lookup: (
    namespace: string,
    keys: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<KeyStatus>, StoreError>
  /** An operator's act: as if the keys had never been seen. Answers how many were known. */
  readonly forget: (namespace: string, keys: ReadonlyArray<string>) => Effect.Effect<number, StoreError>
  /**
   * A hint: succeeds when the key may have been completed or given back. It may come late or never; whoever waits
   * asks again by a timer too. Interrupting it leaves nothing behind.
   */
  readonly awaitSettled: (namespace: string, key: string) => Effect.Effect<void>
}

/**
 * What everyone else uses: the verbs, with their input checked. A key that can't be one does not spoil a batch: where
 * the answer comes item by item it is `Invalid`; `release` and `forget` handle the others and then fail with
 * `InvalidInput`, which names it.
 */
export interface IdempotencyStoreService
  extends Omit<
    IdempotencyStoreImplementation,
    "claim" | "complete" | "release" | "renew" | "lookup" | "forget"
  > {
  readonly claim: (
    namespace: string,
    items: ReadonlyArray<KeyItem>,
    terms: ClaimTerms
  ) => Effect.Effect<ReadonlyArray<KeyClaimAnswer | InvalidKey>, StoreError | InvalidInput | ClaimIdReused>
  readonly complete: (
    claim: KeyClaimRef,
    items: ReadonlyArray<KeyCompletion>,
    options?: { readonly retentionMillis?: number | undefined }
  ) => Effect.Effect<ReadonlyArray<KeyCompleteAnswer | InvalidKey>, StoreError | InvalidInput>
  readonly release: (
    claim: KeyClaimRef,
    keys?: ReadonlyArray<string>
  ) => Effect.Effect<void, StoreError | InvalidInput>
  readonly renew: (
    claims: ReadonlyArray<KeyRenewal>
  ) => Effect.Effect<ReadonlyArray<number | undefined>, StoreError | InvalidInput>
  readonly lookup: (
    namespace: string,
    keys: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<KeyStatus | InvalidKey>, StoreError | InvalidInput>
  readonly forget: (
    namespace: string,
    keys: ReadonlyArray<string>
  ) => Effect.Effect<number, StoreError | InvalidInput>
  /** Keeps the leases of this store's claims alive while their owners work. */
  readonly leases: LeaseKeeper.LeaseKeeper<KeyClaimRef>
}

/** The store for idempotency keys. */
export class IdempotencyStore extends Context.Service<IdempotencyStore, IdempotencyStoreService>()(
  "@tidemark/core/IdempotencyStore"
) {
  /**
   * Makes the service from an adapter: checks the input of every verb (invariant 9) before anything is sent, and
   * keeps leases until the Scope closes. A key that can't be one gets an answer of its own and does not spoil the
   * others.
   */
  static make(
    implementation: IdempotencyStoreImplementation
  ): Effect.Effect<IdempotencyStoreService, never, Scope.Scope> {
    return makeService(implementation)
  }
}

const checkRef = (claim: KeyClaimRef): InvalidInput | undefined =>
  Input.name("namespace", claim.namespace) ?? Input.name("claimId", claim.claimId)

const checkRenewal = (claim: KeyRenewal): InvalidInput | undefined =>
  checkRef(claim) ?? Input.millis("lease", claim.leaseMillis)

const checkKey = (key: string): InvalidInput | undefined => Input.name("key", key)

const checkItem = (item: KeyItem): InvalidInput | undefined =>
  checkKey(item.key) ??
  (item.fingerprint === undefined ? undefined : Input.name("fingerprint", item.fingerprint))

/** Asks for the good items; the others get an answer of their own. */
const askForGood = <Item, Answer, E>(
  items: ReadonlyArray<Item>,
  check: (item: Item) => InvalidInput | undefined,
  ask: (good: ReadonlyArray<Item>) => Effect.Effect<ReadonlyArray<Answer>, E>
): Effect.Effect<ReadonlyArray<Answer | InvalidKey>, E> => {
  let invalid: Map<number, InvalidKey> | undefined
  for (let index = 0; index < items.length; index++) {
    const error = check(items[index])
    if (error !== undefined) (invalid ??= new Map()).set(index, { _tag: "Invalid", error })
  }
  if (invalid === undefined) return ask(items)
  const bad = invalid
  const good = items.filter((_, index) => !bad.has(index))
  if (good.length === 0) return Effect.succeed([...bad.values()])
  return Effect.map(ask(good), (answers) => {
    let next = 0
    return items.map((_, index) => bad.get(index) ?? answers[next++])
  })
}

/** Does it for the good keys, and then fails for the first of the others: the answer has no place for it. */
const doForGood = <A, E>(
  keys: ReadonlyArray<string>,
  act: (good: ReadonlyArray<string>) => Effect.Effect<A, E>
): Effect.Effect<A, E | InvalidInput> => {
  const bad = Input.firstBad(keys, checkKey)
  if (bad === undefined) return act(keys)
  const good = keys.filter((key) => checkKey(key) === undefined)
  return good.length === 0 ? Effect.fail(bad) : Effect.andThen(act(good), Effect.fail(bad))
}

const makeService = (
  implementation: IdempotencyStoreImplementation
): Effect.Effect<IdempotencyStoreService, never, Scope.Scope> =>
  Effect.map(
    LeaseKeeper.make<KeyClaimRef>((due) =>
      Effect.map(
        implementation.renew(due.map(({ ref, leaseMillis }) => ({ ...ref, leaseMillis }))),
        (answers) => answers.map((until) => until !== undefined)
      )
    ),
    (leases) =>
      IdempotencyStore.of({
        name: implementation.name,
        durable: implementation.durable,
        retentionMillis: implementation.retentionMillis,
        shardOf: implementation.shardOf,
        awaitSettled: implementation.awaitSettled,
        leases,
        claim: (namespace, items, terms) =>
          Input.unless(Input.name("namespace", namespace) ?? Input.terms(terms), () =>
            askForGood(items, checkItem, (good) =>
              Effect.flatMap(implementation.claim(namespace, good, terms), (answers) =>
                answers === undefined
                  ? Effect.fail(new ClaimIdReused({ claimId: terms.claimId, what: `namespace ${namespace}` }))
                  : Effect.succeed(answers)
              )
            )
          ),
        complete: (claim, items, options) => {
          const retention = options?.retentionMillis ?? implementation.retentionMillis
          return Input.unless(checkRef(claim) ?? Input.millis("retention", retention), () =>
            askForGood(items, checkItem, (good) => implementation.complete(claim, good, retention))
          )
        },
        release: (claim, keys) =>
          Input.unless(checkRef(claim), () =>
            keys === undefined
              ? implementation.release(claim)
              : doForGood(keys, (good) => implementation.release(claim, good))
          ),
        renew: (claims) =>
          Input.unless(Input.firstBad(claims, checkRenewal), () => implementation.renew(claims)),
        lookup: (namespace, keys) =>
          Input.unless(Input.name("namespace", namespace), () =>
            askForGood(keys, checkKey, (good) => implementation.lookup(namespace, good))
          ),
        forget: (namespace, keys) =>
          Input.unless(Input.name("namespace", namespace), () =>
            doForGood(keys, (good) => implementation.forget(namespace, good))
          )
      })
  )
