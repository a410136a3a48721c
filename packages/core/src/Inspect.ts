/**
 * What durable stores can list, for operators: an optional ability beside the two services that every store has.
 *
 * Questions, never gates: an answer may be old by the time it is read. Listings are streams that hold one page at a
 * time in memory, however much there is, and see each entry that is there from beginning to end at least once.
 */
import { Context, type Duration, Stream } from "effect"
import type { InvalidInput, StoreError } from "./Errors.ts"
import * as Input from "./internal/input.ts"
import * as Policies from "./Policies.ts"
import type { KeyStatus } from "./protocol/KeyState.ts"

/** How far a stream has come, without its ranges: `OffsetStore.progress` has those. */
export interface StreamSummary {
  readonly stream: string
  readonly origin: number
  readonly watermark: number
  /** One past the highest completed offset; the origin where nothing is. */
  readonly highest: number
  /** How many offsets between watermark and highest are not completed. */
  readonly gapCount: number
  readonly epoch: number
  readonly lastToken: number
  /** How many claims are live. */
  readonly liveClaims: number
  /** When something of it last changed, in milliseconds since the epoch, by the store's clock. */
  readonly touchedAt: number
}

/** A key and what is known of it. */
export interface KeySummary {
  readonly namespace: string
  readonly key: string
  readonly status: KeyStatus
}

/** A live claim on positions or on keys. */
export interface ClaimSummary {
  readonly kind: "offsets" | "keys"
  /** The stream, or the namespace. */
  readonly of: string
  readonly claimId: string
  readonly owner: string
  /** Of keys that were granted with several, since the store keeps them in several places: the highest. */
  readonly token: number
  /** When its lease ends unless it is renewed, in milliseconds since the epoch, by the store's clock. */
  readonly until: number
  /** How many offsets or keys it holds that are not completed; `Infinity` for an open-ended claim. */
  readonly held: number
}

/** What an adapter implements. Input has been checked. */
export interface InspectImplementation {
  /** The streams that nothing has changed of for at least so long; 0: all. */
  readonly streams: (untouchedForMillis: number) => Stream.Stream<StreamSummary, StoreError>
  readonly keys: (namespace: string | undefined) => Stream.Stream<KeySummary, StoreError>
  readonly claims: (of: string | undefined) => Stream.Stream<ClaimSummary, StoreError>
}

/** What everyone else uses: fails with `InvalidInput` for what can be no duration, or no name. */
export interface InspectService {
  /**
   * The streams that something was ever claimed of.
   *
   * @param options.untouchedFor - only those that nothing has changed of for so long: candidates for `forget`.
   */
  readonly streams: (options?: {
    readonly untouchedFor?: Duration.Input
  }) => Stream.Stream<StreamSummary, StoreError | InvalidInput>
  /** The keys that are completed or held: of one namespace, or of all. */
  readonly keys: (options?: {
    readonly namespace?: string
  }) => Stream.Stream<KeySummary, StoreError | InvalidInput>
  /** The live claims: of one stream or namespace, or of all. */
  readonly claims: (options?: {
    readonly of?: string
  }) => Stream.Stream<ClaimSummary, StoreError | InvalidInput>
}

/**
 * Lists what a durable store holds.
 *
 * @example
 * const inspect = yield* Inspect
 * yield* Stream.runForEach(inspect.streams({ untouchedFor: "30 days" }), ({ stream, watermark }) =>
 *   Console.log(stream, watermark))
 */
export class Inspect extends Context.Service<Inspect, InspectService>()("@tidemark/core/Inspect") {
  /** Makes the service from an adapter: checks the input (invariant 9) before anything is asked of it. */
  static make(implementation: InspectImplementation): InspectService {
    return makeService(implementation)
  }
}

const makeService = ({ claims, keys, streams }: InspectImplementation): InspectService => {
  const named =
    <A>(field: string, list: (name: string | undefined) => Stream.Stream<A, StoreError>) =>
    (name: string | undefined): Stream.Stream<A, StoreError | InvalidInput> => {
      const bad = name === undefined ? undefined : Input.name(field, name)
      return bad === undefined ? list(name) : Stream.fail(bad)
    }
  const keysOf = named("namespace", keys)
  const claimsOf = named("stream or namespace", claims)
  return Inspect.of({
    streams: ({ untouchedFor } = {}) => {
      const millis = untouchedFor === undefined ? 0 : Policies.duration("untouchedFor", untouchedFor)
      return typeof millis === "number" ? streams(millis) : Stream.fail(millis)
    },
    keys: ({ namespace } = {}) => keysOf(namespace),
    claims: ({ of } = {}) => claimsOf(of)
  })
}
