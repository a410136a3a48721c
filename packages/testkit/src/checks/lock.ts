/** What every `Lock` must do, by invariant. */
import type { HeldLock, IdempotencyStoreService, LockService } from "@tidemark/core"
import { Deferred, Effect, Fiber } from "effect"
import type { Check } from "../Check.ts"
import { broken, ensure, failsWith, same } from "../internal/expect.ts"
import { claimed, items } from "./idempotencyStoreClaiming.ts"
import { terms } from "./shared.ts"

/** A lock as its checks see it: with the store of keys under it, where locks are keys of the namespace `lock`. */
export interface LockSubject {
  readonly lock: LockService
  readonly keys: IdempotencyStoreService
  readonly durable: boolean
}

const lockNamespace = "lock"
const forked = { startImmediately: true } as const

/** Holds a lock until the gate opens; answers when it is held. */
const holding = (lock: LockService, name: string) =>
  Effect.gen(function* () {
    const held = yield* Deferred.make<HeldLock>()
    const gate = yield* Deferred.make<void>()
    const fiber = yield* Effect.forkChild(
      lock.withLock(name)((one) => Effect.andThen(Deferred.succeed(held, one), Deferred.await(gate))),
      forked
    )
    return {
      held: yield* Effect.raceFirst(Deferred.await(held), Effect.andThen(Fiber.join(fiber), Effect.never)),
      gate,
      fiber
    }
  })

const isFree = (lock: LockService, name: string) => lock.withLock(name, { wait: 0 })(Effect.succeed("mine"))

const taken = (what: string, lock: LockService, name: string) =>
  failsWith(what, lock.withLock(name, { wait: 0 })(Effect.void), "InFlightElsewhere")

export const lockChecks: ReadonlyArray<Check<LockSubject>> = [
  {
    invariant: 1,
    name: "one holder at a time, and whoever does not wait is told so",
    run: ({ name, store: { lock } }) =>
      Effect.gen(function* () {
        const one = name("lock")
        const { fiber, gate } = yield* holding(lock, one)
        yield* taken("a second holder that does not wait", lock, one)
        yield* same("another lock", yield* isFree(lock, name("lock")), "mine")
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(fiber)
        yield* same("after the first let go", yield* isFree(lock, one), "mine")
      })
  },
  {
    invariant: 1,
    name: "50 tasks, 200 times each on contended locks, never meet inside, and tokens grow by each entry",
    liveClock: true,
    run: ({ name, store: { lock } }) =>
      Effect.gen(function* () {
        const names = Array.from({ length: 5 }, () => name("lock"))
        const inside = new Map<string, number>()
        const lastToken = new Map<string, number>()
        let entered = 0
        const once = (one: string) =>
          lock.withLock(one)(({ token }) =>
            Effect.gen(function* () {
              const others = inside.get(one) ?? 0
              inside.set(one, others + 1)
              yield* Effect.yieldNow
              const last = lastToken.get(one) ?? 0
              lastToken.set(one, token)
              entered += 1
              inside.set(one, others)
              yield* ensure(others === 0, () => `${others + 1} tasks were inside of one lock at once`)
              yield* ensure(token > last, () => `a holder has the token ${token}, an earlier one had ${last}`)
            })
          )
        yield* Effect.forEach(
          Array.from({ length: 50 }, (_, task) => task),
          (task) =>
            Effect.forEach(
              Array.from({ length: 200 }),
              (_, round) => once(names[(task + round) % names.length]),
              {
                discard: true
              }
            ),
          { concurrency: "unbounded", discard: true }
        )
        yield* same("entries", entered, 10_000)
      })
  },
  {
    invariant: 1,
    name: "tasks of several instances never meet inside, and all get in",
    onlyDurable: true,
    liveClock: true,
    run: ({ another, name, store }) =>
      Effect.gen(function* () {
        const instances = [store, yield* another, yield* another]
        const one = name("lock")
        let inside = 0
        let last = 0
        yield* Effect.forEach(
          Array.from({ length: 30 }, (_, task) => instances[task % instances.length].lock),
          (lock) =>
            lock.withLock(one)(({ token }) =>
              Effect.gen(function* () {
                inside += 1
                const met = inside
                yield* Effect.yieldNow
                inside -= 1
                yield* ensure(met === 1, () => `${met} tasks were inside at once`)
                yield* ensure(
                  token > last,
                  () => `a holder has the token ${token}, an earlier one had ${last}`
                )
                last = token
              })
            ),
          { concurrency: "unbounded", discard: true }
        )
      })
  },
  {
    invariant: 2,
    name: "each holder's token is above those of all earlier ones",
    run: ({ name, store: { lock } }) =>
      Effect.gen(function* () {
        const one = name("lock")
        let last = 0
        for (let round = 0; round < 20; round++) {
          const token = yield* lock.withLock(one)((held) => Effect.succeed(held.token))
          yield* ensure(
            token > last,
            () => `holder ${round} has the token ${token}, the one before had ${last}`
          )
          last = token
        }
      })
  },
  {
    invariant: 5,
    name: "a lock is renewed while it is held, however long",
    run: ({ name, store: { lock }, time }) =>
      Effect.gen(function* () {
        const one = name("lock")
        const lease = time.exact ? 2_000 : 1_500
        const gate = yield* Deferred.make<void>()
        const holder = yield* Effect.forkChild(lock.withLock(one, { lease })(Deferred.await(gate)), forked)
        // TestClock does not wait for a disk: in small steps a renewal ends before its time is over
        const [rounds, step] = time.exact ? [100, lease / 10] : [3, lease / 2]
        for (let round = 1; round <= rounds; round++) {
          yield* time.pass(step)
          yield* taken(`after ${round * step} ms of a lease of ${lease}`, lock, one)
        }
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(holder)
        yield* same("after it let go", yield* isFree(lock, one), "mine")
      })
  },
  {
    invariant: 7,
    name: "is free at once after success, a failure, a defect, an interruption and the end of a Scope",
    run: ({ name, store: { lock } }) =>
      Effect.gen(function* () {
        const one = name("lock")
        const after = (what: string) =>
          Effect.gen(function* () {
            yield* same(`after ${what}`, yield* isFree(lock, one), "mine")
          })
        yield* lock.withLock(one)(Effect.void)
        yield* after("success")
        yield* Effect.exit(lock.withLock(one)(Effect.fail("x")))
        yield* after("a failure")
        yield* Effect.exit(lock.withLock(one)(Effect.die("x")))
        yield* after("a defect")
        const { fiber } = yield* holding(lock, one)
        yield* Fiber.interrupt(fiber)
        yield* after("an interruption")
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* lock.acquire(one)
            yield* taken("while a Scope holds it", lock, one)
          })
        )
        yield* after("the end of a Scope")
      })
  },
  {
    invariant: 7,
    name: "an interrupted waiter leaves nothing behind, and takes no other's turn",
    run: ({ name, store: { lock }, time }) =>
      Effect.gen(function* () {
        const one = name("lock")
        const { fiber, gate } = yield* holding(lock, one)
        const impatient = yield* Effect.forkChild(lock.withLock(one)(Effect.void), forked)
        const patient = yield* Effect.forkChild(lock.withLock(one)(Effect.succeed("got it")), forked)
        yield* Effect.yieldNow
        yield* Fiber.interrupt(impatient)
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(fiber)
        if (time.exact) yield* time.pass(5_000)
        yield* same("the other waiter", yield* Fiber.join(patient), "got it")
        yield* same("after all", yield* isFree(lock, one), "mine")
      })
  },
  {
    invariant: 8,
    name: "waits no longer than it is told to",
    run: ({ name, store: { lock }, time }) =>
      Effect.gen(function* () {
        const one = name("lock")
        const { fiber } = yield* holding(lock, one)
        const waiter = yield* Effect.forkChild(
          failsWith(
            "a waiter whose patience ends",
            lock.withLock(one, { wait: time.shortMillis })(Effect.void),
            "InFlightElsewhere"
          ),
          forked
        )
        if (time.exact) yield* time.pass(time.shortMillis)
        yield* Fiber.join(waiter)
        yield* Fiber.interrupt(fiber)
        yield* same("after the holder was interrupted", yield* isFree(lock, one), "mine")
      })
  },
  {
    invariant: 8,
    name: "a holder that died is succeeded when its lease is over, and not before",
    run: ({ name, store: { keys, lock }, time }) =>
      Effect.gen(function* () {
        const one = name("lock")
        // a lock is a key's claim: whoever was killed renews it no more
        const dead = { namespace: lockNamespace, claimId: name("dead") }
        const [answer] = yield* keys.claim(lockNamespace, items(one), terms(dead.claimId, time.shortMillis))
        const { token, until } = yield* claimed("the lock of the one that dies", answer)
        const successor = yield* Effect.forkChild(
          lock.withLock(one)((held) => Effect.map(time.now, (at) => ({ at, token: held.token }))),
          forked
        )
        // waiters ask again at least once a second
        if (time.exact) yield* time.pass(time.shortMillis + 1_500)
        const succeeded = yield* Fiber.join(successor)
        yield* ensure(
          succeeded.at >= until - time.toleranceMillis,
          () => `it was succeeded at ${succeeded.at}, but its lease lasts until ${until}`
        )
        yield* ensure(
          succeeded.token > token,
          () => `its token was ${token}, its successor's is ${succeeded.token}`
        )
        yield* same("complete by the dead one's claim", yield* keys.complete(dead, items(one)), ["LeaseLost"])
      })
  },
  {
    invariant: 9,
    name: "bad input is InvalidInput, and the lock stays free",
    run: ({ name, store: { lock } }) =>
      Effect.gen(function* () {
        const one = name("lock")
        yield* failsWith("an empty name", lock.withLock("")(Effect.void), "InvalidInput")
        yield* failsWith(
          "a name of 1,025 bytes",
          lock.withLock("x".repeat(1_025))(Effect.void),
          "InvalidInput"
        )
        yield* failsWith("a lease of 0", lock.withLock(one, { lease: 0 })(Effect.void), "InvalidInput")
        yield* failsWith("a wait of -1", lock.withLock(one, { wait: -1 })(Effect.void), "InvalidInput")
        yield* failsWith("an empty owner", lock.withLock(one, { owner: "" })(Effect.void), "InvalidInput")
        yield* same("the lock after all of it", yield* isFree(lock, one), "mine")
        if ((yield* isFree(lock, `${one}\u0000{}\u{1F30A}`)) !== "mine")
          return yield* broken("a strange name is refused")
      })
  }
]
