/** The guard with payloads as kafkajs makes them, and stores in memory. */
import { type IdempotencyStore, Key, LeaseLost, OffsetStore, StoreError } from "@tidemark/core"
import { MemoryStore } from "@tidemark/store-memory"
import { Context, Effect, Layer, Scope } from "effect"
import type { EachBatchPayload, EachMessagePayload, KafkaMessage } from "kafkajs"
import { describe, expect, it, vi } from "vitest"
import { type GuardClaim, type GuardOptions, guard } from "../src/guard.ts"

type Services = OffsetStore | IdempotencyStore

/** One store for several guards, as a server would be. */
const sharedStore = async (): Promise<Context.Context<Services>> =>
  Effect.runPromise(Layer.buildWithScope(MemoryStore.layer(), Scope.makeUnsafe()))

const open = async (
  options: Partial<GuardOptions> & { readonly context?: Context.Context<Services> } = {}
) => {
  const { context, ...rest } = options
  const store = context === undefined ? MemoryStore.layer() : Layer.succeedContext(context)
  return guard({ store, groupId: "group", ...rest })
}

const messageAt = (offset: number, value = String(offset)): KafkaMessage => ({
  key: null,
  value: Buffer.from(value),
  timestamp: "0",
  attributes: 0,
  offset: String(offset),
  headers: {}
})

const eventually = (condition: () => boolean | Promise<boolean>) =>
  vi.waitUntil(condition, { timeout: 20_000 })

const heartbeat = async (): Promise<void> => {}

const payloadAt = (offset: number, value?: string): EachMessagePayload => ({
  topic: "orders",
  partition: 0,
  message: messageAt(offset, value),
  heartbeat,
  pause: () => () => {}
})

/** A batch as kafkajs makes one; `covered`: what it was fetched from, and the last offset of all in it. */
const batchOf = (
  offsets: ReadonlyArray<number>,
  covered: { readonly from?: number; readonly last?: number } = {}
): EachBatchPayload & { readonly resolved: Array<string> } => {
  const resolved: Array<string> = []
  const messages = offsets.map((offset) => messageAt(offset))
  const last = covered.last ?? offsets.at(-1) ?? 0
  return {
    resolved,
    batch: {
      topic: "orders",
      partition: 0,
      highWatermark: "1000",
      messages,
      ...{ fetchedOffset: String(covered.from ?? offsets[0]) },
      isEmpty: () => messages.length === 0,
      firstOffset: () => messages[0]?.offset ?? null,
      lastOffset: () => String(last),
      offsetLag: () => "0",
      offsetLagLow: () => "0"
    },
    resolveOffset: (offset) => resolved.push(offset),
    heartbeat,
    pause: () => () => {},
    commitOffsetsIfNecessary: async () => {},
    uncommittedOffsets: () => ({ topics: [] }),
    isRunning: () => true,
    isStale: () => false
  }
}

const offsetsOf = ({ batch }: EachBatchPayload): Array<number> =>
  batch.messages.map(({ offset }) => Number(offset))

const watermarkOf = (context: Context.Context<Services>, partition = 0) =>
  Effect.runPromise(
    Effect.map(
      Context.get(context, OffsetStore).progress(
        Key.kafkaStream({ group: "group", topic: "orders", partition })
      ),
      (progress) => progress?.watermark
    )
  )

describe("eachMessage", () => {
  it("runs once for each message, however often it is delivered, and counts", async () => {
    await using guarded = await open()
    const ran: Array<string> = []
    const tokens: Array<number> = []
    const handle = guarded.eachMessage(async ({ message }, { token }) => {
      ran.push(message.offset)
      tokens.push(token ?? 0)
    })
    for (const offset of [0, 1, 0, 1, 2]) await handle(payloadAt(offset))
    expect(ran).toEqual(["0", "1", "2"])
    expect(tokens).toEqual(tokens.toSorted((left, right) => left - right))
    expect(new Set(tokens).size).toBe(3)
    expect(guarded.counts()).toMatchObject({ seen: 5, processed: 3, duplicatesByPosition: 2, failed: 0 })
    expect(await guarded.report()).toMatchObject({
      shadow: false,
      partitions: [{ topic: "orders", partition: 0, watermark: 3, highest: 3, gaps: 0 }]
    })
  })

  it("rejects with what the handler threw, as it was, and gives the message back", async () => {
    await using guarded = await open()
    const error = new TypeError("no card")
    let fails = true
    const handle = guarded.eachMessage(() => {
      if (fails) throw error
    })
    await expect(handle(payloadAt(7))).rejects.toBe(error)
    await expect(guarded.eachMessage(() => Promise.reject("a text"))(payloadAt(7))).rejects.toBe("a text")
    fails = false
    await handle(payloadAt(7))
    expect(guarded.counts()).toMatchObject({ failed: 2, processed: 1, duplicatesByPosition: 0 })
  })

  it("knows a message by its id at another offset, and takes one without an id by its position", async () => {
    await using guarded = await open({ identify: ({ value }) => value?.toString() || undefined })
    const ran: Array<string> = []
    const handle = guarded.eachMessage(({ message }) => ran.push(message.offset))
    for (const [offset, id] of [
      [0, "a"],
      [1, "a"],
      [2, ""],
      [2, ""],
      [0, "a"],
      [3, "b"]
    ] as const)
      await handle(payloadAt(offset, id))
    expect(ran).toEqual(["0", "2", "3"])
    expect(guarded.counts()).toMatchObject({ processed: 3, duplicatesByPosition: 2, duplicatesById: 1 })
    expect((await guarded.report()).partitions).toMatchObject([{ watermark: 4, gaps: 0 }])
  })

  it("waits with heartbeats while another is at work, and then knows that it is done", async () => {
    const context = await sharedStore()
    await using first = await open({ context })
    await using second = await open({ context })
    const begun = Promise.withResolvers<void>()
    const mayEnd = Promise.withResolvers<void>()
    const working = first.eachMessage(async () => {
      begun.resolve()
      await mayEnd.promise
    })(payloadAt(0))
    await begun.promise
    const beaten = Promise.withResolvers<void>()
    const secondRan = vi.fn()
    const waiting = second.eachMessage(secondRan)({
      ...payloadAt(0),
      heartbeat: async () => beaten.resolve()
    })
    await beaten.promise
    expect(second.counts().inFlightElsewhere).toBe(1)
    mayEnd.resolve()
    await Promise.all([working, waiting])
    expect(secondRan).not.toHaveBeenCalled()
    expect(second.counts().duplicatesByPosition).toBe(1)
  })

  it("takes over what the other gave back, and stops waiting when the group has moved on", async () => {
    const context = await sharedStore()
    await using first = await open({ context })
    await using second = await open({ context })
    const begun = Promise.withResolvers<void>()
    const fail = Promise.withResolvers<never>()
    const working = first.eachMessage(() => {
      begun.resolve()
      return fail.promise
    })(payloadAt(0))
    await begun.promise
    const rebalancing = new Error("The group is rebalancing")
    const ran = vi.fn()
    await expect(
      second.eachMessage(ran)({ ...payloadAt(0), heartbeat: () => Promise.reject(rebalancing) })
    ).rejects.toBe(rebalancing)
    expect(ran).not.toHaveBeenCalled()
    const takingOver = second.eachMessage(ran)(payloadAt(0))
    fail.reject(new Error("no"))
    await expect(working).rejects.toThrow("no")
    await takingOver
    expect(ran).toHaveBeenCalledOnce()
  })

  it("rejects at once where that is asked for", async () => {
    const context = await sharedStore()
    await using first = await open({ context })
    await using second = await open({ context, whenInFlight: "fail" })
    await using patient = await open({ context, waitAtMost: 50 })
    const begun = Promise.withResolvers<void>()
    const mayEnd = Promise.withResolvers<void>()
    const working = first.eachMessage(async () => {
      begun.resolve()
      await mayEnd.promise
    })(payloadAt(0))
    await begun.promise
    for (const impatient of [second, patient])
      await expect(impatient.eachMessage(() => {})(payloadAt(0))).rejects.toMatchObject({
        _tag: "InFlightElsewhere"
      })
    mayEnd.resolve()
    await working
  })

  it("aborts the signal, and rejects with LeaseLost, when the claim was taken away", async () => {
    const context = await sharedStore()
    await using guarded = await open({ context, lease: 150 })
    const stream = Key.kafkaStream({ group: "group", topic: "orders", partition: 0 })
    const begun = Promise.withResolvers<GuardClaim>()
    const handling = guarded.eachMessage(async (_, claim) => {
      begun.resolve(claim)
      await new Promise((resolve) => claim.signal.addEventListener("abort", resolve))
    })(payloadAt(5))
    const { signal } = await begun.promise
    await Effect.runPromise(Context.get(context, OffsetStore).rewind(stream, 0))
    await expect(handling).rejects.toBeInstanceOf(LeaseLost)
    expect(signal.aborted).toBe(true)
  })

  it("takes the messages of any client", async () => {
    await using guarded = await open()
    const messages: Array<string> = []
    const handle = guarded.eachMessage<{
      topic: string
      partition: number
      message: { offset: bigint; text: string }
    }>(({ message }) => messages.push(message.text))
    for (const offset of [5n, 6n, 5n])
      await handle({ topic: "orders", partition: 0, message: { offset, text: `at ${offset}` } })
    expect(messages).toEqual(["at 5", "at 6"])
  })

  it("refuses what can't be an offset, a group or an option", async () => {
    await using guarded = await open()
    await expect(guarded.eachMessage(() => {})(payloadAt(-1))).rejects.toMatchObject({ _tag: "InvalidInput" })
    await expect(open({ groupId: "" })).rejects.toThrow("groupId is")
    await expect(open(Object.assign({ owner: "me" }, { shadows: true }))).rejects.toThrow(
      'option of the guard is "shadows"'
    )
    await expect(open({ whenInFlight: "skip" as "wait" })).rejects.toThrow("whenInFlight is")
    await expect(open({ lease: 0 })).rejects.toThrow("lease is 0")
  })

  it("closes once, however often that is asked for", async () => {
    const guarded = await open()
    await guarded.eachMessage(() => {})(payloadAt(0))
    await Promise.all([guarded.close(), guarded.close()])
    await guarded[Symbol.asyncDispose]()
    await expect(guarded.eachMessage(() => {})(payloadAt(1))).rejects.toMatchObject({ reason: "Closed" })
  })

  it("a closed shadow still lets everything through", async () => {
    const shadow = await open({ shadow: true })
    await shadow.close()
    const ran = vi.fn()
    await shadow.eachMessage(ran)(payloadAt(0))
    expect(ran).toHaveBeenCalledOnce()
    expect(shadow.counts()).toMatchObject({ processed: 1, undecided: 1 })
  })
})

describe("a store that fails", () => {
  /** A store in memory that can be cut off. */
  const frail = async () => {
    const context = await sharedStore()
    const offsets = Context.get(context, OffsetStore)
    let broken = false
    const asked = { count: 0 }
    const store = {
      ...offsets,
      claim: (...args: Parameters<typeof offsets.claim>) => {
        asked.count++
        return broken
          ? Effect.fail(
              new StoreError({
                store: "frail",
                verb: "claim",
                reason: "Unavailable",
                detail: "cut",
                retriable: true
              })
            )
          : offsets.claim(...args)
      }
    }
    const set = (value: boolean) => {
      broken = value
    }
    return { context: Context.add(context, OffsetStore, store), set, asked }
  }

  it("fail: rejects, and the handler does not run", async () => {
    const { context, set } = await frail()
    await using guarded = await open({ context })
    set(true)
    const ran = vi.fn()
    await expect(guarded.eachMessage(ran)(payloadAt(0))).rejects.toMatchObject({ _tag: "StoreError" })
    expect(ran).not.toHaveBeenCalled()
  })

  it("run: the handler runs unprotected, and that is counted", async () => {
    const { context, set } = await frail()
    await using guarded = await open({ context, whenStoreFails: "run" })
    set(true)
    const tokens: Array<unknown> = []
    const handle = guarded.eachMessage((_, { token }) => tokens.push(token))
    await handle(payloadAt(0))
    await handle(payloadAt(0))
    expect(tokens).toEqual([undefined, undefined])
    expect(guarded.counts()).toMatchObject({ unprotected: 2, processed: 2 })
  })

  it("wait: asks on until it answers", async () => {
    const { asked, context, set } = await frail()
    await using guarded = await open({ context, whenStoreFails: "wait" })
    set(true)
    const ran = vi.fn()
    const handling = guarded.eachMessage(ran)(payloadAt(0))
    await eventually(() => asked.count >= 2)
    set(false)
    await handling
    expect(ran).toHaveBeenCalledOnce()
  })
})

describe("eachBatch", () => {
  it("hands on what is new, and covers the holes", async () => {
    const context = await sharedStore()
    await using guarded = await open({ context })
    const given: Array<Array<number>> = []
    const handle = guarded.eachBatch((payload) => given.push(offsetsOf(payload)))
    await guarded.eachMessage(() => {})(payloadAt(12))
    // fetched from 10, a marker at 14 and one behind the last
    await handle(batchOf([11, 12, 13, 15], { from: 10, last: 16 }))
    await handle(batchOf([11, 12, 13, 15, 17], { from: 10 }))
    const all = batchOf([15, 17])
    await handle(all)
    expect(given).toEqual([[11, 13, 15], [17]])
    expect(await watermarkOf(context)).toBe(18)
    expect(guarded.counts()).toMatchObject({ seen: 12, processed: 5, duplicatesByPosition: 7 })
  })

  it("keeps the batch's bounds, and gives kafkajs's own batch where all of it is new", async () => {
    await using guarded = await open()
    const batches: Array<EachBatchPayload["batch"]> = []
    const handle = guarded.eachBatch(({ batch }) => batches.push(batch))
    const whole = batchOf([0, 1])
    await handle(whole)
    await handle(batchOf([1, 2, 3], { last: 5 }))
    expect(batches[0]).toBe(whole.batch)
    const [, part] = batches
    expect(part?.messages.map(({ offset }) => offset)).toEqual(["2", "3"])
    expect([part?.firstOffset(), part?.lastOffset(), part?.topic, part?.isEmpty()]).toEqual([
      "1",
      "5",
      "orders",
      false
    ])
  })

  it("counts what was resolved as done where the handler fails then, and gives back the rest", async () => {
    await using guarded = await open()
    const given: Array<Array<number>> = []
    let failAt = 2
    const handle = guarded.eachBatch((payload) => {
      given.push(offsetsOf(payload))
      for (const { offset } of payload.batch.messages) {
        if (Number(offset) === failAt) throw new Error(`no ${offset}`)
        payload.resolveOffset(offset)
      }
    })
    const first = batchOf([0, 1, 2, 3])
    await expect(handle(first)).rejects.toThrow("no 2")
    expect(first.resolved).toEqual(["0", "1"])
    failAt = -1
    await handle(batchOf([0, 1, 2, 3]))
    expect(given).toEqual([
      [0, 1, 2, 3],
      [2, 3]
    ])
    expect(guarded.counts()).toMatchObject({ processed: 4, failed: 1, duplicatesByPosition: 2 })
  })

  it("autoResolve: false: what was resolved is done, and duplicates are resolved for the handler", async () => {
    await using guarded = await open()
    for (const done of [
      [0, 1],
      [4, 5]
    ])
      await guarded.eachBatch(() => {})(batchOf(done))
    const given: Array<Array<number>> = []
    let most = 1
    const handle = guarded.eachBatch(
      (payload) => {
        given.push(offsetsOf(payload))
        for (const { offset } of payload.batch.messages.slice(0, most)) payload.resolveOffset(offset)
      },
      { autoResolve: false }
    )
    const part = batchOf([0, 1, 2, 3, 4, 5])
    await handle(part)
    expect(part.resolved).toEqual(["2"])
    most = 9
    const rest = batchOf([3, 4, 5])
    await handle(rest)
    expect(rest.resolved).toEqual(["3", "5"])
    const known = batchOf([4, 5])
    await handle(known)
    expect(known.resolved).toEqual(["5"])
    expect(given).toEqual([[2, 3], [3]])
  })

  it("of equal ids in one batch the first runs", async () => {
    const context = await sharedStore()
    await using guarded = await open({ context, identify: ({ offset }) => `id ${Number(offset) % 2}` })
    const given: Array<Array<number>> = []
    const handle = guarded.eachBatch((payload) => given.push(offsetsOf(payload)))
    await handle(batchOf([0, 1, 2, 3]))
    await handle(batchOf([4, 5]))
    expect(given).toEqual([[0, 1]])
    expect(guarded.counts()).toMatchObject({ processed: 2, duplicatesById: 4, duplicatesByPosition: 0 })
    expect(await watermarkOf(context)).toBe(6)
  })
})

describe("shadow mode", () => {
  it("lets everything through, counts what a guard would have held back, and leaves a guard nothing to repeat", async () => {
    const context = await sharedStore()
    const identify: GuardOptions["identify"] = ({ value }) => value?.toString()
    const ran: Array<string> = []
    {
      await using shadow = await open({ context, identify, shadow: true })
      const handle = shadow.eachMessage(({ message }) => ran.push(message.offset))
      for (const [offset, id] of [
        [0, "a"],
        [1, "b"],
        [0, "a"],
        [2, "a"]
      ] as const) {
        await handle(payloadAt(offset, id))
        // its decision is made beside the handler
        await eventually(async () => ((await watermarkOf(context)) ?? 0) > Math.min(offset, 1))
      }
      await expect(
        shadow.eachMessage(() => Promise.reject(new Error("no")))(payloadAt(3, "c"))
      ).rejects.toThrow("no")
      await eventually(
        () => shadow.counts().duplicatesById === 1 && shadow.counts().duplicatesByPosition === 1
      )
      expect(ran).toEqual(["0", "1", "0", "2"])
      expect(shadow.counts()).toMatchObject({
        seen: 5,
        processed: 4,
        failed: 1,
        duplicatesByPosition: 1,
        duplicatesById: 1,
        undecided: 0
      })
      expect((await shadow.report()).shadow).toBe(true)
    }
    await using guarded = await open({ context, identify })
    const handle = guarded.eachMessage(({ message }) => ran.push(message.offset))
    for (const [offset, id] of [
      [0, "a"],
      [1, "b"],
      [2, "a"],
      [3, "c"],
      [4, "c"]
    ] as const)
      await handle(payloadAt(offset, id))
    expect(ran.slice(4)).toEqual(["3"])
  })

  it("counts batches, what was resolved before a failure too", async () => {
    const context = await sharedStore()
    await using shadow = await open({ context, shadow: true })
    const handle = shadow.eachBatch((payload) => {
      for (const { offset } of payload.batch.messages) {
        if (offset === "3") throw new Error("no")
        payload.resolveOffset(offset)
      }
    })
    await handle(batchOf([0, 1]))
    await eventually(async () => (await watermarkOf(context)) === 2)
    await expect(handle(batchOf([1, 2, 3]))).rejects.toThrow("no")
    await eventually(async () => (await watermarkOf(context)) === 3)
    await eventually(() => shadow.counts().duplicatesByPosition === 1)
    expect(shadow.counts()).toMatchObject({ seen: 5, processed: 2, failed: 1 })
  })

  it("lets through what it can't decide about", async () => {
    const identify = () => {
      throw new Error("no id")
    }
    await using shadow = await open({ shadow: true, identify })
    const ran = vi.fn()
    await shadow.eachMessage(ran)(payloadAt(0))
    await shadow.eachMessage(ran)(payloadAt(1))
    expect(ran).toHaveBeenCalledTimes(2)
    await eventually(() => shadow.counts().undecided === 2)
    await using guarded = await open({ identify })
    await expect(guarded.eachMessage(ran)(payloadAt(0))).rejects.toThrow("no id")
  })

  it("neither waits for another owner nor for a store", async () => {
    const context = await sharedStore()
    const offsets = Context.get(context, OffsetStore)
    const mute = Context.add(context, OffsetStore, { ...offsets, claim: () => Effect.never })
    await using owner = await open({ context })
    await using shadow = await open({ context, shadow: true })
    const stuck = await open({ context: mute, shadow: true })
    const begun = Promise.withResolvers<void>()
    const mayEnd = Promise.withResolvers<void>()
    const working = owner.eachMessage(async () => {
      begun.resolve()
      await mayEnd.promise
    })(payloadAt(0))
    await begun.promise
    const ran = vi.fn()
    await shadow.eachMessage(ran)(payloadAt(0))
    await stuck.eachMessage(ran)(payloadAt(0))
    expect(ran).toHaveBeenCalledTimes(2)
    await eventually(() => shadow.counts().inFlightElsewhere === 1)
    mayEnd.resolve()
    await working
  })
})
