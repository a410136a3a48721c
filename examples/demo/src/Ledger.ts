/**
 * What really happened, noted by the effects themselves and by the wires, never by a tracker. No tracker can read it.
 */

/** A record as the ledger knows it. */
export interface Receipt {
  readonly orderId: string
  readonly partition: number
  readonly offset: number
}

/** One run of the work for one order. */
interface Run {
  readonly consumer: string
  readonly receivedAt: number
  hasEffect: boolean
  marked: boolean
}

interface Order {
  /** The positions at which it was received. */
  readonly positions: Set<number>
  readonly runs: Array<Run>
}

/** Counted at the end of a race. */
export interface Tally {
  /** Orders with at least one effect. */
  readonly done: number
  /** Orders without any. */
  readonly lost: ReadonlyArray<string>
  /** Orders with more than one effect, whatever the reason. */
  readonly twice: ReadonlyArray<string>
  /** Those of `twice` whose first effect was written, but not marked, when its consumer was killed. */
  readonly twiceInFlightAtKill: ReadonlyArray<string>
  /** How often an order arrived that had its effect, or was being worked on by a living consumer. */
  readonly redeliveries: number
  /** How many of those were not run again. */
  readonly recognised: number
  /** From the record's receipt until its effect was marked, in milliseconds, ascending. */
  readonly handlingMillis: Float64Array
}

const positionOf = ({ partition, offset }: Receipt): number => partition * 2 ** 40 + offset

export class Ledger {
  private readonly orders: Map<string, Order>
  /** When each position was received last, by the consumer that has it now. */
  private readonly receivedAt = new Map<number, number>()
  private readonly handling: Array<number> = []
  private readonly dead = new Set<string>()
  private readonly working = new Map<string, number>()
  private readonly effectsBy = new Map<string, number>()
  private redeliveries = 0
  private repeated = 0
  private orphaned = new Set<string>()
  /** Orders with an effect. */
  done = 0
  /** All effects, repeated ones too. */
  effects = 0
  /** All deliveries to the living. */
  receipts = 0
  private busySince = 0
  private busyBefore = 0

  constructor(orderIds: Iterable<string>) {
    this.orders = new Map()
    for (const orderId of orderIds) this.orders.set(orderId, { positions: new Set(), runs: [] })
  }

  /** The broker has handed a record to a consumer. */
  received(consumer: string, receipt: Receipt): void {
    if (this.dead.has(consumer)) return
    this.receipts++
    const now = performance.now()
    const order = this.order(receipt.orderId)
    const position = positionOf(receipt)
    const isNew = !order.positions.has(position)
    // Another position of a known order is the producer's copy; the same position again is Kafka's redelivery.
    const isCopy = isNew && order.positions.size > 0
    if (isCopy || (!isNew && this.isTaken(order))) this.redeliveries++
    order.positions.add(position)
    this.receivedAt.set(position, now)
  }

  /** A tracker lets the work begin. */
  begin(consumer: string, receipt: Receipt): void {
    if (this.dead.has(consumer)) return
    const order = this.order(receipt.orderId)
    if (this.isTaken(order)) this.repeated++
    const receivedAt = this.receivedAt.get(positionOf(receipt)) ?? performance.now()
    order.runs.push({ consumer, receivedAt, hasEffect: false, marked: false })
    if (this.isIdle) this.busySince = performance.now()
    this.working.set(consumer, this.inWork(consumer) + 1)
  }

  /** The effect. The dead have none. */
  write(consumer: string, orderId: string): void {
    if (this.dead.has(consumer)) return
    const order = this.order(orderId)
    const run = order.runs.find((run) => run.consumer === consumer && !run.hasEffect)
    if (run === undefined) throw new Error(`${consumer} wrote an effect for ${orderId} without beginning it`)
    if (!order.runs.some((other) => other.hasEffect)) this.done++
    run.hasEffect = true
    this.effects++
    this.effectsBy.set(consumer, this.effectsOf(consumer) + 1)
    this.stopWorking(consumer, this.inWork(consumer) - 1)
  }

  /** The consumer's tracker has noted that the order is done. */
  marked(consumer: string, orderId: string): void {
    if (this.dead.has(consumer)) return
    const run = this.order(orderId).runs.find(
      (run) => run.consumer === consumer && run.hasEffect && !run.marked
    )
    if (run === undefined) return
    run.marked = true
    this.handling.push(performance.now() - run.receivedAt)
  }

  /** Nothing that this consumer does counts from now on. */
  kill(consumer: string): void {
    this.dead.add(consumer)
    this.stopWorking(consumer, 0)
    for (const [orderId, { runs }] of this.orders)
      if (runs.some((run) => run.consumer === consumer && run.hasEffect && !run.marked))
        this.orphaned.add(orderId)
  }

  /** For how long so far a living consumer has had work, in milliseconds. */
  get busyMillis(): number {
    return this.busyBefore + (this.isIdle ? 0 : performance.now() - this.busySince)
  }

  inWork(consumer: string): number {
    return this.working.get(consumer) ?? 0
  }

  effectsOf(consumer: string): number {
    return this.effectsBy.get(consumer) ?? 0
  }

  /** Whether every living consumer is without work. */
  get isIdle(): boolean {
    for (const count of this.working.values()) if (count > 0) return false
    return true
  }

  tally(): Tally {
    const lost: Array<string> = []
    const twice: Array<string> = []
    for (const [orderId, { runs }] of this.orders) {
      const effects = runs.filter((run) => run.hasEffect).length
      if (effects === 0) lost.push(orderId)
      if (effects > 1) twice.push(orderId)
    }
    return {
      done: this.done,
      lost,
      twice,
      twiceInFlightAtKill: twice.filter((orderId) => this.isExplainedByKill(orderId)),
      redeliveries: this.redeliveries,
      recognised: Math.max(0, this.redeliveries - this.repeated),
      handlingMillis: Float64Array.from(this.handling).sort()
    }
  }

  private stopWorking(consumer: string, left: number): void {
    const was = this.isIdle
    this.working.set(consumer, left)
    if (!was && this.isIdle) this.busyBefore += performance.now() - this.busySince
  }

  /** One effect of the dead between effect and mark, and one more: a third would have another cause. */
  private isExplainedByKill(orderId: string): boolean {
    return this.orphaned.has(orderId) && this.order(orderId).runs.filter((run) => run.hasEffect).length === 2
  }

  /** Whether the order has its effect, or a living consumer is at work on it. */
  private isTaken(order: Order): boolean {
    return order.runs.some((run) => run.hasEffect || !this.dead.has(run.consumer))
  }

  private order(orderId: string): Order {
    const order = this.orders.get(orderId)
    if (order === undefined) throw new Error(`the order ${orderId} was never produced`)
    return order
  }
}

/** The value below which this share of the ascending `values` lies; `undefined` where there are none. */
export const percentile = (values: Float64Array, share: number): number | undefined =>
  values.length === 0 ? undefined : values[Math.min(values.length - 1, Math.ceil(values.length * share) - 1)]
