/**
 * Several processes, each with a near cache, work on one store. Every request and every answer takes as long as chance
 * wants, some are lost, time passes in between, and the store's clock is another. Whatever a cache answers by itself is
 * compared with what the store would have answered at that instant.
 */
import { IdempotencyStore, Protocol, StoreError } from "@tidemark/core"
import { NearCache } from "@tidemark/store-memory"
import { Clock, Context, Effect, Exit, Layer, Scope } from "effect"
import * as fc from "fast-check"
import { describe, expect, test } from "vitest"

const maxAgeMillis = 120
/** The store's clock shows another time of day than ours. */
const storeAheadMillis = 1_000_000
const processes = 3

type Fault = "none" | "lost before" | "lost after"
type Step =
  | {
      readonly verb: "work"
      readonly keys: ReadonlyArray<string>
      readonly fingerprint: string | undefined
      readonly end: "complete" | "release" | "vanish"
      readonly result: string | undefined
      readonly retentionMillis: number
      readonly faults: ReadonlyArray<Fault>
    }
  | { readonly verb: "forget"; readonly keys: ReadonlyArray<string>; readonly fault: Fault }
  | { readonly verb: "wait"; readonly millis: number }

const key = fc.constantFrom("a", "b", "c")
const fault: fc.Arbitrary<Fault> = fc.oneof(
  { weight: 6, arbitrary: fc.constant("none" as const) },
  { weight: 1, arbitrary: fc.constant("lost before" as const) },
  { weight: 1, arbitrary: fc.constant("lost after" as const) }
)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      verb: fc.constant("work" as const),
      keys: fc.oneof(fc.tuple(key), fc.tuple(key), fc.tuple(key, key)),
      fingerprint: fc.constantFrom(undefined, "f", "g"),
      end: fc.constantFrom("complete", "complete", "complete", "release", "vanish"),
      result: fc.constantFrom(undefined, "1", "2"),
      retentionMillis: fc.constantFrom(40, 100, 400),
      faults: fc.array(fault, { minLength: 2, maxLength: 2 })
    })
  },
  {
    weight: 3,
    arbitrary: fc.record({
      verb: fc.constant("forget" as const),
      keys: fc.uniqueArray(key, { minLength: 1 }),
      fault
    })
  },
  {
    weight: 3,
    arbitrary: fc.record({ verb: fc.constant("wait" as const), millis: fc.integer({ min: 1, max: 80 }) })
  }
)
/** What each worker does, one after the other; two workers a process. */
const scripts = fc.array(fc.array(step, { minLength: 4, maxLength: 16 }), {
  minLength: 2 * processes,
  maxLength: 2 * processes
})

const gone = (verb: string) =>
  new StoreError({ store: "model", verb, reason: "Unavailable", detail: "lost", retriable: true })

class World {
  now = 0
  readonly table = new Protocol.MapKeyTable()
  readonly rules = new Protocol.KeyState(this.table)
  readonly clock: Clock.Clock
  /** Claims that reached the store, and what it granted to them. */
  readonly asked = new Set<string>()
  readonly granted = new Set<string>()
  /** Keys that the store forgot: when, for which process, and whether that has the answer. */
  readonly forgets: Array<{
    readonly key: string
    readonly process: number
    readonly at: number
    readonly answered: () => boolean
  }> = []
  hits = 0
  private readonly scheduler: fc.Scheduler

  constructor(scheduler: fc.Scheduler, wall: Clock.Clock) {
    this.scheduler = scheduler
    this.clock = {
      ...wall,
      sleep: () => Effect.never,
      currentTimeMillisUnsafe: () => this.now,
      currentTimeMillis: Effect.sync(() => this.now),
      currentTimeNanosUnsafe: () => BigInt(this.now) * 1_000_000n,
      currentTimeNanos: Effect.sync(() => BigInt(this.now) * 1_000_000n),
      monotonicTimeNanosUnsafe: () => BigInt(this.now) * 1_000_000n,
      monotonicTimeNanos: Effect.sync(() => BigInt(this.now) * 1_000_000n)
    }
  }

  /** Some time later, when chance wants it. */
  later(label: string): Promise<void> {
    return this.scheduler.schedule(Promise.resolve(), label)
  }

  /** The way to the store and back. */
  call<A>(verb: string, fault: Fault, act: (storeNow: number) => A): Effect.Effect<A, StoreError> {
    return Effect.flatMap(
      Effect.promise(async () => {
        await this.later(`${verb} is under way`)
        if (fault === "lost before") return undefined
        const answer = act(this.now + storeAheadMillis)
        await this.later(`${verb} is answered`)
        return fault === "lost after" ? undefined : { answer }
      }),
      (arrived) => (arrived === undefined ? Effect.fail(gone(verb)) : Effect.succeed(arrived.answer))
    )
  }

  /** What the store would say at this instant of a key that is completed; `undefined` where it is not. */
  truth({ fingerprint, key }: Protocol.KeyItem): Protocol.KeyClaimAnswer | undefined {
    const status = this.rules.lookup("n", key, this.now + storeAheadMillis)
    if (status._tag !== "Completed") return undefined
    const stored = this.table.fingerprint(this.table.find("n", key))
    return fingerprint !== undefined && stored !== undefined && stored !== fingerprint
      ? { _tag: "Mismatch", fingerprint: stored }
      : { _tag: "Completed", result: status.result }
  }

  /** Whether a cache need not know yet that a key was forgotten: elsewhere, or here and not answered. */
  mayBeStale(process: number, key: string): boolean {
    return this.forgets.some(
      (forget) =>
        forget.key === key &&
        this.now < forget.at + maxAgeMillis &&
        !(forget.process === process && forget.answered())
    )
  }
}

/** The store as one process reaches it, with the fault of the moment. */
const connect = (world: World, process: number, faults: { next: Fault }) => {
  const takeFault = () => {
    const { next } = faults
    faults.next = "none"
    return next
  }
  return IdempotencyStore.make({
    name: "model",
    durable: false,
    retentionMillis: 100,
    claim: (namespace, items, terms) =>
      world.call("claim", takeFault(), (now) => {
        world.asked.add(terms.claimId)
        const outcome = world.rules.claim(namespace, items, terms, now)
        if (outcome._tag !== "Answers") return undefined
        for (const answer of outcome.answers) {
          if (answer._tag === "Claimed") world.granted.add(`${terms.claimId} ${answer.token}`)
        }
        return outcome.answers
      }),
    complete: ({ claimId, namespace }, items, retentionMillis) =>
      world.call("complete", takeFault(), (now) =>
        world.rules.complete(claimId, namespace, items, retentionMillis, now)
      ),
    release: ({ claimId }, keys) =>
      world.call("release", takeFault(), () => world.rules.release(claimId, keys)),
    renew: (claims) =>
      world.call("renew", takeFault(), (now) =>
        claims.map(({ claimId, leaseMillis }) => world.rules.renew(claimId, leaseMillis, now))
      ),
    lookup: (namespace, keys) =>
      world.call("lookup", takeFault(), (now) => keys.map((key) => world.rules.lookup(namespace, key, now))),
    forget: (namespace, keys) =>
      Effect.suspend(() => {
        let isAnswered = false
        const asked = world.call("forget", takeFault(), () => {
          let known = 0
          for (const key of keys) {
            if (!world.rules.forget(namespace, key)) continue
            known += 1
            world.forgets.push({ key, process, at: world.now, answered: () => isAnswered })
          }
          return known
        })
        return Effect.tap(asked, () =>
          Effect.sync(() => {
            isAnswered = true
          })
        )
      }),
    awaitSettled: () => Effect.never
  })
}

/** One worker's steps on its process's cache. */
const work = async (
  world: World,
  process: number,
  cache: typeof IdempotencyStore.Service,
  faults: { next: Fault },
  steps: ReadonlyArray<Step>,
  name: string
): Promise<void> => {
  const run = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.runPromiseExit(Effect.provideService(effect, Clock.Clock, world.clock))
  for (const [index, step] of steps.entries()) {
    await world.later(`${name} goes on`)
    if (step.verb === "wait") {
      world.now += step.millis
      continue
    }
    if (step.verb === "forget") {
      faults.next = step.fault
      await run(cache.forget("n", step.keys))
      continue
    }
    const claimId = `${name}.${index}`
    const items = step.keys.map((key) => ({ key, fingerprint: step.fingerprint }))
    const truths = items.map((item) => world.truth(item))
    faults.next = step.faults[0] as Fault
    const claimed = await run(cache.claim("n", items, { claimId, owner: name, leaseMillis: 60 }))
    if (Exit.isFailure(claimed)) continue
    if (!world.asked.has(claimId)) {
      world.hits += items.length
      for (const [at, answer] of claimed.value.entries()) {
        const stale = world.mayBeStale(process, items[at]!.key)
        if (stale) expect(["Completed", "Mismatch"]).toContain(answer._tag)
        else expect(answer).toEqual(truths[at])
      }
      continue
    }
    const granted: Array<string> = []
    for (const [at, answer] of claimed.value.entries()) {
      if (answer._tag !== "Claimed") continue
      expect(world.granted).toContain(`${claimId} ${answer.token}`)
      granted.push(items[at]!.key)
    }
    if (granted.length === 0 || step.end === "vanish") continue
    faults.next = step.faults[1] as Fault
    const ref = { namespace: "n", claimId }
    if (step.end === "release") await run(cache.release(ref))
    else {
      const completions = granted.map((key) => ({ key, result: step.result }))
      await run(cache.complete(ref, completions, { retentionMillis: step.retentionMillis }))
    }
  }
}

describe("near caches of several processes over one store", () => {
  test("grant nothing, and answer what the store would, whatever is under way, lost or forgotten", async () => {
    let hits = 0
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), scripts, async (scheduler, scripts) => {
        const wall = await Effect.runPromise(Clock.Clock)
        const world = new World(scheduler, wall)
        const scope = Scope.makeUnsafe()
        const build = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) =>
          Effect.runPromise(
            effect.pipe(Effect.provideService(Clock.Clock, world.clock), Scope.provide(scope))
          )
        const workers: Array<Promise<void>> = []
        for (let process = 0; process < processes; process++) {
          const faults: { next: Fault } = { next: "none" }
          const store = Layer.effect(IdempotencyStore, connect(world, process, faults))
          const context = await build(
            Layer.build(store.pipe(NearCache.around({ maxEntries: 2, maxAge: maxAgeMillis })))
          )
          const cache = Context.get(context, IdempotencyStore)
          for (let worker = 0; worker < 2; worker++) {
            const steps = scripts[2 * process + worker] as ReadonlyArray<Step>
            workers.push(work(world, process, cache, faults, steps, `${process}.${worker}`))
          }
        }
        await scheduler.waitFor(Promise.all(workers))
        hits += world.hits
        await Effect.runPromise(Scope.close(scope, Exit.void))
      }),
      { numRuns: 1_000 }
    )
    // else nothing was compared
    expect(hits).toBeGreaterThan(500)
  }, 120_000)
})
