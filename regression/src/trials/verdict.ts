/** What a ledger says of a promise, as a pure function. */
import type { Effect } from "./Ledger.ts"

/** A process that was stopped in the middle of its work: killed, frozen, or cut off. */
export interface Death {
  readonly member: string
  /** Milliseconds since the epoch. */
  readonly at: number
}

export interface Verdict {
  readonly effects: number
  /** Values that never took effect. */
  readonly lost: ReadonlyArray<number>
  /** Values that took effect more than once, and how often. */
  readonly twice: ReadonlyArray<readonly [value: number, times: number]>
  /** Of those that took effect twice: how many a death explains. */
  readonly explained: number
  /** Those of which an earlier effect was not one of the last ones of a process that died then. */
  readonly unexplained: ReadonlyArray<string>
  /** Keys whose values took effect for the first time in another order than they were sent. */
  readonly outOfOrder: ReadonlyArray<string>
}

/**
 * Judges a ledger of the values 0 to `sent - 1`, which were sent in ascending order within each key.
 *
 * @param atRisk - how many effects a process may have that the store does not know yet: the last ones before a death may
 * come again, and no others.
 */
export const judge = (
  effects: ReadonlyArray<Effect>,
  {
    atRisk,
    deaths,
    sent
  }: { readonly sent: number; readonly deaths: ReadonlyArray<Death>; readonly atRisk: number }
): Verdict => {
  const byValue = new Map<number, Array<Effect>>()
  const byMember = new Map<string, Array<Effect>>()
  for (const effect of effects) {
    push(byValue, effect.value, effect)
    push(byMember, effect.member, effect)
  }
  const lost = Array.from({ length: sent }, (_, value) => value).filter((value) => !byValue.has(value))
  const twice = [...byValue].filter(([, all]) => all.length > 1)
  const exposed = new Set<Effect>()
  for (const { at, member } of deaths) {
    const before = (byMember.get(member) ?? []).filter((effect) => effect.at <= at)
    for (const effect of before.slice(-atRisk)) exposed.add(effect)
  }
  const unexplained = twice.flatMap(([value, all]) => {
    const inTime = all.toSorted((one, other) => one.at - other.at)
    const bad = inTime.slice(0, -1).find((effect) => !exposed.has(effect))
    if (bad === undefined) return []
    return [
      `${value}: ${inTime.map(({ at, member, token }) => `${member} at ${at} under ${token}`).join(", ")}`
    ]
  })
  return {
    effects: effects.length,
    lost,
    twice: twice.map(([value, all]) => [value, all.length]),
    explained: twice.length - unexplained.length,
    unexplained,
    outOfOrder: keysOutOfOrder(byValue)
  }
}

/** By the first effect of each value. */
const keysOutOfOrder = (byValue: ReadonlyMap<number, ReadonlyArray<Effect>>): ReadonlyArray<string> => {
  const last = new Map<string, number>()
  const bad = new Set<string>()
  for (const value of [...byValue.keys()].toSorted((one, other) => one - other)) {
    const all = byValue.get(value) ?? []
    const first = Math.min(...all.map(({ at }) => at))
    const { key } = all[0]
    // to the millisecond of two processes' clocks, which are one
    if (first < (last.get(key) ?? 0)) bad.add(key)
    last.set(key, Math.max(first, last.get(key) ?? 0))
  }
  return [...bad]
}

const push = <Key, Item>(map: Map<Key, Array<Item>>, key: Key, item: Item): void => {
  const items = map.get(key)
  if (items === undefined) map.set(key, [item])
  else items.push(item)
}
