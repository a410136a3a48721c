/** What the ledger's notes amount to. Pure: the same histories give the same tally, in whatever order they came in. */

/** The broker handed a record to a consumer. */
interface Delivery {
  readonly consumer: string
  /** Partition and offset, as one number. */
  readonly position: number
  readonly atMillis: number
}

/** One run of the work for one order. */
export interface Run {
  readonly consumer: string
  /** When its record was delivered to this consumer, the last time. */
  readonly receivedAtMillis: number
  readonly begunAtMillis: number
  /** `undefined`: the work did not come to its effect. */
  readonly effectAtMillis: number | undefined
  /** When the tracker's store had acknowledged it; `undefined`: never, as far as its consumer lived to see. */
  readonly markedAtMillis: number | undefined
}

/** What happened to one order. */
export interface History {
  readonly deliveries: ReadonlyArray<Delivery>
  readonly runs: ReadonlyArray<Run>
}

/** When each killed consumer was killed. */
type Deaths = ReadonlyMap<string, number>

/** An order whose effect took place in a process that was killed before its mark, and then once more. */
export interface InFlight {
  readonly orderId: string
  /** How long before the kill the first effect took place. */
  readonly beforeKillMillis: number
}

/** Counted at the end of a race. */
export interface Tally {
  /** Orders with at least one effect. */
  readonly done: number
  /** Orders without any. */
  readonly lost: ReadonlyArray<string>
  /** Orders with more than one effect, save those of `inFlightAtKill`. */
  readonly twice: ReadonlyArray<string>
  /** Orders with a second effect only because their first owner died between the first one and its mark. */
  readonly inFlightAtKill: ReadonlyArray<InFlight>
  /** Orders that a killed consumer had begun, and not brought to their effect. */
  readonly inWorkAtKill: number
  /**
   * How often an order arrived that had its effect, or was being worked on by a living consumer. Left out is what made
   * an order of `inFlightAtKill` run again: nobody could know of its effect.
   */
  readonly redeliveries: number
  /** How many of those were not run again. */
  readonly recognised: number
  /** From the record's receipt until its effect was marked, in milliseconds, ascending. */
  readonly handlingMillis: Float64Array
  /** From the effect until its mark, in milliseconds, ascending: as long a kill puts it in flight. */
  readonly markingMillis: Float64Array
  /** All effects, repeated ones too. */
  readonly effects: number
  /** For how long a living consumer had work, in milliseconds. */
  readonly busyMillis: number
}

/**
 * A tracker that has not marked an effect after this time did not mark it at all: what runs again then was not in
 * flight, but forgotten. Hundreds of times what marking takes; generous for busy machines.
 */
export const marksWithinMillis = 1_000

const hasEffect = (run: Run): run is Run & { readonly effectAtMillis: number } =>
  run.effectAtMillis !== undefined

/** Whether at that moment the order has its effect, or a living consumer is at work on it. */
const isTaken = (runs: ReadonlyArray<Run>, deaths: Deaths, atMillis: number): boolean =>
  runs.some(
    (run) =>
      (hasEffect(run) && run.effectAtMillis <= atMillis) ||
      (run.begunAtMillis <= atMillis && atMillis < (deaths.get(run.consumer) ?? Number.POSITIVE_INFINITY))
  )

const countRedeliveries = ({ deliveries, runs }: History, deaths: Deaths): number => {
  const seen = new Set<number>()
  let count = 0
  for (const { atMillis, position } of deliveries.toSorted((one, other) => one.atMillis - other.atMillis)) {
    // Another position of a known order is the producer's copy; the same position again is Kafka's redelivery.
    const isAgain = seen.has(position) ? isTaken(runs, deaths, atMillis) : seen.size > 0
    if (isAgain) count++
    seen.add(position)
  }
  return count
}

const countRepeats = (runs: ReadonlyArray<Run>, deaths: Deaths): number => {
  const inTurn = runs.toSorted((one, other) => one.begunAtMillis - other.begunAtMillis)
  return inTurn.filter((run, turn) => isTaken(inTurn.slice(0, turn), deaths, run.begunAtMillis)).length
}

/**
 * Judged by who ran the order and when: a first effect in the killed process, shortly before its death, and exactly
 * one more, begun elsewhere after it. A mark that had been acknowledged excludes it: then the store forgot.
 */
const inFlightAtKill = (orderId: string, runs: ReadonlyArray<Run>, deaths: Deaths): InFlight | undefined => {
  const [first, second, third] = runs
    .filter(hasEffect)
    .sort((one, other) => one.effectAtMillis - other.effectAtMillis)
  if (first === undefined || second === undefined || third !== undefined) return undefined
  const killedAtMillis = deaths.get(first.consumer)
  if (killedAtMillis === undefined || first.markedAtMillis !== undefined) return undefined
  const beforeKillMillis = killedAtMillis - first.effectAtMillis
  if (beforeKillMillis > marksWithinMillis || second.begunAtMillis < killedAtMillis) return undefined
  // The signal takes a moment to arrive, in which an effect may still take place.
  return { orderId, beforeKillMillis: Math.max(0, beforeKillMillis) }
}

/** How long at least one of the spans lasted. */
export const covered = (spans: ReadonlyArray<readonly [from: number, to: number]>): number => {
  let sum = 0
  let end = Number.NEGATIVE_INFINITY
  for (const [from, to] of spans.toSorted((one, other) => one[0] - other[0])) {
    sum += Math.max(0, to - Math.max(from, end))
    end = Math.max(end, to)
  }
  return sum
}

/** Judges every order by itself. `deaths` tells when which consumer was killed. */
export const judge = (orders: ReadonlyMap<string, History>, deaths: Deaths): Tally => {
  const lost: Array<string> = []
  const twice: Array<string> = []
  const inFlight: Array<InFlight> = []
  const handling: Array<number> = []
  const marking: Array<number> = []
  const spans: Array<readonly [number, number]> = []
  let effects = 0
  let inWorkAtKill = 0
  let redeliveries = 0
  let repeats = 0
  for (const [orderId, history] of orders) {
    const { runs } = history
    const count = runs.filter(hasEffect).length
    effects += count
    if (count === 0) lost.push(orderId)
    const explanation = inFlightAtKill(orderId, runs, deaths)
    if (explanation !== undefined) inFlight.push(explanation)
    else if (count > 1) twice.push(orderId)
    const forgiven = explanation === undefined ? 0 : 1
    redeliveries += Math.max(0, countRedeliveries(history, deaths) - forgiven)
    repeats += Math.max(0, countRepeats(runs, deaths) - forgiven)
    for (const run of runs) {
      if (run.markedAtMillis !== undefined && hasEffect(run)) {
        handling.push(run.markedAtMillis - run.receivedAtMillis)
        marking.push(run.markedAtMillis - run.effectAtMillis)
      }
      if (!hasEffect(run) && deaths.has(run.consumer)) inWorkAtKill++
      spans.push([run.begunAtMillis, run.effectAtMillis ?? deaths.get(run.consumer) ?? run.begunAtMillis])
    }
  }
  return {
    done: orders.size - lost.length,
    lost,
    twice,
    inFlightAtKill: inFlight,
    inWorkAtKill,
    redeliveries,
    recognised: Math.max(0, redeliveries - repeats),
    handlingMillis: Float64Array.from(handling).sort(),
    markingMillis: Float64Array.from(marking).sort(),
    effects,
    busyMillis: covered(spans)
  }
}

/** The value below which this share of the ascending `values` lies; `undefined` where there are none. */
export const percentile = (values: Float64Array, share: number): number | undefined =>
  values.length === 0 ? undefined : values[Math.min(values.length - 1, Math.ceil(values.length * share) - 1)]
