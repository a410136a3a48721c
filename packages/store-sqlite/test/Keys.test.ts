import { describe, expect, it } from "@effect/vitest"
import { Protocol } from "@tidemark/core"
import * as fc from "fast-check"
import {
  type AnswersKeys,
  answer,
  answersOf,
  type KeyCommand,
  keyCommand
} from "../../core/test/keyCommands.ts"
import type { Connection } from "../src/internal/Connection.ts"
import { Keys } from "../src/internal/Keys.ts"
import { type Files, withFiles } from "./files.ts"

const command = fc.oneof(
  { weight: 20, arbitrary: keyCommand },
  {
    weight: 1,
    arbitrary: fc.record({ verb: fc.constant("forget" as const), key: fc.constantFrom("key-1", "key-2") })
  },
  // random batches seldom are what a claim was granted
  {
    weight: 6,
    arbitrary: fc.record({
      verb: fc.constant("settle" as const),
      id: fc.integer({ min: 0, max: 5 }).map((number) => `claim-${number}`),
      result: fc.option(fc.constant("7"), { nil: undefined })
    })
  },
  { weight: 1, arbitrary: fc.constant({ verb: "sweep" as const }) },
  { weight: 1, arbitrary: fc.constant({ verb: "restart" as const }) },
  { weight: 1, arbitrary: fc.constant({ verb: "fail" as const }) }
)
type Command = typeof command extends fc.Arbitrary<infer C> ? C : never

/** Each command in a transaction. */
const stored = (connection: Connection, keys: Keys): AnswersKeys => ({
  claim: (...args) => connection.write(() => keys.claim(...args)),
  complete: (...args) => connection.write(() => keys.complete(...args)),
  release: (...args) => {
    connection.write(() => keys.release(...args))
  },
  renew: (...args) => connection.write(() => keys.renew(...args)),
  lookup: (...args) => keys.lookup(...args)
})

const isKeyCommand = (command: Command): command is KeyCommand =>
  !["forget", "settle", "sweep", "restart", "fail"].includes(command.verb)

const sweepAll = (keys: Keys, now: number): void => {
  let asked = 0
  // stops within batches and between them
  while (keys.sweep(now, () => asked++ % 3 === 2)) {}
}

const play = (files: Files<Keys>, commands: ReadonlyArray<readonly [Command, number]>): void => {
  const state = new Protocol.KeyState(new Protocol.MapKeyTable())
  const model = answersOf(state)
  /** What each claim was last granted. */
  const granted = new Map<string, { readonly namespace: string; readonly keys: ReadonlyArray<string> }>()
  let now = 1_000
  for (const [command, process] of commands) {
    const { connection, part: keys } = files.process(process)
    if (command.verb === "wait") now += command.millis
    if (isKeyCommand(command)) {
      const expected = answer(model, command, now)
      expect(answer(stored(connection, keys), command, now)).toEqual(expected)
      if (command.verb === "claim" && Array.isArray(expected)) {
        const ours = command.items.filter((_, index) => expected[index]._tag === "Claimed")
        granted.set(command.id, { namespace: command.namespace, keys: ours.map(({ key }) => key) })
      }
    } else if (command.verb === "settle") {
      const { keys: ours, namespace } = granted.get(command.id) ?? { namespace: "orders", keys: [] }
      const items = ours.map((key, index) => ({ key, result: index === 0 ? command.result : undefined }))
      const complete = { verb: "complete", id: command.id, namespace, items, retention: 100 } as const
      expect(answer(stored(connection, keys), complete, now)).toEqual(answer(model, complete, now))
    } else if (command.verb === "forget") {
      connection.write(() => keys.forget("orders", command.key))
      state.forget("orders", command.key)
    } else if (command.verb === "sweep") {
      connection.write(() => sweepAll(keys, now))
      expect(keys.isSweepDue(now)).toBe(false)
    } else if (command.verb === "restart") {
      files.restart(process)
    } else {
      // what is rolled back was never there
      const spoilt = (): void => {
        keys.claim("payments", [{ key: "a" }], { claimId: "spoilt", owner: "o", leaseMillis: 9 }, now)
        keys.forget("orders", "key-0")
        sweepAll(keys, now + 50)
        throw new Error("rolled back")
      }
      expect(() => connection.write(spoilt)).toThrow("rolled back")
    }
  }
  files.checkIntegrity()
}

describe("Keys", () => {
  it.effect(
    "answer as the rules do, whatever is asked by whichever of two processes, also after restarts and rollbacks",
    () =>
      withFiles(
        (connection) => new Keys(connection),
        (files) => {
          fc.assert(
            fc
              .property(fc.array(fc.tuple(command, fc.nat(1)), { maxLength: 60 }), (commands) =>
                play(files, commands)
              )
              .beforeEach(() => files.clear()),
            { numRuns: 1500 }
          )
        }
      ),
    120_000
  )

  it.effect("a sweep that goes on later removes nothing of a batch that came to have the same number", () =>
    withFiles(
      (connection) => new Keys(connection),
      (files) => {
        const [one, two] = [files.process(0), files.process(1)]
        const claimAndComplete = (names: ReadonlyArray<string>, at: number) =>
          two.connection.write(() => {
            const items = names.map((key) => ({ key }))
            two.part.claim("orders", items, { claimId: `c${at}`, owner: "o", leaseMillis: 10 }, at)
            two.part.complete(`c${at}`, "orders", items, 100, at)
          })
        claimAndComplete(["a", "b", "c"], 1_000)
        // one has begun with the batch, and another goes on to its end
        let asked = 0
        one.connection.write(() => one.part.sweep(1_100, () => asked++ > 1))
        two.connection.write(() => sweepAll(two.part, 1_100))
        claimAndComplete(["d", "e"], 1_200)
        one.connection.write(() => sweepAll(one.part, 1_300))
        files.checkIntegrity()
        expect(
          two.connection.write(() =>
            two.part.claim("orders", [{ key: "d" }], { claimId: "d", owner: "o", leaseMillis: 10 }, 1_400)
          )
        ).toMatchObject([{ _tag: "Claimed" }])
      }
    )
  )
})
