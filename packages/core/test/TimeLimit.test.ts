import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { Timed, TimeLimit } from "../src/index.ts"

class Call extends Timed {
  readonly name: string
  constructor(name: string, since?: number) {
    super(since)
    this.name = name
  }
}

const eventually = (holds: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => (holds() ? Effect.void : Effect.andThen(Effect.sleep(1), eventually(holds))))

describe("TimeLimit", () => {
  it.live("tells of each call that is not forgotten in time, the oldest first, and of each once", () =>
    Effect.gen(function* () {
      const over: Array<string> = []
      const limit = new TimeLimit<Call>(20, ({ name }) => over.push(name))
      const [a, b, c] = [new Call("a"), new Call("b"), new Call("c")]
      for (const call of [a, b, c]) limit.watch(call)
      limit.forget(b)
      limit.forget(b)
      yield* eventually(() => over.length >= 2)
      expect(over).toEqual(["a", "c"])
      expect(performance.now() - c.since).toBeGreaterThanOrEqual(20)
      // one that comes when nothing was left
      limit.watch(new Call("d"))
      yield* eventually(() => over.length >= 3)
      expect(over).toEqual(["a", "c", "d"])
    })
  )

  it.live("watches what comes while it tells, and nothing more when it is closed", () =>
    Effect.gen(function* () {
      const over: Array<string> = []
      const limit: TimeLimit<Call> = new TimeLimit<Call>(10, ({ name }) => {
        over.push(name)
        if (name === "first") limit.watch(new Call("second"))
      })
      limit.watch(new Call("first"))
      yield* eventually(() => over.includes("second"))
      const closed = new TimeLimit<Call>(10, ({ name }) => over.push(name))
      closed.watch(new Call("never"))
      closed.close()
      limit.watch(new Call("third"))
      yield* eventually(() => over.includes("third"))
      expect(over).toEqual(["first", "second", "third"])
    })
  )
})
