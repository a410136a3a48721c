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
  onceId: "runSync of Tracker.once(Key.id, Effect.void)",
  onceAll: "runSync of Tracker.onceAll, 500 positions",
  onceAllIds: "runSync of Tracker.onceAll, 500 ids"
}

const started = (work: (services: Services) => (first: First) => void) => async () => {
  const services = await newServices()
  return { work: work(services), close: services.close }
}

const onceAll = (keyOf: (offset: number) => Key.Key) =>
  started(({ tracker }) => (first) => {
    for (let from = first; from < first + perSlice; from += batch) {
      const items = Array.from({ length: batch }, (_, index) => from + index)
      Effect.runSync(tracker.onceAll(items, keyOf, () => Effect.void))
    }
  })

const onceEach = (keyOf: (offset: number) => Key.Key) =>
  started(({ tracker }) => (first) => {
    for (let offset = first; offset < first + perSlice; offset++) {
      Effect.runSync(tracker.once(keyOf(offset), Effect.void))
    }
  })

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
  { name: names.once, input, start: onceEach(offsetKey) },
  { name: names.onceId, input, start: onceEach(idKey) },
  { name: names.onceAll, input, start: onceAll(offsetKey) },
  { name: names.onceAllIds, input, start: onceAll(idKey) }
]

const literal =
  "runSync answers at once when it is handed an Exit, and Effect.void is one: no runtime is entered there; " +
  "the target is held against the entry of a real one"

export const suite: Suite = {
  name: "tracker",
  about: "once and onceAll around Effect.void on the memory store, no tracer, one at a time",
  run: async (progress) => {
    const times = await contest({
      contestants,
      slices: 20,
      operationsPerSlice: perSlice,
      passes: 21,
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
      against(names.onceId, names.entry, {}),
      against(names.onceAll, names.entry, { target: { atMost: 0.7 } }),
      against(names.onceAllIds, names.entry, {}),
      against(names.once, names.exit, { note: literal }),
      against(names.onceAll, names.exit, {})
    ]
  }
}
