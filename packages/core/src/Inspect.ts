/**
 * What durable stores can list, for operators: an optional ability beside the two services that every store has.
 *
 * Questions, never gates: an answer may be old by the time it is read. Listings are streams that hold one page at a
 * time in memory, however much there is, and see each entry that is there from beginning to end at least once.
 */
import { Context, type Duration, type Stream } from "effect"
import type { StoreError } from "./Errors.ts"
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
  readonly token: number
  /** When its lease ends unless it is renewed, in milliseconds since the epoch, by the store's clock. */
  readonly until: number
  /** How many offsets or keys it holds that are not completed; `Infinity` for an open-ended claim. */
  readonly held: number
}

export interface InspectService {
  /**
   * The streams that something was ever claimed of.
   *
   * @param options.untouchedFor - only those that nothing has changed of for so long: candidates for `forget`.
   */
  readonly streams: (options?: {
    readonly untouchedFor?: Duration.Input
  }) => Stream.Stream<StreamSummary, StoreError>
  /** The keys that are completed or held: of one namespace, or of all. */
  readonly keys: (options?: { readonly namespace?: string }) => Stream.Stream<KeySummary, StoreError>
  /** The live claims: of one stream or namespace, or of all. */
  readonly claims: (options?: { readonly of?: string }) => Stream.Stream<ClaimSummary, StoreError>
}

/**
 * Lists what a durable store holds.
 *
 * @example
 * const inspect = yield* Inspect
 * yield* Stream.runForEach(inspect.streams({ untouchedFor: "30 days" }), ({ stream, watermark }) =>
 *   Console.log(stream, watermark))
 */
export class Inspect extends Context.Service<Inspect, InspectService>()("@tidemark/core/Inspect") {}
