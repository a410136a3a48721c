/**
 * Waiting for what another holds, and for a store that fails for a while: for consumers of the stores' verbs.
 *
 * Pauses grow from 0.1 s to 1 s, each somewhere in its upper half by chance, so that many who wait for the same thing
 * don't ask at the same moment.
 */
import { Clock, Effect, Random } from "effect"

/** The shortest and the longest time between two questions, in milliseconds. */
const shortestMillis = 100
const longestMillis = 1_000

/** How long to wait before question number `attempt` (from 0); `chance` is from [0, 1). */
const pauseMillis = (attempt: number, chance: number): number =>
  Math.min(longestMillis, shortestMillis * 2 ** Math.min(attempt, 10)) * (0.5 + chance / 2)

/**
 * Milliseconds by the monotonic clock, which no change of the time of day moves: for the deadlines of leases, reckoned
 * from before the claim was asked for. They mean nothing to another process.
 */
export const monotonicMillis = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

/**
 * Waits until it is worth asking again for what another holds: until the hint comes, or the holder's lease is over, or
 * a moment has passed. Never fails.
 *
 * @param hint - the store's word that something may have been given back; it may never come.
 * @param attempt - how many times was asked before, from 0: the moment grows with it, from 0.1 s to 1 s.
 * @param heldUntil - when the holder's lease ends, in milliseconds since the epoch, by the store's clock.
 * @param patienceMillis - the longest wait, whatever the others say; default: no bound of its own.
 *
 * @example
 * const [answer] = yield* store.claim("orders", [{ key }], terms)
 * if (answer._tag === "InFlight")
 *   yield* Patience.untilWorthAsking(store.awaitSettled("orders", key), attempt, answer.until)
 */
export const untilWorthAsking = (
  hint: Effect.Effect<void>,
  attempt: number,
  heldUntil: number,
  patienceMillis = Number.POSITIVE_INFINITY
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const left = heldUntil - (yield* Clock.currentTimeMillis)
    const pause = Math.min(
      pauseMillis(attempt, yield* Random.next),
      // over by our clock, and held all the same: the store's clock is another, and tells nothing about when to ask
      left > 0 ? Math.max(1, left) : longestMillis,
      patienceMillis
    )
    yield* Effect.raceFirst(hint, Effect.sleep(pause))
  })

/**
 * Asks again, with growing pauses, while the failure is `retriable`; until the deadline, and then fails with what came
 * last. No pause outlasts the deadline, and a call that does not answer at all is waited for.
 *
 * @param ask - gets how many times was asked before. The same call each time: a claim keeps its claim id.
 * @param deadline - in {@link monotonicMillis}; asked before each pause, since a lease may be renewed meanwhile.
 *
 * @example
 * const deadline = Patience.monotonicMillis(yield* Clock.Clock) + leaseMillis
 * const answer = yield* Patience.retryUntil(() => store.claim(stream, ranges, terms), () => deadline)
 */
export const retryUntil = <A, E extends { readonly retriable: boolean }, R>(
  ask: (attempt: number) => Effect.Effect<A, E, R>,
  deadline: () => number
): Effect.Effect<A, E, R> => {
  const from = (attempt: number): Effect.Effect<A, E, R> =>
    Effect.catch(ask(attempt), (error) => {
      if (!error.retriable) return Effect.fail(error)
      return Effect.gen(function* () {
        const clock = yield* Clock.Clock
        const pause = pauseMillis(attempt, yield* Random.next)
        if (monotonicMillis(clock) + pause >= deadline()) return yield* Effect.fail(error)
        yield* Effect.sleep(pause)
        return yield* from(attempt + 1)
      })
    })
  return Effect.suspend(() => from(0))
}
