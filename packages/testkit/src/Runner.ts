/** Runs checks on a store, whatever the test runner. */
import { Clock, Effect, Semaphore } from "effect"
import { TestClock } from "effect/testing"
import { type Check, type Outcome, outcomeOf } from "./Check.ts"
import { broken } from "./internal/expect.ts"
import { makeSubject, type Opening } from "./Subject.ts"

/** What every store's service says of itself. */
export interface Described {
  readonly durable?: boolean
}

/** Runs checks one after the other on one store. */
export interface Runner<Service> {
  readonly run: (check: Check<Service>) => Effect.Effect<Outcome>
}

/** Where `TestClock` begins: some day, so that tokens are as large as real ones. */
const firstInstant = Date.UTC(2030, 0, 1)

/**
 * Makes a runner.
 *
 * `TestClock` goes on from check to check where it was, and no two checks have one at once: a durable store's data
 * outlives a check, and its clock may not step back.
 */
export const makeRunner = <Service extends Described, E>(opening: Opening<Service, E>): Runner<Service> => {
  let instant = firstInstant
  const oneAtATime = Semaphore.makeUnsafe(1)
  /** Answers why the check was skipped; `undefined`: it was not. */
  const body = (check: Check<Service>, onLiveClock: boolean): Effect.Effect<string | undefined, unknown> =>
    Effect.scoped(
      Effect.gen(function* () {
        const subject = yield* makeSubject(opening, onLiveClock)
        if (opening.durable === false && subject.store.durable === true) {
          return yield* broken("the store says that it is durable, and is asked as one that is not")
        }
        if (check.onlyDurable === true && subject.store.durable !== true) {
          return "the store says that its data does not outlive it"
        }
        yield* check.run(subject)
        return undefined
      })
    )
  const onTestClock = (check: Check<Service>): Effect.Effect<string | undefined, unknown> =>
    Effect.gen(function* () {
      yield* TestClock.setTime(instant)
      return yield* Effect.ensuring(
        body(check, false),
        Effect.map(Clock.currentTimeMillis, (now) => {
          instant = now + 1_000
        })
      )
    }).pipe(Effect.provide(TestClock.layer()), oneAtATime.withPermit)
  return {
    run: (check) => {
      const onLiveClock = opening.clock === "live" || check.liveClock === true
      const running = onLiveClock ? body(check, true) : onTestClock(check)
      return Effect.map(Effect.exit(running), (exit) => outcomeOf(check, exit))
    }
  }
}

/**
 * Runs checks one after the other, and answers how each went, in order.
 *
 * @example
 * const open = openLayer(MyStore.layer(), Context.get(OffsetStore))
 * const outcomes = yield* runChecks(offsetStoreChecks, { open, clock: "test" })
 */
export const runChecks = <Service extends Described, E>(
  checks: ReadonlyArray<Check<Service>>,
  opening: Opening<Service, E>
): Effect.Effect<ReadonlyArray<Outcome>> => Effect.forEach(checks, makeRunner(opening).run)
