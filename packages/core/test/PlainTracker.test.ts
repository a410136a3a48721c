import { InvalidInput, Key, makeTracker } from "@tidemark/core"
import { describe, expect, it } from "vitest"
import * as ModelStore from "./ModelStore.ts"

const open = () => makeTracker({ store: ModelStore.layer, namespace: "test" })

describe("makeTracker", () => {
  it("runs once, also when many ask at the same time", async () => {
    await using tracker = await open()
    let runs = 0
    const ask = () =>
      tracker.once("order-1", async () => {
        await new Promise(setImmediate)
        return ++runs
      })
    const outcomes = await Promise.all(Array.from({ length: 10 }, ask))
    expect(runs).toBe(1)
    expect(outcomes.map(({ _tag }) => _tag).sort()).toEqual([...new Array(9).fill("Duplicate"), "Processed"])
    expect(await tracker.isProcessed("order-1")).toBe(true)
    expect(await tracker.isProcessed("order-2")).toBe(false)
  })

  it("rejects with what the handler threw, as it was, and lets the message be tried again", async () => {
    await using tracker = await open()
    const error = new TypeError("no card")
    await expect(tracker.once("order-1", () => Promise.reject(error))).rejects.toBe(error)
    await expect(
      tracker.once("order-1", () => {
        throw "a text"
      })
    ).rejects.toBe("a text")
    expect(await tracker.once("order-1", () => "done")).toEqual({ _tag: "Processed", value: "done" })
  })

  it("takes positions too, and hands the handler its claim", async () => {
    await using tracker = await open()
    const outcome = await tracker.once(Key.offset("s", 3), ({ signal, token }) => [
      signal.aborted,
      typeof token
    ])
    expect(outcome).toEqual({ _tag: "Processed", value: [false, "number"] })
    expect(await tracker.markProcessed(Key.offset("s", 3))).toBe(false)
  })

  it("aborts the signal when it is closed while a handler runs", async () => {
    const tracker = await open()
    const started = Promise.withResolvers<AbortSignal>()
    const running = tracker.once("order-1", ({ signal }) => {
      started.resolve(signal)
      return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)))
    })
    const settled = running.then(
      () => "resolved",
      () => "rejected"
    )
    const signal = await started.promise
    await tracker.close()
    expect(await settled).toBe("rejected")
    expect(signal.aborted).toBe(true)
  })

  it("rejects bad options and bad keys with InvalidInput", async () => {
    await expect(makeTracker({ store: ModelStore.layer, lease: 0 })).rejects.toBeInstanceOf(InvalidInput)
    await using tracker = await open()
    await expect(tracker.once("", () => 1)).rejects.toBeInstanceOf(InvalidInput)
  })
})
