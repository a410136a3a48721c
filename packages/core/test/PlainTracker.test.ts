import { IdempotencyStore, InvalidInput, Key, LeaseLost, makeTracker, OffsetStore } from "@tidemark/core"
import { Context, Effect, Layer, Scope } from "effect"
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
    const settled = expect(running).rejects.toMatchObject({ _tag: "StoreError", reason: "Closed" })
    const signal = await started.promise
    await tracker.close()
    await settled
    expect(signal.aborted).toBe(true)
  })

  it("aborts the signal, and rejects with LeaseLost, when the lease is lost", async () => {
    const context = await Effect.runPromise(Layer.buildWithScope(ModelStore.layer, Scope.makeUnsafe()))
    const keys = Context.get(context, IdempotencyStore)
    const offsets = Context.get(context, OffsetStore)
    await using tracker = await makeTracker({
      store: Layer.succeedContext(context),
      namespace: "test",
      lease: 150
    })
    const losses = [
      ["order-1", keys.forget("test", ["order-1"])],
      [Key.offset("s", 3), offsets.rewind("s", 0)]
    ] as const
    for (const [key, lose] of losses) {
      const begun = Promise.withResolvers<AbortSignal>()
      const running = tracker.once(key, async ({ signal }) => {
        begun.resolve(signal)
        await new Promise((resolve) => signal.addEventListener("abort", resolve))
      })
      const signal = await begun.promise
      await Effect.runPromise<unknown, unknown>(lose)
      await expect(running).rejects.toBeInstanceOf(LeaseLost)
      expect(signal.aborted).toBe(true)
    }
  })

  it("closes once, by hand or by itself, and says then that it is closed", async () => {
    let kept: Awaited<ReturnType<typeof open>> | undefined
    {
      using tracker = await open()
      kept = tracker
      await tracker.once("order-1", () => 1)
    }
    await Promise.all([kept.close(), kept[Symbol.asyncDispose]()])
    for (const late of [
      kept.once("order-2", () => 1),
      kept.isProcessed("order-1"),
      kept.markProcessed("order-3")
    ])
      await expect(late).rejects.toMatchObject({ _tag: "StoreError", reason: "Closed", retriable: false })
  })

  it("rejects bad options and bad keys with InvalidInput", async () => {
    await expect(makeTracker({ store: ModelStore.layer, lease: 0 })).rejects.toBeInstanceOf(InvalidInput)
    await using tracker = await open()
    await expect(tracker.once("", () => 1)).rejects.toBeInstanceOf(InvalidInput)
  })
})
