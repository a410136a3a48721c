/**
 * Histories: who called what when, and what was answered. Plain data, so that the histories of several processes can
 * be written as lines of JSON and put together.
 */
import type { Protocol } from "@tidemark/core"
import type { Interval } from "./linearizability.ts"

/** Ranges as `[from, to, from, to, ...]`. */
export type FlatRanges = ReadonlyArray<number>

/** The answer to a claim of a stream. */
export interface RecordedClaimAnswer {
  readonly granted: FlatRanges
  readonly token?: number | undefined
  readonly until?: number | undefined
  readonly completed: FlatRanges
  readonly held: ReadonlyArray<{
    readonly ranges: FlatRanges
    readonly until: number
    readonly owner: string
  }>
}

/** A call on a stream, with its answer; without, where none came. */
export type StreamCall =
  | {
      readonly verb: "claim"
      readonly claimId: string
      readonly ranges: FlatRanges
      readonly leaseMillis: number
      readonly answer?: RecordedClaimAnswer | "ClaimIdReused"
    }
  | {
      readonly verb: "complete"
      readonly claimId: string
      readonly ranges: FlatRanges
      readonly answer?: {
        readonly completed: FlatRanges
        readonly alreadyCompleted: FlatRanges
        readonly leaseLost: FlatRanges
      }
    }
  | {
      readonly verb: "release"
      readonly claimId: string
      /** `undefined`: all. */
      readonly ranges?: FlatRanges | undefined
      readonly answer?: "released"
    }
  | {
      readonly verb: "renew"
      readonly claimId: string
      readonly leaseMillis: number
      readonly answer?: number | "LeaseLost"
    }
  | {
      readonly verb: "annotate"
      readonly claimId: string
      readonly note: string
      readonly answer?: "noted" | "LeaseLost"
    }
  | {
      readonly verb: "progress"
      readonly answer?:
        | { readonly completed: FlatRanges; readonly watermark: number; readonly note?: string | undefined }
        | "nothing"
    }

/** A call on one key, with its answer; without, where none came. A call on many keys is one for each. */
export type KeyCall =
  | {
      readonly verb: "claim"
      readonly claimId: string
      readonly leaseMillis: number
      readonly answer?: Exclude<Protocol.KeyClaimAnswer, { readonly _tag: "Mismatch" }> | "ClaimIdReused"
    }
  | {
      readonly verb: "complete"
      readonly claimId: string
      readonly retentionMillis: number
      readonly result?: string | undefined
      readonly answer?: Protocol.KeyCompleteAnswer
    }
  | { readonly verb: "release"; readonly claimId: string; readonly answer?: "released" }
  | {
      readonly verb: "renew"
      readonly claimId: string
      readonly leaseMillis: number
      /** Whether the claim was for this key alone: else it may be renewed for other keys' sake. */
      readonly isAlone: boolean
      /** Whether the claim's other keys may be in other shards, whose leases end by themselves. */
      readonly inShards?: boolean
      readonly answer?: number | "LeaseLost"
    }
  | { readonly verb: "lookup"; readonly answer?: Protocol.KeyStatus }

/** When a call was under way. */
export interface Times extends Interval {
  /** Who called, for people. */
  readonly caller: string
  /** By the wall clock, in milliseconds since the epoch: the store's time of the call lies between. */
  readonly from: number
  readonly to: number
}

/** A call on the stream or the key of that name. */
export type RecordedCall = Times &
  (
    | { readonly service: "stream"; readonly name: string; readonly call: StreamCall }
    | { readonly service: "key"; readonly name: string; readonly call: KeyCall }
  )

/** All calls of some callers on one store, in any order. */
export type History = ReadonlyArray<RecordedCall>

/** A call on one stream or one key, with its times. */
export type Timed<Call> = Times & { readonly call: Call }

/** The name of a key in a history. */
export const keyName = (namespace: string, key: string): string => JSON.stringify([namespace, key])
