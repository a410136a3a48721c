/** What the load tests have in common: thresholds, and a ledger that counts effects without the tracker's help. */
import { type Key, Tracker } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"
import { Effect, Layer } from "effect"

/** One figure and its threshold. Counts are exact on any machine; times and bytes depend on it. */
export interface Judged {
  readonly what: string
  readonly unit: string
  readonly measured: number
  readonly threshold:
    | { readonly exactly: number }
    | { readonly atMost: number }
    | { readonly atLeast: number }
  readonly kind: "count" | "time" | "memory"
}

export interface LoadOptions {
  /** Whether messages come at their rate (default), or as fast as they are taken. */
  readonly paced?: boolean
  readonly progress?: (line: string) => void
}

export interface LoadTest {
  readonly name: string
  readonly about: string
  readonly run: (options?: LoadOptions) => Promise<ReadonlyArray<Judged>>
}

export const isMet = ({ measured, threshold }: Judged): boolean => {
  if ("exactly" in threshold) return measured === threshold.exactly
  return "atMost" in threshold ? measured <= threshold.atMost : measured >= threshold.atLeast
}

/** Counts the effects of each message. */
export class Ledger {
  private readonly effects = new Map<string, number>()

  /** The effect: waits a moment between its beginning and its end, so that others come in between. */
  take(message: string): Effect.Effect<void> {
    return Effect.andThen(
      Effect.yieldNow,
      Effect.sync(() => {
        this.effects.set(message, (this.effects.get(message) ?? 0) + 1)
      })
    )
  }

  has(message: string): boolean {
    return this.effects.has(message)
  }

  /** Messages that took effect at least once. */
  get processed(): number {
    return this.effects.size
  }

  /** Effects beyond the first of each message. */
  get repeated(): number {
    let repeated = 0
    for (const count of this.effects.values()) repeated += count - 1
    return repeated
  }
}

/** Runs with a tracker on a memory store of its own. */
export const withTracker = <A, E>(
  use: (tracker: Tracker["Service"]) => Effect.Effect<A, E>,
  options: MemoryStore.MemoryStoreOptions = {}
): Promise<A> =>
  Effect.runPromise(
    Effect.flatMap(Tracker, use).pipe(
      Effect.provide(Tracker.layer({ namespace: "load" }).pipe(Layer.provide(MemoryStore.layer(options))))
    )
  )

/** Whether the delivery of a message took effect, or was told from its first delivery. */
export const deliver = (tracker: Tracker["Service"], ledger: Ledger, key: Key.Key, message: string) =>
  Effect.map(tracker.once(key, ledger.take(message)), ({ _tag }) => _tag === "Processed")

export const count = (what: string, measured: number, exactly: number): Judged => ({
  what,
  unit: "",
  measured,
  threshold: { exactly },
  kind: "count"
})
