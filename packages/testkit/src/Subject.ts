/**
 * What a check has in its hands: a store, its time, names that nobody else uses, and, for durable stores, other
 * instances on the same data.
 */
import { ClaimId } from "@tidemark/core"
import { Clock, type Context, Effect, Exit, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"

/**
 * Whose clock judges leases: `test`: Effect's `Clock`, so that `TestClock` drives the store; `live`: a clock of the
 * store's own (a server's), which nobody can move.
 */
export type StoreClock = "test" | "live"

/** How a store's time passes in a check. */
export interface StoreTime {
  /** Whether instants are exact to the millisecond: `TestClock` drives the store. */
  readonly exact: boolean
  /** A lease that a check can wait the end of, in milliseconds. */
  readonly shortMillis: number
  /** A lease that does not end while a check runs, in milliseconds. */
  readonly longMillis: number
  /** How far a clock of the store's own may be from ours, the time of a call included; 0 where exact. */
  readonly toleranceMillis: number
  /** Our idea of the store's time, in milliseconds since the epoch. */
  readonly now: Effect.Effect<number>
  /** Lets time pass until the store's clock shows at least this instant: exactly it, where exact. */
  readonly passTo: (instant: number) => Effect.Effect<void>
  /** Lets so much time pass. */
  readonly pass: (millis: number) => Effect.Effect<void>
}

/** A store in a check. */
export interface Subject<Service> {
  /** The store as its layer gives it, made for this check alone; its data may be shared with others. */
  readonly store: Service
  /** A further instance on the same data, as another process would have. For durable stores. */
  readonly another: Effect.Effect<Service, unknown, Scope.Scope>
  /** Closes the instance, and gives a new one on the same data. For durable stores; `store` is closed then. */
  readonly restarted: Effect.Effect<Service, unknown, Scope.Scope>
  readonly time: StoreTime
  /** A name that nothing and nobody else uses: for streams, namespaces, keys and claim ids. */
  readonly name: (what: string) => string
}

/** A server's clock, and a machine that is busy. */
const liveTime = (toleranceMillis: number): StoreTime => ({
  exact: false,
  shortMillis: 250,
  longMillis: 600_000,
  toleranceMillis,
  now: Clock.currentTimeMillis,
  passTo: (instant) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) =>
      Effect.sleep(Math.max(0, instant - now) + toleranceMillis)
    ),
  pass: (millis) => Effect.sleep(millis + toleranceMillis)
})

const testTime: StoreTime = {
  exact: true,
  shortMillis: 1_000,
  longMillis: 600_000,
  toleranceMillis: 0,
  now: Clock.currentTimeMillis,
  passTo: (instant) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => TestClock.adjust(Math.max(0, instant - now))),
  pass: (millis) => TestClock.adjust(millis)
}

/** How stores are opened for checks, and on which clock. */
export interface Opening<Service, E> {
  /** Opening it again, at once or later, reaches the same data where the store says that it is `durable`. */
  readonly open: Effect.Effect<Service, E, Scope.Scope>
  readonly clock: StoreClock
  /** For `live`: how far the store's clock may be from this machine's, in milliseconds. Default: 100. */
  readonly toleranceMillis?: number | undefined
  /** What the store should say of itself; it is not asked what only a durable one can be, unless it is. Default: true. */
  readonly durable?: boolean | undefined
}

/** How to open what a layer gives: each instance is built anew, nothing is shared between two. */
export const openLayer = <Services, E, Service>(
  layer: Layer.Layer<Services, E>,
  service: (context: Context.Context<Services>) => Service
): Effect.Effect<Service, E, Scope.Scope> =>
  Effect.flatMap(Effect.scope, (scope) =>
    Effect.map(Layer.buildWithMemoMap(layer, Layer.makeMemoMapUnsafe(), scope), service)
  )

const defaultToleranceMillis = 100

/** Opens a store for one check. */
export const makeSubject = <Service, E>(
  { clock, open, toleranceMillis = defaultToleranceMillis }: Opening<Service, E>,
  onLiveClock: boolean
): Effect.Effect<Subject<Service>, E, Scope.Scope> =>
  Effect.gen(function* () {
    const outer = yield* Effect.scope
    // restarting closes an instance before the check's Scope does
    const openIn = Effect.gen(function* () {
      const scope = yield* Scope.fork(outer)
      return { scope, store: yield* Scope.provide(open, scope) }
    })
    let current = yield* openIn
    return {
      store: current.store,
      another: Effect.map(openIn, ({ store }) => store),
      restarted: Effect.gen(function* () {
        yield* Scope.close(current.scope, Exit.void)
        current = yield* openIn
        return current.store
      }),
      time: clock === "test" && !onLiveClock ? testTime : liveTime(clock === "test" ? 20 : toleranceMillis),
      name: (what) => `${what}-${ClaimId.make()}`
    }
  })
