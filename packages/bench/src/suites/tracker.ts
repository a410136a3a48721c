/** What `Tracker.once` and `onceAll` cost around an effect that does nothing, beside the cost of running one. */
import { Key } from "@tidemark/core"
import { Effect } from "effect"
import { type Contestant, contest } from "../Contest.ts"
import type { Figure, Suite } from "../Figure.ts"
import { newServices, type Services } from "../Subjects.ts"

const perSlice = 1_000
const batch = 500

/** The first offset of a slice. */
type First = number

const names = {
  exit: "Effect.runSync(Effect.void)",
  entry: "Effect.runSync(Effect.sync(() => {}))",
  once: "runSync of Tracker.once(Key.offset, Effect.void)",
  onceSync: "runSync of Tracker.once(Key.offset, Effect.sync(() => {}))",
  onceId: "runSync of Tracker.once(Key.id, Effect.void)",
  onceAll: "runSync of Tracker.onceAll, 500 positions",
  onceAllSync: "runSync of Tracker.onceAll, 500 positions, around Effect.sync(() => {})",
  onceAllIds: "runSync of Tracker.onceAll, 500 ids",
  yields: "a handler that yields, alone",
  onceYields: "Tracker.once(Key.offset) around it",
  onceAllYields: "Tracker.onceAll, 500 positions, around it"
}

/** Enters the runtime, and ends at once. */
const sync = Effect.sync(() => {})
/** Leaves the thread to others once: then a claim needs a lease that is kept, and a fiber that waits. */
const yields = Effect.andThen(Effect.yieldNow, sync)

const started = (work: (services: Services) => (first: First) => unknown) => async () => {
  const services = await newServices()
  return { work: work(services), close: services.close }
}

const onceAll = (keyOf: (offset: number) => Key.Key, handler: Effect.Effect<void>) =>
  started(({ tracker }) => (first) => {
    for (let from = first; from < first + perSlice; from += batch) {
      Effect.runSync(tracker.onceAll(offsetsFrom(from, batch), keyOf, () => handler))
    }
  })

const onceEach = (keyOf: (offset: number) => Key.Key, handler: Effect.Effect<void>) =>
  started(({ tracker }) => (first) => {
    for (let offset = first; offset < first + perSlice; offset++) {
      Effect.runSync(tracker.once(keyOf(offset), handler))
    }
  })

/** One after the other in one fiber, as a handler that waits can't be run synchronously. */
const oneByOne = (first: First, work: (offset: number) => Effect.Effect<unknown, unknown>): Promise<void> =>
  Effect.runPromise(Effect.forEach(offsetsFrom(first, perSlice), work, { discard: true }))

const offsetsFrom = (from: number, count: number): ReadonlyArray<number> =>
  Array.from({ length: count }, (_, index) => from + index)

const offsetKey = (offset: number): Key.Key => Key.offset("kafka/billing/orders/0", offset)
const idKey = (offset: number): Key.Key => Key.id(`order-${offset}`)
const input = (slice: number): First => slice * perSlice

const contestants: ReadonlyArray<Contestant<First>> = [
  {
    name: names.exit,
    input,
    start: () => () => {
      for (let i = 0; i < perSlice; i++) Effect.runSync(Effect.void)
    }
  },
  {
    name: names.entry,
    input,
    start: () => () => {
      for (let i = 0; i < perSlice; i++) Effect.runSync(Effect.sync(() => {}))
    }
  },
  { name: names.once, input, start: onceEach(offsetKey, Effect.void) },
  { name: names.onceSync, input, start: onceEach(offsetKey, sync) },
  { name: names.onceId, input, start: onceEach(idKey, Effect.void) },
  { name: names.onceAll, input, start: onceAll(offsetKey, Effect.void) },
  { name: names.onceAllSync, input, start: onceAll(offsetKey, sync) },
  { name: names.onceAllIds, input, start: onceAll(idKey, Effect.void) },
  { name: names.yields, input, start: () => (first) => oneByOne(first, () => yields) },
  {
    name: names.onceYields,
    input,
    start: started(
      ({ tracker }) =>
        (first) =>
          oneByOne(first, (offset) => tracker.once(offsetKey(offset), yields))
    )
  },
  {
    name: names.onceAllYields,
    input,
    start: started(
      ({ tracker }) =>
        (first) =>
          Effect.runPromise(
            Effect.forEach(
              [first, first + batch],
              (from) => tracker.onceAll(offsetsFrom(from, batch), offsetKey, () => yields),
              { discard: true }
            )
          )
    )
  }
]

const literal =
  "runSync answers at once when it is handed an Exit, and Effect.void is one: no runtime is entered there; " +
  "the target is held against the entry of a real one"

export const suite: Suite = {
  name: "tracker",
  about:
    "once and onceAll on the memory store, no tracer, one at a time; around Effect.void where nothing else is said",
  run: async (progress) => {
    const times = await contest({
      contestants,
      slices: 100,
      operationsPerSlice: perSlice,
      passes: 11,
      warmups: 4,
      onPass: (pass, of) => progress(`pass ${pass} of ${of}`)
    })
    const against = (name: string, denominator: string, rest: Partial<Figure>): Figure => ({
      what: `${name}: time against ${denominator}`,
      unit: "x",
      measured: times.ratio(name, denominator),
      ...rest
    })
    return [
      ...contestants.map(
        ({ name }): Figure => ({ what: name, unit: "ns per item", measured: times.nanos(name) })
      ),
      against(names.once, names.entry, { target: { atMost: 6 } }),
      against(names.onceSync, names.entry, {}),
      against(names.onceId, names.entry, {}),
      against(names.onceAll, names.entry, { target: { atMost: 0.7 } }),
      against(names.onceAllSync, names.entry, {}),
      against(names.onceAllIds, names.entry, {}),
      against(names.onceYields, names.yields, {}),
      against(names.onceAllYields, names.yields, {}),
      against(names.once, names.exit, { note: literal }),
      against(names.onceAll, names.exit, {})
    ]
  }
}
