import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import { Coalescing } from "../src/index.ts"

/** A store that notes its groups, and answers them when it is told to. */
const slowStore = (
  options: {
    readonly maxItems?: number
    readonly concurrency?: number
    readonly worthwhile?: number
    readonly after?: "tick"
  } = {}
) =>
  Effect.gen(function* () {
    const groups: Array<{
      readonly requests: ReadonlyArray<number>
      readonly answer: Deferred.Deferred<void, string>
    }> = []
    const ask = yield* Coalescing.make<number, string, string>({
      maxItems: 1_000,
      ...options,
      sizeOf: (request) => (request >= 1_000 ? 1_000 : 1),
      run: (requests) =>
        Effect.gen(function* () {
          const answer = yield* Deferred.make<void, string>()
          groups.push({ requests, answer })
          yield* Deferred.await(answer)
          return requests.map((request) =>
            request < 0 ? Exit.fail(`negative: ${request}`) : Exit.succeed(`answer to ${request}`)
          )
        })
    })
    const start = (request: number) => Effect.forkChild(ask(request), { startImmediately: true })
    const answer = (group: number) => Deferred.succeed(groups[group].answer, undefined)
    return { ask, groups, start, answer }
  })

const requestsOf = (groups: ReadonlyArray<{ readonly requests: ReadonlyArray<number> }>) =>
  groups.map(({ requests }) => requests)

describe("Coalescing", () => {
  it.effect("sends a lone call at once, and those that come meanwhile together", () =>
    Effect.gen(function* () {
      const { answer, groups, start } = yield* slowStore()
      const first = yield* start(1)
      yield* Effect.yieldNow
      const others = [yield* start(2), yield* start(3), yield* start(4)]
      yield* Effect.yieldNow
      expect(requestsOf(groups)).toEqual([[1]])
      yield* answer(0)
      expect(yield* Fiber.join(first)).toBe("answer to 1")
      yield* Effect.yieldNow
      expect(requestsOf(groups)).toEqual([[1], [2, 3, 4]])
      yield* answer(1)
      expect(yield* Effect.forEach(others, Fiber.join)).toEqual(["answer to 2", "answer to 3", "answer to 4"])
    })
  )

  it.effect("keeps lanes apart: what goes to another place neither goes along nor waits", () =>
    Effect.gen(function* () {
      const groups: Array<ReadonlyArray<string>> = []
      const gates = new Map<string, Deferred.Deferred<void>>()
      const ask = yield* Coalescing.make<string, string, never>({
        maxItems: 1_000,
        laneOf: (request) => request[0],
        run: (requests) =>
          Effect.gen(function* () {
            groups.push(requests)
            const gate = yield* Deferred.make<void>()
            gates.set(requests.join(), gate)
            yield* Deferred.await(gate)
            return requests.map((request) => Exit.succeed(request.toUpperCase()))
          })
      })
      const start = (request: string) => Effect.forkChild(ask(request), { startImmediately: true })
      const open = (group: string) => Deferred.succeed(gates.get(group) as Deferred.Deferred<void>, undefined)
      const fibers = [yield* start("a1"), yield* start("a2"), yield* start("b1"), yield* start("a3")]
      yield* Effect.yieldNow
      expect(groups).toEqual([["a1"], ["b1"]])
      yield* open("b1")
      expect(yield* Fiber.join(fibers[2])).toBe("B1")
      yield* open("a1")
      yield* Fiber.join(fibers[0])
      yield* Effect.yieldNow
      expect(groups).toEqual([["a1"], ["b1"], ["a2", "a3"]])
      yield* open("a2,a3")
      expect(yield* Effect.forEach(fibers, Fiber.join)).toEqual(["A1", "A2", "B1", "A3"])
    })
  )

  it.live("a call fails when its patience ends, also one whose group has not left; the others go on", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const groups: Array<ReadonlyArray<number>> = []
      const ask = yield* Coalescing.make<number, number, string>({
        maxItems: 1_000,
        patience: { millis: 50, onTimeout: (request) => `no answer for ${request}` },
        run: (requests) =>
          Effect.gen(function* () {
            groups.push(requests)
            yield* Deferred.await(gate)
            return requests.map((request) => Exit.succeed(request))
          })
      })
      const failures = yield* Effect.all([Effect.flip(ask(1)), Effect.flip(ask(2))], {
        concurrency: "unbounded"
      })
      expect(failures).toEqual(["no answer for 1", "no answer for 2"])
      const third = yield* Effect.forkChild(ask(3), { startImmediately: true })
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.join(third)).toBe(3)
      expect(groups).toEqual([[1], [3]])
    })
  )

  it.effect("after a turn: gathers all who run at that moment, for a store that works without waiting", () =>
    Effect.gen(function* () {
      const groups: Array<ReadonlyArray<number>> = []
      const ask = yield* Coalescing.make<number, number, never>({
        maxItems: 3,
        after: "turn",
        run: (requests) =>
          Effect.sync(() => {
            groups.push(requests)
            return requests.map((request) => Exit.succeed(-request))
          })
      })
      // no time passes: TestClock stands still
      const twice = (request: number) => Effect.andThen(ask(request), ask(request + 10))
      expect(yield* Effect.forEach([1, 2, 3, 4], twice, { concurrency: "unbounded" })).toEqual([
        -11, -12, -13, -14
      ])
      // four at a time, in groups of at most three
      expect(groups.map((group) => group.length)).toEqual([3, 3, 2])
      expect(yield* ask(5)).toBe(-5)
    })
  )

  it.effect("gives each call its own failure, and all of a group that fails the same", () =>
    Effect.gen(function* () {
      const { answer, groups, start } = yield* slowStore()
      yield* start(0)
      yield* Effect.yieldNow
      const bad = yield* start(-1)
      const good = yield* start(1)
      yield* answer(0)
      yield* Effect.yieldNow
      yield* answer(1)
      expect(yield* Effect.flip(Fiber.join(bad))).toBe("negative: -1")
      expect(yield* Fiber.join(good)).toBe("answer to 1")
      const [a, b] = [yield* start(2), yield* start(3)]
      yield* Effect.yieldNow
      yield* Deferred.fail(groups[2].answer, "the store is gone")
      expect(yield* Effect.flip(Fiber.join(a))).toBe("the store is gone")
      yield* Effect.yieldNow
      yield* answer(3)
      expect(yield* Fiber.join(b)).toBe("answer to 3")
    })
  )

  it.effect("keeps groups below the greatest size, and sends what is larger alone", () =>
    Effect.gen(function* () {
      const { answer, groups, start } = yield* slowStore({ maxItems: 3 })
      const asked = []
      for (const request of [0, 1, 2, 3, 4, 1_000, 5]) asked.push(yield* start(request))
      for (let group = 0; group < 5; group++) {
        yield* Effect.yieldNow
        yield* answer(group)
      }
      yield* Effect.forEach(asked, Fiber.join)
      expect(requestsOf(groups)).toEqual([[0], [1, 2, 3], [4], [1_000], [5]])
    })
  )

  it.effect("has as many groups under way as it is allowed", () =>
    Effect.gen(function* () {
      const { answer, groups, start } = yield* slowStore({ concurrency: 2 })
      for (const request of [1, 2, 3, 4]) yield* start(request)
      yield* Effect.yieldNow
      expect(requestsOf(groups)).toEqual([[1], [2]])
      yield* answer(1)
      yield* Effect.yieldNow
      yield* Effect.yieldNow
      expect(requestsOf(groups)).toEqual([[1], [2], [3, 4]])
    })
  )

  it.effect("divides those who wait among the groups that may leave, where each is worth one", () =>
    Effect.gen(function* () {
      const tick = Effect.promise(() => new Promise<void>((resolve) => process.nextTick(resolve)))
      const { answer, groups, start } = yield* slowStore({ concurrency: 2, worthwhile: 3, after: "tick" })
      const ask = (from: number, to: number) =>
        Effect.forEach(
          Array.from({ length: to - from }, (_, index) => from + index),
          start
        )
      yield* ask(0, 7)
      yield* tick
      expect(requestsOf(groups)).toEqual([
        [0, 1, 2, 3],
        [4, 5, 6]
      ])
      yield* answer(0)
      yield* Effect.yieldNow
      // two are not worth a group while another is under way
      yield* ask(7, 9)
      yield* tick
      expect(groups.length).toBe(2)
      yield* ask(9, 10)
      yield* tick
      expect(requestsOf(groups)[2]).toEqual([7, 8, 9])
      yield* answer(1)
      yield* answer(2)
      yield* Effect.yieldNow
      yield* ask(10, 12)
      yield* tick
      expect(requestsOf(groups)[3]).toEqual([10, 11])
    })
  )

  it.effect("asks without a fiber, and stops that when its Scope closes", () =>
    Effect.gen(function* () {
      const open: Array<(exit: Coalescing.GroupExit<number, string>) => void> = []
      const [answered, failed, stopped] = yield* Effect.scoped(
        Effect.gen(function* () {
          const ask = yield* Coalescing.make<number, number, string>({
            maxItems: 2,
            concurrency: 3,
            start: (_, tell) => {
              open.push(tell)
              return () => tell(Exit.interrupt())
            }
          })
          const calls = yield* Effect.forEach([1, 2, 3], (request) =>
            Effect.forkChild(ask(request), { startImmediately: true })
          )
          open[0](Exit.succeed([Exit.succeed(-1)]))
          open[1](Exit.fail("gone"))
          return calls
        })
      )
      expect(yield* Fiber.join(answered)).toBe(-1)
      expect(yield* Effect.flip(Fiber.join(failed))).toBe("gone")
      expect(Exit.hasInterrupts(yield* Fiber.await(stopped))).toBe(true)
    })
  )

  it.effect("after a tick: calls made in one go are one group", () =>
    Effect.gen(function* () {
      const sizes = (groups: ReadonlyArray<{ readonly requests: ReadonlyArray<number> }>) =>
        groups.map(({ requests }) => requests.length)
      const tick = Effect.promise(() => new Promise<void>((resolve) => process.nextTick(resolve)))
      const { answer, groups, start } = yield* slowStore({ after: "tick" })
      const first = yield* start(0)
      for (let request = 1; request < 20; request++) yield* start(request)
      expect(sizes(groups)).toEqual([])
      yield* tick
      expect(sizes(groups)).toEqual([20])
      yield* answer(0)
      yield* Fiber.join(first)
      for (let request = 0; request < 100; request++) yield* start(request)
      yield* tick
      expect(sizes(groups)).toEqual([20, 100])
    })
  )

  it.effect(
    "does not send a call that was interrupted before; drops the answer of one interrupted after",
    () =>
      Effect.gen(function* () {
        const { answer, groups, start } = yield* slowStore()
        const sent = yield* start(1)
        yield* Effect.yieldNow
        const unsent = yield* start(2)
        const kept = yield* start(3)
        yield* Fiber.interrupt(unsent)
        yield* Fiber.interrupt(sent)
        yield* answer(0)
        yield* Effect.yieldNow
        yield* Effect.yieldNow
        expect(requestsOf(groups)).toEqual([[1], [3]])
        yield* answer(1)
        expect(yield* Fiber.join(kept)).toBe("answer to 3")
      })
  )

  it.effect("interrupts what is open when its Scope closes, and what is asked afterwards", () =>
    Effect.gen(function* () {
      const { ask, open } = yield* Effect.scoped(
        Effect.gen(function* () {
          const { ask, start } = yield* slowStore()
          const sent = yield* start(1)
          yield* Effect.yieldNow
          return { ask, open: [sent, yield* start(2)] }
        })
      )
      for (const call of open) {
        expect(Exit.hasInterrupts(yield* Fiber.await(call))).toBe(true)
      }
      expect(Exit.hasInterrupts(yield* Effect.exit(ask(3)))).toBe(true)
    })
  )
})
