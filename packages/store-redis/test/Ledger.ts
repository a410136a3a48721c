/** What was seen from outside of a store while it was spoiled: who holds what, and what is done, by answers that arrived. */
import { ClaimId, OffsetRanges } from "@tidemark/core"
import { Effect, Fiber, Random } from "effect"
import { expect } from "vitest"
import { eventually, insist, type Store } from "./harness.ts"

const namespace = "orders"
const stream = "orders"
const rangeLength = 10
/** So near are the things that workers choose from, so that they meet. */
const windowSize = 300

/** Fails where an answer breaks an invariant that earlier ones established. */
export class Ledger {
  private readonly holders = new Map<string, string>()
  private readonly completed = new Map<string, string>()
  /** The greatest token of those that were granted before a call began. */
  private greatest = { keys: 0, offsets: 0 }
  completions = 0

  /** Moves on with what is done, so that there is always something left to do. */
  chosen(): Effect.Effect<number> {
    const from = Math.max(0, Math.floor(this.completions / 2) - windowSize / 4)
    return Random.nextIntBetween(from, from + windowSize)
  }

  begin(kind: "keys" | "offsets"): (token: number) => void {
    const before = this.greatest[kind]
    return (token) => {
      expect(token, `a token of ${kind}`).toBeGreaterThan(before)
      this.greatest[kind] = Math.max(this.greatest[kind], token)
    }
  }

  grant(what: string, claimId: string): void {
    expect(this.completed.has(what), `${what} was completed, and is granted to ${claimId}`).toBe(false)
    expect(this.holders.get(what), `${what} is held, and is granted to ${claimId}`).toBeUndefined()
    this.holders.set(what, claimId)
  }

  /** Before the call: as soon as the store has it, others may have it. */
  release(what: string): void {
    this.holders.delete(what)
  }

  complete(what: string, claimId: string): void {
    this.completed.set(what, claimId)
    this.holders.delete(what)
    this.completions += 1
  }

  /** All that was acknowledged as done is done. */
  holds({ keys, offsets }: Store): Effect.Effect<void, unknown> {
    const done = [...this.completed]
    return Effect.gen(function* () {
      const doneKeys = done.filter(([what]) => what.startsWith("key"))
      expect(doneKeys.length).toBeGreaterThan(0)
      for (let at = 0; at < doneKeys.length; at += 1_000) {
        const part = doneKeys.slice(at, at + 1_000)
        const statuses = yield* keys.lookup(
          namespace,
          part.map(([key]) => key)
        )
        expect(statuses).toMatchObject(
          part.map(([, claimId]) => ({ _tag: "Completed", result: JSON.stringify(claimId) }))
        )
      }
      const ranges = done.filter(([what]) => !what.startsWith("key")).map(([what]) => Number(what))
      expect(ranges.length).toBeGreaterThan(0)
      const progress = yield* offsets.progress(stream)
      const missing = ranges.filter(
        (from) => !OffsetRanges.containsRange(progress!.completed, from, from + rangeLength)
      )
      expect(missing).toEqual([])
    })
  }
}

/** Twelve workers on these stores, until they are told to end. */
export const loadOn = (stores: ReadonlyArray<Store>, ledger: Ledger) =>
  Effect.gen(function* () {
    let isOver = false
    const workers = yield* Effect.forkChild(
      Effect.forEach(
        Array.from({ length: 12 }, (_, number) => stores[number % stores.length]!),
        (store) => worksOn(store, ledger, () => isOver),
        { concurrency: "unbounded", discard: true }
      ),
      { startImmediately: true }
    )
    return {
      /** Until so much more was done; fails with the workers. */
      progress: Effect.suspend(() => {
        const before = ledger.completions
        return Effect.raceFirst(
          eventually(async () => expect(ledger.completions - before).toBeGreaterThan(100)),
          Fiber.join(workers)
        )
      }),
      /** The workers end what they are at. */
      end: Effect.suspend(() => {
        isOver = true
        return Fiber.join(workers)
      })
    }
  })

/** Claims, completes and gives back what others claim too: leases are longer than any test. */
const worksOn = (store: Store, ledger: Ledger, isOver: () => boolean): Effect.Effect<void, unknown> => {
  const { keys, offsets } = store
  const onKeys = Effect.gen(function* () {
    const claimId = ClaimId.make()
    const first = yield* ledger.chosen()
    const items = [0, 1, 2].map((next) => ({ key: `key-${first + next}` }))
    const granted = ledger.begin("keys")
    const answers = yield* insist(
      keys.claim(namespace, items, { claimId, owner: "worker", leaseMillis: 600_000 })
    )
    const got = items.filter((_, index) => answers[index]!._tag === "Claimed").map(({ key }) => key)
    if (got.length === 0) return
    for (const answer of answers) if (answer._tag === "Claimed") granted(answer.token)
    for (const key of got) ledger.grant(key, claimId)
    if ((yield* Random.next) < 0.2) {
      for (const key of got) ledger.release(key)
      return yield* insist(keys.release({ namespace, claimId }))
    }
    const completions = got.map((key) => ({ key, result: JSON.stringify(claimId) }))
    const settled = yield* insist(keys.complete({ namespace, claimId }, completions))
    expect(settled).not.toContain("LeaseLost")
    for (const key of got) ledger.complete(key, claimId)
  })
  const onOffsets = Effect.gen(function* () {
    const claimId = ClaimId.make()
    const from = rangeLength * (yield* ledger.chosen())
    const ranges = OffsetRanges.make(from, from + rangeLength)
    const granted = ledger.begin("offsets")
    const answer = yield* insist(
      offsets.claim(stream, ranges, { claimId, owner: "worker", leaseMillis: 600_000 })
    )
    if (OffsetRanges.isEmpty(answer.granted)) return
    expect(answer.granted).toEqual(ranges)
    granted(answer.token!)
    ledger.grant(String(from), claimId)
    if ((yield* Random.next) < 0.2) {
      ledger.release(String(from))
      return yield* insist(offsets.release({ stream, claimId }))
    }
    const settled = yield* insist(offsets.complete({ stream, claimId }, ranges))
    expect(settled.leaseLost).toEqual(OffsetRanges.empty)
    ledger.complete(String(from), claimId)
  })
  return Effect.gen(function* () {
    while (!isOver()) yield* (yield* Random.next) < 0.5 ? onKeys : onOffsets
  })
}
